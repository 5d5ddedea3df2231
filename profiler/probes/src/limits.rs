//! Sizes of the probes' tables. Smaller ones are for tests: each loss must be counted at its cause, and causes are
//! rare unless they are made.

use profiler_common::{
    CONFIGURATIONS, CONNECTION_SLOTS, CROSSINGS, DIRECT_STAGES, EVENT_RING_BYTES, FOLLOWED, MOST_RECORD_SLOTS,
    PACKET_SLOTS, RECORD_POINTS, RECORD_RING_BYTES, RECORD_SLOTS, SLOTS, STAGES, file::BIOS, point::DEVICES,
};
use virtax_model::error::{Error, Result, did_you_mean};

use super::{table::Table, tables};

/// Most entries of a table: its places are found by 16 bits of a hash.
const MOST_ENTRIES: u32 = 1 << 16;
/// Configurations of which a stage's key can tell one from another.
const MOST_CONFIGURATIONS: u32 = 1 << 8;
/// An operation's bios, of which the larger ones have several, and those of disks below.
const BIOS_PER_OPERATION: u32 = 4;

/// What is alive at once, by the plan of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// Configurations.
    pub configurations: u32,
    /// Requests or operations of each that are under way at once. A request's connection has both its sockets on this
    /// VM.
    pub tokens: u32,
    /// Threads of each.
    pub threads: u32,
}

/// Sizes that the probes are loaded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sockets that can be followed, usually `SLOTS`: of others, nothing is known.
    pub sockets: u32,
    /// skbs that can be followed, usually `PACKET_SLOTS`.
    pub packets: u32,
    /// Connections into a VM that can be followed, usually `CONNECTION_SLOTS`.
    pub connections: u32,
    /// Threads that can be followed, usually `SLOTS`.
    pub threads: u32,
    /// Devices, at most `DEVICES`.
    pub devices: u32,
    /// Stages and system calls, usually `STAGES`.
    pub stages: u32,
    /// Configurations that are followed at once, usually one.
    pub configurations: u32,
    /// Processes, and threads with a role of their own, usually `FOLLOWED`.
    pub tasks: u32,
    /// bios under way, usually `BIOS`.
    pub bios: u32,
    /// Records under way, usually `RECORD_SLOTS`.
    pub records: u32,
    /// Requests that VMs have, usually `CROSSINGS`.
    pub crossings: u32,
    /// Points of a record, at most `RECORD_POINTS`.
    pub record_points: u32,
    /// Bytes of the ring buffer of records: a power of two times the page's size.
    pub record_ring: u32,
    /// Bytes of the ring buffer of stacks.
    pub event_ring: u32,
    /// 0: nobody reads the ring buffers before a phase is over.
    pub reader: u32,
    /// Phases until everything is forgotten, because their numbers begin again.
    pub phases: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets: SLOTS,
            packets: PACKET_SLOTS,
            connections: CONNECTION_SLOTS,
            threads: SLOTS,
            devices: DEVICES,
            stages: STAGES,
            configurations: CONFIGURATIONS,
            tasks: FOLLOWED,
            bios: BIOS,
            records: RECORD_SLOTS,
            crossings: CROSSINGS,
            record_points: RECORD_POINTS as u32,
            record_ring: RECORD_RING_BYTES,
            event_ring: EVENT_RING_BYTES,
            reader: 1,
            phases: u16::MAX,
        }
    }
}

