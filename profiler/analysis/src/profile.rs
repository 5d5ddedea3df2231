//! What the sampled phases say: the layers of every stage, the CPU time of every role and layer, and what no rule
//! named.

use std::collections::BTreeMap;

use super::{
    layers::{self, Lookup, Rules, UNMATCHED, USER},
    path,
    statistics::{count_interval, mean, share_interval},
    waterfall::{Part, Row, Waterfall},
};
use virtax_model::{
    counts::{Place, Point, Role, Side, ThreadState},
    points::{self, Wait},
    profile::{Frame, Profile, Sample, Space},
};

/// A layer's share of a stage's time.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerShare {
    /// Name of the layer; for a wait, what was waited for.
    pub layer: String,
    /// 0–1; all of a stage's sum to 1.
    pub share: f64,
    /// 95 % interval.
    pub ci95: Option<[f64; 2]>,
    /// Samples; 0 for a wait, which is measured.
    pub samples: u64,
}

/// Whose CPU time something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CpuOwner {
    /// A role's threads, without softirqs on top of them.
    Threads(Role),
    /// Softirqs, whatever they interrupted.
    Softirqs,
    /// The guest, by its agent: part of the time of its virtual processors.
    Guest,
}

impl CpuOwner {
    /// The owner of a sample.
    #[must_use]
    pub const fn of(sample: &Sample) -> Self {
        match (sample.in_guest, sample.thread, &sample.softirq) {
            (true, _, _) => Self::Guest,
            (false, Some(role), None) => Self::Threads(role),
            (false, _, _) => Self::Softirqs,
        }
    }
    /// Name of the owner, as shown to a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Threads(role) => role.name(),
            Self::Softirqs => "softirq",
            Self::Guest => Side::GUEST,
        }
    }
}

/// CPU time of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuLayer {
    /// Whose it is.
    pub owner: CpuOwner,
    /// Name of the layer.
    pub layer: String,
    /// ns of CPU per operation.
    pub ns_per_op: f64,
    /// 95 % interval.
    pub ci95: Option<[f64; 2]>,
}

/// CPU time of a role's threads, ns per operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoleTime {
    /// Whose.
    pub role: Role,
    /// CPU time by the scheduler's points, softirqs on top of the threads included.
    pub running_ns: f64,
    /// CPU time by samples alone, each for its timer's period: less exact, and from another source.
    pub sampled_ns: f64,
    /// Part of it in softirqs, by samples.
    pub softirq_ns: f64,
    /// CPU time by the scheduler's account, which includes softirqs unless the kernel accounts for them apart.
    pub schedstat_ns: f64,
}

/// A function that no rule names.
#[derive(Debug, Clone, PartialEq)]
pub struct Unmatched {
    /// The innermost function of the stack.
    pub function: String,
    /// Share of all samples in the kernel.
    pub share: f64,
    /// CPU time, ns per operation.
    pub ns_per_op: f64,
}

/// What the sampled phases of a configuration say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profiled {
    /// For each row of the waterfall: its layers, largest first; empty without samples.
    pub stages: Vec<Vec<LayerShare>>,
    /// Largest first.
    pub cpu: Vec<CpuLayer>,
    /// CPU time by role.
    pub roles: Vec<RoleTime>,
    /// What is left of the CPUs with a timer, ns per operation.
    pub idle_ns: f64,
    /// Other work there.
    pub foreign_ns: f64,
    /// All samples, idle and foreign ones included.
    pub samples: u64,
    /// Those on the path of a request.
    pub on_path: u64,
    /// Events lost.
    pub lost: u64,
    /// Events noted.
    pub events: u64,
    /// Share of samples in the kernel that no rule matches.
    pub unmatched_share: f64,
    /// Where they are, largest first.
    pub unmatched: Vec<Unmatched>,
    /// ns per operation of every layer on the path, by round; waits by their own names.
    pub rounds: BTreeMap<u32, BTreeMap<String, f64>>,
    /// CPU time of each row's own work, by round, ns per operation.
    pub services: BTreeMap<u32, Vec<f64>>,
    /// CPU time of client and server beside the rows, by round, ns per operation.
    pub off_path: BTreeMap<u32, f64>,
    /// Largest share of their time in which the CPUs of client and server were busy, by CPU.
    pub busiest: f64,
}

/// Whose work a sample within a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Work for the request by whoever holds it.
    Own,
    /// The waker's work, while the reader has not begun.
    Waker,
}

