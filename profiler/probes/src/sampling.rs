//! From the events of sampled phases to a [`Profile`]: addresses get names while the processes live, waits are put
//! together from their three events, and what looks alike is added up.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use profiler_common::{Counter, event, point::PlaceId};

use crate::{Labels, RawEvent, role, symbols::Symbols};
use virtax_model::{
    counts::{Place, ProbeCounts, Role, StateTotal, ThreadState},
    error::Result,
    profile::{CpuSamples, Frame, Profile, RoleCpu, Sample, Space, Stack, WaitSample},
};

/// How stacks are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Samples a second on each CPU; 0: none.
    pub rate_hz: u32,
    /// CPUs with a timer.
    pub cpus: Vec<usize>,
    /// Half width, as a share, that the layers of every larger stage are to be known to; `None`: as the phases allow.
    pub until: Option<f64>,
}

/// One sampled phase.
pub struct RawSampled {
    /// Events, in the order of their arrival.
    pub events: Vec<RawEvent>,
    /// Names of the processes' functions.
    pub users: UserNames,
    /// Operations, by the probes.
    pub operations: u64,
    /// Length, ns.
    pub length_ns: u64,
    /// CPU time of the roles' threads by the scheduler's account, ns.
    pub schedstat_ns: BTreeMap<Role, u64>,
    /// What threads did.
    pub states: Vec<StateTotal>,
    /// Events noted, and lost.
    pub noted: (u64, u64),
}

impl RawSampled {
    /// What was counted and noted of one; nothing is known of names and of the scheduler's account.
    #[must_use]
    pub fn new(counts: &ProbeCounts, events: Vec<RawEvent>, length_ns: u64) -> Self {
        Self {
            events,
            users: UserNames::default(),
            operations: counts.counter(Counter::Operations),
            length_ns,
            schedstat_ns: BTreeMap::new(),
            states: counts.states.clone(),
            noted: (counts.counter(Counter::Events), counts.counter(Counter::EventsRingFull)),
        }
    }
}

/// Names of processes' functions, by process and address. Of a client that ends with its phase they are looked up
/// then; all others when the phases are over, so that it is no work between them.
#[derive(Default)]
pub struct UserNames(HashMap<u32, HashMap<u64, Vec<String>>>);

impl UserNames {
    /// Looks up all of the events'.
    #[must_use]
    pub fn look_up<'a>(events: impl Iterator<Item = &'a RawEvent>) -> Self {
        let mut addresses: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for event in events.filter(|event| !event.user.is_empty()) {
            addresses.entry(event.head.tgid).or_default().extend(&event.user);
        }
        let symbols = Symbols::default();
        Self(addresses.into_iter().map(|(pid, addresses)| (pid, symbols.process(pid, &addresses))).collect())
    }
}

