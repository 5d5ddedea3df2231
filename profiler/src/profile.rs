//! Raw stacks: what the sampled phases of one repetition brought home, with names instead of addresses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counts::{Place, Role, StateTotal};

/// Where a frame's code lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// In the kernel.
    Kernel,
    /// In a process.
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
    /// By `/proc/PID/task/TID/schedstat`, ns.
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
    /// Events noted.
    pub events: u64,
    /// Events lost.
    pub lost: u64,
}
