//! Reading the probes' tables at the end of a phase.

use std::{collections::BTreeMap, ops::RangeBounds};

use aya::maps::PerCpuValues;
use profiler_common::{
    CALL_KEYS, CLIENT, COUNTED, COUNTERS, CallId, Connection, Counter, Crossing, Device, Disk, EMPTY, EXIT_KEYS, ROLES,
    Socket, Stage, StageId, Thread, Turn,
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
    counts::{CallTotal, Counters, DeviceInfo, ProbeCounts, Role, StageTotal, StateTotal, ThreadState},
    error::{Error, Result},
    input::LARGEST_NUMBER,
};

/// Totals as they stand in the kernel: a block of windows is the difference of two.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Counts, times and durations by key, which has the configuration.
    stages: BTreeMap<u64, (u64, u64, Vec<u32>)>,
    /// Counters by configuration.
    counters: Vec<Vec<u64>>,
    states: Vec<Times>,
}

/// Occurrences and ns of a configuration's threads, by role and state.
type Times = [[[u64; 2]; STATES]; ROLES];

/// What threads and virtual processors are in the midst of at the end of a window, which no program has counted: time
/// by configuration, role and state, and by key, ns.
#[derive(Debug, Clone, Default)]
pub(super) struct Midst {
    states: BTreeMap<(u8, u32, u32), u64>,
    vcpus: BTreeMap<u64, u64>,
}

impl Midst {
    /// Adds another window's.
    pub(super) fn add(&mut self, window: Self) {
        window.states.into_iter().for_each(|(key, ns)| *self.states.entry(key).or_default() += ns);
        window.vcpus.into_iter().for_each(|(key, ns)| *self.vcpus.entry(key).or_default() += ns);
    }
}

