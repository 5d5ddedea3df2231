//! Whether a known cost was found where it was put: attributed against injected, and what spilled elsewhere. Pure
//! functions of a run's repetitions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cases::{Case, Established};
use crate::{
    analysis::{
        comparison::stage_id,
        statistics::{Estimate, estimate, slope},
        waterfall::{self, Waterfall},
    },
    counts::{Phase, PhaseKind, Repetition},
    injection::SLOW_EVERY,
};

/// The slope of attributed against injected must lie in here.
const SLOPE: [f64; 2] = [0.9, 1.1];
/// Largest spill that is not told from the cost's own effect on caches, share of the injection.
const SPILL: f64 = 0.05;
/// How far the median may move where only the tail is slow, share of the injection.
const MEDIAN: f64 = 0.2;
/// Smallest injection, share of the base's latency.
const SMALLEST: f64 = 0.2;

/// One size of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The configuration.
    pub configuration: String,
    /// How much was put in, ns per operation.
    pub injected_ns: f64,
    /// Interval of 95 % over the rounds.
    pub injected_ci95_ns: Option<[f64; 2]>,
    /// How much more its stages hold than the base's, ns per operation.
    pub attributed_ns: f64,
    /// Interval of 95 % over the rounds.
    pub attributed_ci95_ns: Option<[f64; 2]>,
    /// Fewest events in a round, where events are counted.
    pub fewest_events: Option<u64>,
    /// Other rows that changed by more than they may, and the residual if it did.
    pub spills: Vec<Spill>,
    /// The largest change of another row, share of the injection.
    pub largest_spill_share: f64,
    /// How much the residual changed, ns per operation.
    pub residual_delta_ns: f64,
}

/// A row that changed although nothing was put into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spill {
    /// The stage, or `residual`.
    pub id: String,
    /// How much, ns per operation.
    pub delta_ns: f64,
    /// Simultaneous 95 % interval, all rows of this size at once.
    pub ci95_ns: Option<[f64; 2]>,
}

/// What a case brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The case.
    pub case: String,
    /// How the injected size is known.
    pub established_by: String,
    /// Rounds that all configurations have.
    pub rounds: usize,
    /// Mean latency of the base, nothing attached, ns.
    pub base_ns: f64,
    /// The sizes.
    pub sizes: Vec<Size>,
    /// Slope of attributed against injected.
    pub slope: f64,
    /// Interval of 95 %, by a bootstrap over the rounds.
    pub slope_ci95: Option<[f64; 2]>,
    /// Why it failed; empty: it passed.
    pub failures: Vec<String>,
}

/// One configuration's repetitions and waterfall.
struct Side<'a> {
    waterfall: Waterfall,
    repetitions: BTreeMap<u32, &'a Repetition>,
}

impl<'a> Side<'a> {
    fn new(name: &str, repetitions: &'a [Repetition]) -> Self {
        let mut of_name: Vec<&Repetition> =
            repetitions.iter().filter(|repetition| repetition.configuration == name).collect();
        of_name.sort_by_key(|repetition| repetition.round);
        let waterfall = waterfall::build(name, &of_name);
        Self { waterfall, repetitions: of_name.into_iter().map(|found| (found.round, found)).collect() }
    }

    fn index_of(&self, round: u32) -> Option<usize> {
        self.waterfall.rounds.iter().position(|found| found.round == round)
    }

    /// A row's time, ns per operation. What is held against phases without probes is corrected for the probes' own
    /// time: a mechanism that brings points of its own brings their probes.
    fn row(&self, case: &Case, id: &str, round: usize) -> f64 {
        let rows = self.waterfall.rows.iter().filter(|row| stage_id(&row.key) == id);
        match case.established {
            Established::ClientsClock => rows.map(|row| row.rounds_ns[round] - row.probes_ns[round]).sum(),
            Established::ServersClock
            | Established::QueuesRate
            | Established::KernelsAccount
            | Established::ClientsClockTraced => rows.map(|row| row.rounds_ns[round]).sum(),
        }
    }

    fn traced(&self, round: u32) -> impl Iterator<Item = &'a Phase> + use<'a> {
        let phases = self.repetitions.get(&round).map(|repetition| repetition.phases.as_slice()).unwrap_or_default();
        phases.iter().filter(|phase| phase.kind == PhaseKind::Traced)
    }

