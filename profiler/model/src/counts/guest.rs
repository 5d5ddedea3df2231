//! Counts of the two sides of a VM's border, and how they go together.
//!
//! Operations begin on one side, whose view is the *primary* one: the host's, for requests over the network, and the
//! guest's, for operations on files in it. The other side's view lies *within* one stage of it.

use std::collections::BTreeMap;

use profiler_common::Counter;
use serde::{Deserialize, Serialize};

use super::{DeviceInfo, Phase, Point, ProbeCounts, Side};
use crate::histogram::bucket_of;

/// What the other side counted in one phase: the agent in a guest, or the host, where operations are the guest's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSide {
    /// Counts. A guest's stages lie between its network card and back; a host's in the guest's waits for its disk.
    pub probes: ProbeCounts,
    /// Devices on the path.
    pub devices: Vec<DeviceInfo>,
    /// Single requests by number, and how long the guest had them, ns, in traced phases. Only while they travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crossings: Vec<(u32, u64)>,
    /// Whose counts these are. The host's are of what the VM's process did for its guest; the phase's own are then
    /// the guest's.
    #[serde(rename = "is_host", with = "as_is_host", default = "guests", skip_serializing_if = "is_guests")]
    pub side: Side,
    /// Whether it was told of the phase only when that had begun: its beginning is missing.
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
    /// Those left out because the guest had them for longer than its VM: none, if both tell the truth.
    pub contradicted: u64,
    /// Time in the VM, by the host, ns.
    pub held_ns: u64,
    /// Time in the guest, by its own clock, ns.
    pub residence_ns: u64,
    /// `(bucket, count)` of the differences, see [`crate::histogram`].
    pub buckets: Vec<(u16, u32)>,
}

impl Default for OtherSide {
    fn default() -> Self {
        Self {
            probes: ProbeCounts::default(),
            devices: Vec::new(),
            crossings: Vec::new(),
            side: Side::Guest,
            late: false,
            matched: None,
        }
    }
}

const fn guests() -> Side {
    Side::Guest
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_guests(side: &Side) -> bool {
    *side == Side::Guest
}

mod as_is_host {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Side;

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub fn serialize<S: Serializer>(side: &Side, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*side == Side::Host)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Side, D::Error> {
        Ok(if bool::deserialize(deserializer)? { Side::Host } else { Side::Guest })
    }
}

/// One side's view of a phase.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Whose it is.
    pub side: Side,
    /// What it counted.
    pub counts: &'a ProbeCounts,
}

/// What is known of a phase from either side of a VM's border.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// The view of the side on which operations begin.
    pub primary: View<'a>,
    /// The view of the other one, which lies within a stage of it; `None`: there is no other side, or it is silent.
    pub within: Option<View<'a>>,
}

impl Phase {
    /// Either side's view; `None`: nothing was attached.
    #[must_use]
    pub fn views(&self) -> Option<Views<'_>> {
        let counts = self.probes.as_ref()?;
        let within = self.guest.as_ref().map(|other| View { side: other.side, counts: &other.probes });
        let side = within.map_or(Side::Host, |within| within.side.other());
        Some(Views { primary: View { side, counts }, within })
    }
}

/// Counters of operations: those of the guest's say it all.
const COUNTED_ANYWAY: [Counter; 5] =
    [Counter::Followed, Counter::Completed, Counter::Unfinished, Counter::Operations, Counter::Events];

impl OtherSide {
    /// Turns the views round. Operations on files begin in the guest, and the host has its VM's share: returned
    /// are the guest's counts as the primary ones, and the host's in their place, without the time that the VM's
    /// process was not asked for anything.
    #[must_use]
    pub fn into_primary(mut self, host: ProbeCounts) -> (ProbeCounts, Self) {
        let mut guests = std::mem::replace(&mut self.probes, host);
        // What virtual processors did, only the host says.
        guests.vcpus = std::mem::take(&mut self.probes.vcpus);
        // And what it could not follow is as much a loss as the guest's own.
        let own = Counter::ALL.iter().filter(|counter| !COUNTED_ANYWAY.contains(counter));
        let of_host = own.map(|counter| (*counter, self.probes.counter(*counter))).filter(|(_, count)| *count > 0);
        of_host.for_each(|(counter, count)| guests.counters.set_of_vmm(counter, count));
        self.probes.stages.retain(|stage| stage.part || stage.from.point != Point::Exit);
        self.side = Side::Host;
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
        let guest = OtherSide { probes: inside.clone(), ..OtherSide::default() };
        let (first, second) = guest.into_primary(host);
        assert_eq!(first, inside);
        assert_eq!(second.side, Side::Host);
        // Without the time that nobody asked QEMU for anything.
        let between = StageTotal { part: true, ..stage(Role::Vcpu, Point::Exit, Point::Injected) };
        assert_eq!(second.probes.stages, [stage(Role::Vmm, Point::Enter, Point::Exit), between]);
    }
}
