//! Raw counts: what one repetition of one configuration brought home. Everything after this is pure functions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use workloads::protocol::PhaseReport;

mod counters;
mod guest;

pub use counters::{Counters, UnknownCounter};
pub use guest::{Matched, OtherSide, View, Views};
pub use profiler_common::point::Point;

use crate::points::ProbeName;
pub use crate::terms::{
    Accelerator, Device, Direction, PhaseKind, Place, Role, Side, ThreadState, UnknownPoint, VcpuState, point_by_name,
};

/// Totals of one stage in one phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedStage")]
pub struct StageTotal {
    /// Whether it is a part of a stage, whose time the stage holds as well.
    pub part: bool,
    /// The holder's role.
    pub role: Role,
    /// The point where it begins.
    pub from: Place,
    /// The point where it ends.
    pub to: Place,
    /// Requests that count (they began inside the phase) and ended it.
    pub count: u64,
    /// Their time in it, ns.
    pub total_ns: u64,
    /// `(bucket, count)` of the durations, see [`crate::histogram`].
    pub buckets: Vec<(u16, u32)>,
}

/// A [`StageTotal`] as it is written.
#[derive(Deserialize)]
struct SavedStage {
    part: bool,
    role: Role,
    from: Place,
    to: Place,
    count: u64,
    total_ns: u64,
    buckets: Vec<(u16, u32)>,
}

impl From<SavedStage> for StageTotal {
    fn from(saved: SavedStage) -> Self {
        let SavedStage { part, role, from, to, count, total_ns, buckets } = saved;
        let to = if part { to.as_end_after(&from) } else { to };
        Self { part, role, from, to, count, total_ns, buckets }
    }
}

/// Totals of one system call in one detailed phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTotal {
    /// Role of the calling process.
    pub role: Role,
    /// Name of the system call.
    pub name: String,
    /// Calls that lie in the phase as a whole.
    pub count: u64,
    /// Their time, waits included, ns.
    pub total_ns: u64,
    /// `(bucket, count)` of the durations.
    pub buckets: Vec<(u16, u32)>,
}

/// Time of all threads of a role in one state, in one detailed or sampled phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateTotal {
    /// Role of the threads.
    pub role: Role,
    /// The state.
    pub state: ThreadState,
    /// How often it ended in the phase.
    pub count: u64,
    /// Time in it, as far as it lies in the phase, ns.
    pub total_ns: u64,
}

/// Time of one virtual processor in one state, in one detailed phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuTotal {
    /// Number of the processor in its VM.
    pub vcpu: u8,
    /// What it did.
    pub state: VcpuState,
    /// Why the guest had been left, by the kernel's own name; of an access, its place. Empty in the guest.
    pub reason: String,
    /// Whether this is that part of the time in the state in which the VM held a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holding: bool,
    /// Whether, with `holding`, the guest had the request. It had been entered with it, and not been left to hand on
    /// the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inside: bool,
    /// How often that ended in the phase.
    pub count: u64,
    /// Time in it, as far as it lies in the phase, ns.
    pub total_ns: u64,
    /// `(bucket, count)` of the durations.
    pub buckets: Vec<(u16, u32)>,
}

/// What the probes counted in one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCounts {
    /// Stages and parts.
    pub stages: Vec<StageTotal>,
    /// System calls (detailed phases).
    pub calls: Vec<CallTotal>,
    /// What threads did (detailed and sampled phases).
    pub states: Vec<StateTotal>,
    /// What virtual processors did (detailed phases).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vcpus: Vec<VcpuTotal>,
    /// [`profiler_common::Counter`]s; zeros too.
    pub counters: Counters,
    /// Requests started inside the phase and still under way at its end, found in the holders.
    pub unfinished: u64,
    /// Tokens on hold or under way at the end, requests and turn-arounds alike.
    pub tokens: u64,
    /// Time since their last point, ns, of the requests that count and are still under way when the phase is given
    /// up. (Where `lives_ns` is not known: of all tokens, inside the phase.)
    pub unfinished_ns: u64,
    /// Part of it of clients' sockets between a receipt and the next send, ns; 0 where `lives_ns` is known.
    pub idle_ns: u64,
    /// Ends less beginnings of all requests that count, ns; of what was lost, or is unfinished, its last point: what
    /// their stages must sum to. `None`: the phase is of a version that clipped stages to the phase instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lives_ns: Option<u64>,
    /// Records under way at the end.
    pub records_unfinished: u64,
}

impl ProbeCounts {
    /// A counter's value.
    #[must_use]
    pub fn counter(&self, counter: profiler_common::Counter) -> u64 {
        self.counters.of(counter)
    }
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What was attached.
    pub kind: PhaseKind,
    /// When it began, ns of `CLOCK_MONOTONIC`.
    #[serde(default)]
    pub open_ns: u64,
    /// Length, ns.
    pub length_ns: u64,
    /// What the client saw.
    pub client: PhaseReport,
    /// What the probes saw, if any were attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeCounts>,
    /// What the agent in the server's VM saw, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<OtherSide>,
    /// What the configuration's known cost amounted to, if it has one that is accounted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountTotal>,
    /// The windows that the phase is the sum of, between which others were asked; empty: it is one interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowCounts>,
}

