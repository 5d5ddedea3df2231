//! What is followed: the processes and borders of configurations, and the windows in which they are asked.

use profiler_common::{WITH_BORDERS, WITH_PROXIES, border_key};
use virtax_model::counts::Role;

/// One of the configurations that are followed at once, by its place among them. Today, a block of windows has one
/// window, of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigurationId(u8);

impl ConfigurationId {
    /// The first.
    pub const FIRST: Self = Self(0);

    /// The number of the configuration in the kernel.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A recorded interval, `CLOCK_MONOTONIC` ns, in which one configuration is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The configuration that is asked.
    pub configuration: ConfigurationId,
    /// The beginning.
    pub open_ns: u64,
    /// The end.
    pub close_ns: u64,
}

impl Window {
    /// The length, ns.
    #[must_use]
    pub const fn length_ns(self) -> u64 {
        self.close_ns - self.open_ns
    }
}

/// A network device, by its number and its network namespace's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Interface number.
    pub ifindex: u32,
    /// Inode number of its network namespace.
    pub namespace: u32,
}

/// A process that is followed, or a thread that has a role of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Number of the process, or of the thread.
    pub id: u32,
    /// The role.
    pub role: Role,
    /// Of a proxy: the port on which it listens.
    pub port: Option<u16>,
}

/// A device at which requests leave what one kernel sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Border {
    /// The device.
    pub device: Boundary,
    /// What lies behind it.
    pub kind: BorderKind,
}

/// What lies behind a [`Border`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BorderKind {
    /// A virtual machine, which answers.
    LeadsIn,
    /// The world: this is the virtual machine, and its server listens on this port.
    Card {
        /// The port.
        port: u16,
    },
}

impl Border {
    pub(super) const fn key(&self) -> u64 {
        border_key(self.device.namespace, self.device.ifindex)
    }
}

impl BorderKind {
    pub(super) const fn raw(self) -> profiler_common::Border {
        match self {
            Self::LeadsIn => profiler_common::Border { kind: profiler_common::Border::LEADS_IN, port: 0 },
            Self::Card { port } => profiler_common::Border { kind: profiler_common::Border::CARD, port: port as u32 },
        }
    }
}

/// What is followed of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// The processes and threads.
    pub tasks: Vec<Task>,
    /// The devices at which its requests leave the machine.
    pub borders: Vec<Border>,
}

impl Followed {
    /// What has to be looked for on the path.
    pub(super) fn looks(&self) -> u32 {
        let has_proxies = self.tasks.iter().any(|task| task.port.is_some());
        let bit = |is_there: bool, bit: u32| if is_there { bit } else { 0 };
        bit(has_proxies, WITH_PROXIES) | bit(!self.borders.is_empty(), WITH_BORDERS)
    }
}
