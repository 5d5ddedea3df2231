//! Raw counts: what one repetition of one configuration brought home. Everything after this is pure functions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use workloads::protocol::PhaseReport;

mod guest;
mod place;

pub use guest::{Matched, OtherSide, View, Views, counter_of_vmm};
pub use place::{Device, Place, Side, UnknownPoint, point_by_name};
pub use profiler_common::point::Point;

/// What is attached during a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// Nothing.
    Detached,
    /// The core probes: totals and records.
    Traced,
    /// All probes: what splits stages into parts.
    Detailed,
    /// The core probes, those of threads and softirqs, and the sampler: stacks. No latency is taken from it.
    Sampled,
}

impl PhaseKind {
    /// As shown to a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Traced => "traced",
            Self::Detailed => "detailed",
            Self::Sampled => "sampled",
        }
    }
}

/// Which side holds a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The workload's client.
    Client,
    /// The workload's server.
    Server,
    /// A proxy between them: requests that it has, and its threads.
    ProxyIn,
    /// The same proxy: responses that it has.
    ProxyOut,
    /// Threads that are virtual processors.
    Vcpu,
    /// A virtual machine's process: its main loop, and threads for its devices.
    Vmm,
    /// The kernel's workers for a virtual machine's devices.
    Vhost,
}

impl Role {
    /// The role's number in the kernel.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Client => profiler_common::CLIENT,
            Self::Server => profiler_common::SERVER,
            Self::ProxyIn => profiler_common::PROXY_IN,
            Self::ProxyOut => profiler_common::PROXY_OUT,
            Self::Vcpu => profiler_common::VCPU,
            Self::Vmm => profiler_common::VMM,
            Self::Vhost => profiler_common::VHOST,
        }
    }
    /// The role with this number in the kernel; `None`: the number is no role's.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            profiler_common::CLIENT => Self::Client,
            profiler_common::SERVER => Self::Server,
            profiler_common::PROXY_IN => Self::ProxyIn,
            profiler_common::PROXY_OUT => Self::ProxyOut,
            profiler_common::VCPU => Self::Vcpu,
            profiler_common::VMM => Self::Vmm,
            profiler_common::VHOST => Self::Vhost,
            _ => return None,
        })
    }
    /// Roles that threads can have.
    pub const OF_THREADS: [Self; 6] = [Self::Client, Self::Server, Self::ProxyIn, Self::Vcpu, Self::Vmm, Self::Vhost];
    /// Whether it is a proxy's.
    #[must_use]
    pub const fn is_proxy(self) -> bool {
        matches!(self, Self::ProxyIn | Self::ProxyOut)
    }
    /// As shown to a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::ProxyIn | Self::ProxyOut => "proxy",
            Self::Vcpu => "vCPU",
            Self::Vmm => "VMM",
            Self::Vhost => "vhost",
        }
    }
}

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself, by the kernel's hypervisor.
    Kvm,
    /// QEMU translates every one to one or more of the host's: there is no hypervisor.
    Tcg,
}

impl Accelerator {
    /// Name of the setting of a configuration that says it.
    pub const SETTING: &'static str = "accelerator";

    /// What stands beside every result of it: what it is no evidence of.
    #[must_use]
    pub const fn caveat(self) -> Option<&'static str> {
        match self {
            Self::Kvm => None,
            Self::Tcg => Some("emulated: no evidence of KVM's cost"),
        }
    }

    /// QEMU's name for it, which is the engine's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
    /// Of a configuration with these settings; `None`: its server runs in no virtual machine.
    #[must_use]
    pub fn of_settings(settings: &BTreeMap<String, String>) -> Option<Self> {
        let name = settings.get(Self::SETTING)?;
        [Self::Kvm, Self::Tcg].into_iter().find(|accelerator| accelerator.name() == name)
    }
}

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Response,
}

