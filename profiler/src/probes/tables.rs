//! Reading the probes' tables at the end of a phase.

use std::collections::{BTreeMap, HashMap};

use aya::maps::{MapData, PerCpuArray};
use profiler_common::{
    CALL_KEYS, CLIENT, COUNTERS, Counter, Device, EMPTY, PACKET_SLOTS, Packet, RECORD_SLOTS, Record, SLOTS, STAGES,
    SYSTEM_CALLS, Socket, Stage, Thread,
    point::{DEVICES, RECEIVED},
    state::{self, STATES},
};

use super::{
    mapped::MappedArray,
    object::{Loaded, map, table},
};
use crate::{
    counts::{CallTotal, DeviceInfo, Place, ProbeCounts, Role, StageTotal, StateTotal},
    error::Result,
    points,
};

/// Labels of network namespaces and, in them, of devices with a meaning of their own.
#[derive(Debug, Clone, Default)]
pub struct Names {
    namespaces: BTreeMap<u32, String>,
    devices: BTreeMap<(u32, String), String>,
}

impl Names {
    /// Calls a namespace, by its inode number, by this name.
    pub fn namespace(&mut self, inode: u32, name: &str) {
        self.namespaces.entry(inode).or_insert_with(|| name.to_owned());
    }
    /// Calls a device of a namespace by an alias that is the same in every run.
    pub fn device(&mut self, namespace: u32, device: &str, alias: &str) {
        self.devices.insert((namespace, device.to_owned()), alias.to_owned());
    }
    /// `name@namespace`.
    #[must_use]
    pub fn label(&self, namespace: u32, device: &str) -> String {
        let alias = self.devices.get(&(namespace, device.to_owned())).map_or(device, String::as_str);
        match self.namespaces.get(&namespace) {
            Some(name) => format!("{alias}@{name}"),
            None => format!("{alias}@net:{namespace}"),
        }
    }
}

/// Labels of one repetition's devices, by the index that the probes gave them.
#[derive(Debug, Clone, Default)]
pub struct Labels(HashMap<u8, DeviceInfo>);

impl Labels {
    /// The place with this number in the kernel.
    #[must_use]
    pub fn place(&self, number: u8) -> Place {
        match points::by_number(number) {
            Some((point, None)) => Place::fixed(point.name),
            Some((point, Some(index))) => {
                let label = self.0.get(&index).map_or("?", |device| device.label.as_str());
                Place::at(point.name, label)
            }
            None => match points::READER.iter().find(|(reader, ..)| *reader == number) {
                Some((_, name, _)) => Place::fixed(name),
                None => Place::fixed(&format!("point {number}")),
            },
        }
    }
    /// All of them.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceInfo> {
        self.0.values()
    }
}

/// Totals as they stand in the kernel: a phase is the difference of two.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    stages: BTreeMap<u32, (u64, u64, Vec<u32>)>,
    counters: Vec<u64>,
    /// By role and state: occurrences, ns.
    states: [[[u64; 2]; STATES]; 2],
}

/// The beginning of a record: the rest need not be read to count it.
#[repr(C)]
#[derive(Clone, Copy)]
struct RecordHead {
    socket: u64,
    epoch: u32,
    len: u32,
}
const _: () = assert!(size_of::<RecordHead>() == profiler_common::RECORD_HEADER);

/// The tables that are read as memory, mapped once.
pub(super) struct Tables {
    sockets: MappedArray<Socket>,
    packets: MappedArray<Packet>,
    threads: MappedArray<Thread>,
    records: MappedArray<Record>,
    devices: MappedArray<Device>,
    stage_next: MappedArray<u32>,
    stage_keys: MappedArray<u32>,
}

impl Tables {
    pub fn new(bpf: &aya::Ebpf) -> Result<Self> {
        Ok(Self {
            sockets: MappedArray::new(map(bpf, "SOCKETS")?, SLOTS)?,
            packets: MappedArray::new(map(bpf, "PACKETS")?, PACKET_SLOTS)?,
            threads: MappedArray::new(map(bpf, "THREADS")?, SLOTS)?,
            records: MappedArray::new(map(bpf, "RECORDS")?, RECORD_SLOTS)?,
            devices: MappedArray::new(map(bpf, "DEVICE_TABLE")?, DEVICES)?,
            stage_next: MappedArray::new(map(bpf, "STAGE_NEXT")?, 1)?,
            stage_keys: MappedArray::new(map(bpf, "STAGE_OF_NUMBER")?, STAGES)?,
        })
    }
}