/// System calls that send: their entry is the row `call → send`.
const SENDING: &[&str] =
    &["__x64_sys_sendto", "__x64_sys_sendmsg", "__x64_sys_write", "__x64_sys_writev", "__sys_sendto"];

/// Those that receive: their return is the row `received → return`.
const RECEIVING: &[&str] =
    &["__x64_sys_recvfrom", "__x64_sys_recvmsg", "__x64_sys_read", "__x64_sys_readv", "__sys_recvfrom"];

/// The row that a sample belongs to, and its side; `None`: it is part of no latency.
#[must_use]
pub fn row_of(rows: &[Row], frames: &[Frame], sample: &Sample) -> Option<(usize, Work)> {
    let (role, from) = sample.stage.as_ref()?;
    let find = |from: &Place| {
        rows.iter()
            .enumerate()
            .filter(|(_, row)| row.key.role == *role && row.key.from == *from)
            .max_by(|(_, a), (_, b)| a.count_per_op.total_cmp(&b.count_per_op))
            .map(|(index, _)| index)
    };
    if *role == Role::Client && from.point == Point::Received {
        // Between two requests: only what lies in the calls at either end of the client's own time belongs to them.
        let mut kernel =
            sample.stack.iter().map(|index| &frames[*index as usize]).filter(|frame| frame.0 == Space::Kernel);
        let call = kernel.find(|frame| SENDING.contains(&frame.1.as_str()) || RECEIVING.contains(&frame.1.as_str()))?;
        let row = if SENDING.contains(&call.1.as_str()) { find(&Place::fixed(Point::Call)) } else { find(from) };
        return row.map(|row| (row, Work::Own));
    }
    let in_kernel = |index: &u32| frames[*index as usize].0 == Space::Kernel;
    if *role == Role::Client && from.point == Point::Exit && !sample.stack.iter().any(in_kernel) {
        // The program's own time between two file operations.
        return None;
    }
    let waits = from.point == Point::Ready;
    let side = if waits && sample.softirq.is_some() { Work::Waker } else { Work::Own };
    find(from).map(|row| (row, side))
}

/// The rows that may have a sample's time, each with its part of it: of file operations, several may begin at the
/// same point, and only their ends tell them apart, which a sample has not seen yet. In proportion to their times.
#[must_use]
pub fn sharing(rows: &[Row], row: usize) -> Vec<(usize, f64)> {
    let key = &rows[row].key;
    if !points::is_of_files(key.from.point) {
        return vec![(row, 1.0)];
    }
    let alike: Vec<(usize, f64)> = rows
        .iter()
        .enumerate()
        .filter(|(_, other)| other.key.role == key.role && other.key.from == key.from)
        .map(|(index, other)| (index, mean(&other.rounds_ns).max(0.0)))
        .collect();
    let whole: f64 = alike.iter().map(|(_, ns)| ns).sum();
    if whole <= 0.0 {
        return vec![(row, 1.0)];
    }
    alike.into_iter().map(|(index, ns)| (index, ns / whole)).collect()
}

/// Time of a stage that no sample shows, and no part either.
pub const UNACCOUNTED: &str = "unaccounted";
/// Time in which somebody certainly waited: too much for chance.
pub const WAITING: &str = "waiting";
/// What a device's queueing discipline holds.
pub const QUEUE: &str = "queue";
/// Work whose length is known exactly, but of which there is no sample to divide it.
pub const UNSAMPLED: &str = "unsampled";
/// A file operation is with its disk.
const DEVICE: &str = "device";
/// Time with a loop device's worker.
const LOOP: &str = "loop";
/// Time with the device mapper, or with a RAID.
const MAPPER: &str = "dm/md";
/// Stages with less than this share of the samples do not prolong a run.
pub const LARGER_STAGE: f64 = 0.05;

/// Share of a stage that the sampler's own blind spots may hide: it sees what runs with interrupts off only where
/// they go on again.
const BLIND: f64 = 0.05;

/// What a file operation waits for in a row's time that no sample shows: its disk, a loop device's worker, what the
/// device mapper does, or a queue. `None`: the two points do not say.
fn waits_for(row: &Row) -> Option<&'static str> {
    let next = points::next(row.key.from.point, row.key.to.point)?;
    Some(match next.wait? {
        Wait::Device => DEVICE,
        Wait::Loop => LOOP,
        Wait::PassingBack if row.key.to.is_at_loop() => LOOP,
        Wait::Mapper | Wait::PassingBack => MAPPER,
        Wait::Somebody => WAITING,
    })
}

