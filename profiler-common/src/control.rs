//! What user space tells the probes before and during a phase.

/// Nothing is followed.
pub const OFF: u32 = 0;
/// Requests are followed; what falls between `open_ns` and `close_ns` is recorded.
pub const ON: u32 = 1;

/// Nothing but the totals and records.
pub const TOTALS: u32 = 0;
/// Threads, system calls and softirqs too: they split stages into parts.
pub const PARTS: u32 = 1;
/// Threads and softirqs too, and what each works on: stacks are sampled.
pub const STACKS: u32 = 2;

/// Bit of [`Control::borders`]: proxies are among the followed processes.
pub const WITH_PROXIES: u32 = 1;
/// Bit of [`Control::borders`]: requests go through a [`crate::Border`].
pub const WITH_BORDERS: u32 = 2;

/// Whose turn it is: a number that no two phases have as long as the probes are loaded and their tables are not
/// emptied, and a configuration. In [`Control`], it is the one that is asked; a token's is the one that its holder
/// belongs to, whoever is asked meanwhile.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Turn {
    epoch: u16,
    configuration: u8,
    reserved: u8,
}

impl Turn {
    /// Phase, never 0, and configuration.
    #[must_use]
    pub const fn new(epoch: u16, configuration: u8) -> Self {
        Self { epoch, configuration, reserved: 0 }
    }
    /// What lies in memory as one; its reserved byte is dropped.
    #[must_use]
    pub const fn from_bytes([low, high, configuration, _]: [u8; 4]) -> Self {
        Self::new(u16::from_ne_bytes([low, high]), configuration)
    }
    /// Turns to another configuration of the same phase.
    #[inline(always)]
    #[must_use]
    pub const fn of(self, configuration: u8) -> Self {
        Self { configuration, ..self }
    }
    /// Number of the phase; 0: nothing was followed yet.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.epoch as u32
    }
    /// Number of the configuration.
    #[inline(always)]
    #[must_use]
    pub const fn configuration(self) -> u8 {
        self.configuration
    }
}

/// What user space tells the probes: one entry, read by every program before anything else. It is the window's: what
/// holds for a device or a process stands there ([`crate::Border`], [`crate::Followed`]).
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Control {
    /// [`OFF`] or [`ON`].
    pub state: u32,
    /// The phase, and who is asked in it; tokens of an earlier phase are void.
    pub turn: Turn,
    /// Start of the recorded interval, `CLOCK_MONOTONIC` ns.
    pub open_ns: u64,
    /// End of the recorded interval, `CLOCK_MONOTONIC` ns.
    pub close_ns: u64,
    /// One request in this many gets a record; 0: none.
    pub record_every: u32,
    /// What is watched besides: [`TOTALS`], [`PARTS`] or [`STACKS`].
    pub mode: u32,
    /// Waits of which about one leaves its stacks, with [`STACKS`]; 0: none does.
    pub wait_every: u32,
    /// What has to be looked for on the path: [`WITH_PROXIES`], [`WITH_BORDERS`].
    pub borders: u32,
}

impl Control {
    /// Number of the phase.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.turn.epoch()
    }
    /// Whether proxies are among the followed processes.
    #[inline(always)]
    #[must_use]
    pub const fn has_proxies(&self) -> bool {
        self.borders & WITH_PROXIES != 0
    }
    /// Whether requests go through a border.
    #[inline(always)]
    #[must_use]
    pub const fn has_borders(&self) -> bool {
        self.borders & WITH_BORDERS != 0
    }
}

const _: () = assert!(size_of::<Turn>() == 4);
const _: () = assert!(size_of::<Control>() == 40);
