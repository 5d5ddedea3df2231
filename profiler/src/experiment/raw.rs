//! A phase before devices and namespaces have names.

use std::collections::BTreeMap;

use profiler_common::{
    event,
    point::{EXIT, READY, RECEIVED},
};
use workloads::protocol::PhaseReport;

use crate::{
    counts::{AccountTotal, Phase, Place, Role},
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

/// A phase, with the probes or without.
pub enum Either {
    /// Without.
    Detached(Phase),
    /// With.
    Probed(RawPhase),
}

impl Either {
    /// Notes what the configuration's known cost amounted to.
    pub fn set_account(&mut self, account: Option<AccountTotal>) {
        match self {
            Self::Detached(phase) => phase.account = account,
            Self::Probed(raw) => raw.phase.account = account,
        }
    }
}

/// A repetition's phases, with the names of what they saw.
#[derive(Default)]
pub struct Named {
    /// Phases, in order.
    pub phases: Vec<Phase>,
    /// Single requests.
    pub records: Vec<Record>,
    /// Samples, whose functions have no names yet.
    pub sampled: Vec<RawSampled>,
}

impl Named {
    /// Gives what the phases saw its names.
    ///
    /// # Errors
    /// As [`RawPhase::named`].
    pub fn of(raw: Vec<Either>, labels: &Labels, round: u32) -> Result<Self> {
        let mut named = Self::default();
        for phase in raw {
            let (phase, records, sampled) = match phase {
                Either::Detached(phase) => (phase, Vec::new(), None),
                Either::Probed(raw) => raw.named(labels, round)?,
            };
            named.phases.push(phase);
            named.records.extend(records);
            named.sampled.extend(sampled);
        }
        Ok(named)
    }
}
