use virtax_model::{
    counts::{Point, ProbeCounts},
    testing,
};

use super::*;

/// What does not fit together in a phase of 100 ms on one connection, with so many operations by the probes.
fn found(seen: u64, told: impl FnOnce(&mut Phase)) -> Option<String> {
    let counters = [(Counter::Operations, seen), (Counter::Followed, seen), (Counter::Completed, seen)];
    let counters = counters.into();
    let probes = ProbeCounts { counters, tokens: 1, ..ProbeCounts::default() };
    let mut phase = testing::phase(PhaseKind::Traced, 100_000_000).with_probes(probes);
    told(&mut phase);
    contradiction(&testing::repetition("native", 0, 0, Vec::new()), &phase)
}

#[test]
fn as_many_are_seen_as_told_but_for_those_that_cross_an_end() {
    assert_eq!(found(1000, |phase| phase.client.operations = 1001), None);
    let words = found(1000, |phase| phase.client.operations = 1002).unwrap();
    assert_eq!(words, "1000 operations by the probes, 1002 by the client, 1 connections");
    assert!(found(1000, |phase| phase.client.operations = 998).is_some());
    // Operations that are under way have begun as well.
    assert_eq!(found(1000, |phase| (phase.client.operations, phase.client.unfinished) = (999, 1)), None);
}

#[test]
fn who_counts_around_a_phase_may_be_off_by_what_was_around() {
    let told = |operations: u64, around_ns: u64| {
        found(1000, |phase| {
            (phase.client.operations, phase.client.asked_around) = (operations, true);
            phase.client.around_ns = around_ns;
        })
    };
    assert_eq!(told(1040, 5_000_000), None);
    assert_eq!(told(960, 5_000_000), None);
    assert!(told(1060, 5_000_000).is_some() && told(940, 5_000_000).is_some());
    // A client that does not say how long may be off by a tenth.
    assert_eq!(told(1100, 0), None);
    assert!(told(1200, 0).is_some());
}

#[test]
fn what_is_followed_is_accounted_for() {
    let lost = |phase: &mut Phase| {
        phase.client.operations = 1000;
        let counters = &mut phase.probes.as_mut().unwrap().counters;
        counters.set(Counter::Followed, 1001);
    };
    assert_eq!(found(1000, lost).unwrap(), "1001 requests followed, 1000 accounted for");
    let two = |phase: &mut Phase| {
        phase.client.operations = 1000;
        phase.probes.as_mut().unwrap().tokens = 2;
    };
    assert_eq!(found(1000, two).unwrap(), "2 tokens for 1 connections");
}

const OPERATIONS: u64 = 1000;

/// A phase of a request's two stages and the turn-around, each of so many ns per operation.
fn phase(kind: PhaseKind, stages_ns: [u64; 2], turnaround_ns: u64) -> Phase {
    let latency_ns: u64 = stages_ns.iter().sum();
    let mut phase = testing::phase(kind, OPERATIONS * (latency_ns + turnaround_ns));
    if kind != PhaseKind::Detached {
        let [send, ready, received] = [Point::Send, Point::Ready, Point::Received].map(|point| Place::at(point, ""));
        let stage = |from: &Place, to: &Place, ns| {
            testing::stage(Role::Client, from.clone(), to.clone(), OPERATIONS, OPERATIONS * ns)
        };
        let stages = vec![
            stage(&send, &ready, stages_ns[0]),
            stage(&ready, &received, stages_ns[1]),
            stage(&received, &send, turnaround_ns),
        ];
        let counters = [Counter::Operations, Counter::Followed, Counter::Completed];
        let counters = counters.map(|counter| (counter, OPERATIONS)).into();
        phase = phase.with_probes(ProbeCounts { stages, counters, tokens: 1, ..ProbeCounts::default() });
    }
    phase.client.operations = OPERATIONS;
    phase.client.latency_sum_ns = OPERATIONS * latency_ns;
    phase
}

/// The waterfall of two rounds, each of two detached and two traced phases by turns, and a sampled one.
fn of_phases(change: impl Fn(usize, &mut Phase)) -> Waterfall {
    let rounds: Vec<Repetition> = (0..2)
        .map(|round| {
            let kinds = [PhaseKind::Detached, PhaseKind::Traced, PhaseKind::Detached, PhaseKind::Traced];
            let kinds = kinds.into_iter().chain([PhaseKind::Sampled]);
            let mut phases: Vec<Phase> = kinds.map(|kind| phase(kind, [600, 400], 50)).collect();
            phases.iter_mut().enumerate().for_each(|(index, phase)| change(index, phase));
            testing::repetition("native", round, 0, phases)
        })
        .collect();
    build("native", &rounds.iter().collect::<Vec<_>>())
}