impl Direction {
    /// As shown to a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

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
    /// Its name.
    pub name: String,
    /// Calls that lie in the phase as a whole.
    pub count: u64,
    /// Their time, waits included, ns.
    pub total_ns: u64,
    /// `(bucket, count)` of the durations.
    pub buckets: Vec<(u16, u32)>,
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThreadState {
    /// It runs, softirqs on top of it included.
    Running,
    /// It sleeps.
    Blocked,
    /// It is being woken, and on no run queue yet.
    Waking,
    /// It waits for a CPU.
    RunQueue,
    /// Its group has used up its quota.
    Throttled,
    /// It has been woken on an idle CPU, which is on its way to it.
    Switching,
}

impl ThreadState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Blocked, Self::Waking, Self::RunQueue, Self::Throttled, Self::Switching];
    /// States in which a thread waits, in the order of [`crate::profile::WaitSample::ns`].
    pub const WAITS: [Self; 4] = [Self::Blocked, Self::Waking, Self::RunQueue, Self::Throttled];
    /// The state's number in the kernel.
    #[must_use]
    pub const fn number(self) -> u32 {
        use profiler_common::state;
        match self {
            Self::Running => state::RUNNING,
            Self::Blocked => state::BLOCKED,
            Self::Waking => state::WAKING,
            Self::RunQueue => state::RUNNABLE,
            Self::Throttled => state::THROTTLED,
            Self::Switching => state::SWITCHING,
        }
    }
    /// As shown to a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Waking => "waking",
            Self::RunQueue => "run-queue",
            Self::Throttled => "throttled",
            Self::Switching => "switching",
        }
    }
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
    /// Its number in its machine.
    pub vcpu: u8,
    /// What it did.
    pub state: VcpuState,
    /// Why the guest had been left, by the kernel's own name; of an access, its place. Empty in the guest.
    pub reason: String,
    /// Whether this is that part of the time in the state in which the machine held a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holding: bool,
    /// With `holding`: whether the guest had the request. It had been entered with it, and not been left to hand on
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

/// What a virtual processor does. The first six divide its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VcpuState {
    /// It executes the guest.
    Guest,
    /// The host's kernel handles an exit.
    Kernel,
    /// The machine's process does, its waits included.
    User,
    /// Its thread waits for a CPU.
    ScheduledOut,
    /// The kernel has put its thread to sleep: the guest is halted, or waits for what is not there yet.
    Blocked,
    /// The guest is halted, and the kernel polls for something to do.
    Polled,
    /// From exit to entry, all of the above together.
    Exit,
    /// The machine's process handles an access to a port or to memory: part of [`VcpuState::User`].
    Access,
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
    /// [`profiler_common::Counter`]s by name; zeros too.
    pub counters: BTreeMap<String, u64>,
    /// Requests started inside the phase and still under way at its end, found in the holders.
    pub unfinished: u64,
    /// Tokens on hold or under way at the end, requests and turn-arounds alike.
    pub tokens: u64,
    /// Time since their last point, ns, of the requests that count and are still under way when the phase is given
    /// up. (Where `lives_ns` is not known: of all tokens, inside the phase.)
    pub unfinished_ns: u64,
    /// Of it the time of clients' sockets between a receipt and the next send, ns; 0 where `lives_ns` is known.
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
        self.counters.get(counter.name()).copied().unwrap_or(0)
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
    /// What the agent in the server's virtual machine saw, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<OtherSide>,
    /// What the configuration's known cost amounted to, if it has one that is accounted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountTotal>,
}

/// What one probe costs, by the kernel's run-time statistics less their own floor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProbeCost {
    /// Name in the table of points.
    pub probe: String,
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
    fn roles_have_their_numbers() {
        let roles = [Role::Client, Role::Server, Role::ProxyIn, Role::ProxyOut, Role::Vcpu, Role::Vmm, Role::Vhost];
        for role in roles {
            assert_eq!(Role::from_number(role.number()), Some(role));
            assert_eq!(role.is_proxy(), role.name() == "proxy", "{role:?}");
        }
        assert_eq!(Role::from_number(u8::MAX), None);
    }

    #[test]
    fn an_accelerator_is_known_by_its_setting() {
        let of = |name: &str| Accelerator::of_settings(&[(Accelerator::SETTING.to_owned(), name.to_owned())].into());
        assert_eq!((of("kvm"), of("tcg"), of("xen")), (Some(Accelerator::Kvm), Some(Accelerator::Tcg), None));
        assert_eq!(Accelerator::of_settings(&BTreeMap::new()), None);
    }

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
