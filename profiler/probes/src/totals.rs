//! Reading the probes' tables at the end of a phase.

use std::collections::BTreeMap;

use aya::maps::PerCpuValues;
use profiler_common::{
    CALL_KEYS, CLIENT, COUNTED, COUNTERS, Connection, Counter, Crossing, Device, Disk, EMPTY, EXIT_KEYS, RECORD_SLOTS,
    ROLES, Socket, Stage, StageId, Thread, call_of_key,
    state::{self, STATES},
};

use super::{
    followed::ConfigurationId,
    labels::{Labels, Names, role, unknown},
    object::Loaded,
    table::{per_cpu, per_cpu_mut, remove_all, unusable},
    tables::{COUNTS, FURTHER_STAGES, RecordHead, STAGE_TOTALS, STATE_TOTALS, empty_tables},
    vcpus,
};
use virtax_model::{
    counts::{CallTotal, DeviceInfo, ProbeCounts, Role, StageTotal, StateTotal, ThreadState},
    error::{Error, Result},
    input::LARGEST_NUMBER,
};

/// Totals as they stand in the kernel: a phase is the difference of two.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    stages: BTreeMap<u64, (u64, u64, Vec<u32>)>,
    counters: Vec<u64>,
    /// By role and state: occurrences, ns.
    states: [[[u64; 2]; STATES]; ROLES],
}