/// Names of softirqs by vector (`include/linux/interrupt.h`).
const SOFTIRQS: &[&str] =
    &["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];

/// The numbers of a sample that must agree for two to look alike; stacks by address.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord, Clone)]
struct SampleKey {
    thread_role: u8,
    softirq: u8,
    stage: Option<(u8, PlaceId)>,
    tgid: u32,
    kernel: Vec<u64>,
    user: Vec<u64>,
}

/// A wait between its first and its last event.
struct Open {
    role: u8,
    tgid_of_stack: u32,
    kernel: Vec<u64>,
    user: Vec<u64>,
    before_ns: [u64; 4],
    waker: Option<(u32, bool, Vec<u64>, Vec<u64>)>,
}

/// Frames of the probe that took a stack of its own: they were not there without it.
const OWN: &[&str] = &["bpf_prog_", "bpf_trace_run", "__traceiter_", "__bpf_trace_", "bpf_trampoline_"];

struct Closed {
    wait: Open,
    ns: [u64; 4],
}

/// The role that an event says as 1 + its number; `None`: 0, the thread is none of the run's.
fn role_of(number: u8) -> Result<Option<Role>> {
    number.checked_sub(1).map(role).transpose()
}

/// Adds up the events of a repetition's sampled phases.
///
/// # Errors
/// If the kernel's functions cannot be named.
pub fn profile(phases: &[RawSampled], labels: &Labels, round: u32, sampling: &Sampling) -> Result<Profile> {
    let rate_hz = sampling.rate_hz;
    let mut cpus: BTreeMap<u16, CpuSamples> = BTreeMap::new();
    let mut samples: BTreeMap<SampleKey, (u64, f64)> = BTreeMap::new();
    let mut waits = Vec::new();
    for phase in phases {
        count_samples(phase, rate_hz, &mut cpus, &mut samples);
        waits.extend(join_waits(&phase.events));
    }
    let mut names = Names::look_up(phases)?;
    let samples = samples
        .into_iter()
        .map(|(key, (count, ns))| {
            let stage = |(holder, point)| -> Result<(Role, Place)> { Ok((role(holder)?, labels.place(point)?)) };
            Ok(Sample {
                thread: role_of(key.thread_role)?,
                softirq: key.softirq.checked_sub(1).map(|vector| softirq_name(usize::from(vector))),
                stage: key.stage.map(stage).transpose()?,
                stack: names.stack(key.tgid, &key.kernel, &key.user),
                count,
                ns,
                in_guest: false,
            })
        })
        .collect::<Result<_>>()?;
    let waits = waits
        .into_iter()
        // Only threads of the run's leave such events.
        .filter_map(|closed| Some((role_of(closed.wait.role).transpose()?, closed)))
        .map(|(role, closed)| {
            Ok(WaitSample {
                role: role?,
                stack: names.stack_beneath_probe(closed.wait.tgid_of_stack, &closed.wait.kernel, &closed.wait.user),
                by_softirq: closed.wait.waker.as_ref().is_some_and(|(_, softirq, ..)| *softirq),
                waker: closed
                    .wait
                    .waker
                    .map_or_else(Vec::new, |(tgid, _, kernel, user)| names.stack_beneath_probe(tgid, &kernel, &user)),
                count: 1,
                ns: closed.ns,
                in_guest: false,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Profile {
        round,
        operations: phases.iter().map(|phase| phase.operations).sum(),
        length_ns: phases.iter().map(|phase| phase.length_ns).sum(),
        rate_hz,
        timers: sampling.cpus.len() as u32,
        samples: merge_samples(samples),
        waits: merge_waits(waits),
        frames: names.frames,
        cpus,
        cpu: Role::OF_THREADS
            .map(|role| RoleCpu {
                role,
                schedstat_ns: phases.iter().filter_map(|phase| phase.schedstat_ns.get(&role)).sum(),
            })
            .to_vec(),
        states: merge_states(phases),
        guest_states: Vec::new(),
        events: phases.iter().map(|phase| phase.noted.0).sum(),
        lost: phases.iter().map(|phase| phase.noted.1).sum(),
    })
}

fn softirq_name(vector: usize) -> String {
    SOFTIRQS.get(vector).map_or_else(|| format!("softirq {vector}"), |name| (*name).to_owned())
}

/// Each sample stands for one period of the timer. Idle CPUs may stop theirs, so that nothing follows from how many
/// there are not.
fn count_samples(
    phase: &RawSampled,
    rate_hz: u32,
    cpus: &mut BTreeMap<u16, CpuSamples>,
    samples: &mut BTreeMap<SampleKey, (u64, f64)>,
) {
    for event in phase.events.iter().filter(|event| event.head.kind <= event::FOREIGN) {
        let cpu = cpus.entry(event.head.cpu).or_default();
        cpu.all += 1;
        cpu.idle += u64::from(event.head.kind == event::IDLE);
        cpu.foreign += u64::from(event.head.kind == event::FOREIGN);
    }
    for event in phase.events.iter().filter(|event| event.head.kind == event::SAMPLE) {
        let head = &event.head;
        let key = SampleKey {
            thread_role: head.thread_role,
            softirq: head.softirq,
            stage: (head.on_path != 0).then_some((head.role, head.point)),
            tgid: head.tgid,
            kernel: event.kernel.clone(),
            user: event.user.clone(),
        };
        let sum = samples.entry(key).or_default();
        sum.0 += 1;
        sum.1 += 1e9 / f64::from(rate_hz.max(1));
    }
}

/// Waits that began and ended in the phase. Events of one thread come from several CPUs: by time, they are in order.
fn join_waits(events: &[RawEvent]) -> Vec<Closed> {
    let mut order: Vec<&RawEvent> = events.iter().filter(|event| event.head.kind > event::FOREIGN).collect();
    order.sort_by_key(|event| event.head.at_ns);
    let mut open: HashMap<u32, Open> = HashMap::new();
    let mut closed = Vec::new();
    for event in order {
        let head = &event.head;
        match head.kind {
            event::WAIT => {
                let wait = Open {
                    role: head.thread_role,
                    tgid_of_stack: head.tgid,
                    kernel: event.kernel.clone(),
                    user: event.user.clone(),
                    before_ns: head.waited_ns,
                    waker: None,
                };
                open.insert(head.tid, wait);
            }
            event::WAKER => {
                if let Some(wait) = open.get_mut(&head.tid) {
                    wait.waker = Some((head.tgid, head.softirq != 0, event.kernel.clone(), event.user.clone()));
                }
            }
            event::WAIT_END => {
                if let Some(wait) = open.remove(&head.tid) {
                    let ns = std::array::from_fn(|index| head.waited_ns[index].saturating_sub(wait.before_ns[index]));
                    closed.push(Closed { wait, ns });
                }
            }
            _ => {}
        }
    }
    closed
}

/// Names of all addresses, and the table of frames that they make.
struct Names {
    kernel: HashMap<u64, Vec<String>>,
    user: HashMap<u32, HashMap<u64, Vec<String>>>,
    frames: Vec<Frame>,
    index: HashMap<Frame, u32>,
}

impl Names {
    fn look_up(phases: &[RawSampled]) -> Result<Self> {
        let events = || phases.iter().flat_map(|phase| &phase.events);
        let kernel: BTreeSet<u64> = events().flat_map(|event| &event.kernel).copied().collect();
        let mut user: HashMap<u32, HashMap<u64, Vec<String>>> = HashMap::new();
        let unnamed = phases.iter().filter(|phase| phase.users.0.is_empty());
        let late = UserNames::look_up(unnamed.flat_map(|phase| &phase.events));
        for (pid, names) in phases.iter().flat_map(|phase| &phase.users.0).chain(&late.0) {
            user.entry(*pid).or_default().extend(names.clone());
        }
        Ok(Self { kernel: Symbols::default().kernel(&kernel)?, user, frames: Vec::new(), index: HashMap::new() })
    }

    fn frame(&mut self, frame: Frame) -> u32 {
        if let Some(index) = self.index.get(&frame) {
            return *index;
        }
        let index = self.frames.len() as u32;
        self.frames.push(frame.clone());
        self.index.insert(frame, index);
        index
    }

    /// Outermost frame first.
    fn stack(&mut self, tgid: u32, kernel: &[u64], user: &[u64]) -> Stack {
        let mut stack = Vec::with_capacity(kernel.len() + user.len());
        for (addresses, space) in [(user, Space::User), (kernel, Space::Kernel)] {
            for address in addresses.iter().rev() {
                let names = match space {
                    Space::User => self.user.get(&tgid).and_then(|names| names.get(address)).cloned(),
                    Space::Kernel => self.kernel.get(address).cloned(),
                };
                // What came after the names were looked up.
                let names = names.unwrap_or_else(|| vec!["[unknown]".to_owned()]);
                for name in names.into_iter().rev() {
                    stack.push(self.frame(Frame(space, name)));
                }
            }
        }
        stack
    }
}

impl Names {
    /// A stack that a probe took in its own context, without the probe.
    fn stack_beneath_probe(&mut self, tgid: u32, kernel: &[u64], user: &[u64]) -> Stack {
        let mut stack = self.stack(tgid, kernel, user);
        while let Some(Frame(Space::Kernel, name)) = stack.last().map(|index| &self.frames[*index as usize]) {
            if !OWN.iter().any(|prefix| name.starts_with(prefix)) {
                break;
            }
            stack.pop();
        }
        stack
    }
}

/// Adds up those that look alike once their addresses have names.
fn merge_samples(samples: Vec<Sample>) -> Vec<Sample> {
    let key = |sample: &Sample| (sample.thread, sample.softirq.clone(), sample.stage.clone(), sample.stack.clone());
    let mut merged = BTreeMap::new();
    for sample in samples {
        match merged.entry(key(&sample)) {
            Entry::Vacant(entry) => {
                entry.insert(sample);
            }
            Entry::Occupied(mut entry) => {
                let sum: &mut Sample = entry.get_mut();
                sum.count += sample.count;
                sum.ns += sample.ns;
            }
        }
    }
    merged.into_values().collect()
}

/// Puts waits with equal stacks together.
fn merge_waits(waits: Vec<WaitSample>) -> Vec<WaitSample> {
    let key = |wait: &WaitSample| (wait.role, wait.stack.clone(), wait.waker.clone(), wait.by_softirq);
    let mut merged = BTreeMap::new();
    for wait in waits {
        match merged.entry(key(&wait)) {
            Entry::Vacant(entry) => {
                entry.insert(wait);
            }
            Entry::Occupied(mut entry) => {
                let sum: &mut WaitSample = entry.get_mut();
                sum.count += wait.count;
                for (total, ns) in sum.ns.iter_mut().zip(wait.ns) {
                    *total += ns;
                }
            }
        }
    }
    merged.into_values().collect()
}

fn merge_states(phases: &[RawSampled]) -> Vec<StateTotal> {
    let mut merged: BTreeMap<(Role, ThreadState), (u64, u64)> = BTreeMap::new();
    for state in phases.iter().flat_map(|phase| &phase.states) {
        let sum = merged.entry((state.role, state.state)).or_default();
        sum.0 += state.count;
        sum.1 += state.total_ns;
    }
    merged.into_iter().map(|((role, state), (count, total_ns))| StateTotal { role, state, count, total_ns }).collect()
}

#[cfg(test)]
mod tests {
    use profiler_common::EventHead;

    use super::*;

    fn event(kind: u8, tid: u32, at_ns: u64, waited_ns: [u64; 4], kernel: &[u64]) -> RawEvent {
        let head = EventHead { at_ns, tid, kind, thread_role: 2, waited_ns, ..EventHead::default() };
        RawEvent { head, kernel: kernel.to_vec(), user: Vec::new() }
    }

    #[test]
    fn a_wait_is_joined_from_its_three_events_by_time() {
        let events = [
            // The waker's event arrives last: it comes from another CPU.
            event(event::WAIT, 5, 100, [10, 0, 0, 0], &[1, 2]),
            event(event::WAIT_END, 5, 400, [210, 40, 50, 0], &[]),
            event(event::WAKER, 5, 310, [0; 4], &[3]),
            // One that does not end, and one that did not begin, in the phase.
            event(event::WAIT, 6, 150, [0; 4], &[1]),
            event(event::WAIT_END, 7, 200, [9; 4], &[]),
        ];
        let closed = join_waits(&events);
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].ns, [200, 40, 50, 0]);
        assert_eq!(closed[0].wait.kernel, [1, 2]);
        assert_eq!(closed[0].wait.waker.as_ref().unwrap().2, [3]);
    }

    #[test]
    fn samples_stand_for_a_period() {
        let mut late = event(event::SAMPLE, 1, 10, [0; 4], &[1]);
        late.head.cpu = 1;
        let idle = event(event::IDLE, 0, 11, [0; 4], &[]);
        let phase = RawSampled {
            events: vec![event(event::SAMPLE, 1, 10, [0; 4], &[1]), idle, late],
            users: UserNames::default(),
            operations: 1,
            length_ns: 1000,
            schedstat_ns: BTreeMap::new(),
            states: Vec::new(),
            noted: (3, 0),
        };
        let (mut cpus, mut samples) = (BTreeMap::new(), BTreeMap::new());
        count_samples(&phase, 1000, &mut cpus, &mut samples);
        assert_eq!(cpus[&0], CpuSamples { all: 2, idle: 1, foreign: 0 });
        assert_eq!(samples.into_values().collect::<Vec<_>>(), [(2, 2e6)]);
    }
}