/// What a row's time without samples or parts is called; `at_least`: the share that it surely has, beyond what the
/// sampler may have missed. A VM may work in it, of which there are no samples here.
fn name_of_rest(row: &Row, at_least: f64) -> &'static str {
    let somebody_waits = at_least > 0.0 && !path::is_boundary(&row.key) && !is_end_of_call(row);
    waits_for(row).unwrap_or(if somebody_waits { WAITING } else { UNACCOUNTED })
}

/// Samples of one row.
#[derive(Debug, Clone, Default)]
struct Counts {
    /// How many of each layer.
    layers: BTreeMap<String, u64>,
    /// Their CPU time, ns.
    ns: f64,
    /// What one that was not taken would stand for, ns.
    period_ns: f64,
}

impl Counts {
    fn all(&self) -> u64 {
        self.layers.values().sum()
    }
}

/// Computes it from a configuration's profiles, all of rounds that the waterfall has.
#[must_use]
pub fn build(rules: &Rules, profiles: &[Profile], waterfall: &Waterfall) -> Profiled {
    let profiles: Vec<&Profile> =
        profiles.iter().filter(|profile| waterfall.rounds.iter().any(|round| round.round == profile.round)).collect();
    let mut found = Profiled { stages: vec![Vec::new(); waterfall.rows.len()], ..Profiled::default() };
    if profiles.is_empty() {
        return found;
    }
    let rate_hz = profiles.iter().map(|profile| profile.rate_hz).max().unwrap_or(1).max(1);
    let none = vec![Counts { period_ns: 1e9 / f64::from(rate_hz), ..Counts::default() }; waterfall.rows.len()];
    let mut pooled = none.clone();
    // With the operations of their round.
    let mut by_round: BTreeMap<u32, (Vec<Counts>, u64)> = BTreeMap::new();
    let mut cpu: BTreeMap<(CpuOwner, String), (u64, f64)> = BTreeMap::new();
    let mut unmatched = Kernel::default();
    let operations = profiles.iter().map(|profile| profile.operations).sum::<u64>().max(1) as f64;
    for profile in &profiles {
        let (of_round, operations_of_round) = by_round.entry(profile.round).or_insert_with(|| (none.clone(), 0));
        *operations_of_round += profile.operations;
        let mut lookup = Lookup::new(rules);
        let scale = scales(profile);
        for sample in &profile.samples {
            let layer = lookup.layer(&profile.frames, &sample.stack);
            unmatched.add(profile, sample, layer, sample.ns * scale(sample) / operations);
            let sum = cpu.entry((CpuOwner::of(sample), layer.to_owned())).or_default();
            sum.0 += sample.count;
            sum.1 += sample.ns * scale(sample);
            let Some((row, side)) = row_of(&waterfall.rows, &profile.frames, sample) else { continue };
            if side == Work::Own {
                found.on_path += sample.count;
                for (row, part) in sharing(&waterfall.rows, row) {
                    for counts in [&mut pooled[row], &mut of_round[row]] {
                        *counts.layers.entry(layer.to_owned()).or_default() += sample.count;
                        counts.ns += sample.ns * scale(sample) * part;
                    }
                }
            }
        }
    }
    let of_round: BTreeMap<u32, u64> = by_round.iter().map(|(round, (_, operations))| (*round, *operations)).collect();
    let in_all = |(row, counts): (&Row, &Counts)| {
        let of_rounds = waterfall.rounds.iter().zip(&row.sampled_ns);
        let ns: f64 = of_rounds.filter_map(|(round, ns)| Some((*ns)? * *of_round.get(&round.round)? as f64)).sum();
        stage_layers(row, counts, operations, ns / operations)
    };
    found.stages = waterfall.rows.iter().zip(&pooled).map(in_all).collect();
    for (index, round) in waterfall.rounds.iter().enumerate() {
        if let Some(counts) = by_round.get(&round.round) {
            found.rounds.insert(round.round, round_layers(waterfall, index, counts, &found.stages));
            let of_round = profiles.iter().filter(|profile| profile.round == round.round).copied();
            let (services, off_path) = services(waterfall, index, counts, &of_round.collect::<Vec<_>>());
            found.services.insert(round.round, services);
            found.off_path.insert(round.round, off_path);
        }
    }
    add_cpu(&mut found, &profiles, cpu);
    found.busiest = busiest(&profiles);
    (found.unmatched_share, found.unmatched) = unmatched.result();
    found
}

