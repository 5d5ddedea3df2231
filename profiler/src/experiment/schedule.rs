//! Rounds: every configuration once in each, in shuffled order, saved one by one.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use profiler_common::Counter;

use super::{
    plan::{MOST_ROUNDS, Plan, orders},
    store::{Brought, Store},
};
use crate::{
    counts::{PhaseKind, Repetition},
    engine::configuration::Configuration,
    error::{Error, Result},
    interrupt,
};

/// A configuration in a round.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The configuration.
    pub configuration: &'a Configuration,
    /// Place of the configuration in the round, from 0.
    pub position: u32,
}

/// Measures configurations once. The real one is [`super::Lab`]; tests have another.
pub trait Repeater {
    /// Whether a configuration can be alive while others are asked. It may turn out later that it cannot.
    fn can_rest(&self, configuration: &Configuration) -> bool;
    /// One repetition of each, with fresh servers, all alive at once; in their order.
    ///
    /// # Errors
    /// If one cannot be completed; nothing of any counts then.
    fn repeat(&mut self, turns: &[Turn<'_>], round: u32) -> Result<Vec<Brought>>;
}

/// Configurations of a round that are measured together: all that can rest, and each of the others alone, in the order
/// of the round.
pub fn parts<'a>(turns: &[Turn<'a>], can_rest: impl Fn(&Configuration) -> bool) -> Vec<Vec<Turn<'a>>> {
    let (resting, alone): (Vec<_>, Vec<_>) = turns.iter().copied().partition(|turn| can_rest(turn.configuration));
    let alone = alone.into_iter().map(|turn| vec![turn]);
    let mut parts: Vec<Vec<Turn<'_>>> = std::iter::once(resting).filter(|part| !part.is_empty()).chain(alone).collect();
    parts.sort_by_key(|part| part.first().map(|turn| turn.position));
    parts
}

/// Runs all rounds, and more for as long as `goes_on` says so of the store's folder; an error ends them, and what was
/// saved stays. Returns the error that did, if any.
pub fn run(
    plan: &Plan,
    repeater: &mut dyn Repeater,
    store: &mut Store,
    goes_on: &mut dyn FnMut(&Path) -> Result<bool>,
) -> Option<Error> {
    let count = plan.configurations.len();
    let mut last = String::new();
    let end = plan.first_round + plan.spec.rounds;
    let bar = progress_bar(u64::from(plan.spec.rounds) * count as u64);
    let failed = |error: Error| {
        bar.finish_and_clear();
        Some(error)
    };
    let orders = orders(count, plan.spec.seed).skip(plan.first_round as usize);
    for (round, order) in (plan.first_round..MOST_ROUNDS).zip(orders) {
        if round >= end {
            match goes_on(store.folder()) {
                Ok(true) => bar.inc_length(count as u64),
                Ok(false) => break,
                Err(error) => return failed(error),
            }
        }
        let turn = |(position, index): (u32, usize)| Turn { configuration: &plan.configurations[index], position };
        let turns: Vec<Turn<'_>> = (0u32..).zip(order).map(turn).collect();
        for part in parts(&turns, |configuration| repeater.can_rest(configuration)) {
            let names: Vec<String> = part.iter().map(|turn| turn.configuration.to_string()).collect();
            let of = end.max(round + 1);
            bar.set_message(format!("round {} of {of}: {}{last}", round + 1, names.join(", ")));
            let saved = interrupt::check().and_then(|()| repeater.repeat(&part, round)).and_then(|brought| {
                log::debug!("step: saving");
                last = brought.last().map_or_else(String::new, |last| format!("; before, {}", said(&last.repetition)));
                brought.iter().try_for_each(|brought| store.save(brought))
            });
            if let Err(error) = saved {
                return failed(error);
            }
            bar.inc(part.len() as u64);
        }
    }
    bar.finish_and_clear();
    None
}

/// What the last repetition was like, for whoever looks on: its throughput without probes, and what the probes lost.
fn said(repetition: &Repetition) -> String {
    let detached = repetition.phases.iter().filter(|phase| phase.kind == PhaseKind::Detached);
    let (operations, ns) =
        detached.fold((0, 0), |(operations, ns), phase| (operations + phase.client.operations, ns + phase.length_ns));
    let counts = repetition.phases.iter().filter_map(|phase| phase.probes.as_ref());
    let lost: u64 = counts.map(|probes| Counter::losses().map(|cause| probes.counter(cause)).sum::<u64>()).sum();
    let per_s = operations as f64 / (ns as f64 / 1e9).max(1e-9);
    format!("{}: {per_s:.0} operations/s, {lost} lost", repetition.configuration)
}