    /// Time of an operation from start to start in traced phases, by the client's count, ns.
    fn cycle_ns(&self, round: u32) -> f64 {
        let connections = self.repetitions.get(&round).map_or(1, |repetition| repetition.connections);
        let (mut length, mut operations) = (0, 0);
        for phase in self.traced(round) {
            length += phase.length_ns;
            operations += phase.client.operations;
        }
        f64::from(connections) * length as f64 / operations.max(1) as f64
    }

    /// Events, ns, and length of the interval, by the account, over the traced phases.
    fn account(&self, round: u32) -> Option<(f64, f64, f64)> {
        let mut sums = (0.0, 0.0, 0.0);
        for phase in self.traced(round) {
            let account = phase.account?;
            sums.0 += account.events as f64;
            sums.1 += account.ns as f64;
            sums.2 += account.wall_ns as f64;
        }
        Some(sums)
    }

    /// Events over all phases of a round.
    fn events(&self, round: u32) -> u64 {
        let phases = self.repetitions.get(&round).map(|repetition| repetition.phases.as_slice()).unwrap_or_default();
        phases.iter().filter_map(|phase| Some(phase.account?.events)).sum()
    }
}

/// How much was put in in a round, ns per operation.
fn injected_ns(case: &Case, base: &Side<'_>, side: &Side<'_>, round: u32) -> Option<f64> {
    let per_operation = |ns: f64, wall: f64, of: &Side<'_>| ns / wall.max(1.0) * of.cycle_ns(round);
    match case.established {
        Established::ServersClock => {
            let (events, ns, _) = side.account(round)?;
            let every = if case.in_tail { SLOW_EVERY as f64 } else { 1.0 };
            Some(ns / events.max(1.0) / every)
        }
        Established::QueuesRate => {
            let (events, ns, _) = side.account(round)?;
            Some(ns / events.max(1.0) - base.cycle_ns(round))
        }
        Established::KernelsAccount => {
            let (_, ns, wall) = side.account(round)?;
            let of_base = base.account(round).map_or(0.0, |(_, ns, wall)| per_operation(ns, wall, base));
            Some(per_operation(ns, wall, side) - of_base)
        }
        Established::ClientsClock => {
            let detached = |of: &Side<'_>| Some(of.waterfall.rounds[of.index_of(round)?].detached_all_ns);
            Some(detached(side)? - detached(base)?)
        }
        Established::ClientsClockTraced => {
            let traced = |of: &Side<'_>| Some(of.waterfall.rounds[of.index_of(round)?].traced_ns);
            Some(traced(side)? - traced(base)?)
        }
    }
}

/// Numbers of one size, round by round.
struct Rounds {
    injected: Vec<f64>,
    attributed: Vec<f64>,
}

/// Judges a case by the repetitions of its run.
#[must_use]
pub fn judge(case: &Case, repetitions: &[Repetition]) -> Judged {
    let names = case.configurations();
    let base = Side::new(&names[0], repetitions);
    let mut judged = Judged {
        case: case.name.to_owned(),
        established_by: case.established.name().to_owned(),
        rounds: base.waterfall.rounds.len(),
        base_ns: base.waterfall.mean_of(|round| round.detached_ns),
        sizes: Vec::new(),
        slope: 0.0,
        slope_ci95: None,
        failures: Vec::new(),
    };
    let sides: Vec<Side<'_>> = names[1..].iter().map(|name| Side::new(name, repetitions)).collect();
    // The same rounds for all sizes: those that all have.
    let is_whole = |round: u32| {
        base.index_of(round).is_some()
            && sides
                .iter()
                .all(|side| side.index_of(round).is_some() && injected_ns(case, &base, side, round).is_some())
    };
    let common: Vec<u32> =
        base.waterfall.rounds.iter().map(|round| round.round).filter(|round| is_whole(*round)).collect();
    let mut rounds = Vec::new();
    for (name, side) in names[1..].iter().zip(&sides) {
        let (size, of_rounds) = size(case, &base, side, name, &common);
        rounds.push(of_rounds);
        judged.sizes.push(size);
    }
    let pairs: Vec<(&[f64], &[f64])> =
        rounds.iter().map(|size| (size.injected.as_slice(), size.attributed.as_slice())).collect();
    judged.rounds = rounds.iter().map(|size: &Rounds| size.injected.len()).min().unwrap_or(0);
    let (value, interval) = slope(&pairs);
    (judged.slope, judged.slope_ci95) = (value, interval);
    judged.failures = failures(case, &judged);
    judged
}