fn text(name: [u8; 16]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

fn info_of_device(device: &Device, names: &Names) -> DeviceInfo {
    let name = text(device.name);
    DeviceInfo {
        label: names.label(device.namespace, &name),
        name,
        ifindex: device.ifindex,
        namespace: device.namespace,
    }
}

/// A disk is in no network namespace; a guest's is the guest's.
fn info_of_disk(disk: &Disk, names: &Names) -> DeviceInfo {
    let name = text(disk.name);
    let label = if names.namespaces.contains_key(&0) { names.label(0, &name) } else { name.clone() };
    DeviceInfo { label, name, ifindex: disk.number, namespace: 0 }
}

impl Loaded {
    /// Devices that the probes have met.
    #[must_use]
    pub fn labels(&self, names: &Names) -> Labels {
        let devices = (0u8..=u8::MAX).zip(self.tables.devices.iter()).filter(|(_, device)| device.key != 0);
        let disks = (0u8..=u8::MAX).zip(self.tables.disks.iter()).filter(|(_, disk)| disk.key != 0);
        Labels {
            devices: devices.map(|(index, device)| (index, info_of_device(&device, names))).collect(),
            disks: disks.map(|(index, disk)| (index, info_of_disk(&disk, names))).collect(),
        }
    }

    /// The totals now.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        let values = per_cpu::<STAGE_TOTALS>(&self.bpf)?;
        let mut stages: BTreeMap<u64, (u64, u64, Vec<u32>)> = BTreeMap::new();
        for (index, key) in (0u32..).zip(self.tables.stage_keys.iter()).filter(|(_, key)| *key != 0) {
            let total = stages.entry(key).or_insert_with(|| (0, 0, vec![0; profiler_common::BUCKETS]));
            for stage in values.get(&index, 0).map_err(unusable)?.iter() {
                total.0 += stage.count;
                total.1 += stage.total_ns;
                for (sum, bucket) in total.2.iter_mut().zip(stage.buckets) {
                    *sum = sum.wrapping_add(bucket);
                }
            }
        }
        let counters = self.counters()?;
        let per_cpu = per_cpu::<STATE_TOTALS>(&self.bpf)?;
        let mut states = [[[0; 2]; STATES]; ROLES];
        for cpu in per_cpu.get(&0, 0).map_err(unusable)?.iter() {
            for (sum, value) in
                states.as_flattened_mut().as_flattened_mut().iter_mut().zip(cpu.as_flattened().as_flattened())
            {
                *sum += value;
            }
        }
        Ok(Totals { stages, counters, states })
    }

    /// What happened since `before`, and what the holders still hold of the phase, which was followed until `until_ns`.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn counts_since(
        &self,
        before: &Totals,
        labels: &Labels,
        phase: &profiler_common::Control,
        until_ns: u64,
    ) -> Result<ProbeCounts> {
        let after = self.totals()?;
        let mut counts = ProbeCounts {
            stages: after.stages_since(before, labels, ConfigurationId::FIRST)?,
            calls: after.calls_since(before)?,
            states: after.states_since(before, &self.states_unfinished(phase)),
            vcpus: vcpus::totals(
                after.vcpus_since(before),
                vcpus::unfinished(self.threads(), phase),
                &self.reasons,
                &self.tables.places.iter().collect::<Vec<_>>(),
            ),
            counters: after.counters_since(before),
            ..ProbeCounts::default()
        };
        self.scan_holders(phase, until_ns, &mut counts);
        Ok(counts)
    }

    /// Requests of the phase that came into the virtual machine and left it: number, and how long they stayed, ns.
    #[must_use]
    pub fn crossings(&self, phase: &profiler_common::Control) -> Vec<(u32, u64)> {
        let within = |crossing: &Crossing| crossing.epoch == phase.epoch() && crossing.until_ns >= crossing.since_ns;
        let found = self.tables.crossings.iter().filter(within);
        found.map(|crossing| (crossing.number, crossing.until_ns - crossing.since_ns)).collect()
    }

    /// All sockets count as never seen.
    pub fn forget_sockets(&self) {
        self.tables.sockets.clear();
    }

    /// Makes everything as it was when they were loaded, but for counters, of which only differences are used: for
    /// another client and server, whose sockets, threads and devices may lie at old ones' addresses. Only while
    /// nothing is attached.
    ///
    /// # Errors
    /// If a table cannot be written.
    pub fn forget_all(&mut self) -> Result<()> {
        empty_tables(&mut self.bpf)?;
        self.forget_stages()?;
        while self.ring.next().is_some() {}
        while self.events.next().is_some() {}
        Ok(())
    }

    /// A place that another stage takes later must not hold what this one left: a stage that is first seen within a
    /// phase counts from 0.
    fn forget_stages(&mut self) -> Result<()> {
        let refuse =
            |why: &dyn std::fmt::Display| Error::unsupported("cannot empty the probes' tables", why, "report this");
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| refuse(&format!("{what}: {error}")))?;
        // SAFETY: all zeroes are a value of it.
        let nothing: Stage = unsafe { std::mem::zeroed() };
        let taken: Vec<u32> =
            (0u32..).zip(self.tables.stage_keys.iter()).filter(|(_, key)| *key != 0).map(|(index, _)| index).collect();
        let mut totals = per_cpu_mut::<STAGE_TOTALS>(&mut self.bpf)?;
        for index in taken {
            let zeroes = PerCpuValues::try_from(vec![nothing; cpus]).map_err(|error| refuse(&error))?;
            totals.set(index, zeroes, 0).map_err(unusable)?;
        }
        self.tables.stage_keys.clear();
        self.tables.further_stages.clear();
        remove_all::<FURTHER_STAGES>(&mut self.bpf)
    }

    /// Tokens of this phase that have been seen.
    #[must_use]
    pub fn tokens_seen(&self, epoch: u32) -> usize {
        let in_sockets = self
            .tables
            .sockets
            .iter()
            .filter(|socket| socket.key != 0 && socket.state != EMPTY && socket.token.epoch() == epoch);
        let in_packets = self.tables.packets.iter().filter(|packet| packet.live != 0 && packet.token.epoch() == epoch);
        let in_vms = self.connections_of(epoch).filter(|connection| connection.state != EMPTY);
        in_sockets.count() + in_packets.count() + in_vms.count()
    }

    /// Connections into a virtual machine that have been seen in this phase.
    fn connections_of(&self, epoch: u32) -> impl Iterator<Item = Connection> {
        let connections = self.tables.connections.iter();
        connections.filter(move |connection| connection.key != 0 && connection.token.epoch() == epoch)
    }

    /// Sockets of clients and of servers that have been seen in this phase: the fewer of the two. For sockets in a
    /// virtual machine stand the connections to them.
    #[must_use]
    pub fn sockets_seen(&self, epoch: u32) -> usize {
        if self.of_files {
            // Threads hold their operations from end to end.
            return self.tokens_seen(epoch);
        }
        let of_role = |role: u8| {
            let sockets = self.tables.sockets.iter();
            sockets.filter(|socket| socket.key != 0 && socket.token.epoch() == epoch && socket.role == role).count()
        };
        of_role(CLIENT).min(of_role(profiler_common::SERVER) + self.connections_of(epoch).count())
    }

    /// Threads that have been seen.
    fn threads(&self) -> impl Iterator<Item = Thread> {
        // Nearly all slots are free: their first word says so.
        let taken = |slot: &usize| self.tables.threads.head::<u32>(*slot).is_some_and(|tid| tid != 0);
        (0..self.tables.threads.len()).filter(taken).filter_map(|slot| self.tables.threads.get(slot))
    }

    /// Sockets of servers that have been seen in this phase.
    #[must_use]
    pub fn server_sockets_seen(&self, epoch: u32) -> usize {
        let sockets = self.tables.sockets.iter();
        let of_server = |socket: &Socket| socket.role == profiler_common::SERVER && socket.token.epoch() == epoch;
        sockets.filter(|socket| socket.key != 0 && of_server(socket)).count()
    }

    /// Times of the states in which threads are at the end of a phase, by role and state.
    fn states_unfinished(&self, phase: &profiler_common::Control) -> [[u64; STATES]; ROLES] {
        let mut times = [[0; STATES]; ROLES];
        for thread in self.threads().filter(|thread| thread.epoch == phase.epoch()) {
            // A thread that sleeps from end to end has no part in the operations.
            if thread.state == state::BLOCKED && thread.since_ns <= phase.open_ns {
                continue;
            }
            let since_ns = phase.close_ns.saturating_sub(thread.since_ns.max(phase.open_ns));
            times[thread.role as usize % ROLES][thread.state as usize % STATES] += since_ns;
        }
        times
    }

    /// All tokens that anything holds, and whether their requests count.
    fn holders(&self) -> impl Iterator<Item = (profiler_common::Token, u8)> {
        let sockets = self.tables.sockets.iter().filter(|socket| socket.key != 0 && socket.state != EMPTY);
        let packets = self.tables.packets.iter().filter(|packet| packet.live != 0);
        let connections = self.tables.connections.iter().filter(|connection| connection.state != EMPTY);
        sockets
            .map(|socket| (socket.token, socket.counted))
            .chain(packets.map(|packet| (packet.token, packet.counted)))
            .chain(connections.map(|connection| (connection.token, connection.counted)))
    }

    fn counters(&self) -> Result<Vec<u64>> {
        let counts = per_cpu::<COUNTS>(&self.bpf)?;
        let mut counters: Vec<u64> = vec![0; COUNTERS];
        for cpu in counts.get(&0, 0).map_err(unusable)?.iter() {
            for (sum, count) in counters.iter_mut().zip(cpu) {
                *sum = sum.wrapping_add(*count);
            }
        }
        Ok(counters)
    }

    /// Requests that count, of the phase that began after `before`, and have neither ended nor been lost. Once the
    /// phase is over, never too few: none begins any more, and counts of ends only grow.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn open_since(&self, before: &Totals) -> Result<u64> {
        let now = self.counters()?;
        let since = |counter: Counter| {
            let index = counter as usize;
            now[index].wrapping_sub(before.counters.get(index).copied().unwrap_or(0))
        };
        let ended = since(Counter::Completed) + Counter::losses().map(since).sum::<u64>();
        Ok(since(Counter::Followed).saturating_sub(ended))
    }

    /// Requests of a phase that began inside it and are found in the holders. One that goes from one holder to another
    /// meanwhile may be missed.
    #[must_use]
    pub fn under_way(&self, epoch: u32) -> usize {
        self.holders().filter(|(token, counted)| token.epoch() == epoch && *counted == COUNTED).count()
    }

    /// What the holders still hold of a phase that was followed until `until_ns`.
    fn scan_holders(&self, phase: &profiler_common::Control, until_ns: u64, counts: &mut ProbeCounts) {
        // Ends less beginnings: the sum of all of them is a number, whatever its terms are.
        let mut lives_ns = counts.counters.remove(Counter::LifeNs.name()).unwrap_or(0);
        for (token, counted) in self.holders().filter(|(token, _)| token.epoch() == phase.epoch()) {
            counts.tokens += 1;
            if counted == COUNTED {
                counts.unfinished += 1;
                counts.unfinished_ns += until_ns.saturating_sub(token.at_ns);
                lives_ns = lives_ns.wrapping_add(token.at_ns);
            }
        }
        // Below 0 it can only be by a fault of the probes: the sum is then off by far, and says so.
        counts.lives_ns = Some(lives_ns.min(LARGEST_NUMBER as u64));
        counts.records_unfinished = (0..RECORD_SLOTS as usize)
            .filter_map(|slot| self.tables.records.head::<RecordHead>(slot))
            .filter(|record| record.taken != 0 && record.epoch == phase.epoch())
            .count() as u64;
    }
}