impl Loaded {
    /// Devices that the probes have met.
    #[must_use]
    pub fn labels(&self, names: &Names) -> Labels {
        Labels(
            self.tables
                .devices
                .iter()
                .enumerate()
                .filter(|(_, device)| device.key != 0)
                .map(|(index, device)| {
                    let end = device.name.iter().position(|byte| *byte == 0).unwrap_or(device.name.len());
                    let name = String::from_utf8_lossy(&device.name[..end]).into_owned();
                    let label = names.label(device.namespace, &name);
                    let info = DeviceInfo { label, name, ifindex: device.ifindex, namespace: device.namespace };
                    (index as u8, info)
                })
                .collect(),
        )
    }

    /// The totals now.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        let (next, keys) = (&self.tables.stage_next, &self.tables.stage_keys);
        let values: PerCpuArray<&MapData, Stage> =
            PerCpuArray::try_from(map(&self.bpf, "STAGE_TOTALS")?).map_err(table)?;
        let used = next.get(0).unwrap_or(0).min(STAGES - 1);
        let mut stages: BTreeMap<u32, (u64, u64, Vec<u32>)> = BTreeMap::new();
        for number in 1..=used {
            let key = keys.get(number as usize).unwrap_or(0);
            let total = stages.entry(key).or_insert_with(|| (0, 0, vec![0; profiler_common::BUCKETS]));
            for stage in values.get(&number, 0).map_err(table)?.iter() {
                total.0 += stage.count;
                total.1 += stage.total_ns;
                for (sum, bucket) in total.2.iter_mut().zip(stage.buckets) {
                    *sum = sum.wrapping_add(bucket);
                }
            }
        }
        let counts: PerCpuArray<&MapData, [u64; COUNTERS]> =
            PerCpuArray::try_from(map(&self.bpf, "COUNTS")?).map_err(table)?;
        let mut counters = vec![0; COUNTERS];
        for cpu in counts.get(&0, 0).map_err(table)?.iter() {
            for (sum, count) in counters.iter_mut().zip(cpu) {
                *sum += count;
            }
        }
        let per_cpu: PerCpuArray<&MapData, [u64; 4 * STATES]> =
            PerCpuArray::try_from(map(&self.bpf, "STATE_TOTALS")?).map_err(table)?;
        let mut states = [[[0; 2]; STATES]; 2];
        for cpu in per_cpu.get(&0, 0).map_err(table)?.iter() {
            for (sum, value) in states.as_flattened_mut().as_flattened_mut().iter_mut().zip(cpu) {
                *sum += value;
            }
        }
        Ok(Totals { stages, counters, states })
    }

    /// What happened since `before`, and what the holders still hold of the phase that ended at `close_ns`.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn counts_since(
        &self,
        before: &Totals,
        labels: &Labels,
        phase: &profiler_common::Control,
    ) -> Result<ProbeCounts> {
        let after = self.totals()?;
        let mut counts = ProbeCounts {
            stages: after.stages_since(before, labels),
            calls: after.calls_since(before),
            states: after.states_since(before, &self.states_unfinished(phase)),
            counters: after.counters_since(before),
            ..ProbeCounts::default()
        };
        self.scan_holders(phase, &mut counts);
        Ok(counts)
    }

    /// All sockets count as never seen.
    pub fn forget_sockets(&self) {
        for slot in 0..SLOTS as usize {
            self.tables.sockets.set(slot, Socket::default());
        }
    }

    /// Tokens of this phase that have been seen.
    #[must_use]
    pub fn tokens_seen(&self, epoch: u32) -> usize {
        let in_sockets = self
            .tables
            .sockets
            .iter()
            .filter(|socket| socket.key != 0 && socket.state != EMPTY && socket.token.epoch == epoch);
        let in_packets = self.tables.packets.iter().filter(|packet| packet.live != 0 && packet.token.epoch == epoch);
        in_sockets.count() + in_packets.count()
    }

    /// Times of the states in which threads are at the end of a phase, by role and state.
    fn states_unfinished(&self, phase: &profiler_common::Control) -> [[u64; STATES]; 2] {
        let mut times = [[0; STATES]; 2];
        // Nearly all slots are free: their first word says so.
        let taken = |slot: &usize| self.tables.threads.head::<u32>(*slot).is_some_and(|tid| tid != 0);
        let threads = (0..SLOTS as usize).filter(taken).filter_map(|slot| self.tables.threads.get(slot));
        for thread in threads.filter(|thread| thread.epoch == phase.epoch) {
            // A thread that sleeps from end to end has no part in the operations.
            if thread.state == state::BLOCKED && thread.since_ns <= phase.open_ns {
                continue;
            }
            let since_ns = phase.close_ns.saturating_sub(thread.since_ns.max(phase.open_ns));
            times[thread.role as usize & 1][thread.state as usize % STATES] += since_ns;
        }
        times
    }

    fn scan_holders(&self, phase: &profiler_common::Control, counts: &mut ProbeCounts) {
        let mut hold = |token: profiler_common::Token, counted: u8| {
            if token.epoch != phase.epoch {
                return;
            }
            let since_ns = phase.close_ns.saturating_sub(token.at_ns.max(phase.open_ns));
            counts.tokens += 1;
            counts.unfinished += u64::from(counted != 0);
            counts.unfinished_ns += since_ns;
            if token.role == CLIENT && token.point == RECEIVED {
                counts.idle_ns += since_ns;
            }
        };
        for socket in self.tables.sockets.iter().filter(|socket| socket.key != 0 && socket.state != EMPTY) {
            hold(socket.token, socket.counted);
        }
        for packet in self.tables.packets.iter().filter(|packet| packet.live != 0) {
            hold(packet.token, packet.counted);
        }
        counts.records_unfinished = (0..RECORD_SLOTS as usize)
            .filter_map(|slot| self.tables.records.head::<RecordHead>(slot))
            .filter(|record| record.socket != 0 && record.epoch == phase.epoch)
            .count() as u64;
    }
}