/// A bar on standard error; hidden when that is no terminal.
fn progress_bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    // The template is a constant: a mistake in it shows in every test.
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (ends in {eta})") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use virtax_model::testing;

    use super::*;
    use crate::{
        counts::PhaseKind,
        engine::configuration::parse_list,
        experiment::{RunSpec, store},
        workload,
    };

    /// An engine on paper: every repetition takes no time, and the `fails_at`th fails.
    #[derive(Default)]
    struct Paper {
        resting: bool,
        called: Vec<(u32, u32, String)>,
        parts: Vec<usize>,
        fails_at: usize,
    }

    impl Repeater for Paper {
        fn can_rest(&self, configuration: &Configuration) -> bool {
            self.resting && configuration.engine == "docker"
        }
        fn repeat(&mut self, turns: &[Turn<'_>], round: u32) -> Result<Vec<Brought>> {
            if self.called.len() == self.fails_at {
                return Err(Error::workload("the server failed", "on paper"));
            }
            self.parts.push(turns.len());
            let one = |turn: &Turn<'_>| {
                self.called.push((round, turn.position, turn.configuration.to_string()));
                let phases = vec![testing::phase(PhaseKind::Detached, 1)];
                let repetition = testing::repetition(&turn.configuration.to_string(), round, turn.position, phases);
                Brought { repetition, records: Vec::new(), profile: None }
            };
            Ok(turns.iter().map(one).collect())
        }
    }

    fn plan(rounds: u32) -> Plan {
        let workload = workload::by_name("tcp-rr").unwrap();
        Plan {
            workload,
            settings: workload::parse_settings(workload, &[]).unwrap(),
            configurations: parse_list("native,docker:net=host,docker:net=nat").unwrap().configurations,
            baseline: 0,
            compared: Vec::new(),
            first_round: 0,
            spec: RunSpec { rounds, records_per_s: 0.0, seed: 3, sample_rate_hz: 0, ..RunSpec::default() },
            vms: Default::default(),
        }
    }

    #[test]
    fn a_run_that_goes_on_begins_with_the_next_round() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::Store::create(folder.path(), false).unwrap();
        let whole = Plan { first_round: 0, ..plan(7) };
        let (mut first, mut all) = (Paper { fails_at: usize::MAX, ..Paper::default() }, Paper::default());
        all.fails_at = usize::MAX;
        assert!(run(&Plan { first_round: 4, ..plan(3) }, &mut first, &mut store, &mut |_| Ok(false)).is_none());
        assert!(run(&whole, &mut all, &mut store, &mut |_| Ok(false)).is_none());
        // In the orders that it would have had in one go.
        assert_eq!(first.called, all.called[4 * 3..]);
    }

    fn saved(folder: &std::path::Path) -> usize {
        std::fs::read_to_string(folder.join(crate::run_folder::REPETITIONS)).unwrap().lines().count()
    }

    #[test]
    fn every_configuration_once_a_round_in_shuffled_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::Store::create(folder.path(), false).unwrap();
        let mut paper = Paper { fails_at: usize::MAX, ..Paper::default() };
        assert!(run(&plan(6), &mut paper, &mut store, &mut |_| Ok(false)).is_none());
        assert_eq!(saved(folder.path()), 18);
        let mut orders = std::collections::BTreeSet::new();
        for (round, of_round) in (0u32..).zip(paper.called.chunks(3)) {
            assert!(of_round.iter().all(|(number, ..)| *number == round));
            assert_eq!(of_round.iter().map(|(_, position, _)| *position).collect::<Vec<_>>(), [0, 1, 2]);
            let mut names: Vec<&str> = of_round.iter().map(|(.., name)| name.as_str()).collect();
            orders.insert(names.join(" "));
            names.sort_unstable();
            assert_eq!(names, ["docker:net=host", "docker:net=nat", "native"]);
        }
        assert!(orders.len() > 1, "{orders:?}");
    }

    #[test]
    fn a_failure_ends_the_run_and_keeps_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::Store::create(folder.path(), false).unwrap();
        let mut paper = Paper { fails_at: 4, ..Paper::default() };
        let error = run(&plan(6), &mut paper, &mut store, &mut |_| Ok(false)).unwrap();
        assert_eq!(error.exit_code(), 5);
        assert_eq!(saved(folder.path()), 4);
    }

    #[test]
    fn what_can_rest_is_measured_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::Store::create(folder.path(), false).unwrap();
        let mut paper = Paper { resting: true, fails_at: usize::MAX, ..Paper::default() };
        assert!(run(&plan(5), &mut paper, &mut store, &mut |_| Ok(false)).is_none());
        assert_eq!(saved(folder.path()), 15);
        for (parts, called) in paper.parts.chunks(2).zip(paper.called.chunks(3)) {
            // The two containers in one part, wherever the native server comes.
            let is_native_first = called[0].2 == "native";
            assert_eq!(parts, if is_native_first { [1, 2] } else { [2, 1] });
            let mut positions: Vec<u32> = called.iter().map(|(_, position, _)| *position).collect();
            positions.sort_unstable();
            assert_eq!(positions, [0, 1, 2]);
        }
    }
}