impl Totals {
    /// Stages of the configuration that was followed: another one's would be somebody else's result.
    fn stages_since(&self, before: &Self, labels: &Labels, followed: ConfigurationId) -> Result<Vec<StageTotal>> {
        let none = (0, 0, vec![0; profiler_common::BUCKETS]);
        self.stages
            .iter()
            .filter(|(key, _)| **key < CALL_KEYS)
            .filter_map(|(key, after)| {
                let (count, total_ns, buckets) = difference(after, before.stages.get(key).unwrap_or(&none))?;
                Some((key, count, total_ns, buckets))
            })
            .map(|(key, count, total_ns, buckets)| {
                let stage = StageId::of_key(*key);
                if stage.configuration != followed.number() {
                    return Err(unknown("configuration", stage.configuration));
                }
                Ok(StageTotal {
                    part: stage.part,
                    role: role(stage.role)?,
                    from: labels.place(stage.from)?,
                    to: labels.place(stage.to)?,
                    count,
                    total_ns,
                    buckets,
                })
            })
            .collect()
    }

    fn calls_since(&self, before: &Self) -> Result<Vec<CallTotal>> {
        let none = (0, 0, vec![0; profiler_common::BUCKETS]);
        self.stages
            .range(CALL_KEYS..EXIT_KEYS)
            .filter_map(|(key, after)| {
                let (count, total_ns, buckets) = difference(after, before.stages.get(key).unwrap_or(&none))?;
                Some((key, count, total_ns, buckets))
            })
            .map(|(key, count, total_ns, buckets)| {
                let (caller, number) = call_of_key(*key);
                Ok(CallTotal {
                    role: role(caller)?,
                    name: syscalls::Sysno::new(number as usize)
                        .map_or_else(|| format!("call {number}"), |call| call.name().to_owned()),
                    count,
                    total_ns,
                    buckets,
                })
            })
            .collect()
    }

    /// Keys of virtual processors, with counts, times and durations.
    fn vcpus_since(&self, before: &Self) -> impl Iterator<Item = (u64, Difference)> {
        let none = (0, 0, vec![0; profiler_common::BUCKETS]);
        let found = self.stages.range(EXIT_KEYS..);
        found.filter_map(move |(key, after)| Some((*key, difference(after, before.stages.get(key).unwrap_or(&none))?)))
    }

    /// Times of threads in each state, those included in which they still are.
    fn states_since(&self, before: &Self, unfinished: &[[u64; STATES]; ROLES]) -> Vec<StateTotal> {
        let mut found = Vec::new();
        for role in Role::OF_THREADS {
            for state in ThreadState::ALL {
                let (role_index, index) = (usize::from(role.number()), state.number() as usize);
                let [count, ns] = self.states[role_index][index];
                let [count_before, ns_before] = before.states[role_index][index];
                let total_ns = ns - ns_before + unfinished[role_index][index];
                if total_ns > 0 {
                    found.push(StateTotal { role, state, count: count - count_before, total_ns });
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
                (counter.name().to_owned(), self.counters[index].wrapping_sub(before))
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
