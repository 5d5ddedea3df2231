//! The inside of a virtual machine, as its agent saw it, put where the host saw one stage.
//!
//! The host knows how long the machine held requests, the guest, by its own clock, how long it held them between receiving and sending
//! at its card. The difference is the boundary's toll. Both are means over the requests of a phase of one length, of which the guest's
//! lies some milliseconds beside the host's.

use std::collections::BTreeSet;

use profiler_common::Counter;

use super::{key_of, of_kind};
use crate::{
    analysis::path::StageKey,
    counts::{Phase, PhaseKind, Repetition, StageTotal},
};

/// What a guest saw of a phase, for as many requests as the host saw go into the machine and come out.
#[derive(Default)]
pub(super) struct Inside {
    /// Stages and parts in the guest.
    pub stages: Vec<StageTotal>,
    /// The stage of the host's that all of them lie in.
    pub boundary: Option<StageKey>,
    /// Time of the stages together, ns: never more than the boundary's.
    pub residence_ns: u64,
}

/// Into a machine by a device, and out by the same.
pub(super) fn is_boundary(key: &StageKey) -> bool {
    key.from.point == "xmit" && key.to.point == "receive" && key.from.device == key.to.device
}

/// The guest's stages of a phase; nothing where there is no agent, or where it saw other requests than the host.
pub(super) fn stages(phase: &Phase) -> Inside {
    let (Some(host), Some(guest)) = (&phase.probes, &phase.guest) else { return Inside::default() };
    let Some(boundary) = host.stages.iter().filter(|stage| !stage.part).find(|stage| is_boundary(&key_of(stage)))
    else {
        return Inside::default();
    };
    let operations = guest.probes.counter(Counter::Operations);
    if operations == 0 {
        return Inside::default();
    }
    let scaled = |number: u64| (number as f64 / operations as f64 * boundary.count as f64).round() as u64;
    let stages: Vec<StageTotal> = guest
        .probes
        .stages
        .iter()
        .map(|stage| StageTotal { count: scaled(stage.count), total_ns: scaled(stage.total_ns), ..stage.clone() })
        .collect();
    let residence_ns = stages.iter().filter(|stage| !stage.part).map(|stage| stage.total_ns).sum();
    if residence_ns > boundary.total_ns {
        return Inside::default();
    }
    Inside { stages, boundary: Some(key_of(boundary)), residence_ns }
}

/// Keys of all stages that lie in guests.
pub(super) fn keys(repetitions: &[&Repetition]) -> BTreeSet<StageKey> {
    let phases = repetitions.iter().flat_map(|repetition| of_kind(repetition, PhaseKind::Traced));
    phases.flat_map(|phase| stages(phase).stages).filter(|stage| !stage.part).map(|stage| key_of(&stage)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::wire::GuestCounts,
        counts::{Place, ProbeCounts, Role},
    };

    fn stage(role: Role, from: Place, to: Place, count: u64, total_ns: u64) -> StageTotal {
        StageTotal { part: false, role, from, to, count, total_ns, buckets: Vec::new() }
    }

    fn phase(guest_operations: u64, guest_ns: u64) -> Phase {
        let (at, fixed) = (Place::at, Place::fixed);
        let host = ProbeCounts {
            stages: vec![
                stage(Role::Client, fixed("send"), at("xmit", "tap@host"), 10, 100),
                stage(Role::Client, at("xmit", "tap@host"), at("receive", "tap@host"), 10, 1000),
            ],
            ..ProbeCounts::default()
        };
        let mut guest = ProbeCounts {
            stages: vec![
                stage(Role::Client, at("receive", "eth0@guest"), fixed("delivered"), guest_operations, guest_ns / 2),
                stage(Role::Server, fixed("send"), at("xmit", "eth0@guest"), guest_operations, guest_ns / 2),
            ],
            ..ProbeCounts::default()
        };
        guest.counters.insert(Counter::Operations.name().to_owned(), guest_operations);
        Phase {
            kind: PhaseKind::Traced,
            open_ns: 0,
            length_ns: 1000,
            client: Default::default(),
            probes: Some(host),
            guest: Some(GuestCounts { probes: guest, devices: Vec::new() }),
            account: None,
        }
    }

    #[test]
    fn a_guests_time_is_taken_per_request() {
        // Twice as many requests as the host saw: each half as much of the whole.
        let inside = stages(&phase(20, 800));
        assert_eq!(inside.residence_ns, 400);
        assert_eq!(inside.stages.iter().map(|stage| stage.count).collect::<Vec<_>>(), [10, 10]);
        assert!(inside.boundary.is_some_and(|key| is_boundary(&key)));
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        assert_eq!(stages(&phase(0, 800)).residence_ns, 0);
        // Longer in the guest than in the machine.
        assert!(stages(&phase(10, 1002)).stages.is_empty());
        let mut without = phase(10, 100);
        without.guest = None;
        assert!(stages(&without).boundary.is_none());
    }
}
