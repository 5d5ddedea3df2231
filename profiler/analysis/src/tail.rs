//! The slowest requests: their own waterfall, from records; and whether records pass only legal ways.

use std::collections::BTreeMap;

use super::path::{self, StageKey};
use virtax_model::{
    counts::PhaseKind,
    points,
    records::{Pass, Record},
};

/// Fewest records for a waterfall of the slowest hundredth.
pub const FEWEST_RECORDS: usize = 1000;
/// Share of the records that is the tail.
pub const TAIL_SHARE: f64 = 0.01;

/// The slowest requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    /// How many records it is made of.
    pub records: usize,
    /// Their mean latency, ns.
    pub latency_ns: f64,
    /// Stages in path order, with ns per request.
    pub stages: Vec<(StageKey, f64)>,
}

/// The points of a record that begin and end stages: without those that only split them.
fn stage_points(record: &Record) -> Vec<&Pass> {
    record.passes.iter().filter(|pass| !points::is_part(pass.place.point)).collect()
}

/// The slowest traced records, in the order of time.
#[must_use]
pub fn slowest_of(records: &[Record], most: usize) -> Vec<&Record> {
    let traced = records.iter().filter(|record| record.kind == PhaseKind::Traced);
    let mut timed: Vec<(u64, &Record)> = traced.filter_map(|record| Some((record.latency_ns()?, record))).collect();
    timed.sort_by_key(|(latency, _)| std::cmp::Reverse(*latency));
    timed.truncate(most);
    let mut chosen: Vec<&Record> = timed.into_iter().map(|(_, record)| record).collect();
    chosen.sort_by_key(|record| record.passes.first().map_or(0, |pass| pass.at_ns));
    chosen
}

/// The waterfall of the slowest hundredth of the traced records; `None` if there are too few.
#[must_use]
pub fn slowest(records: &[Record]) -> Option<Tail> {
    between(records, 1.0 - TAIL_SHARE, 1.0)
}

/// The waterfall of the tenth of the traced records around the median latency; `None` if there are too few.
#[must_use]
pub fn typical(records: &[Record]) -> Option<Tail> {
    between(records, 0.45, 0.55)
}

/// The waterfall of the traced records between two quantiles of their latency.
fn between(records: &[Record], low: f64, high: f64) -> Option<Tail> {
    let mut timed: Vec<(u64, &Record)> = records
        .iter()
        .filter(|record| record.kind == PhaseKind::Traced)
        .filter_map(|record| Some((record.latency_ns()?, record)))
        .collect();
    if timed.len() < FEWEST_RECORDS {
        return None;
    }
    timed.sort_by_key(|(latency, _)| *latency);
    let at = |quantile: f64| (timed.len() as f64 * quantile).floor() as usize;
    let timed = &timed[at(low)..at(high)];
    let count = timed.len() as f64;
    let mut sums: BTreeMap<StageKey, (u64, u64)> = BTreeMap::new();
    for (_, record) in timed {
        let passes = stage_points(record);
        for pair in passes.windows(2) {
            // The role before the second point is the one that held the request on the way to it.
            let key = StageKey { role: holder(pair), from: pair[0].place.clone(), to: pair[1].place.clone() };
            let sum = sums.entry(key).or_default();
            sum.0 += 1;
            sum.1 += pair[1].at_ns.saturating_sub(pair[0].at_ns);
        }
    }
    let stages: Vec<(StageKey, u64)> = sums.iter().map(|(key, sum)| (key.clone(), sum.0)).collect();
    Some(Tail {
        records: timed.len(),
        latency_ns: timed.iter().map(|(latency, _)| *latency as f64).sum::<f64>() / count,
        stages: path::order(&stages)
            .into_iter()
            .map(|index| (stages[index].0.clone(), sums[&stages[index].0].1 as f64 / count))
            .collect(),
    })
}

/// The probes note with a point the role that held the request until it.
fn holder(pair: &[&Pass]) -> virtax_model::counts::Role {
    pair[1].role
}

/// Transitions in records that the table of points does not allow, with their numbers.
#[must_use]
pub fn illegal_transitions(records: &[Record]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for record in records {
        for pair in record.passes.windows(2) {
            let (from, to) = (&pair[0].place, &pair[1].place);
            if !points::is_legal(from.point, to.point) {
                *found.entry(format!("{from} → {to}")).or_insert(0) += 1;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtax_model::counts::{Place, Point, Role};

    fn record(latency: u64) -> Record {
        let pass = |point: Point, role, at_ns| Pass { place: Place::fixed(point), role, at_ns, cpu: 0, tid: 1 };
        Record {
            round: 0,
            kind: PhaseKind::Traced,
            passes: vec![
                pass(Point::Send, Role::Client, 1_000),
                Pass { place: Place::at(Point::Xmit, "lo@host"), ..pass(Point::Xmit, Role::Client, 2_000) },
                pass(Point::Delivered, Role::Client, 3_000),
                pass(Point::Ready, Role::Server, 3_500),
                pass(Point::Waking, Role::Server, 3_600),
                pass(Point::Received, Role::Server, 5_000),
                pass(Point::Send, Role::Server, 6_000),
                Pass { place: Place::at(Point::Xmit, "lo@host"), ..pass(Point::Xmit, Role::Server, 7_000) },
                pass(Point::Delivered, Role::Server, 8_000),
                pass(Point::Ready, Role::Client, 8_500),
                pass(Point::Received, Role::Client, 1_000 + latency),
            ],
        }
    }

    #[test]
    fn the_slowest_hundredth_has_its_own_waterfall() {
        let mut records: Vec<Record> = (0..990).map(|_| record(10_000)).collect();
        assert_eq!(slowest(&records), None);
        records.extend((0..10).map(|_| record(110_000)));
        let tail = slowest(&records).unwrap();
        assert_eq!((tail.records, tail.latency_ns), (10, 110_000.0));
        assert_eq!(tail.stages.iter().map(|(_, ns)| ns).sum::<f64>(), 110_000.0);
        let (last, ns) = tail.stages.last().unwrap();
        assert_eq!((last.role, last.to.point, *ns), (Role::Client, Point::Received, 102_500.0));
        assert!(tail.stages.iter().all(|(key, _)| key.to.point != Point::Waking));
    }

    #[test]
    fn only_legal_ways() {
        let mut odd = record(10_000);
        assert!(illegal_transitions(std::slice::from_ref(&odd)).is_empty());
        odd.passes.remove(2);
        assert_eq!(illegal_transitions(&[odd]), BTreeMap::from([("xmit(lo@host) → ready".to_owned(), 1)]));
    }
}