/// A window in which a configuration was asked in turn with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowCounts {
    /// The block that it was part of, in its phase: within one, all configurations were asked, and back again.
    pub block: u32,
    /// When it began to count, ns after the phase.
    pub at_ns: u64,
    /// How long it counted, ns.
    pub length_ns: u64,
    /// Operations that count.
    pub operations: u64,
    /// Sum of their latencies, ns.
    pub latency_sum_ns: u64,
    /// Time of the same work on the client's CPU right before and after, ns ([`workloads::speed`]); 0: not measured.
    #[serde(default)]
    pub work_ns: [u64; 2],
    /// What the host did meanwhile, by an account of its own; `None`: nothing that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed: Option<Disturbance>,
}

/// What a host does to a block, by its own accounts: never by what the block shows of the configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disturbance {
    /// A fixed piece of work took longer than elsewhere in the run: something shares the CPU's core, or slows it.
    Slow,
    /// A hypervisor gave the CPU's time to others.
    Stolen,
    /// Others' programs ran on the CPUs of client and server.
    Foreign,
}

/// What one probe costs, by the kernel's run-time statistics less their own floor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProbeCost {
    /// Name in the table of points.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub probe: ProbeName,
    /// Runs per operation.
    pub hits_per_op: f64,
    /// Time inside the program, ns per run.
    pub ns_per_hit: f64,
}

/// Costs of all probes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Costs {
    /// One entry a probe that is attached in the kind of phase that they are of.
    pub probes: Vec<ProbeCost>,
    /// Getting into a program and out again, which the statistics do not see, ns per run.
    pub dispatch_ns: f64,
    /// What the statistics show for a program that returns at once, ns per run: subtracted above.
    pub floor_ns: f64,
}

/// A device seen on a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceInfo {
    /// The label used everywhere else.
    pub label: String,
    /// Name in its namespace.
    pub name: String,
    /// Number in its namespace.
    pub ifindex: u32,
    /// Inode number of its network namespace.
    pub namespace: u32,
}

/// One configuration, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repetition {
    /// Round, from 0.
    pub round: u32,
    /// The configuration's name.
    pub configuration: String,
    /// Position within its round, from 0.
    pub position: u32,
    /// Connections of the client: tokens that exist at any instant.
    pub connections: u32,
    /// What the server ran in, as verified from inside.
    pub settings: BTreeMap<String, String>,
    /// Devices on the path.
    pub devices: Vec<DeviceInfo>,
    /// Netfilter hooks of the server's network namespace.
    pub server_hooks: Hooks,
    /// Those of the client's.
    pub client_hooks: Hooks,
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// What the probes cost.
    pub costs: Costs,
    /// What they cost in the guest, where an agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_costs: Option<Costs>,
    /// What disturbed it, for a person; empty: nothing that was seen.
    pub disturbances: Vec<String>,
    /// CPU time of virtax itself over the phases, ns, and their length, ns.
    #[serde(rename = "agent_cpu_ns")]
    pub virtax_cpu_ns: u64,
    /// Length of the interval to which `virtax_cpu_ns` belongs, ns.
    #[serde(rename = "agent_wall_ns")]
    pub virtax_wall_ns: u64,
}

/// A known cost over one phase, its lead-in included, by an account that is not virtax's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountTotal {
    /// How often.
    pub events: u64,
    /// Together, ns.
    pub ns: u64,
    /// Length of the interval, ns.
    pub wall_ns: u64,
}

/// What hangs on the IPv4 hooks of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hooks {
    /// `hook priority function`: what the kernel lists, or, where it cannot, the base chains of the rule set.
    pub functions: Vec<String>,
    /// Connections that are tracked there. `None`: the kernel does not say.
    pub tracked_connections: Option<u64>,
    /// Why the functions are not known; empty: they are.
    pub unknown_because: String,
}

impl Hooks {
    /// Whether connection tracking sees packets of this namespace. A NAT chain needs it; so does a tracked connection.
    #[must_use]
    pub fn tracks_connections(&self) -> bool {
        self.tracked_connections.is_some_and(|count| count > 0)
            || self.functions.iter().any(|function| function.contains("conntrack") || function.contains(" nat "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_tracked_where_something_does_it() {
        let hooks = |functions: &[&str], tracked_connections| Hooks {
            functions: functions.iter().map(|function| (*function).to_owned()).collect(),
            tracked_connections,
            unknown_because: String::new(),
        };
        assert!(hooks(&["prerouting -200 ipv4_conntrack_in [nf_conntrack]"], None).tracks_connections());
        assert!(hooks(&["postrouting 100 chain nat POSTROUTING"], Some(0)).tracks_connections());
        assert!(hooks(&[], Some(1)).tracks_connections());
        assert!(!hooks(&["forward 0 chain filter FORWARD"], Some(0)).tracks_connections());
        assert!(!hooks(&[], None).tracks_connections());
    }
}
