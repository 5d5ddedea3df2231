//! Stacks for flame graphs, as wide as ns per operation: of the latency (direction → role → stage → layer →
//! functions), of CPU time (role → layer → functions), and of waiting (role → state → who waits → who wakes).

use std::collections::{BTreeMap, HashMap};

use super::{
    describe::direction,
    label,
    layers::{Lookup, Rules},
    path::StageKey,
    profile::{CpuOwner, LayerShare, Work, row_of, scales, sharing},
    waterfall::{Row, Waterfall},
};
use virtax_model::{
    counts::{Place, Role, Side, ThreadState},
    points,
    profile::{Frame, Profile, Stack},
};

/// A frame: what it is called, and the layer whose colour it has; no layer: it is no code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Named {
    /// Name of the frame.
    pub name: String,
    /// Layer of the frame.
    pub layer: Option<String>,
}

/// A stack, outermost frame first.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// Stage whose time it is, of the latency.
    pub stage: Option<StageKey>,
    /// Frames of the stack.
    pub frames: Vec<Named>,
    /// Width of its own, ns per operation.
    pub ns: f64,
}

/// All stacks of a configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stacks {
    /// Latency: in path order.
    pub latency: Vec<Weighted>,
    /// CPU time.
    pub cpu: Vec<Weighted>,
    /// Waiting.
    pub off_cpu: Vec<Weighted>,
}

fn plain(name: impl Into<String>) -> Named {
    Named { name: name.into(), layer: None }
}

/// Where softirqs begin: what ran beneath them has nothing to do with their work.
const SOFTIRQ_ENTRY: &[&str] = &["handle_softirqs", "__do_softirq"];

/// The frames of a stack; of one taken in a softirq, from the softirq on.
fn functions(frames: &[Frame], stack: &[u32], in_softirq: bool, layer: &str) -> Vec<Named> {
    let begin = if in_softirq {
        let is_entry = |index: &u32| SOFTIRQ_ENTRY.contains(&frames[*index as usize].1.as_str());
        stack.iter().rposition(is_entry).unwrap_or(0)
    } else {
        0
    };
    stack[begin..]
        .iter()
        .map(|index| Named { name: frames[*index as usize].1.clone(), layer: Some(layer.to_owned()) })
        .collect()
}

/// Where a stage takes place: the namespace of the device where it begins, else of the one where it ends, else its
/// role's.
fn scene(row: &Row) -> String {
    let namespace = |place: &Place| Some(place.device.as_ref()?.namespace()?.to_owned());
    let role = row.key.role.name();
    if row.side == Side::Guest {
        return format!("{role}@{}", Side::GUEST);
    }
    let found = namespace(&row.key.from).or_else(|| namespace(&row.key.to)).unwrap_or_else(|| role.to_owned());
    format!("{role}@{found}")
}

/// Whose a stage of a file operation is: nobody's but the program's, unless that runs in a VM.
fn place_of_files(row: &Row) -> &'static str {
    let is_guests = row.side == Side::Guest || row.key.from.is_in_guest() || row.key.to.is_in_guest();
    match (row.key.role, is_guests) {
        (Role::Vmm, _) => "QEMU",
        (_, true) => Side::GUEST,
        (_, false) => "program",
    }
}

/// The frames of a stage: what it holds comes first, so that it can be read where it is narrow.
fn stage_frames(row: &Row, inside_known: bool) -> Vec<Named> {
    let points = format!("{} → {}", row.key.from, row.key.to);
    // What is certain, so that the stage has one name in every configuration.
    let label = label::structure(row, inside_known);
    let name = if label.is_empty() { points } else { format!("{label}: {points}") };
    if points::is_of_files(row.key.from.point) {
        return vec![plain("operation"), plain(place_of_files(row)), plain(name)];
    }
    vec![plain(direction(row.key.role, row.key.from.point).name()), plain(scene(row)), plain(name)]
}

/// Layer and functions of the samples of one side of a row, or of an owner's CPU time.
type Below = BTreeMap<Vec<Named>, f64>;

/// A virtual processor's time is known from the host; what of it the guest's own stacks account for, the host's
/// stacks of the same threads must not show as well.
fn make_room_for_guest(cpu: &mut BTreeMap<CpuOwner, Below>) {
    let guest: f64 = cpu.get(&CpuOwner::Guest).map_or(0.0, |stacks| stacks.values().sum());
    let Some(outside) = cpu.get_mut(&CpuOwner::Threads(Role::Vcpu)) else { return };
    let whole: f64 = outside.values().sum();
    if whole > 0.0 {
        let left = (1.0 - guest / whole).max(0.0);
        outside.values_mut().for_each(|ns| *ns *= left);
    }
}

