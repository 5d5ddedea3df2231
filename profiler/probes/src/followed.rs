//! What is followed: the processes and borders of configurations, and the windows in which they are asked.

use profiler_common::{WITH_BORDERS, WITH_PROXIES, border_key};
use virtax_model::counts::Role;

/// One of the configurations that a [`Block`] follows, by its place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigurationId(u8);

impl ConfigurationId {
    /// The first, which every block has.
    pub const FIRST: Self = Self(0);

    /// The number of the configuration in the kernel.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Configurations that are alive at once and followed together: at least one. They are asked in turns, each in windows
/// of its own. A run's repetition has one configuration, and a phase one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block(Vec<Followed>);

impl From<Followed> for Block {
    fn from(followed: Followed) -> Self {
        Self(vec![followed])
    }
}

impl Block {
    /// Follows one more configuration, if there is room; `None`: a stage's key could not tell it from another.
    #[must_use]
    pub fn add(&mut self, followed: Followed) -> Option<ConfigurationId> {
        let id = u8::try_from(self.0.len()).ok()?;
        self.0.push(followed);
        Some(ConfigurationId(id))
    }

    /// Configurations of the block.
    pub fn configurations(&self) -> impl Iterator<Item = ConfigurationId> + use<> {
        (0..=u8::MAX).take(self.0.len()).map(ConfigurationId)
    }

    pub(super) fn followed(&self) -> impl Iterator<Item = (ConfigurationId, &Followed)> {
        self.configurations().zip(&self.0)
    }

    /// What has to be looked for on the paths.
    pub(super) fn looks(&self) -> u32 {
        self.0.iter().fold(0, |looks, followed| looks | followed.looks())
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
    /// Port on which a proxy listens.
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
    /// A VM, which answers.
    LeadsIn,
    /// The world: this is the VM, and its server listens on this port.
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
    /// The devices at which its requests leave the VM.
    pub borders: Vec<Border>,
}

impl Followed {
    /// What has to be looked for on the path.
    fn looks(&self) -> u32 {
        let has_proxies = self.tasks.iter().any(|task| task.port.is_some());
        let bit = |is_there: bool, bit: u32| if is_there { bit } else { 0 };
        bit(has_proxies, WITH_PROXIES) | bit(!self.borders.is_empty(), WITH_BORDERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_follows_as_many_configurations_as_keys_tell_apart() {
        let proxied =
            Followed { tasks: vec![Task { id: 1, role: Role::ProxyIn, port: Some(80) }], ..Followed::default() };
        let mut block = Block::from(Followed::default());
        assert_eq!((block.looks(), block.configurations().collect::<Vec<_>>()), (0, vec![ConfigurationId::FIRST]));
        assert_eq!(block.add(proxied), Some(ConfigurationId(1)));
        assert_eq!(block.looks(), WITH_PROXIES);
        let added = (2..=255).all(|number| block.add(Followed::default()) == Some(ConfigurationId(number)));
        assert!(added);
        assert_eq!((block.add(Followed::default()), block.configurations().count()), (None, 256));
    }
}
