//! The inside of a VM, as its agent saw it, put where the host saw one stage.
//!
//! The host knows how long the VM held requests, the guest, by its own clock, how long it held them between
//! receiving and sending at its card. The difference is the boundary's toll. It is taken request by request, of those
//! that both saw from beginning to end; where they have too few in common, from the means of a phase of one length,
//! of which the guest's lies some milliseconds beside the host's.

use std::collections::BTreeSet;

use profiler_common::Counter;

use super::{key_of, of_kind};
use crate::path::{StageKey, is_boundary, is_disk_of_guest};
use virtax_model::counts::{Matched, Phase, PhaseKind, Place, Point, Repetition, Role, Side, StageTotal, View, Views};

/// What a guest saw of a phase, for as many requests as the host saw go into the VM and come out.
#[derive(Default)]
pub(super) struct Inside {
    /// Stages and parts in the guest.
    pub stages: Vec<StageTotal>,
    /// The stage of the host's that all of them lie in.
    pub boundary: Option<StageKey>,
    /// Time of the stages together, ns: never more than the boundary's.
    pub residence_ns: u64,
    /// Stages of the guest's that operations on files lie in, and how much of the time in each, ns.
    pub of_guest: Vec<(StageKey, u64)>,
}

/// Share by which the numbers of requests may differ that host and guest saw in phases of one length, some milliseconds
/// apart.
const APART: f64 = 0.25;
/// The share of a guest's requests that may be lost there.
const LOST: f64 = 0.001;
/// The share of requests that both sides must have seen whole, for the toll to be theirs.
const ENOUGH: f64 = 0.25;
/// The share of these that the guest may claim to have had for longer than its VM.
const CONTRADICTED: f64 = 0.01;
/// How long the guest had these requests, against all of its own.
const ALIKE: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// The guest's stages of a phase; nothing where there is no agent, where it saw other requests than the host, or lost
/// some.
pub(super) fn stages(phase: &Phase) -> Inside {
    let Some(Views { primary, within: Some(within) }) = phase.views() else { return Inside::default() };
    match within.side {
        Side::Host => of_process(primary, within),
        Side::Guest => of_guest(phase, within),
    }
}

/// What a guest saw between its card and back.
fn of_guest(phase: &Phase, guest: View<'_>) -> Inside {
    let Some(boundary) = boundary(phase) else { return Inside::default() };
    let operations = guest.counts.counter(Counter::Operations);
    let lost: u64 = Counter::losses().map(|cause| guest.counts.counter(cause)).fold(0, u64::saturating_add);
    let apart = operations.abs_diff(boundary.count) as f64;
    if operations == 0 || apart > APART * boundary.count as f64 || lost as f64 > LOST * operations as f64 {
        return Inside::default();
    }
    let per_operation = boundary.count as f64 / operations as f64;
    let scaled = |number: u64, factor: f64| (number as f64 * factor).round() as u64;
    let time_factor = matched(phase, boundary).map_or(per_operation, |(_, factor)| factor);
    let stages: Vec<StageTotal> = guest
        .counts
        .stages
        .iter()
        .map(|stage| StageTotal {
            count: scaled(stage.count, per_operation),
            total_ns: scaled(stage.total_ns, time_factor),
            ..stage.clone()
        })
        .collect();
    let whole = stages.iter().filter(|stage| !stage.part).map(|stage| stage.total_ns);
    let residence_ns = whole.fold(0, u64::saturating_add);
    if residence_ns > boundary.total_ns {
        return Inside::default();
    }
    Inside { stages, boundary: Some(key_of(boundary)), residence_ns, of_guest: Vec::new() }
}