/// Frames that stand above an owner's stacks.
fn owner_frames(owner: CpuOwner) -> Vec<Named> {
    match owner {
        // A guest runs on its virtual processors.
        CpuOwner::Guest => vec![plain(Role::Vcpu.name()), plain(owner.name())],
        CpuOwner::Threads(_) | CpuOwner::Softirqs => vec![plain(owner.name())],
    }
}

/// All stacks of CPU time, in the order of their frames.
fn cpu_stacks(cpu: BTreeMap<CpuOwner, Below>) -> Vec<Weighted> {
    let below = |(owner, stacks): (CpuOwner, Below)| {
        let above = owner_frames(owner);
        stacks.into_iter().map(move |(frames, ns)| Weighted {
            stage: None,
            frames: [above.clone(), frames].concat(),
            ns,
        })
    };
    let mut stacks: Vec<Weighted> = cpu.into_iter().flat_map(below).collect();
    stacks.sort_by(|a, b| a.frames.cmp(&b.frames));
    stacks
}

/// Builds all stacks of a configuration; `layers`: of each row, by which its time is divided.
#[must_use]
pub fn build(rules: &Rules, profiles: &[Profile], waterfall: &Waterfall, layers: &[Vec<LayerShare>]) -> Stacks {
    let mut own: Vec<Below> = vec![Below::new(); waterfall.rows.len()];
    let mut wakers: Vec<Below> = own.clone();
    let mut cpu: BTreeMap<CpuOwner, Below> = BTreeMap::new();
    let operations = profiles.iter().map(|profile| profile.operations).sum::<u64>().max(1) as f64;
    for profile in profiles {
        let mut lookup = Lookup::new(rules);
        let scale = scales(profile);
        let mut named: HashMap<(&Stack, bool), Vec<Named>> = HashMap::new();
        for sample in &profile.samples {
            let layer = lookup.layer(&profile.frames, &sample.stack);
            let in_softirq = sample.softirq.is_some();
            let below = named.entry((&sample.stack, in_softirq)).or_insert_with(|| {
                let mut below = vec![Named { name: layer.to_owned(), layer: Some(layer.to_owned()) }];
                below.extend(functions(&profile.frames, &sample.stack, in_softirq, layer));
                below
            });
            let of_owner = cpu.entry(CpuOwner::of(sample)).or_default();
            *of_owner.entry(below.clone()).or_default() += sample.ns * scale(sample) / operations;
            if let Some((row, side)) = row_of(&waterfall.rows, &profile.frames, sample) {
                for (row, part) in sharing(&waterfall.rows, row) {
                    let side = if side == Work::Own { &mut own } else { &mut wakers };
                    *side[row].entry(below.clone()).or_default() += sample.ns * part;
                }
            }
        }
    }
    make_room_for_guest(&mut cpu);
    let latency = waterfall
        .rows
        .iter()
        .zip(layers)
        .zip(own.iter().zip(&wakers))
        .flat_map(|((row, layers), (own, wakers))| latency_of(row, waterfall.has_inside(), layers, own, wakers))
        .collect();
    for profile in profiles {
        for state in profile.states.iter().filter(|state| state.state == ThreadState::Switching) {
            let name = state.state.name().to_owned();
            let switching = Named { name: name.clone(), layer: Some(name) };
            let of_role = cpu.entry(CpuOwner::Threads(state.role)).or_default();
            *of_role.entry(vec![switching]).or_default() += state.total_ns as f64 / operations;
        }
    }
    Stacks { latency, cpu: cpu_stacks(cpu), off_cpu: off_cpu(rules, profiles, operations) }
}