impl Totals {
    fn stages_since(&self, before: &Self, labels: &Labels) -> Vec<StageTotal> {
        let none = (0, 0, vec![0; profiler_common::BUCKETS]);
        self.stages
            .iter()
            .filter(|(key, _)| **key < CALL_KEYS)
            .filter_map(|(key, after)| {
                let (count, total_ns, buckets) = difference(after, before.stages.get(key).unwrap_or(&none))?;
                Some(StageTotal {
                    part: key >> 18 & 1 != 0,
                    role: Role::from_number((key >> 16 & 3) as u8),
                    from: labels.place((key >> 8) as u8),
                    to: labels.place(*key as u8),
                    count,
                    total_ns,
                    buckets,
                })
            })
            .collect()
    }

    fn calls_since(&self, before: &Self) -> Vec<CallTotal> {
        let none = (0, 0, vec![0; profiler_common::BUCKETS]);
        self.stages
            .range(CALL_KEYS..)
            .filter_map(|(key, after)| {
                let (count, total_ns, buckets) = difference(after, before.stages.get(key).unwrap_or(&none))?;
                let number = key & (SYSTEM_CALLS - 1);
                Some(CallTotal {
                    role: Role::from_number((key >> 9 & 1) as u8),
                    name: syscalls::Sysno::new(number as usize)
                        .map_or_else(|| format!("call {number}"), |call| call.name().to_owned()),
                    count,
                    total_ns,
                    buckets,
                })
            })
            .collect()
    }

    /// Times of threads in each state, those included in which they still are.
    fn states_since(&self, before: &Self, unfinished: &[[u64; STATES]; 2]) -> Vec<StateTotal> {
        const NAMES: &[(u32, &str)] = &[
            (state::RUNNING, "running"),
            (state::BLOCKED, "blocked"),
            (state::WAKING, "waking"),
            (state::RUNNABLE, "run-queue"),
            (state::THROTTLED, "throttled"),
            (state::SWITCHING, "switching"),
        ];
        let mut found = Vec::new();
        for role in [Role::Client, Role::Server] {
            for (number, name) in NAMES {
                let (role_index, index) = (usize::from(role.number()), *number as usize);
                let [count, ns] = self.states[role_index][index];
                let [count_before, ns_before] = before.states[role_index][index];
                let total_ns = ns - ns_before + unfinished[role_index][index];
                if total_ns > 0 {
                    found.push(StateTotal { role, state: (*name).to_owned(), count: count - count_before, total_ns });
                }
            }
        }
        found
    }

    fn counters_since(&self, before: &Self) -> BTreeMap<String, u64> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let index = *counter as usize;
                let before = before.counters.get(index).copied().unwrap_or(0);
                (counter.name().to_owned(), self.counters[index] - before)
            })
            .collect()
    }
}

/// Totals between two readings; `None`: nothing happened.
type Difference = (u64, u64, Vec<(u16, u32)>);

fn difference(after: &(u64, u64, Vec<u32>), before: &(u64, u64, Vec<u32>)) -> Option<Difference> {
    let (count, total_ns) = (after.0 - before.0, after.1 - before.1);
    let buckets = (0u16..)
        .zip(after.2.iter().zip(&before.2))
        .map(|(bucket, (after, before))| (bucket, after.wrapping_sub(*before)))
        .filter(|(_, count)| *count > 0)
        .collect();
    (count > 0 || total_ns > 0).then_some((count, total_ns, buckets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_alias_and_namespace() {
        let mut names = Names::default();
        names.namespace(1, "host");
        names.namespace(2, "client");
        names.device(1, "vx12345w0", "wire");
        assert_eq!(names.label(1, "vx12345w0"), "wire@host");
        assert_eq!(names.label(2, "lo"), "lo@client");
        assert_eq!(names.label(9, "eth0"), "eth0@net:9");
        // With host networking the server's namespace is the host's: the first name stays.
        names.namespace(1, "server");
        assert_eq!(names.label(1, "lo"), "lo@host");
    }
}