/// Samples in the kernel, and those of functions that no rule matches, with their time.
#[derive(Default)]
struct Kernel {
    samples: u64,
    unmatched: BTreeMap<String, (u64, f64)>,
}

impl Kernel {
    fn add(&mut self, profile: &Profile, sample: &Sample, layer: &str, ns_per_op: f64) {
        if layer != USER {
            self.samples += sample.count;
        }
        if layer == UNMATCHED {
            let leaf = sample.stack.last().map_or("", |index| profile.frames[*index as usize].1.as_str());
            let sum = self.unmatched.entry(leaf.to_owned()).or_default();
            *sum = (sum.0 + sample.count, sum.1 + ns_per_op);
        }
    }

    /// The share of all that is unmatched, and the functions, most samples first.
    fn result(self) -> (f64, Vec<Unmatched>) {
        let all = self.samples;
        let unmatched: u64 = self.unmatched.values().map(|(count, _)| count).sum();
        let of = |(function, (count, ns_per_op)): (String, (u64, f64))| {
            let share = count as f64 / all as f64;
            Unmatched { function, share, ns_per_op }
        };
        let mut functions: Vec<Unmatched> = self.unmatched.into_iter().map(of).collect();
        functions.sort_by(|a, b| b.share.total_cmp(&a.share));
        (unmatched as f64 / all.max(1) as f64, functions)
    }
}

/// Time of a role's threads in a state, ns, by the scheduler's points.
fn state_ns(profile: &Profile, role: Role, state: ThreadState) -> f64 {
    let found = profile.states.iter().filter(|total| total.role == role && total.state == state);
    found.map(|total| total.total_ns).sum::<u64>() as f64
}

/// What the samples of a role's threads are to be multiplied with, so that together they are the time that the
/// threads ran by the scheduler's points, which is exact; samples say how it divides. Others keep their timer's
/// period.
pub fn scales(profile: &Profile) -> impl Fn(&Sample) -> f64 + use<> {
    let scale = |role: Role| {
        let of_role = profile.samples.iter().filter(|sample| sample.thread == Some(role) && !sample.in_guest);
        let sampled: f64 = of_role.map(|sample| sample.ns).sum();
        let ran = state_ns(profile, role, ThreadState::Running);
        if sampled > 0.0 && ran > 0.0 { ran / sampled } else { 1.0 }
    };
    let of_roles = Role::OF_THREADS.map(scale);
    move |sample| {
        if sample.in_guest {
            return 1.0;
        }
        let index = Role::OF_THREADS.iter().position(|role| Some(*role) == sample.thread);
        index.map_or(1.0, |index| of_roles[index])
    }
}

/// Whether a part of a stage is a wait whose length is known exactly: what its reader waited for, or a retransmission.
fn wait_of(part: &Part) -> Option<&'static str> {
    let is_readers = points::reader(part.to.point).is_some_and(|reader| !reader.is_own_work);
    (is_readers || points::is_lost(part.from.point)).then_some(part.to.point.name())
}

/// What a row waits for, with shares and intervals: in one round, or in all.
fn waits(row: &Row, round: Option<usize>) -> Vec<LayerShare> {
    row.parts
        .iter()
        .filter_map(|part| {
            let of_round = round.and_then(|round| part.rounds_share.get(round).copied().flatten());
            let share = of_round.unwrap_or(part.share);
            Some(LayerShare { layer: wait_of(part)?.to_owned(), share, ci95: part.ci95, samples: 0 })
        })
        .collect()
}

/// The share of a row's time from a device's queueing discipline to the device. Where nothing is held, a CPU works
/// through it.
fn queue_share(row: &Row) -> f64 {
    row.parts.iter().filter(|part| part.from.point == Point::Queue).map(|part| part.share).sum()
}

/// Whether the parts of a row say exactly how long somebody worked in it: what its reader did is known at any time.
fn work_is_known(row: &Row) -> bool {
    row.parts.iter().any(|part| points::is_own_work(part.to.point))
}

/// Time per occurrence in which a probe has read the clock and a sample does not find its token where it is from then
/// on, ns.
const BLIND_NS: f64 = 50.0;

