//! What the sampled phases say: the layers of every stage, the CPU time of every role and layer, and what no rule named.

use std::collections::BTreeMap;

use super::{
    describe,
    layers::{Lookup, Rules, UNMATCHED, USER},
    statistics::{mean, share_interval},
    waterfall::{Row, Waterfall},
};
use crate::{
    counts::{Place, Role},
    points,
    profile::{Frame, Profile, Sample, Space},
};

/// A layer's share of a stage's time.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerShare {
    /// Its name; for a wait, what was waited for.
    pub layer: String,
    /// 0–1; all of a stage's sum to 1.
    pub share: f64,
    /// 95 % interval.
    pub ci95: Option<[f64; 2]>,
    /// Samples; 0 for a wait, which is measured.
    pub samples: u64,
}

/// CPU time of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuLayer {
    /// `client`, `server` or `softirq`.
    pub role: String,
    /// Its name.
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
    /// By the scheduler's points, softirqs on top of the threads included.
    pub running_ns: f64,
    /// By samples alone, each for its timer's period: less exact, and from another source.
    pub sampled_ns: f64,
    /// Of it in softirqs, by samples.
    pub softirq_ns: f64,
    /// By the scheduler's account, which includes softirqs unless the kernel accounts for them apart.
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
    /// By round: ns per operation of every layer on the path, waits by their own names.
    pub rounds: BTreeMap<u32, BTreeMap<String, f64>>,
}

/// Which part of a stage a sample belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
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
pub fn row_of(rows: &[Row], frames: &[Frame], sample: &Sample) -> Option<(usize, Side)> {
    let (role, from) = sample.stage.as_ref()?;
    let find = |from: &Place| {
        rows.iter()
            .enumerate()
            .filter(|(_, row)| row.key.role == *role && row.key.from == *from)
            .max_by(|(_, a), (_, b)| a.count_per_op.total_cmp(&b.count_per_op))
            .map(|(index, _)| index)
    };
    if *role == Role::Client && from.point == "received" {
        // Between two requests: only what lies in the calls at either end of the client's own time belongs to them.
        let mut kernel =
            sample.stack.iter().map(|index| &frames[*index as usize]).filter(|frame| frame.0 == Space::Kernel);
        let call = kernel.find(|frame| SENDING.contains(&frame.1.as_str()) || RECEIVING.contains(&frame.1.as_str()))?;
        let row = if SENDING.contains(&call.1.as_str()) { find(&Place::fixed("call")) } else { find(from) };
        return row.map(|row| (row, Side::Own));
    }
    let in_kernel = |index: &u32| frames[*index as usize].0 == Space::Kernel;
    if *role == Role::Client && from.point == "exit" && !sample.stack.iter().any(in_kernel) {
        // The program's own time between two file operations.
        return None;
    }
    let waits = matches!(from.point.as_str(), "ready");
    let side = if waits && sample.softirq.is_some() { Side::Waker } else { Side::Own };
    find(from).map(|row| (row, side))
}