/// What a VM's process did for its guest's file operations: in the same time, whatever it made of them. They lie
/// in the guest's waits for its disk, in each of those (transfers, flushes) by its share of their time: which belongs
/// to which, nobody says. Of one large operation it may make several at once, for longer together than the guest
/// waits: then all are shortened alike.
fn of_process(guest: View<'_>, host: View<'_>) -> Inside {
    let (waits, stages) = (guest.counts.stages.iter(), &host.counts.stages);
    let waits: Vec<&StageTotal> = waits.filter(|stage| !stage.part && is_disk_of_guest(&key_of(stage))).collect();
    let sum = |stages: &mut dyn Iterator<Item = u64>| stages.fold(0, u64::saturating_add);
    let waited_ns = sum(&mut waits.iter().map(|stage| stage.total_ns));
    let worked_ns = sum(&mut stages.iter().filter(|stage| !stage.part).map(|stage| stage.total_ns));
    if waited_ns == 0 || worked_ns == 0 {
        return Inside::default();
    }
    let factor = (waited_ns as f64 / worked_ns as f64).min(1.0);
    let scaled = |ns: u64, factor: f64| (ns as f64 * factor) as u64;
    let stages: Vec<StageTotal> =
        stages.iter().map(|stage| StageTotal { total_ns: scaled(stage.total_ns, factor), ..stage.clone() }).collect();
    let residence_ns = sum(&mut stages.iter().filter(|stage| !stage.part).map(|stage| stage.total_ns));
    let mut left_ns = residence_ns.min(waited_ns);
    let mut of_guest: Vec<(StageKey, u64)> = Vec::new();
    for (index, wait) in waits.iter().enumerate() {
        let share = scaled(residence_ns, wait.total_ns as f64 / waited_ns as f64);
        // Whole ns: the last has what is left.
        let taken = if index + 1 == waits.len() { left_ns } else { share }.min(wait.total_ns).min(left_ns);
        left_ns -= taken;
        of_guest.push((key_of(wait), taken));
    }
    let longest = waits.iter().max_by_key(|stage| stage.total_ns).map(|stage| key_of(stage));
    let waited = waits.iter().fold(0, |sum: u64, stage| sum.saturating_add(stage.count));
    // The row that has the steps.
    let frequent = waits.iter().max_by_key(|stage| stage.count).map(|stage| key_of(stage));
    let rest = frequent.and_then(|wait| in_guest(&stages, &wait, waited_ns - residence_ns, waited));
    let stages = stages.into_iter().chain(rest).collect();
    Inside { stages, boundary: longest, residence_ns, of_guest }
}

/// Whether it is a step from a guest's operation on its disk to its VM's own, or back.
pub(super) fn is_between(key: &StageKey) -> bool {
    key.role == Role::Vcpu
}

/// What is left of the boundary's time beside the steps that the host saw: the guest's own, before the notification
/// and after its interrupt. Steps are seen where the VM had one operation at a time, so only as much is divided
/// as there are such.
fn in_guest(stages: &[StageTotal], wait: &StageKey, boundary_ns: u64, waited: u64) -> Option<StageTotal> {
    let steps = || stages.iter().filter(|stage| stage.part && is_between(&key_of(stage)));
    let seen_ns = steps().fold(0, |sum: u64, stage| sum.saturating_add(stage.total_ns));
    // Every one that was seen on its way there, or back, takes one of these steps; often only one of the ways is.
    let counted = |is_way: fn(&StageTotal) -> bool| {
        steps().filter(|stage| is_way(stage)).fold(0, |sum: u64, stage| sum.saturating_add(stage.count))
    };
    let there = counted(|stage| stage.from.point != Point::Exit && stage.to.point == Point::Enter);
    let back = counted(|stage| stage.from.point == Point::Exit && stage.to.point != Point::Enter);
    let count = there.max(back);
    let share = (count as f64 / waited.max(1) as f64).min(1.0);
    let total_ns = ((boundary_ns as f64 * share) as u64).saturating_sub(seen_ns);
    let (from, to) = (Place::fixed(Point::Entered), wait.to.clone());
    (count > 0).then(|| StageTotal { part: true, role: Role::Vcpu, from, to, count, total_ns, buckets: Vec::new() })
}

/// The side on which operations begin.
pub(super) fn primary_side(repetitions: &[&Repetition]) -> Side {
    let phases = repetitions.iter().flat_map(|repetition| &repetition.phases);
    let is_guests = phases.filter_map(Phase::views).any(|views| views.primary.side == Side::Guest);
    if is_guests { Side::Guest } else { Side::Host }
}

/// The stage of the host's in which the VM has the requests.
fn boundary(phase: &Phase) -> Option<&StageTotal> {
    let stages = phase.probes.iter().flat_map(|probes| &probes.stages);
    stages.filter(|stage| !stage.part && is_boundary(&key_of(stage))).max_by_key(|stage| stage.count)
}