/// Share of a row's time that the sampler may have missed.
fn blind(row: &Row) -> f64 {
    BLIND + BLIND_NS * row.count_per_op / mean(&row.rounds_ns).max(1.0)
}

/// Whether a row is an end of a request in the client's call: its thread is at work all the time, but much of what it
/// does there (into the call and out of it) cannot be told from the client's own time.
fn is_end_of_call(row: &Row) -> bool {
    row.key.from.point == Point::Call || row.key.to.point == Point::Return
}

/// What neither samples nor parts have seen of a row, with its interval, by chance and by what the sampler may miss:
/// as much of it as a queue can have held is the queue's, if it is too much for both.
fn rest_of(row: &Row, rest: f64, [low, high]: [f64; 2]) -> Vec<LayerShare> {
    let ci95 = [low - blind(row), high];
    let layer =
        |layer: &str, share: f64, ci95| LayerShare { layer: layer.to_owned(), share, ci95: Some(ci95), samples: 0 };
    let queue = if ci95[0] > 0.0 && waits_for(row).is_none() { queue_share(row).min(rest) } else { 0.0 };
    let less = |end: f64| (end - queue).max(0.0);
    let ci95_of_rest = ci95.map(less);
    let mut found = vec![layer(name_of_rest(row, ci95_of_rest[0]), rest - queue, ci95_of_rest)];
    if queue > 0.0 {
        found.push(layer(QUEUE, queue, ci95.map(|end| end.clamp(0.0, queue))));
    }
    found
}

/// The layers of a row over all rounds. Waits whose length is known stand as they are; of the rest, a layer has as
/// much as its samples have seen, and what they have not seen is nobody's. Where the work is known exactly, samples
/// divide it. `sampled_ns`: the row's time per operation in the phases of the samples.
fn stage_layers(row: &Row, counts: &Counts, operations: f64, sampled_ns: f64) -> Vec<LayerShare> {
    let all = counts.all();
    let mut layers = waits(row, None);
    let left = (1.0 - layers.iter().map(|wait| wait.share).sum::<f64>()).max(0.0);
    if work_is_known(row) {
        let of_layer = |(layer, count): (&String, &u64)| LayerShare {
            layer: layer.clone(),
            share: left * *count as f64 / all as f64,
            ci95: share_interval(*count, all).map(|interval| interval.map(|end| left * end)),
            samples: *count,
        };
        layers.extend(counts.layers.iter().filter(|_| all > 0).map(of_layer));
        if all == 0 && left > 0.0 {
            let ci95 = Some([left; 2]);
            layers.push(LayerShare { layer: UNSAMPLED.to_owned(), share: left, ci95, samples: 0 });
        }
    } else {
        // Of one sample, share of the row's time.
        let one_ns = if all > 0 { counts.ns / all as f64 } else { counts.period_ns };
        let one = if sampled_ns > 0.0 { one_ns / operations / sampled_ns } else { 0.0 };
        // More than all of it is by chance.
        let fits = if all > 0 { (left / (one * all as f64)).min(1.0) } else { 1.0 };
        let within = |[low, high]: [f64; 2]| [low * one, high * one].map(|end| end.min(left));
        layers.extend(counts.layers.iter().map(|(layer, count)| LayerShare {
            layer: layer.clone(),
            share: *count as f64 * one * fits,
            ci95: Some(within(count_interval(*count))),
            samples: *count,
        }));
        let [low, high] = within(count_interval(all));
        let rest = (left - all as f64 * one * fits).max(0.0);
        layers.extend(rest_of(row, rest, [left - high, left - low]));
    }
    layers.sort_by(|a, b| b.share.total_cmp(&a.share));
    layers
}

