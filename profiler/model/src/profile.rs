//! Raw stacks: what the sampled phases of one repetition brought home, with names instead of addresses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    counts::{Place, Role, StateTotal},
    input::LARGEST_NUMBER,
};

/// Where a frame's code lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// Code of the kernel.
    Kernel,
    /// Code of a process.
    User,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frame(pub Space, pub String);

/// A stack as indices into [`Profile::frames`], outermost frame first.
pub type Stack = Vec<u32>;

/// Samples that look alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Role of the interrupted thread; `null`: a kernel thread, or the idle one under a softirq.
    pub thread: Option<Role>,
    /// Name of the softirq that ran on top of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softirq: Option<String>,
    /// The holder's role and the point where the stage begins that was worked on; `null`: off the path of any request.
    pub stage: Option<(Role, Place)>,
    /// User's frames, then the kernel's.
    pub stack: Stack,
    /// How many there are.
    pub count: u64,
    /// CPU time that they stand for, ns.
    pub ns: f64,
    /// Whether a guest's agent took them: what they stand for is part of a virtual processor's time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_guest: bool,
}

/// Waits that look alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitSample {
    /// Role of the thread.
    pub role: Role,
    /// Where it waited.
    pub stack: Stack,
    /// Who woke it; empty: it was preempted or throttled, or the waker's event was lost.
    pub waker: Stack,
    /// Whether a softirq did.
    pub by_softirq: bool,
    /// How many there are.
    pub count: u64,
    /// Time blocked, waking, on the run queue, throttled, ns.
    pub ns: [u64; 4],
    /// Whether it was in a guest, by its agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_guest: bool,
}

/// Samples of one CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSamples {
    /// All of them.
    pub all: u64,
    /// While nothing ran.
    pub idle: u64,
    /// While something else ran that is none of the run's business.
    pub foreign: u64,
}

/// CPU time of a role's threads in the sampled phases, by the scheduler's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleCpu {
    /// Whose.
    pub role: Role,
    /// CPU time by `/proc/PID/task/TID/schedstat`, ns.
    pub schedstat_ns: u64,
}

/// One repetition's sampled phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Round, from 0.
    pub round: u32,
    /// Operations in them, by the probes.
    pub operations: u64,
    /// Their length, ns.
    pub length_ns: u64,
    /// Samples a second on each CPU.
    pub rate_hz: u32,
    /// CPUs with a timer; an idle one may have sent nothing.
    #[serde(default)]
    pub timers: u32,
    /// All functions that occur.
    pub frames: Vec<Frame>,
    /// Samples, on and off the path.
    pub samples: Vec<Sample>,
    /// Some of the waits.
    pub waits: Vec<WaitSample>,
    /// Samples by CPU.
    pub cpus: BTreeMap<u16, CpuSamples>,
    /// CPU time by role.
    pub cpu: Vec<RoleCpu>,
    /// What threads did.
    pub states: Vec<StateTotal>,
    /// What threads did in the guest, by its agent; for as many operations as on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guest_states: Vec<StateTotal>,
    /// Events noted.
    pub events: u64,
    /// Events lost.
    pub lost: u64,
}

impl Profile {
    /// Adds what a guest's agent sampled. `scale`: what each of its samples is to be multiplied with, by the guest's
    /// own account of CPU time. Per operation it stays what it is in the guest.
    pub fn add_guest(&mut self, guest: &Self, scale: impl Fn(&Sample) -> f64) {
        if guest.operations == 0 {
            return;
        }
        let per_operation = self.operations as f64 / guest.operations as f64;
        let first = self.frames.len() as u32;
        self.frames.extend(guest.frames.iter().cloned());
        let known = |stack: &Stack| stack.iter().all(|index| (*index as usize) < guest.frames.len());
        // A guest may say anything; what is stored must be a time.
        for sample in guest.samples.iter().filter(|sample| known(&sample.stack) && sample.ns >= 0.0) {
            self.samples.push(Sample {
                stack: sample.stack.iter().map(|index| first + index).collect(),
                ns: (sample.ns * scale(sample) * per_operation).min(LARGEST_NUMBER),
                in_guest: true,
                ..sample.clone()
            });
        }
        let scaled = |ns: u64| (ns as f64 * per_operation).min(LARGEST_NUMBER) as u64;
        for wait in guest.waits.iter().filter(|wait| known(&wait.stack) && known(&wait.waker)) {
            let of_host = |stack: &Stack| stack.iter().map(|index| first + index).collect();
            let (stack, waker) = (of_host(&wait.stack), of_host(&wait.waker));
            self.waits.push(WaitSample { stack, waker, ns: wait.ns.map(scaled), in_guest: true, ..wait.clone() });
        }
        let of_host = |state: &StateTotal| StateTotal { total_ns: scaled(state.total_ns), ..state.clone() };
        self.guest_states.extend(guest.states.iter().map(of_host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::ThreadState;

    fn profile(operations: u64, samples: Vec<Sample>) -> Profile {
        Profile {
            round: 0,
            operations,
            length_ns: 1,
            rate_hz: 1,
            timers: 1,
            frames: vec![Frame(Space::Kernel, format!("f{operations}"))],
            samples,
            waits: Vec::new(),
            cpus: BTreeMap::new(),
            cpu: Vec::new(),
            states: Vec::new(),
            guest_states: Vec::new(),
            events: 0,
            lost: 0,
        }
    }

    #[test]
    fn a_guests_samples_stand_for_as_much_per_operation_as_in_the_guest() {
        let sample = |stack: Stack| Sample {
            thread: Some(Role::Server),
            softirq: None,
            stage: None,
            stack,
            count: 1,
            ns: 10.0,
            in_guest: false,
        };
        let mut host = profile(20, Vec::new());
        // The second has a frame that the guest does not name.
        host.add_guest(&profile(10, vec![sample(vec![0]), sample(vec![7])]), |_| 3.0);
        assert_eq!(host.samples.len(), 1);
        let added = &host.samples[0];
        assert_eq!((added.stack.as_slice(), added.ns, added.in_guest), ([1].as_slice(), 60.0, true));
        assert_eq!(host.frames[1].1, "f10");
        host.add_guest(&profile(0, vec![sample(vec![0])]), |_| 1.0);
        assert_eq!(host.samples.len(), 1);
    }

    #[test]
    fn a_guests_waits_and_states_are_scaled_and_named_anew() {
        let wait = WaitSample {
            role: Role::Server,
            stack: vec![0],
            waker: vec![0],
            by_softirq: true,
            count: 2,
            ns: [10, 20, 30, 40],
            in_guest: false,
        };
        let state = StateTotal { role: Role::Server, state: ThreadState::Blocked, count: 3, total_ns: 100 };
        let mut guest = profile(10, Vec::new());
        // The second has a waker that the guest does not name.
        guest.waits = vec![wait.clone(), WaitSample { waker: vec![9], ..wait.clone() }];
        guest.states = vec![state.clone()];
        let mut host = profile(20, Vec::new());
        host.add_guest(&guest, |_| 1.0);
        let expected = WaitSample { stack: vec![1], waker: vec![1], ns: [20, 40, 60, 80], in_guest: true, ..wait };
        assert_eq!(host.waits, [expected]);
        assert_eq!(host.guest_states, [StateTotal { total_ns: 200, ..state }]);
        assert!(host.states.is_empty());
    }
}
