//! Counts of the agent in a guest, and how they go together with the host's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DeviceInfo, Point, ProbeCounts};
use crate::histogram::bucket_of;

/// What an agent counted in one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCounts {
    /// As on the host. Its stages lie between the guest's network card and back.
    pub probes: ProbeCounts,
    /// Devices on the path.
    pub devices: Vec<DeviceInfo>,
    /// In traced phases: single requests by number, and how long the guest had them, ns. Only while they travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crossings: Vec<(u32, u64)>,
    /// Of files: these are the host's counts, of what the machine's process did for its guest, and the phase's own
    /// are the guest's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_host: bool,
    /// It was told of the phase only when that had begun: its beginning is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Those put together with the host's, by the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
}

/// Requests that host and guest saw both, put together one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// How many there are.
    pub count: u64,
    /// Those left out because the guest had them for longer than its machine: none, if both tell the truth.
    pub contradicted: u64,
    /// Time in the machine, by the host, ns.
    pub held_ns: u64,
    /// Time in the guest, by its own clock, ns.
    pub residence_ns: u64,
    /// `(bucket, count)` of the differences, see [`crate::histogram`].
    pub buckets: Vec<(u16, u32)>,
}

/// Beginning of the names of counters that the host has, of what a machine's process did.
pub const HOSTS: &str = "vmm_";
/// Of operations: those of the guest's say it all.
const COUNTED_ANYWAY: [&str; 5] = ["followed", "completed", "unfinished", "operations", "events"];

impl GuestCounts {
    /// Of files, operations begin in the guest, and the host has its machine's share: returned are the guest's
    /// counts, and the host's in their place, without the time that the machine's process was not asked for anything.
    #[must_use]
    pub fn inside_out(mut self, host: ProbeCounts) -> (ProbeCounts, Self) {
        let mut guests = std::mem::replace(&mut self.probes, host);
        // What virtual processors did, only the host says.
        guests.vcpus = std::mem::take(&mut self.probes.vcpus);
        // And what it could not follow is as much a loss as the guest's own.
        let of_host =
            self.probes.counters.iter().filter(|(name, count)| **count > 0 && !COUNTED_ANYWAY.contains(&name.as_str()));
        guests.counters.extend(of_host.map(|(name, count)| (format!("{HOSTS}{name}"), *count)));
        self.probes.stages.retain(|stage| stage.part || stage.from.point != Point::Exit);
        self.is_host = true;
        (guests, self)
    }
}

impl Matched {
    /// Puts together what either side knows of requests by their numbers. A number that one side has twice is of two
    /// requests.
    #[must_use]
    pub fn of(host: &[(u32, u64)], guest: &[(u32, u64)]) -> Self {
        let mut inside: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (number, ns) in guest {
            inside.entry(*number).and_modify(|found| *found = None).or_insert(Some(*ns));
        }
        let mut matched = Self::default();
        let mut buckets: BTreeMap<u16, u32> = BTreeMap::new();
        for (number, held_ns) in host {
            let Some(residence_ns) = inside.remove(number).flatten() else { continue };
            let Some(toll_ns) = held_ns.checked_sub(residence_ns) else {
                matched.contradicted += 1;
                continue;
            };
            matched.count += 1;
            matched.held_ns += held_ns;
            matched.residence_ns += residence_ns;
            *buckets.entry(bucket_of(toll_ns)).or_default() += 1;
        }
        matched.buckets = buckets.into_iter().collect();
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::{Place, Role, StageTotal};

    #[test]
    fn requests_are_put_together_by_their_numbers() {
        let host = [(1, 100), (2, 200), (3, 300), (4, 50), (5, 70)];
        let guest = [(3, 100), (1, 60), (9, 1), (4, 51), (5, 1), (5, 2)];
        let matched = Matched::of(&host, &guest);
        assert_eq!((matched.count, matched.contradicted), (2, 1));
        assert_eq!((matched.held_ns, matched.residence_ns), (400, 160));
        assert_eq!(matched.buckets, [(bucket_of(40), 1), (bucket_of(200), 1)]);
        assert_eq!(Matched::of(&host, &[]), Matched::default());
    }

    #[test]
    fn of_files_the_guests_counts_come_first() {
        let stage = |role, from: Point, to: Point| StageTotal {
            part: false,
            role,
            from: Place::fixed(from),
            to: Place::fixed(to),
            count: 1,
            total_ns: 5,
            buckets: Vec::new(),
        };
        let host = ProbeCounts {
            stages: vec![
                stage(Role::Vmm, Point::Enter, Point::Exit),
                stage(Role::Vmm, Point::Exit, Point::Enter),
                StageTotal { part: true, ..stage(Role::Vcpu, Point::Exit, Point::Injected) },
            ],
            ..ProbeCounts::default()
        };
        let inside =
            ProbeCounts { stages: vec![stage(Role::Client, Point::Exit, Point::Enter)], ..ProbeCounts::default() };
        let guest = GuestCounts { probes: inside.clone(), ..GuestCounts::default() };
        let (first, second) = guest.inside_out(host);
        assert_eq!(first, inside);
        assert!(second.is_host);
        // Without the time that nobody asked QEMU for anything.
        let between = StageTotal { part: true, ..stage(Role::Vcpu, Point::Exit, Point::Injected) };
        assert_eq!(second.probes.stages, [stage(Role::Vmm, Point::Enter, Point::Exit), between]);
    }
}