impl Limits {
    /// Sizes for what is alive at once: no table more than half full, and none smaller than usual. Devices and disks
    /// have as many places as a point's number can tell apart, whatever the plan.
    #[must_use]
    pub fn for_plan(alive: Alive) -> Self {
        let twice = |number: u32, usual: u32| {
            number.saturating_mul(2).checked_next_power_of_two().unwrap_or(MOST_ENTRIES).clamp(usual, MOST_ENTRIES)
        };
        let configurations = alive.configurations.clamp(1, MOST_CONFIGURATIONS);
        let tokens = alive.tokens.saturating_mul(configurations);
        let threads = alive.threads.saturating_mul(configurations);
        Self {
            sockets: twice(tokens.saturating_mul(2), SLOTS),
            packets: twice(tokens, PACKET_SLOTS),
            connections: twice(tokens, CONNECTION_SLOTS),
            threads: twice(threads, SLOTS),
            stages: STAGES * configurations.next_power_of_two(),
            configurations,
            tasks: twice(threads, FOLLOWED),
            bios: twice(tokens.saturating_mul(BIOS_PER_OPERATION), BIOS),
            records: twice(tokens, RECORD_SLOTS).min(MOST_RECORD_SLOTS),
            crossings: twice(tokens, CROSSINGS),
            ..Self::default()
        }
    }

    /// The smaller of each of two sizes: what tests starve stays starved.
    #[must_use]
    pub fn starved_by(self, starved: &Self) -> Self {
        let usual = Self::default();
        let of = |mine: u32, theirs: u32, usual: u32| if theirs < usual { theirs } else { mine };
        Self {
            sockets: of(self.sockets, starved.sockets, usual.sockets),
            packets: of(self.packets, starved.packets, usual.packets),
            connections: of(self.connections, starved.connections, usual.connections),
            threads: of(self.threads, starved.threads, usual.threads),
            stages: of(self.stages, starved.stages, usual.stages),
            configurations: self.configurations,
            tasks: self.tasks,
            bios: self.bios,
            records: self.records,
            crossings: self.crossings,
            ..*starved
        }
    }