/// The rows that may have a sample's time, each with its part of it: of file operations, several may begin at the same point, and only their
/// ends tell them apart, which a sample has not seen yet. In proportion to their times.
#[must_use]
pub fn sharing(rows: &[Row], row: usize) -> Vec<(usize, f64)> {
    let key = &rows[row].key;
    if !points::is_of_files(&key.from.point) {
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

/// What no sample shows of a row's time, by name, where an operation mostly waits while nobody works for it: for its disk; in a queue,
/// or to be woken and to run. `None`: somebody works at any time, which samples divide.
#[must_use]
pub fn unseen(row: &Row) -> Option<&'static str> {
    match (row.key.from.point.as_str(), row.key.to.point.as_str()) {
        ("issue" | "bio", "complete") => Some("device"),
        ("issue", "bio") => Some("loop"),
        ("complete", "complete") if describe::is_loop(&row.key.to) => Some("loop"),
        ("bio", "bio") | ("complete", "complete") => Some("dm/md"),
        ("bio", "issue") | ("bio" | "issue" | "complete", "exit") => Some("waiting"),
        _ => None,
    }
}

/// The share of a row's time in which somebody worked for its operation; `worked_ns`: CPU time of its samples, ns per operation.
#[must_use]
pub fn worked_share(worked_ns: f64, row_ns: f64) -> f64 {
    if row_ns > 0.0 { (worked_ns / row_ns).min(1.0) } else { 1.0 }
}

/// Samples of one row.
#[derive(Debug, Clone, Default)]
struct Counts {
    /// How many of each layer.
    layers: BTreeMap<String, u64>,
    /// Their CPU time, ns.
    ns: f64,
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
    let none = vec![Counts::default(); waterfall.rows.len()];
    let mut pooled = none.clone();
    // With the operations of their round.
    let mut by_round: BTreeMap<u32, (Vec<Counts>, u64)> = BTreeMap::new();
    let mut cpu: BTreeMap<(String, String), (u64, f64)> = BTreeMap::new();
    let mut kernel = (0u64, BTreeMap::<String, (u64, f64)>::new());
    let operations = profiles.iter().map(|profile| profile.operations).sum::<u64>().max(1) as f64;
    for profile in &profiles {
        let (of_round, operations_of_round) = by_round.entry(profile.round).or_insert_with(|| (none.clone(), 0));
        *operations_of_round += profile.operations;
        let mut lookup = Lookup::new(rules);
        let scale = scales(profile);
        for sample in &profile.samples {
            let layer = lookup.layer(&profile.frames, &sample.stack);
            if layer != USER {
                kernel.0 += sample.count;
            }
            if layer == UNMATCHED {
                let leaf = sample.stack.last().map_or("", |index| profile.frames[*index as usize].1.as_str());
                let sum = kernel.1.entry(leaf.to_owned()).or_default();
                *sum = (sum.0 + sample.count, sum.1 + sample.ns * scale(sample) / operations);
            }
            let sum = cpu.entry((cpu_role(sample), layer.to_owned())).or_default();
            sum.0 += sample.count;
            sum.1 += sample.ns * scale(sample);
            let Some((row, side)) = row_of(&waterfall.rows, &profile.frames, sample) else { continue };
            if side == Side::Own {
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
    let in_all = |(row, counts)| stage_layers(row, counts, operations, None);
    found.stages = waterfall.rows.iter().zip(&pooled).map(in_all).collect();
    for (index, round) in waterfall.rounds.iter().enumerate() {
        if let Some(counts) = by_round.get(&round.round) {
            found.rounds.insert(round.round, round_layers(waterfall, index, counts, &found.stages));
        }
    }
    add_cpu(&mut found, &profiles, cpu);
    let unmatched: u64 = kernel.1.values().map(|(count, _)| count).sum();
    found.unmatched_share = unmatched as f64 / kernel.0.max(1) as f64;
    found.unmatched = kernel
        .1
        .into_iter()
        .map(|(function, (count, ns_per_op))| Unmatched { function, share: count as f64 / kernel.0 as f64, ns_per_op })
        .collect();
    found.unmatched.sort_by(|a, b| b.share.total_cmp(&a.share));
    found
}

/// Time of a role's threads in a state, ns, by the scheduler's points.
fn state_ns(profile: &Profile, role: Role, state: &str) -> f64 {
    let found = profile.states.iter().filter(|total| total.role == role && total.state == state);
    found.map(|total| total.total_ns).sum::<u64>() as f64
}

/// The layer of the way out of idling, in which nothing of the role's has begun to run.
pub const SWITCHING: &str = "switching";

/// What the samples of a role's threads are to be multiplied with, so that together they are the time that the threads ran by
/// the scheduler's points, which is exact; samples say how it divides. Others keep their timer's period.
pub fn scales(profile: &Profile) -> impl Fn(&Sample) -> f64 + use<> {
    let scale = |role: Role| {
        let of_role = profile.samples.iter().filter(|sample| sample.thread == Some(role) && !sample.in_guest);
        let sampled: f64 = of_role.map(|sample| sample.ns).sum();
        let ran = state_ns(profile, role, "running");
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

/// Whose CPU time a guest's samples are: it is part of its virtual processors'.
pub const GUEST: &str = "guest";

/// Whose CPU time a sample is.
#[must_use]
pub fn cpu_role(sample: &Sample) -> String {
    match (sample.thread, &sample.softirq) {
        _ if sample.in_guest => GUEST.to_owned(),
        (Some(role), None) => role.name().to_owned(),
        _ => "softirq".to_owned(),
    }
}

/// What a row waits for, with shares and intervals, and the share that is work: in one round, or in all.
fn waits(row: &Row, round: Option<usize>) -> (Vec<LayerShare>, f64) {
    let waits: Vec<LayerShare> = row
        .parts
        .iter()
        .filter(|part| points::reader(&part.to.point).is_some() && !points::is_own_work(&part.to.point))
        .map(|part| {
            let of_round = round.and_then(|round| part.rounds_share.get(round).copied().flatten());
            let share = of_round.unwrap_or(part.share);
            LayerShare { layer: part.to.point.clone(), share, ci95: part.ci95, samples: 0 }
        })
        .collect();
    let work = 1.0 - waits.iter().map(|wait| wait.share).sum::<f64>();
    (waits, work.max(0.0))
}

/// What is known of `count` samples that came by chance (Poisson, by its normal approximation), as parts of as many: 95 % interval.
fn by_chance(count: u64) -> [f64; 2] {
    let reach = 1.96 / (count.max(1) as f64).sqrt();
    [(1.0 - reach).max(0.0), 1.0 + reach]
}

fn stage_layers(row: &Row, counts: &Counts, operations: f64, round: Option<usize>) -> Vec<LayerShare> {
    let all: u64 = counts.layers.values().sum();
    let (mut layers, mut work) = waits(row, round);
    let unseen = unseen(row);
    if let Some(name) = unseen {
        let row_ns = round.map_or_else(|| mean(&row.rounds_ns), |round| row.rounds_ns[round]);
        work = worked_share(counts.ns / operations, row_ns);
        let [low, high] = by_chance(all).map(|end| (work * end).min(1.0));
        let ci95 = (all > 0).then_some([1.0 - high, 1.0 - low]);
        layers.push(LayerShare { layer: name.to_owned(), share: 1.0 - work, ci95, samples: 0 });
    } else if all == 0 {
        return Vec::new();
    }
    layers.extend(counts.layers.iter().map(|(layer, count)| {
        let share = work * *count as f64 / all as f64;
        let interval = match unseen {
            // How much is work is known from the samples as well.
            Some(_) => Some(by_chance(*count).map(|end| (share * end).min(1.0))),
            None => share_interval(*count, all).map(|interval| interval.map(|end| work * end)),
        };
        LayerShare { layer: layer.clone(), share, ci95: interval, samples: *count }
    }));
    layers.sort_by(|a, b| b.share.total_cmp(&a.share));
    layers
}

/// ns per operation of every layer in one round. A row without samples in the round is divided as in all rounds; one
/// without any is `unsampled`.
fn round_layers(
    waterfall: &Waterfall,
    round: usize,
    (counts, operations): &(Vec<Counts>, u64),
    pooled: &[Vec<LayerShare>],
) -> BTreeMap<String, f64> {
    let mut layers: BTreeMap<String, f64> = BTreeMap::new();
    for ((row, counts), pooled) in waterfall.rows.iter().zip(counts).zip(pooled) {
        let ns = row.rounds_ns[round];
        if pooled.is_empty() {
            *layers.entry("unsampled".to_owned()).or_default() += ns;
            continue;
        }
        let own = stage_layers(row, counts, (*operations).max(1) as f64, Some(round));
        for share in if own.is_empty() { pooled } else { &own } {
            *layers.entry(share.layer.clone()).or_default() += ns * share.share;
        }
    }
    layers
}

fn add_cpu(found: &mut Profiled, profiles: &[&Profile], cpu: BTreeMap<(String, String), (u64, f64)>) {
    let operations = profiles.iter().map(|profile| profile.operations).sum::<u64>().max(1) as f64;
    found.samples = profiles.iter().flat_map(|profile| profile.cpus.values()).map(|cpu| cpu.all).sum();
    let period_ns = |profile: &Profile| 1e9 / f64::from(profile.rate_hz.max(1));
    let foreign =
        |profile: &&Profile| profile.cpus.values().map(|cpu| cpu.foreign).sum::<u64>() as f64 * period_ns(profile);
    found.foreign_ns = profiles.iter().map(foreign).sum::<f64>() / operations;
    found.lost = profiles.iter().map(|profile| profile.lost).sum();
    found.events = profiles.iter().map(|profile| profile.events).sum();
    let mut of_role: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for ((role, _), (count, ns)) in &cpu {
        let sum = of_role.entry(role.clone()).or_default();
        *sum = (sum.0 + count, sum.1 + ns);
    }
    found.cpu = cpu
        .into_iter()
        .map(|((role, layer), (count, ns))| {
            // How much there is of a role is known better than from samples: they divide it.
            let (all, whole_ns) = of_role[&role];
            let ci95 = share_interval(count, all).map(|interval| interval.map(|end| end * whole_ns / operations));
            CpuLayer { role, layer, ns_per_op: ns / operations, ci95 }
        })
        .collect();
    for role in Role::OF_THREADS {
        let ns_per_op = profiles.iter().map(|profile| state_ns(profile, role, SWITCHING)).sum::<f64>() / operations;
        if ns_per_op > 0.0 {
            let (role, layer) = (role.name().to_owned(), SWITCHING.to_owned());
            found.cpu.push(CpuLayer { role, layer, ns_per_op, ci95: Some([ns_per_op; 2]) });
        }
    }
    found.cpu.sort_by(|a, b| b.ns_per_op.total_cmp(&a.ns_per_op));
    let times = Role::OF_THREADS.map(|role| role_time(role, profiles, operations));
    found.roles = times.into_iter().filter(|time| !time.role.is_proxy() || time.running_ns > 0.0).collect();
    // An idle CPU may stop the timer: what idles is what is left.
    let timers = |profile: &Profile| profile.timers.max(profile.cpus.len() as u32);
    let whole: f64 = profiles.iter().map(|profile| profile.length_ns as f64 * f64::from(timers(profile))).sum();
    let outside = found.cpu.iter().filter(|layer| layer.role != GUEST);
    let busy: f64 = found.foreign_ns + outside.map(|layer| layer.ns_per_op).sum::<f64>();
    found.idle_ns = (whole / operations - busy).max(0.0);
}

fn role_time(role: Role, profiles: &[&Profile], operations: f64) -> RoleTime {
    let (mut running, mut sampled, mut softirq, mut schedstat) = (0.0, 0.0, 0.0, 0);
    for profile in profiles {
        running += state_ns(profile, role, "running") + state_ns(profile, role, SWITCHING);
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