/// A block that is over: what stood in the kernel's tables before it, what its windows' ends cut off, and how long it
/// was followed.
pub(super) struct Over<'a> {
    pub(super) before: &'a Totals,
    pub(super) midst: &'a Midst,
    pub(super) epoch: u32,
    /// `CLOCK_MONOTONIC` ns.
    pub(super) until_ns: u64,
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
        Ok(Totals { stages, counters: self.counters()?, states: self.states()? })
    }

    /// Times of threads, by configuration.
    fn states(&self) -> Result<Vec<Times>> {
        let per_cpu = per_cpu::<STATE_TOTALS>(&self.bpf)?;
        let of = |configuration: u32| -> Result<Times> {
            let mut times = [[[0; 2]; STATES]; ROLES];
            for cpu in per_cpu.get(&configuration, 0).map_err(unusable)?.iter() {
                let sums = times.as_flattened_mut().as_flattened_mut();
                sums.iter_mut().zip(cpu.as_flattened().as_flattened()).for_each(|(sum, value)| *sum += value);
            }
            Ok(times)
        };
        (0..self.limits.configurations).map(of).collect()
    }

    /// What a block counted, of each of its configurations, in order; and what the holders still hold of it.
    ///
    /// # Errors
    /// If a table cannot be read, or names what does not exist, a configuration that was not followed included.
    pub(super) fn counts_of(
        &self,
        over: &Over<'_>,
        configurations: impl Iterator<Item = ConfigurationId>,
        labels: &Labels,
    ) -> Result<Vec<ProbeCounts>> {
        let after = self.totals()?;
        let configurations: Vec<ConfigurationId> = configurations.collect();
        let found = after.stages.keys().map(|key| StageId::of_key(*key).configuration).max();
        if let Some(stranger) = found.filter(|found| usize::from(*found) >= configurations.len()) {
            return Err(unknown("configuration", stranger));
        }
        let places: Vec<u64> = self.tables.places.iter().collect();
        let counts = |of: ConfigurationId| -> Result<ProbeCounts> {
            let unfinished = over.midst.vcpus.iter().filter(|(key, _)| is_of(**key, of));
            let mut counts = ProbeCounts {
                stages: after.stages_since(over.before, labels, of)?,
                calls: after.calls_since(over.before, of)?,
                states: after.states_since(over.before, over.midst, of),
                vcpus: vcpus::totals(
                    after.vcpus_since(over.before, of),
                    unfinished.map(|(key, ns)| (*key, *ns)),
                    &self.reasons,
                    &places,
                ),
                counters: after.counters_since(over.before, of),
                ..ProbeCounts::default()
            };
            self.scan_holders(over, of, &mut counts);
            Ok(counts)
        };
        configurations.into_iter().map(counts).collect()
    }

    /// Requests of the phase that came into the VM and left it: number, and how long they stayed, ns.
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

    /// Connections into a VM that have been seen in this phase.
    fn connections_of(&self, epoch: u32) -> impl Iterator<Item = Connection> {
        let connections = self.tables.connections.iter();
        connections.filter(move |connection| connection.key != 0 && connection.token.epoch() == epoch)
    }

    /// Sockets of clients and of servers that have been seen in this phase: the fewer of the two. For sockets in a
    /// VM stand the connections to them.
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

    /// What threads and virtual processors are in the midst of at the end of a window.
    pub(super) fn midst_of(&self, window: &profiler_common::Control) -> Midst {
        // Threads of other configurations rest.
        let asked = || self.threads().filter(|thread| thread.configuration == window.turn.configuration());
        let mut midst = Midst { vcpus: vcpus::unfinished(asked(), window), ..Midst::default() };
        for thread in asked().filter(|thread| thread.epoch == window.epoch()) {
            // A thread that sleeps from end to end has no part in the operations.
            if thread.state == state::BLOCKED && thread.since_ns <= window.open_ns {
                continue;
            }
            let since_ns = window.close_ns.saturating_sub(thread.since_ns.max(window.open_ns));
            *midst.states.entry((thread.configuration, thread.role, thread.state)).or_default() += since_ns;
        }
        midst
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

    /// Counters, by configuration.
    fn counters(&self) -> Result<Vec<Vec<u64>>> {
        let counts = per_cpu::<COUNTS>(&self.bpf)?;
        let of = |configuration: u32| -> Result<Vec<u64>> {
            let mut counters: Vec<u64> = vec![0; COUNTERS];
            for cpu in counts.get(&configuration, 0).map_err(unusable)?.iter() {
                counters.iter_mut().zip(cpu).for_each(|(sum, count)| *sum = sum.wrapping_add(*count));
            }
            Ok(counters)
        };
        (0..self.limits.configurations).map(of).collect()
    }

    /// Requests that count, of the phase that began after `before`, and have neither ended nor been lost. Once the
    /// phase is over, never too few: none begins any more, and counts of ends only grow.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn open_since(&self, before: &Totals) -> Result<u64> {
        let now = self.counters()?;
        let since = |counter: Counter| {
            let sum =
                |counters: &[Vec<u64>]| counters.iter().fold(0, |sum: u64, of| sum.wrapping_add(of[counter as usize]));
            sum(&now).wrapping_sub(sum(&before.counters))
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

    /// What the holders still hold of a block.
    fn scan_holders(&self, over: &Over<'_>, of: ConfigurationId, counts: &mut ProbeCounts) {
        // Ends less beginnings: the sum of all of them is a number, whatever its terms are.
        let mut lives_ns = counts.counters.take(Counter::LifeNs);
        let is_own = |turn: Turn| turn == Turn::new(over.epoch as u16, of.number());
        for (token, counted) in self.holders().filter(|(token, _)| is_own(token.turn)) {
            counts.tokens += 1;
            if counted == COUNTED {
                counts.unfinished += 1;
                counts.unfinished_ns += over.until_ns.saturating_sub(token.at_ns);
                lives_ns = lives_ns.wrapping_add(token.at_ns);
            }
        }
        // Below 0 it can only be by a fault of the probes: the sum is then off by far, and says so.
        counts.lives_ns = Some(lives_ns.min(LARGEST_NUMBER as u64));
        counts.records_unfinished = (0..self.tables.records.len())
            .filter_map(|slot| self.tables.records.head::<RecordHead>(slot))
            .filter(|record| record.taken != 0 && is_own(record.turn))
            .count() as u64;
    }
}

/// Whether a key is a configuration's: all kinds of keys have it in one place.
fn is_of(key: u64, configuration: ConfigurationId) -> bool {
    StageId::of_key(key).configuration == configuration.number()
}

impl Totals {
    /// Keys of a configuration's within a range, with what happened since.
    fn since(
        &self,
        before: &Self,
        range: impl RangeBounds<u64>,
        of: ConfigurationId,
    ) -> impl Iterator<Item = (u64, Difference)> {
        let none = (0, 0, vec![0; profiler_common::BUCKETS]);
        let found = self.stages.range(range).filter(move |(key, _)| is_of(**key, of));
        found.filter_map(move |(key, after)| Some((*key, difference(after, before.stages.get(key).unwrap_or(&none))?)))
    }

    fn stages_since(&self, before: &Self, labels: &Labels, of: ConfigurationId) -> Result<Vec<StageTotal>> {
        let total = |(key, (count, total_ns, buckets)): (u64, Difference)| -> Result<StageTotal> {
            let StageId { part, role: number, from, to, .. } = StageId::of_key(key);
            let (from, to) = (labels.place(from)?, labels.place(to)?);
            Ok(StageTotal { part, role: role(number)?, from, to, count, total_ns, buckets })
        };
        self.since(before, ..CALL_KEYS, of).map(total).collect()
    }

    fn calls_since(&self, before: &Self, of: ConfigurationId) -> Result<Vec<CallTotal>> {
        let total = |(key, (count, total_ns, buckets)): (u64, Difference)| -> Result<CallTotal> {
            let CallId { role: caller, number, .. } = CallId::of_key(key);
            let name = syscalls::Sysno::new(number as usize)
                .map_or_else(|| format!("call {number}"), |call| call.name().to_owned());
            Ok(CallTotal { role: role(caller)?, name, count, total_ns, buckets })
        };
        self.since(before, CALL_KEYS..EXIT_KEYS, of).map(total).collect()
    }

    /// Keys of virtual processors, with counts, times and durations.
    fn vcpus_since(&self, before: &Self, of: ConfigurationId) -> impl Iterator<Item = (u64, Difference)> {
        self.since(before, EXIT_KEYS.., of)
    }

    /// Times of threads in each state, those included in which they were when a window ended.
    fn states_since(&self, before: &Self, midst: &Midst, of: ConfigurationId) -> Vec<StateTotal> {
        let mut found = Vec::new();
        let place = usize::from(of.number());
        for role in Role::OF_THREADS {
            for state in ThreadState::ALL {
                let (role_index, index) = (usize::from(role.number()), state.number() as usize);
                let [count, ns] = self.states[place][role_index][index];
                let [count_before, ns_before] = before.states[place][role_index][index];
                let key = (of.number(), u32::from(role.number()), state.number());
                let total_ns = ns - ns_before + midst.states.get(&key).copied().unwrap_or(0);
                if total_ns > 0 {
                    found.push(StateTotal { role, state, count: count - count_before, total_ns });
                }
            }
        }
        found
    }

    fn counters_since(&self, before: &Self, of: ConfigurationId) -> Counters {
        let (now, before) = (&self.counters[usize::from(of.number())], &before.counters[usize::from(of.number())]);
        let since = |counter: &Counter| now[*counter as usize].wrapping_sub(before[*counter as usize]);
        Counter::ALL.iter().map(|counter| (*counter, since(counter))).collect()
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