/// The requests that both sides saw, if they are enough to speak for the stage, and what the guest's times are to be
/// multiplied with so that they and the toll of these requests make it up.
fn matched<'a>(phase: &'a Phase, boundary: &StageTotal) -> Option<(&'a Matched, f64)> {
    let guest = phase.guest.as_ref()?;
    let matched = guest.matched.as_ref()?;
    let enough = matched.count as f64 >= ENOUGH * boundary.count as f64 && matched.count > 0;
    let agree = matched.contradicted as f64 <= CONTRADICTED * matched.count as f64;
    let toll_ns = matched.held_ns.checked_sub(matched.residence_ns)? as f64 / matched.count.max(1) as f64;
    let whole = guest.probes.stages.iter().filter(|stage| !stage.part).map(|stage| stage.total_ns as f64);
    let factor = (boundary.total_ns as f64 - toll_ns * boundary.count as f64) / whole.sum::<f64>().max(1.0);
    // By all of its requests, the guest had them about as long.
    let by_means = boundary.count as f64 / guest.probes.counter(Counter::Operations) as f64;
    (enough && agree && ALIKE.contains(&(factor / by_means))).then_some((matched, factor))
}

/// What is left of the boundary for single requests: counts by bucket. Empty where only the mean is known.
pub(super) fn toll(phase: &Phase) -> &[(u16, u32)] {
    if stages(phase).boundary.is_none() {
        return &[];
    }
    boundary(phase).and_then(|boundary| matched(phase, boundary)).map_or(&[], |(matched, _)| &matched.buckets)
}