fn size(case: &Case, base: &Side<'_>, side: &Side<'_>, name: &str, common: &[u32]) -> (Size, Rounds) {
    // Each with whether it is to show the cost.
    let mut ids: Vec<(String, bool)> = Vec::new();
    for row in base.waterfall.rows.iter().chain(&side.waterfall.rows) {
        let id = stage_id(&row.key);
        if ids.iter().all(|(known, _)| *known != id) {
            ids.push((id, case.is_target(&row.key)));
        }
    }
    let mut rounds = Rounds { injected: Vec::new(), attributed: Vec::new() };
    let of = |is_target: bool| ids.iter().filter(move |(_, is)| *is == is_target).map(|(id, _)| id.as_str());
    let others: Vec<&str> = of(false).collect();
    let mut deltas: Vec<Vec<f64>> = vec![Vec::new(); others.len() + 1];
    let mut fewest = None;
    for of_side in side.waterfall.rounds.iter().filter(|of_side| common.contains(&of_side.round)) {
        let round = of_side.round;
        let (Some(in_base), Some(in_side)) = (base.index_of(round), side.index_of(round)) else { continue };
        let Some(injected) = injected_ns(case, base, side, round) else { continue };
        let delta = |id: &str| side.row(case, id, in_side) - base.row(case, id, in_base);
        rounds.injected.push(injected);
        rounds.attributed.push(of(true).map(delta).sum());
        for (row, id) in deltas.iter_mut().zip(&others) {
            row.push(delta(id));
        }
        if let Some(residual) = deltas.last_mut() {
            residual.push(of_side.residual_ns - base.waterfall.rounds[in_base].residual_ns);
        }
        fewest = Some(fewest.unwrap_or(u64::MAX).min(side.events(round)));
    }
    let heads = estimate(&[rounds.injected.clone(), rounds.attributed.clone()]);
    let spilled = estimate(&deltas);
    let injected_ns = heads[0].mean;
    let named = others.iter().copied().chain(["residual"]);
    let spills: Vec<Spill> = named
        .zip(&spilled)
        .filter(|(_, delta)| spills(delta, injected_ns))
        .map(|(id, delta)| Spill { id: id.to_owned(), delta_ns: delta.mean, ci95_ns: delta.simultaneous })
        .collect();
    let largest = spilled.iter().map(|delta| delta.mean.abs()).fold(0.0, f64::max);
    let size = Size {
        configuration: name.to_owned(),
        injected_ns,
        injected_ci95_ns: heads[0].ci95,
        attributed_ns: heads[1].mean,
        attributed_ci95_ns: heads[1].ci95,
        fewest_events: fewest.filter(|_| case.fewest_events > 0),
        spills,
        largest_spill_share: largest / injected_ns.abs().max(1.0),
        residual_delta_ns: spilled.last().map_or(0.0, |delta| delta.mean),
    };
    (size, rounds)
}

/// A row spills if it surely changed, and by more than a small share of the injection.
fn spills(delta: &Estimate, injected_ns: f64) -> bool {
    delta.differs_from_zero() && delta.mean.abs() > SPILL * injected_ns.abs()
}

fn failures(case: &Case, judged: &Judged) -> Vec<String> {
    let mut failures = Vec::new();
    match judged.slope_ci95 {
        Some([low, high]) if low >= SLOPE[0] && high <= SLOPE[1] => {}
        Some([low, high]) => {
            failures.push(format!("the slope is {:.3} ({low:.3} – {high:.3}), not surely in 0.9 – 1.1", judged.slope));
        }
        None => failures.push("too few rounds for an interval".to_owned()),
    }
    for size in &judged.sizes {
        let name = &size.configuration;
        if size.injected_ns < SMALLEST * judged.base_ns {
            failures
                .push(format!("`{name}` puts in {:.0} ns, less than a fifth of the base's latency", size.injected_ns));
        }
        for spill in &size.spills {
            failures.push(format!(
                "`{name}`: {} changes by {:.0} ns, {:.1} % of the injection",
                spill.id,
                spill.delta_ns,
                100.0 * spill.delta_ns / size.injected_ns
            ));
        }
        if let Some(events) = size.fewest_events.filter(|events| *events < case.fewest_events) {
            failures.push(format!("`{name}` has a round with {events} events only, not {}", case.fewest_events));
        }
    }
    failures
}