/// Divides `ns` among the stacks below as their samples divide theirs; all of it, if there are none, stays with `base`.
fn divide(stage: Option<&StageKey>, base: &[Named], below: &Below, ns: f64, into: &mut Vec<Weighted>) {
    let whole: f64 = below.values().sum();
    if whole <= 0.0 {
        into.push(Weighted { stage: stage.cloned(), frames: base.to_vec(), ns });
        return;
    }
    // The heaviest layers first, each with its stacks together.
    let mut layers: BTreeMap<Option<&Named>, f64> = BTreeMap::new();
    for (frames, weight) in below {
        *layers.entry(frames.first()).or_default() += weight;
    }
    let mut ordered: Vec<(&Vec<Named>, &f64)> = below.iter().collect();
    ordered.sort_by(|(a, _), (b, _)| layers[&b.first()].total_cmp(&layers[&a.first()]).then(a.cmp(b)));
    for (frames, weight) in ordered {
        let frames = base.iter().chain(frames).cloned().collect();
        into.push(Weighted { stage: stage.cloned(), frames, ns: ns * weight / whole });
    }
}

/// A row's time, divided as its layers are; without any, all of it is the row's own.
fn latency_of(row: &Row, inside_known: bool, layers: &[LayerShare], own: &Below, wakers: &Below) -> Vec<Weighted> {
    let ns = crate::statistics::mean(&row.rounds_ns);
    let (stage, base) = (Some(&row.key), stage_frames(row, inside_known));
    let mut stacks = Vec::new();
    let is_work = |share: &&LayerShare| share.samples > 0;
    let asleep = [ThreadState::Blocked, ThreadState::Waking].map(ThreadState::name);
    for wait in layers.iter().filter(|share| !is_work(share)) {
        let mut frames = base.clone();
        frames.push(Named { name: wait.layer.clone(), layer: Some(wait.layer.clone()) });
        // While the reader is being woken, its waker works.
        if asleep.contains(&wait.layer.as_str()) {
            divide(stage, &frames, wakers, ns * wait.share, &mut stacks);
        } else if wait.share != 0.0 {
            stacks.push(Weighted { stage: stage.cloned(), frames, ns: ns * wait.share });
        }
    }
    let work: f64 = layers.iter().filter(is_work).map(|share| share.share).sum();
    if layers.is_empty() {
        stacks.push(Weighted { stage: stage.cloned(), frames: base, ns });
    } else if work > 0.0 {
        divide(stage, &base, own, ns * work, &mut stacks);
    }
    stacks
}

/// Waiting: how much is exact, from the scheduler's points; how it divides among stacks is known from some of the
/// waits.
fn off_cpu(rules: &Rules, profiles: &[Profile], operations: f64) -> Vec<Weighted> {
    // A guest's threads beside the host's of the same role.
    let mut totals: BTreeMap<(bool, Role, usize), f64> = BTreeMap::new();
    let mut seen: BTreeMap<(bool, Role, usize), Below> = BTreeMap::new();
    for profile in profiles {
        let of_host = profile.states.iter().map(|total| (false, total));
        for (in_guest, total) in of_host.chain(profile.guest_states.iter().map(|total| (true, total))) {
            if let Some(state) = ThreadState::WAITS.iter().position(|state| *state == total.state) {
                *totals.entry((in_guest, total.role, state)).or_default() += total.total_ns as f64 / operations;
            }
        }
        let mut lookup = Lookup::new(rules);
        for wait in &profile.waits {
            let mut frames = functions(&profile.frames, &wait.stack, false, lookup.layer(&profile.frames, &wait.stack));
            if !wait.waker.is_empty() {
                let by = if wait.by_softirq { "woken by a softirq" } else { "woken by a thread" };
                frames.push(plain(format!("— {by} —")));
                let layer = lookup.layer(&profile.frames, &wait.waker);
                let mut waker = functions(&profile.frames, &wait.waker, wait.by_softirq, layer);
                // From the wake-up outwards, so that alike wakers meet.
                waker.reverse();
                frames.extend(waker);
            }
            for (state, ns) in wait.ns.iter().enumerate().filter(|(_, ns)| **ns > 0) {
                *seen.entry((wait.in_guest, wait.role, state)).or_default().entry(frames.clone()).or_default() +=
                    *ns as f64;
            }
        }
    }
    let mut stacks = Vec::new();
    for (key, ns) in totals {
        let (in_guest, role, state) = key;
        let whose = if in_guest { format!("{}@{}", role.name(), Side::GUEST) } else { role.name().to_owned() };
        let state = ThreadState::WAITS[state].name();
        let base = [plain(whose), Named { name: state.to_owned(), layer: Some(state.to_owned()) }];
        divide(None, &base, seen.get(&key).unwrap_or(&Below::new()), ns, &mut stacks);
    }
    stacks
}
