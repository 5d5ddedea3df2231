//! Tracepoints' records, as the running kernel lays them out.

use std::collections::{BTreeMap, BTreeSet};

use super::Tracefs;
use virtax_model::points::{Field, Hook, PROBES};

/// Records of tracepoints, as this kernel lays them out.
pub(super) struct Records {
    /// Number of each event, by the fields of it that are wanted, or why it cannot be used.
    events: BTreeMap<(&'static str, &'static [Field]), std::result::Result<u32, String>>,
    /// Symbols of the probes' settings, and the offsets of the fields that they stand for.
    pub(super) offsets: Vec<(&'static str, u32)>,
    /// Names of all events of the kernel.
    pub(super) all: BTreeSet<String>,
}

impl Records {
    /// Layouts of all events in the table of points.
    pub(super) fn of_running_kernel() -> Self {
        let tracefs = Tracefs::open().map_err(|error| format!("no tracefs: {error}"));
        let all = tracefs.as_ref().map(Tracefs::event_names).unwrap_or_default();
        let mut records = Self { events: BTreeMap::new(), offsets: Vec::new(), all };
        for alternative in PROBES.iter().flat_map(|probe| probe.alternatives) {
            let Hook::Tracepoint { event, fields } = alternative.hook else { continue };
            let found = tracefs.as_ref().map_err(Clone::clone).and_then(|tracefs| tracefs.format(event));
            let number = found.and_then(|format| {
                for (symbol, field, size) in fields {
                    records.offsets.push((symbol, format.offset_of(field, *size)?));
                }
                Ok(format.id)
            });
            records.events.insert((event, fields), number);
        }
        records
    }

    pub(super) fn number(&self, event: &'static str, fields: &'static [Field]) -> std::result::Result<u32, String> {
        self.events.get(&(event, fields)).cloned().unwrap_or_else(|| Err(format!("{event} is no event of the table")))
    }
}