/// What the tail of a run must show: the slow requests, in the stage that is to show them, and a median that did not
/// move.
///
/// `sizes`: for every size, how far the median moves, as a share of the mean that is put in, the slowest records'
/// time in the target stages, ns, and what one slow request was given, ns. Of the injection itself, a median shows
/// nothing; but requests after a sleep find a cold CPU: 2 of 8.6 µs were seen, where 20 were put in.
#[must_use]
pub fn judge_tail(sizes: &[(String, f64, f64, f64)]) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, moved_share, tail_ns, given_ns) in sizes {
        if moved_share.abs() > MEDIAN {
            failures.push(format!("`{name}`: the median moves by {:.0} % of the injection", 100.0 * moved_share));
        }
        let share = tail_ns / given_ns;
        if !(0.9..=1.25).contains(&share) {
            failures.push(format!("`{name}`: the slowest requests show {share:.2} of what they were given"));
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::cases::CASES;

    fn quota() -> &'static Case {
        CASES.iter().find(|case| case.name == "quota").unwrap()
    }

    fn judged(slope_ci95: Option<[f64; 2]>, injected_ns: f64, spills: Vec<Spill>, events: u64) -> Judged {
        let size = Size {
            configuration: "it".to_owned(),
            injected_ns,
            injected_ci95_ns: None,
            attributed_ns: injected_ns,
            attributed_ci95_ns: None,
            fewest_events: Some(events),
            largest_spill_share: 0.0,
            spills,
            residual_delta_ns: 0.0,
        };
        Judged {
            case: "quota".to_owned(),
            established_by: String::new(),
            rounds: 10,
            base_ns: 10_000.0,
            sizes: vec![size],
            slope: 1.0,
            slope_ci95,
            failures: Vec::new(),
        }
    }

    #[test]
    fn every_reason_to_fail_fails() {
        let good = Some([0.95, 1.05]);
        assert_eq!(failures(quota(), &judged(good, 5_000.0, Vec::new(), 100)), Vec::<String>::new());
        let spill = Spill { id: "response/x→y".to_owned(), delta_ns: 900.0, ci95_ns: Some([800.0, 1000.0]) };
        for (bad, word) in [
            (judged(Some([0.85, 1.05]), 5_000.0, Vec::new(), 100), "not surely in"),
            (judged(Some([0.95, 1.15]), 5_000.0, Vec::new(), 100), "not surely in"),
            (judged(None, 5_000.0, Vec::new(), 100), "too few rounds"),
            (judged(good, 1_900.0, Vec::new(), 100), "less than a fifth"),
            (judged(good, 5_000.0, vec![spill], 100), "18.0 % of the injection"),
            (judged(good, 5_000.0, Vec::new(), 99), "99 events only"),
        ] {
            let found = failures(quota(), &bad);
            assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
        }
    }

    #[test]
    fn a_row_spills_if_it_surely_changed_by_a_twentieth() {
        let row = |mean: f64, half: f64| Estimate { mean, ci95: None, simultaneous: Some([mean - half, mean + half]) };
        assert!(spills(&row(60.0, 50.0), 1_000.0));
        assert!(!spills(&row(60.0, 70.0), 1_000.0));
        assert!(!spills(&row(-40.0, 10.0), 1_000.0));
        assert!(spills(&row(-60.0, 10.0), 1_000.0));
    }

    #[test]
    fn the_tail_shows_it_and_the_median_does_not() {
        let one = |moved: f64, shown: f64| vec![("it".to_owned(), moved, shown, 1_000.0)];
        assert_eq!(judge_tail(&one(0.1, 990.0)), Vec::<String>::new());
        assert!(judge_tail(&one(0.3, 990.0))[0].contains("median moves by 30 %"));
        assert!(judge_tail(&one(-0.3, 990.0))[0].contains("median moves by -30 %"));
        assert!(judge_tail(&one(0.0, 500.0))[0].contains("0.50 of what"));
    }
}