/// Keys of all stages that lie in guests.
pub(super) fn keys(repetitions: &[&Repetition]) -> BTreeSet<StageKey> {
    let phases = repetitions.iter().flat_map(|repetition| of_kind(repetition, PhaseKind::Traced));
    phases.flat_map(|phase| stages(phase).stages).filter(|stage| !stage.part).map(|stage| key_of(&stage)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtax_model::{
        counts::{OtherSide, ProbeCounts},
        testing::{self, stage},
    };

    fn phase(guest_operations: u64, guest_ns: u64) -> Phase {
        let (at, fixed) = (Place::at, Place::fixed);
        let host = ProbeCounts {
            stages: vec![
                stage(Role::Client, fixed(Point::Send), at(Point::Xmit, "tap@host"), 10, 100),
                stage(Role::Client, at(Point::Xmit, "tap@host"), fixed(Point::Taken), 10, 50),
                stage(Role::Client, fixed(Point::Taken), at(Point::Receive, "tap@host"), 10, 1000),
            ],
            ..ProbeCounts::default()
        };
        let mut guest = ProbeCounts {
            stages: vec![
                stage(
                    Role::Client,
                    at(Point::Receive, "eth0@guest"),
                    fixed(Point::Delivered),
                    guest_operations,
                    guest_ns / 2,
                ),
                stage(Role::Server, fixed(Point::Send), at(Point::Xmit, "eth0@guest"), guest_operations, guest_ns / 2),
            ],
            ..ProbeCounts::default()
        };
        guest.counters.set(Counter::Operations, guest_operations);
        testing::phase(PhaseKind::Traced, 1000).with_probes(host).with_other_side(guest)
    }

    #[test]
    fn a_guests_time_is_taken_per_request() {
        // More requests than the host saw: each has less of the whole.
        let inside = stages(&phase(12, 600));
        assert_eq!(inside.residence_ns, 500);
        assert_eq!(inside.stages.iter().map(|stage| stage.count).collect::<Vec<_>>(), [10, 10]);
        assert!(inside.boundary.is_some_and(|key| is_boundary(&key)));
    }

    #[test]
    fn requests_that_both_saw_say_what_the_boundary_takes() {
        let with = |matched: Matched| {
            let mut phase = phase(12, 600);
            phase.guest.as_mut().unwrap().matched = Some(matched);
            phase
        };
        // 40 ns a request; the VM had ten for 1000 ns.
        let four = Matched { count: 4, contradicted: 0, held_ns: 400, residence_ns: 240, buckets: vec![(9, 4)] };
        let found = with(four.clone());
        assert_eq!(stages(&found).residence_ns, 600);
        assert_eq!(toll(&found), [(9, 4)]);
        // The guest had these for a third less long than by its means, which may be: 67 ns a request.
        assert_eq!(stages(&with(Matched { residence_ns: 132, ..four.clone() })).residence_ns, 330);
        // Too few, or not to be believed: then by the means.
        for doubtful in [
            Matched { count: 2, held_ns: 200, residence_ns: 120, ..four.clone() },
            Matched { contradicted: 1, ..four.clone() },
            Matched { residence_ns: 401, ..four.clone() },
            // All of it would be toll.
            Matched { residence_ns: 0, ..four },
        ] {
            let found = with(doubtful);
            assert_eq!(stages(&found).residence_ns, 500);
            assert!(toll(&found).is_empty());
        }
    }

    #[test]
    fn of_files_the_host_lies_within_the_guests_disk() {
        let at = |point: Point, disk: &str| Place::at(point, disk);
        let disk = stage(Role::Client, at(Point::Issue, "vda@guest"), at(Point::Complete, "vda@guest"), 10, 1000);
        let of_qemu = vec![
            stage(Role::Vmm, Place::fixed(Point::Enter), at(Point::Bio, "vda"), 5, 100),
            stage(Role::Vmm, at(Point::Bio, "vda"), Place::fixed(Point::Exit), 5, 300),
        ];
        let mut found = phase(10, 0);
        found.probes = Some(ProbeCounts { stages: vec![disk.clone()], ..ProbeCounts::default() });
        let host = ProbeCounts { stages: of_qemu.clone(), ..ProbeCounts::default() };
        found.guest = Some(OtherSide { probes: host, side: Side::Host, ..OtherSide::default() });
        let inside = stages(&found);
        // As much as there was, though two of the guest's operations were one of QEMU's.
        assert_eq!((inside.stages, inside.residence_ns), (of_qemu, 400));
        assert_eq!(inside.of_guest, [(key_of(&disk), 400)]);
        // Several at once, for longer than the guest waited: the guest waits for nothing else.
        found.guest.as_mut().unwrap().probes.stages[0].total_ns = 1700;
        let inside = stages(&found);
        assert_eq!(inside.stages.iter().map(|stage| stage.total_ns).collect::<Vec<_>>(), [850, 150]);
        assert_eq!(inside.of_guest, [(key_of(&disk), 1000)]);
        // Flushes wait for the disk as well.
        let flush = stage(Role::Client, at(Point::Bio, "vda@guest"), at(Point::Complete, "vda@guest"), 1, 1000);
        found.probes.as_mut().unwrap().stages.push(flush.clone());
        let inside = stages(&found);
        assert_eq!(inside.of_guest, [(key_of(&disk), 1000), (key_of(&flush), 1000)]);
        // What lies between the two sides: 1300 ns of the guest's waits are not QEMU's own, 22 of them were waited for.
        let step = |from, to, count, ns| StageTotal {
            part: true,
            ..stage(Role::Vcpu, Place::fixed(from), Place::fixed(to), count, ns)
        };
        let steps = [
            step(Point::Notified, Point::Enter, 10, 100),
            step(Point::Exit, Point::Injected, 10, 200),
            step(Point::Exit, Point::Enter, 5, 7),
        ];
        let guest = found.guest.as_mut().unwrap();
        guest.probes.stages[0].total_ns = 400;
        guest.probes.stages.extend(steps.clone());
        let inside = stages(&found);
        assert_eq!(inside.stages[2..5], steps);
        let rest = &inside.stages[5];
        assert_eq!((&rest.to, rest.count), (&at(Point::Complete, "vda@guest"), 10));
        assert_eq!(rest.total_ns, (1300.0 * 10.0 / 11.0) as u64 - 307);
        found.guest.as_mut().unwrap().probes.stages.clear();
        assert!(stages(&found).stages.is_empty());
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        assert_eq!(stages(&phase(0, 800)).residence_ns, 0);
        // Longer in the guest than in the VM.
        assert!(stages(&phase(10, 1002)).stages.is_empty());
        // Of other requests, of many lost, of impossible numbers.
        assert!(stages(&phase(20, 800)).stages.is_empty());
        let mut lossy = phase(10, 100);
        let counters = &mut lossy.guest.as_mut().unwrap().probes.counters;
        counters.set(Counter::LostResynchronised, 1);
        assert!(stages(&lossy).stages.is_empty());
        assert!(stages(&phase(10, u64::MAX)).stages.is_empty());
        let mut without = phase(10, 100);
        without.guest = None;
        assert!(stages(&without).boundary.is_none());
    }
}
