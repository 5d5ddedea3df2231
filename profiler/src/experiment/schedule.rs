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

/// Measures a configuration once. The real one is [`super::Lab`]; tests have another.
pub trait Repeater {
    /// One repetition with a fresh server.
    ///
    /// # Errors
    /// If it cannot be completed; nothing of it counts then.
    fn repeat(&mut self, configuration: &Configuration, round: u32, position: u32) -> Result<Brought>;
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
    let bar = progress_bar(u64::from(plan.spec.rounds) * count as u64);
    let failed = |error: Error| {
        bar.finish_and_clear();
        Some(error)
    };
    for (round, order) in (0..MOST_ROUNDS).zip(orders(count, plan.spec.seed)) {
        if round >= plan.spec.rounds {
            match goes_on(store.folder()) {
                Ok(true) => bar.inc_length(count as u64),
                Ok(false) => break,
                Err(error) => return failed(error),
            }
        }
        for (position, index) in (0u32..).zip(order) {
            let configuration = &plan.configurations[index];
            bar.set_message(format!(
                "round {} of {}: {configuration}{last}",
                round + 1,
                plan.spec.rounds.max(round + 1)
            ));
            let saved =
                interrupt::check().and_then(|()| repeater.repeat(configuration, round, position)).and_then(|brought| {
                    log::debug!("step: saving");
                    last = format!("; before, {}", said(&brought.repetition));
                    store.save(&brought)
                });
            if let Err(error) = saved {
                return failed(error);
            }
            bar.inc(1);
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
    struct Paper {
        called: Vec<(u32, u32, String)>,
        fails_at: usize,
    }

    impl Repeater for Paper {
        fn repeat(&mut self, configuration: &Configuration, round: u32, position: u32) -> Result<Brought> {
            if self.called.len() == self.fails_at {
                return Err(Error::workload("the server failed", "on paper"));
            }
            self.called.push((round, position, configuration.to_string()));
            let phases = vec![testing::phase(PhaseKind::Detached, 1)];
            let repetition = testing::repetition(&configuration.to_string(), round, position, phases);
            Ok(Brought { repetition, records: Vec::new(), profile: None })
        }
    }

    fn plan(rounds: u32) -> Plan {
        let workload = workload::by_name("tcp-rr").unwrap();
        Plan {
            workload,
            settings: workload::parse_settings(workload, &[]).unwrap(),
            configurations: parse_list("native,docker:net=host,docker:net=nat").unwrap().configurations,
            baseline: 0,
            spec: RunSpec { rounds, records_per_s: 0.0, seed: 3, sample_rate_hz: 0, ..RunSpec::default() },
            vms: Default::default(),
        }
    }

    fn saved(folder: &std::path::Path) -> usize {
        std::fs::read_to_string(folder.join(crate::run_folder::REPETITIONS)).unwrap().lines().count()
    }

    #[test]
    fn every_configuration_once_a_round_in_shuffled_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store::Store::create(folder.path(), false).unwrap();
        let mut paper = Paper { called: Vec::new(), fails_at: usize::MAX };
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
        let mut paper = Paper { called: Vec::new(), fails_at: 4 };
        let error = run(&plan(6), &mut paper, &mut store, &mut |_| Ok(false)).unwrap();
        assert_eq!(error.exit_code(), 5);
        assert_eq!(saved(folder.path()), 4);
    }
}
