//! The words of the field that virtax speaks, as types: what is attached, who holds a request, where it is seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod place;

pub use place::{Device, Place, Side, UnknownPoint, point_by_name};

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
    /// Name of the kind, as shown to a person.
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
    /// Responses that the proxy has.
    ProxyOut,
    /// Threads that are virtual processors.
    Vcpu,
    /// A VM's process: its main loop, and threads for its devices.
    Vmm,
    /// The kernel's workers for a VM's devices.
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
    /// Name of the role, as shown to a person.
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
    /// The accelerator of a configuration with these settings; `None`: its server runs in no VM.
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
    /// Name of the direction, as shown to a person.
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

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThreadState {
    /// The thread runs, softirqs on top of it included.
    Running,
    /// The thread sleeps.
    Blocked,
    /// The thread is being woken, and on no run queue yet.
    Waking,
    /// The thread waits for a CPU.
    RunQueue,
    /// The thread's group has used up its quota.
    Throttled,
    /// The thread has been woken on an idle CPU, which is on its way to it.
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
    /// Name of the state, as shown to a person.
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

/// What a virtual processor does. The first six divide its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VcpuState {
    /// The processor executes the guest.
    Guest,
    /// The host's kernel handles an exit.
    Kernel,
    /// The VM's process does, its waits included.
    User,
    /// The processor's thread waits for a CPU.
    ScheduledOut,
    /// The kernel has put its thread to sleep: the guest is halted, or waits for what is not there yet.
    Blocked,
    /// The guest is halted, and the kernel polls for something to do.
    Polled,
    /// From exit to entry, all of the above together.
    Exit,
    /// The VM's process handles an access to a port or to memory: part of [`VcpuState::User`].
    Access,
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
}
