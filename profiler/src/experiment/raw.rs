//! A phase before devices and namespaces have names.

use std::collections::BTreeMap;

use profiler_common::{
    event,
    point::{EXIT, READY, RECEIVED},
};
use workloads::protocol::PhaseReport;

use crate::{
    counts::{Phase, Place, Role},
    error::Result,
    probes::{Labels, RawRecord, RawSeen, role},
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
    ///
    /// # Errors
    /// [`crate::error::Error::Unsupported`] if the probes name a point or a role that does not exist.
    pub fn samples_by_stage(&self, labels: &Labels) -> Result<BTreeMap<(Role, Place), u64>> {
        let mut stages = BTreeMap::new();
        for event in self.sampled.iter().flat_map(|sampled| &sampled.events) {
            let head = &event.head;
            let of_waker = head.point == READY && head.softirq != 0;
            let between = matches!(head.point, RECEIVED | EXIT) && head.role == Role::Client.number();
            if head.kind == event::SAMPLE && head.on_path != 0 && !of_waker && !between {
                *stages.entry((role(head.role)?, labels.place(head.point)?)).or_default() += 1;
            }
        }
        Ok(stages)
    }

    /// Gives the records' points their names.
    ///
    /// # Errors
    /// [`crate::error::Error::Unsupported`] if the probes name a point or a role that does not exist.
    pub fn named(self, labels: &Labels, round: u32) -> Result<(Phase, Vec<Record>, Option<RawSampled>)> {
        let kind = self.phase.kind;
        let pass = |seen: &RawSeen| -> Result<Pass> {
            let (place, role) = (labels.place(seen.point)?, role(seen.role)?);
            Ok(Pass { place, role, at_ns: seen.at_ns, cpu: seen.cpu, tid: seen.tid })
        };
        let record = |record: RawRecord| -> Result<Record> {
            Ok(Record { round, kind, passes: record.points.iter().map(pass).collect::<Result<_>>()? })
        };
        let records = self.records.into_iter().map(record).collect::<Result<_>>()?;
        Ok((self.phase, records, self.sampled))
    }
}