    /// Symbols of the tables' masks, by which places in them are found: a table that is starved has fewer places than
    /// are looked for.
    pub(super) fn masks(&self) -> [(&'static str, u32); 10] {
        let direct = DIRECT_STAGES * self.stages.max(STAGES) / STAGES;
        let mask = |entries: u32, usual: u32| entries.next_power_of_two().max(usual) - 1;
        [
            ("SLOTS_MASK", mask(self.sockets, SLOTS)),
            ("THREADS_MASK", mask(self.threads, SLOTS)),
            ("PACKETS_MASK", mask(self.packets, PACKET_SLOTS)),
            ("CONNECTIONS_MASK", mask(self.connections, CONNECTION_SLOTS)),
            ("BIOS_MASK", mask(self.bios, BIOS)),
            ("RECORDS_MASK", mask(self.records, RECORD_SLOTS)),
            ("CROSSINGS_MASK", mask(self.crossings, CROSSINGS)),
            ("STAGES_SHIFT", u64::BITS - direct.ilog2()),
            ("STAGES_MASK", direct - 1),
            ("STAGES_MOST", self.stages.max(STAGES)),
        ]
    }

    /// Sets one by `name=value`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown name, or a value above the default or 0 (but for `reader`).
    pub fn set(&mut self, pair: &str) -> Result<()> {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::Usage(format!("`--starve {pair}` is not `name=value`")));
        };
        let mut phases = u32::from(self.phases);
        let mut fields = [
            ("sockets", &mut self.sockets),
            ("packets", &mut self.packets),
            ("connections", &mut self.connections),
            ("threads", &mut self.threads),
            ("devices", &mut self.devices),
            ("stages", &mut self.stages),
            ("record-points", &mut self.record_points),
            ("record-ring", &mut self.record_ring),
            ("event-ring", &mut self.event_ring),
            ("reader", &mut self.reader),
            ("phases", &mut phases),
        ];
        let names = fields.each_ref().map(|(name, _)| *name);
        let Some((_, field)) = fields.iter_mut().find(|(known, _)| *known == name) else {
            let near = did_you_mean(name, names);
            return Err(Error::Usage(format!("unknown table `{name}`{near}; tables: {}", names.join(", "))));
        };
        let lowest = u32::from(name != "reader");
        match value.parse::<u32>() {
            Ok(number) if (lowest..=**field).contains(&number) => **field = number,
            _ => {
                return Err(Error::Usage(format!(
                    "table `{name}` cannot have `{value}`: give a whole number from {lowest} to {field}"
                )));
            }
        }
        let ring = name.ends_with("-ring");
        if ring && !(field.is_power_of_two() && **field >= 4096) {
            return Err(Error::Usage(format!("table `{name}` cannot have `{value}`: give a power of two from 4096")));
        }
        // No larger than it was.
        self.phases = phases as u16;
        Ok(())
    }

    /// Names of maps and their entries (of ring buffers: bytes).
    pub(super) fn maps(&self) -> [(&'static str, u32); 20] {
        // What belongs to sockets has as many places, even where few of those can be had.
        let of_sockets = self.sockets.next_power_of_two().max(SLOTS);
        [
            (tables::WAITS::NAME, of_sockets),
            (tables::DONE::NAME, of_sockets),
            (tables::SOCKETS::NAME, self.sockets),
            (tables::PACKETS::NAME, self.packets),
            (tables::CONNECTIONS::NAME, self.connections),
            (tables::THREADS::NAME, self.threads),
            (tables::DEVICE_TABLE::NAME, self.devices),
            (tables::STAGE_KEYS::NAME, self.stages),
            (tables::STAGE_TOTALS::NAME, self.stages.max(STAGES)),
            (tables::FURTHER_STAGES::NAME, self.stages.max(STAGES) / STAGES * (STAGES - DIRECT_STAGES)),
            (tables::COUNTS::NAME, self.configurations),
            (tables::STATE_TOTALS::NAME, self.configurations),
            (tables::HELD::NAME, self.configurations),
            (tables::QEMU::NAME, self.configurations),
            (tables::ROLES::NAME, self.tasks),
            (tables::BIOS::NAME, self.bios),
            (tables::RECORDS::NAME, self.records),
            (tables::CROSSINGS::NAME, self.crossings),
            (tables::RECORD_RING, self.record_ring),
            (tables::EVENT_RING, self.event_ring),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_the_plan() {
        let alive = |configurations, tokens, threads| Limits::for_plan(Alive { configurations, tokens, threads });
        assert_eq!(alive(1, 1, 2), Limits::default());
        // None is larger than what finds its places, whatever is asked for.
        let most = alive(u32::MAX, u32::MAX, u32::MAX);
        assert_eq!((most.configurations, most.sockets, most.records), (256, 1 << 16, 1 << 12));
        let many = alive(20, 500, 2);
        assert_eq!((many.sockets, many.packets, many.connections, many.threads), (1 << 16, 1 << 15, 1 << 15, 1 << 14));
        assert_eq!((many.bios, many.records, many.crossings, many.tasks), (1 << 16, 1 << 12, 1 << 15, 1 << 12));
        for table in ["COUNTS", "STATE_TOTALS", "HELD", "QEMU"] {
            assert!(many.maps().contains(&(table, 20)), "{table}");
        }
        assert_eq!(
            (many.stages, many.masks()[7..].to_vec()),
            (32 * STAGES, vec![("STAGES_SHIFT", 50), ("STAGES_MASK", (1 << 14) - 1), ("STAGES_MOST", 32 * STAGES)])
        );
        let mut starved = Limits::default();
        starved.set("packets=7").unwrap();
        let both = many.starved_by(&starved);
        assert_eq!((both.sockets, both.packets), (1 << 16, 7));
        assert_eq!(both.masks()[2], ("PACKETS_MASK", 4095));
    }

    #[test]
    fn limits_only_lower() {
        let mut limits = Limits::default();
        for pair in ["packets=7", "record-ring=4096", "reader=0", "stages=768"] {
            limits.set(pair).unwrap();
        }
        assert_eq!((limits.packets, limits.record_ring, limits.reader), (7, 4096, 0));
        let refused =
            ["packets=8", "sockets=0", "record-ring=5000", "event-ring=2048", "stags=1", "reader=2", "x", "stages="];
        insta::assert_snapshot!(refused.map(|pair| format!("{pair:<18} {}", limits.set(pair).unwrap_err())).join("\n"));
    }
}