/// ns per operation of every layer in one round, as in [`stage_layers`]; but where a round's few samples are by
/// chance more than its time holds, what is left is below 0: differences are of means over rounds, which must not be
/// pushed to one side. A round without sampled phases is divided as all are.
fn round_layers(
    waterfall: &Waterfall,
    round: usize,
    (counts, operations): &(Vec<Counts>, u64),
    pooled: &[Vec<LayerShare>],
) -> BTreeMap<String, f64> {
    let mut layers: BTreeMap<String, f64> = BTreeMap::new();
    for ((row, counts), pooled) in waterfall.rows.iter().zip(counts).zip(pooled) {
        let ns = row.rounds_ns[round];
        let mut add = |layer: &str, share: f64| *layers.entry(layer.to_owned()).or_default() += ns * share;
        let waits = waits(row, Some(round));
        let left = 1.0 - waits.iter().map(|wait| wait.share).sum::<f64>();
        let sampled_ns = row.sampled_ns[round].filter(|_| *operations > 0);
        let all = counts.all();
        match sampled_ns {
            _ if work_is_known(row) && all > 0 => {
                counts.layers.iter().for_each(|(layer, count)| add(layer, left * *count as f64 / all as f64));
            }
            Some(sampled_ns) if !work_is_known(row) => {
                let one_ns = if all > 0 { counts.ns / all as f64 } else { 0.0 };
                let one = if sampled_ns > 0.0 { one_ns / *operations as f64 / sampled_ns } else { 0.0 };
                counts.layers.iter().for_each(|(layer, count)| add(layer, *count as f64 * one));
                // Each round's queue is known exactly, too, but what it shares with samples is not: as in all rounds.
                let rests: Vec<&LayerShare> = pooled.iter().filter(|share| is_rest(&share.layer)).collect();
                let whole: f64 = rests.iter().map(|share| share.share).sum();
                let rest = left - all as f64 * one;
                match rests.as_slice() {
                    [first, ..] if whole <= 0.0 => add(&first.layer, rest),
                    [] => add(UNACCOUNTED, rest),
                    all => all.iter().for_each(|share| add(&share.layer, rest * share.share / whole)),
                }
            }
            _ => {
                pooled.iter().for_each(|share| add(&share.layer, share.share));
                continue;
            }
        }
        waits.iter().for_each(|wait| add(&wait.layer, wait.share));
    }
    layers
}

/// The work in every row in one round, and that beside the rows, ns of CPU time per operation, as it would be in
/// traced phases.
fn services(
    waterfall: &Waterfall,
    round: usize,
    (counts, operations): &(Vec<Counts>, u64),
    profiles: &[&Profile],
) -> (Vec<f64>, f64) {
    let operations = (*operations).max(1) as f64;
    let on_path_ns: f64 = counts.iter().map(|counts| counts.ns / operations).sum();
    let all_ns: f64 = profiles
        .iter()
        .flat_map(|profile| {
            let scale = scales(profile);
            profile.samples.iter().filter(|sample| !sample.in_guest).map(move |sample| sample.ns * scale(sample))
        })
        .sum::<f64>()
        / operations;
    // Phases with more probes are slower all alike.
    let sampled_ns: f64 = waterfall.rows.iter().filter_map(|row| row.sampled_ns[round]).sum();
    let traced_ns: f64 = waterfall.rows.iter().map(|row| row.rounds_ns[round]).sum();
    let slower = if sampled_ns > 0.0 { traced_ns / sampled_ns } else { 1.0 };
    // By samples alone, also where parts say how long a reader worked: between the last receipt of a batch and its
    // first answer, a reader works for two requests, and the parts of both have that time.
    let services = counts.iter().map(|counts| counts.ns / operations * slower).collect();
    (services, (all_ns - on_path_ns).max(0.0) * slower)
}

/// Busy share of the busiest CPU with a timer, by its samples: an idle one may stop its timer, so that nothing else
/// says that it idles.
fn busiest(profiles: &[&Profile]) -> f64 {
    let mut by_cpu: BTreeMap<u16, (f64, f64)> = BTreeMap::new();
    for profile in profiles {
        for (cpu, samples) in &profile.cpus {
            let sum = by_cpu.entry(*cpu).or_default();
            sum.0 += samples.all.saturating_sub(samples.idle) as f64;
            sum.1 += profile.length_ns as f64 * f64::from(profile.rate_hz) / 1e9;
        }
    }
    by_cpu.values().map(|(busy, whole)| if *whole > 0.0 { (busy / whole).min(1.0) } else { 0.0 }).fold(0.0, f64::max)
}

/// Whether a layer says something of a stage: not what no rule knows, nor what nobody accounts for, nor virtax's own
/// probes.
#[must_use]
pub fn is_named(layer: &str) -> bool {
    ![UNMATCHED, UNACCOUNTED, UNSAMPLED, layers::OWN, layers::IRQS_OFF].contains(&layer)
}

/// Whether a layer is a wait for other operations, or for a CPU that others of the run have: it grows with what is
/// under way at once.
#[must_use]
pub fn is_queueing(layer: &str) -> bool {
    let is_readers = |row: &points::ReaderRow| row.is_queueing && row.point.name() == layer;
    layer == QUEUE || points::READER.iter().any(is_readers)
}

