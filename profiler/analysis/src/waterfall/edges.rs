//! The two ends of a request in the client: from its call to `send`, and from `received` to its return.
//!
//! The probes see `received → send` in one piece, exactly, and how long it has lasted where it goes on at the end of
//! a phase. The client says how much of it was its own time between return and next call, both as far as they lie in
//! the phase. What is left belongs to the latency, and is divided as detailed phases, which see the system calls,
//! divide it.

use super::{Row, Sums, histogram_of, per};
use crate::path::StageKey;
use virtax_model::{
    counts::{PhaseKind, Place, Point, Repetition, Role},
    histogram::Histogram,
};

fn key(from: Point, to: Point) -> StageKey {
    StageKey { role: Role::Client, from: Place::fixed(from), to: Place::fixed(to) }
}

/// Puts `call → send` first and `received → return` last, in place of the turn-around. Of a client that does not know
/// its own part of it, all counts as turn-around: returned, ns per operation in each round.
pub(super) fn replace_turnaround(
    rows: &mut Vec<Row>,
    traced: &[Sums],
    detailed: &[Sums],
    sampled: &[Sums],
    repetitions: &[&Repetition],
) -> Option<Vec<f64>> {
    let position = rows.iter().position(Row::is_turnaround)?;
    let whole = rows.remove(position);
    if traced.iter().any(|sums| sums.lacks_turnaround) {
        return Some(whole.rounds_ns);
    }
    let ends_ns: Vec<f64> = whole
        .rounds_ns
        .iter()
        .zip(traced)
        .map(|(ns, sums)| ns + per(sums.idle_ns, sums.operations) - per(sums.turnaround_ns, sums.operations))
        .collect();
    let ends_sampled: Vec<Option<f64>> = whole
        .sampled_ns
        .iter()
        .zip(sampled)
        .map(|(ns, sums)| {
            Some((*ns)? + per(sums.idle_ns, sums.operations) - per(sums.turnaround_ns, sums.client_operations))
        })
        .collect();
    let (entry, exit) = (key(Point::Call, Point::Send), key(Point::Received, Point::Return));
    let of_round = |sums: &Sums, part: &StageKey| sums.parts.get(part).map_or(0.0, |sum| sum.1 as f64);
    let total = |part: &StageKey| -> f64 { detailed.iter().map(|sums| of_round(sums, part)).sum() };
    let (entry_ns, exit_ns) = (total(&entry), total(&exit));
    if entry_ns + exit_ns == 0.0 {
        // No system-call points here, or those are the stages themselves: one row for both ends.
        let both = whole.key.clone();
        rows.push(whole.end(both, ends_ns, whole.probes_ns.clone(), ends_sampled));
        return None;
    }
    // Round by round: with one share for all, the rounds would agree on what is an estimate, and intervals be too
    // narrow.
    let shares: Vec<f64> = (0..ends_ns.len())
        .map(|round| match detailed.get(round).map(|sums| (of_round(sums, &entry), of_round(sums, &exit))) {
            Some((entry_ns, exit_ns)) if entry_ns + exit_ns > 0.0 => entry_ns / (entry_ns + exit_ns),
            _ => entry_ns / (entry_ns + exit_ns),
        })
        .collect();
    let entries: Vec<f64> = ends_ns.iter().zip(&shares).map(|(ns, share)| ns * share).collect();
    let exits: Vec<f64> = ends_ns.iter().zip(&shares).map(|(ns, share)| ns * (1.0 - share)).collect();
    let of_sampled = |share: &dyn Fn(f64) -> f64| -> Vec<Option<f64>> {
        ends_sampled.iter().zip(&shares).map(|(ns, entry)| Some((*ns)? * share(*entry))).collect()
    };
    let (sampled_entries, sampled_exits) = (of_sampled(&|share| share), of_sampled(&|share| 1.0 - share));
    let histogram = |part: &StageKey| histogram_of(repetitions, PhaseKind::Detailed, true, part);
    let none = vec![0.0; ends_ns.len()];
    let entry_row = Row { histogram: histogram(&entry), ..whole.end(entry.clone(), entries, none, sampled_entries) };
    // The programs at `received` run before the return, those at `send` after its clock is read.
    let exit_row =
        Row { histogram: histogram(&exit), ..whole.end(exit.clone(), exits, whole.probes_ns.clone(), sampled_exits) };
    rows.insert(0, entry_row);
    rows.push(exit_row);
    None
}

impl Row {
    /// One end of a turn-around.
    fn end(&self, key: StageKey, rounds_ns: Vec<f64>, probes_ns: Vec<f64>, sampled_ns: Vec<Option<f64>>) -> Self {
        Self {
            side: self.side,
            is_limited: self.is_limited,
            key,
            rounds_ns,
            probes_ns,
            sampled_ns,
            rounds_count: self.rounds_count.clone(),
            count_per_op: self.count_per_op,
            histogram: Histogram::default(),
            parts: Vec::new(),
        }
    }
}
