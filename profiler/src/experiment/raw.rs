//! A phase before devices and namespaces have names.

use std::collections::BTreeMap;

use profiler_common::{
    event,
    point::{EXIT, READY, RECEIVED},
};
use workloads::protocol::PhaseReport;

use crate::{
    counts::{Phase, Place, Role},
    probes::{Labels, RawRecord},
    records::{Pass, Record},
    sampling::RawSampled,
};

/// A phase as the probes left it; names come later, when all devices are known.
pub struct RawPhase {
    pub(super) phase: Phase,
    pub(super) records: Vec<RawRecord>,
    pub(super) sampled: Option<RawSampled>,
}

impl RawPhase {
    /// What the client saw.
    #[must_use]
    pub fn client(&self) -> PhaseReport {
        self.phase.client.clone()
    }

    /// Samples of work for requests, by the role and the place where their stage begins: neither the wakers' of a
    /// waiting message nor those of the client's own time.
    #[must_use]
    pub fn samples_by_stage(&self, labels: &Labels) -> BTreeMap<(Role, Place), u64> {
        let mut stages = BTreeMap::new();
        for event in self.sampled.iter().flat_map(|sampled| &sampled.events) {
            let head = &event.head;
            let of_waker = head.point == READY && head.softirq != 0;
            let between = matches!(head.point, RECEIVED | EXIT) && Role::from_number(head.role) == Role::Client;
            if head.kind == event::SAMPLE && head.on_path != 0 && !of_waker && !between {
                *stages.entry((Role::from_number(head.role), labels.place(head.point))).or_default() += 1;
            }
        }
        stages
    }

    /// Gives the records' points their names.
    #[must_use]
    pub fn named(self, labels: &Labels, round: u32) -> (Phase, Vec<Record>, Option<RawSampled>) {
        let kind = self.phase.kind;
        let records = self
            .records
            .into_iter()
            .map(|record| Record {
                round,
                kind,
                passes: record
                    .points
                    .iter()
                    .map(|seen| Pass {
                        place: labels.place(seen.point),
                        role: Role::from_number(seen.role),
                        at_ns: seen.at_ns,
                        cpu: seen.cpu,
                        tid: seen.tid,
                    })
                    .collect(),
            })
            .collect();
        (self.phase, records, self.sampled)
    }
}