#[test]
fn a_rate_counts_over_all_phases_of_a_kind() {
    let found = of_phases(|index, phase| {
        let client = &mut phase.client;
        let ns = OPERATIONS * (index as u64 + 1);
        (client.queued_sum_ns, client.lateness_sum_ns) = (Some(100 * ns), 10 * ns);
    });
    // Phases 1 and 3, 2 and 4.
    let round = &found.rounds[1];
    assert_eq!((round.detached_queued_ns, round.traced_queued_ns), (200.0, 300.0));
    assert_eq!((round.detached_lateness_ns, round.traced_lateness_ns), (20.0, 30.0));
    // An earlier version did not tell them apart.
    let found = of_phases(|index, phase| phase.client.lateness_sum_ns = OPERATIONS * (index as u64 + 1));
    let round = &found.rounds[0];
    assert_eq!((round.detached_queued_ns, round.traced_queued_ns), (2.0, 3.0));
    assert_eq!((round.detached_lateness_ns, round.traced_lateness_ns), (0.0, 0.0));
}

/// The client says that 20 of the 50 ns were its own; the rest is of both ends of its calls, and 6 ns of the
/// turn-arounds went on at the end.
#[test]
fn a_turn_around_is_the_clients_own_and_two_ends() {
    let told = |_: usize, phase: &mut Phase| {
        phase.client.turnaround_sum_ns = OPERATIONS * 20;
        phase.client.latency_sum_ns += OPERATIONS * 36;
        phase.probes.iter_mut().for_each(|probes| probes.idle_ns = OPERATIONS * 6);
    };
    let found = of_phases(told);
    let rows: Vec<(String, f64)> = found.rows.iter().map(|row| (row.key.to.to_string(), row.rounds_ns[0])).collect();
    assert_eq!(rows.iter().map(|(_, ns)| ns).sum::<f64>(), 1036.0, "{rows:?}");
    let sampled = found.rows.iter().map(|row| row.sampled_ns[0].unwrap());
    assert_eq!(sampled.sum::<f64>(), 1036.0);
    assert_eq!((found.rounds[0].turnaround_ns, found.rounds[0].residual_ns), (20.0, 0.0));
    // All of it is the client's own, where the client does not say it in one of its phases.
    let found = of_phases(|index, phase| {
        told(index, phase);
        phase.client.asked_around = index == 1;
    });
    assert_eq!(found.rounds[0].turnaround_ns, 50.0);
    assert_eq!(found.rows.iter().map(|row| row.rounds_ns[0]).sum::<f64>(), 1000.0);
}

#[test]
fn what_is_under_way_at_the_end_has_stages_too() {
    let found = of_phases(|_, phase| {
        phase.probes.iter_mut().for_each(|probes| {
            (probes.lives_ns, probes.unfinished, probes.unfinished_ns) = (Some(1), 250, 5000);
        });
    });
    // Four traced phases, 1250 operations each; six with probes.
    assert_eq!(found.operations, 5000);
    // With the turn-around, of which the client says nothing.
    assert_eq!(found.rows.iter().map(|row| row.rounds_ns[0]).sum::<f64>(), 1050.0 * 1000.0 / 1250.0);
    assert_eq!((found.tokens.unfinished, found.unfinished_ns_per_op), (1500, 4.0));
}

#[test]
fn deviations_of_phases_do_not_cancel() {
    let found = of_phases(|index, phase| {
        let lives = if index == 1 { 1_200_000 } else { 900_000 };
        phase.probes.iter_mut().for_each(|probes| probes.lives_ns = Some(lives));
    });
    // Stages of 1,000,000 ns (a turn-around is none) against lives of 200,000 more, and twice of 100,000 less.
    assert!((found.conservation_percent - 100.0 * 400.0 / 3000.0).abs() < 1e-9, "{}", found.conservation_percent);
}

#[test]
fn losses_are_counted_by_their_cause() {
    let found = of_phases(|_, phase| {
        let counters = phase.probes.iter_mut().map(|probes| &mut probes.counters);
        counters.for_each(|counters| {
            counters.set(Counter::LostFreed, 3);
            counters.set(Counter::Drops, 7);
        });
    });
    let lost = found.lost();
    assert_eq!(lost[Counter::LostFreed.name()], 18);
    assert_eq!(lost.values().sum::<u64>(), 18);
    assert_eq!(lost.len(), Counter::losses().count());
    assert_eq!(found.counter(Counter::Drops), 42);
}