/// Whether a layer is none of code: time of a stage that no sample shows, and no part.
#[must_use]
pub fn is_rest(layer: &str) -> bool {
    [UNACCOUNTED, WAITING, UNSAMPLED, QUEUE, DEVICE, LOOP, MAPPER].contains(&layer)
}

fn add_cpu(found: &mut Profiled, profiles: &[&Profile], cpu: BTreeMap<(CpuOwner, String), (u64, f64)>) {
    let operations = profiles.iter().map(|profile| profile.operations).sum::<u64>().max(1) as f64;
    found.samples = profiles.iter().flat_map(|profile| profile.cpus.values()).map(|cpu| cpu.all).sum();
    let period_ns = |profile: &Profile| 1e9 / f64::from(profile.rate_hz.max(1));
    let foreign =
        |profile: &&Profile| profile.cpus.values().map(|cpu| cpu.foreign).sum::<u64>() as f64 * period_ns(profile);
    found.foreign_ns = profiles.iter().map(foreign).sum::<f64>() / operations;
    found.lost = profiles.iter().map(|profile| profile.lost).sum();
    found.events = profiles.iter().map(|profile| profile.events).sum();
    let mut of_owner: BTreeMap<CpuOwner, (u64, f64)> = BTreeMap::new();
    for ((owner, _), (count, ns)) in &cpu {
        let sum = of_owner.entry(*owner).or_default();
        *sum = (sum.0 + count, sum.1 + ns);
    }
    found.cpu = cpu
        .into_iter()
        .map(|((owner, layer), (count, ns))| {
            // How much there is of a role is known better than from samples: they divide it.
            let (all, whole_ns) = of_owner[&owner];
            let ci95 = share_interval(count, all).map(|interval| interval.map(|end| end * whole_ns / operations));
            CpuLayer { owner, layer, ns_per_op: ns / operations, ci95 }
        })
        .collect();
    for role in Role::OF_THREADS {
        // On the way out of idling: nothing of the role's has begun to run.
        let switching = |profile: &&Profile| state_ns(profile, role, ThreadState::Switching);
        let ns_per_op = profiles.iter().map(switching).sum::<f64>() / operations;
        if ns_per_op > 0.0 {
            let (owner, layer) = (CpuOwner::Threads(role), ThreadState::Switching.name().to_owned());
            found.cpu.push(CpuLayer { owner, layer, ns_per_op, ci95: Some([ns_per_op; 2]) });
        }
    }
    found.cpu.sort_by(|a, b| b.ns_per_op.total_cmp(&a.ns_per_op));
    let times = Role::OF_THREADS.map(|role| role_time(role, profiles, operations));
    found.roles = times.into_iter().filter(|time| !time.role.is_proxy() || time.running_ns > 0.0).collect();
    // An idle CPU may stop the timer: what idles is what is left.
    let timers = |profile: &Profile| profile.timers.max(profile.cpus.len() as u32);
    let whole: f64 = profiles.iter().map(|profile| profile.length_ns as f64 * f64::from(timers(profile))).sum();
    let outside = found.cpu.iter().filter(|layer| layer.owner != CpuOwner::Guest);
    let busy: f64 = found.foreign_ns + outside.map(|layer| layer.ns_per_op).sum::<f64>();
    found.idle_ns = (whole / operations - busy).max(0.0);
}

fn role_time(role: Role, profiles: &[&Profile], operations: f64) -> RoleTime {
    let (mut running, mut sampled, mut softirq, mut schedstat) = (0.0, 0.0, 0.0, 0);
    for profile in profiles {
        running += state_ns(profile, role, ThreadState::Running) + state_ns(profile, role, ThreadState::Switching);
        let scale = scales(profile);
        for sample in profile.samples.iter().filter(|sample| sample.thread == Some(role) && !sample.in_guest) {
            sampled += sample.ns;
            softirq += if sample.softirq.is_some() { sample.ns * scale(sample) } else { 0.0 };
        }
        schedstat += profile.cpu.iter().filter(|cpu| cpu.role == role).map(|cpu| cpu.schedstat_ns).sum::<u64>();
    }
    RoleTime {
        role,
        running_ns: running / operations,
        sampled_ns: sampled / operations,
        softirq_ns: softirq / operations,
        schedstat_ns: schedstat as f64 / operations,
    }
}

#[cfg(test)]
mod tests;
