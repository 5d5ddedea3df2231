//! Sizes of the probes' tables. Smaller ones are for tests: each loss must be counted at its cause, and causes are rare unless
//! they are made.

use profiler_common::{CONNECTION_SLOTS, PACKET_SLOTS, RECORD_POINTS, SLOTS, STAGES, point::DEVICES};

use crate::error::{Error, Result, did_you_mean};

/// Bytes of the ring buffer of records.
const RECORD_RING: u32 = 4 << 20;
/// Bytes of the ring buffer of stacks.
const EVENT_RING: u32 = 8 << 20;

/// Sizes that the probes are loaded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sockets that can be followed, at most `SLOTS`: of others, nothing is known.
    pub sockets: u32,
    /// skbs that can be followed, at most `PACKET_SLOTS`.
    pub packets: u32,
    /// Connections into a virtual machine that can be followed, at most `CONNECTION_SLOTS`.
    pub connections: u32,
    /// Threads that can be followed, at most `SLOTS`.
    pub threads: u32,
    /// Devices, at most `DEVICES`.
    pub devices: u32,
    /// Stages and system calls, at most `STAGES`.
    pub stages: u32,
    /// Points of a record, at most `RECORD_POINTS`.
    pub record_points: u32,
    /// Bytes of the ring buffer of records: a power of two times the page's size.
    pub record_ring: u32,
    /// Bytes of the ring buffer of stacks.
    pub event_ring: u32,
    /// 0: nobody reads the ring buffers before a phase is over.
    pub reader: u32,
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
            record_points: RECORD_POINTS as u32,
            record_ring: RECORD_RING,
            event_ring: EVENT_RING,
            reader: 1,
        }
    }
}

impl Limits {
    /// Sets one by `name=value`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown name, or a value above the default or 0 (but for `reader`).
    pub fn set(&mut self, pair: &str) -> Result<()> {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::Usage(format!("`--starve {pair}` is not `name=value`")));
        };
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
        Ok(())
    }

    /// Names of maps and their entries (of ring buffers: bytes).
    pub(super) fn maps(&self) -> [(&'static str, u32); 8] {
        [
            ("SOCKETS", self.sockets),
            ("PACKETS", self.packets),
            ("CONNECTIONS", self.connections),
            ("THREADS", self.threads),
            ("DEVICE_TABLE", self.devices),
            ("STAGE_KEYS", self.stages),
            ("RECORD_RING", self.record_ring),
            ("EVENT_RING", self.event_ring),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
