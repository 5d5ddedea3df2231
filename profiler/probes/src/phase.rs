//! The protocol of a phase with probes, the same on a host and in a guest: attached, following, open, closed, counted.
//! A phase is a block of windows over one or more configurations that are alive at once; between two windows, the
//! probes stay attached.
//!
//! Each step is a type, and gives the next one: what is forgotten, or done in another order, does not compile. What
//! differs between the two sides are parameters: who is followed, and whose tokens are waited for.

use std::time::{Duration, Instant};

use profiler_common::{Control, ON, PARTS, STACKS, TOTALS, Turn};
use workloads::clock::now_ns;

use super::{
    Attached, Labels, Loaded, Totals,
    drain::Drain,
    followed::{Block, ConfigurationId, Window},
    totals::{Midst, Over},
};
use crate::interrupt;
use virtax_model::{
    counts::{PhaseKind, ProbeCounts},
    error::Result,
};

/// Requests are followed at least this long before anything is recorded, and until every token that is waited for was
/// seen: what is on its way at the beginning of a phase has been seen before.
pub const LEAD_IN: Duration = Duration::from_millis(20);
/// A token that was not seen by then is missing for good: that shows in the conservation.
const LONGEST_LEAD_IN: Duration = Duration::from_secs(2);
/// How often it is looked after a phase whether what began in it has ended; the probes go on until then.
pub const LEAD_OUT: Duration = Duration::from_millis(2);

/// How much a phase notes beside totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// One request in this many gets a record; 0: none.
    pub record_every: u32,
    /// Waits of which about one leaves its stacks, in sampled phases; 0: none does.
    pub wait_every: u32,
}

/// The timer that takes stacks in sampled phases.
#[derive(Debug, Clone, Copy)]
pub struct Sampler<'a> {
    /// CPUs that have one.
    pub cpus: &'a [usize],
    /// Samples a second on each.
    pub rate_hz: u32,
}

/// The tokens that are to be seen before anything is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// None: another side has seen all that begin.
    Nothing,
    /// So many, and both ends of as many connections.
    Connections(u32),
    /// Server's ends of so many connections.
    Servers(u32),
    /// So many of whatever holder.
    Tokens(u32),
}

impl Expected {
    fn are_seen(self, probes: &Loaded, epoch: u32) -> bool {
        match self {
            Self::Nothing => true,
            // The token of a socket that is not known yet would be lost at its delivery.
            Self::Connections(count) => {
                let count = count as usize;
                probes.tokens_seen(epoch) >= count && probes.sockets_seen(epoch) >= count
            }
            Self::Servers(count) => probes.server_sockets_seen(epoch) >= count as usize,
            Self::Tokens(count) => probes.tokens_seen(epoch) >= count as usize,
        }
    }
}

const fn mode(kind: PhaseKind) -> u32 {
    match kind {
        PhaseKind::Detailed => PARTS,
        PhaseKind::Sampled => STACKS,
        PhaseKind::Detached | PhaseKind::Traced => TOTALS,
    }
}

/// The probes of a kind of phase are attached, and told to do nothing.
pub struct Ready {
    epoch: u16,
    kind: PhaseKind,
    links: Vec<Attached>,
    before: Totals,
}

impl Ready {
    /// Attaches them.
    ///
    /// # Errors
    /// If a table cannot be read, or the kernel refuses a probe or the sampler.
    pub fn attach(probes: &mut Loaded, kind: PhaseKind, sampler: Sampler<'_>) -> Result<Self> {
        let epoch = probes.next_epoch()?;
        // Nothing counts while nothing is attached: what is read now is not read on the workload's time.
        let before = probes.totals()?;
        let mut links = vec![probes.attach(kind)?];
        if kind == PhaseKind::Sampled {
            links.push(probes.attach_sampler(sampler.cpus, sampler.rate_hz)?);
        }
        Ok(Self { epoch, kind, links, before })
    }

    /// Follows requests of these configurations from now on. Until [`Loaded::forget_all`], sockets and threads keep
    /// the configuration that they were first seen in: later blocks follow the same ones, in the same order.
    ///
    /// # Errors
    /// If a table of the probes is full, or was made for fewer configurations.
    pub fn follow(self, probes: &mut Loaded, block: Block, notes: Notes) -> Result<Following> {
        probes.follow(&block)?;
        let is_sampled = self.kind == PhaseKind::Sampled;
        let control = Control {
            state: ON,
            turn: Turn::new(self.epoch, ConfigurationId::FIRST.number()),
            open_ns: u64::MAX,
            close_ns: u64::MAX,
            // Requests of sampled phases are disturbed more than a record should be.
            record_every: if is_sampled { 0 } else { notes.record_every },
            mode: mode(self.kind),
            wait_every: if is_sampled { notes.wait_every } else { 0 },
            borders: block.looks(),
        };
        probes.control(control);
        let Self { kind, links, before, .. } = self;
        Ok(Following { kind, links, before, block, control })
    }
}

/// Requests are followed; nothing is recorded yet.
pub struct Following {
    kind: PhaseKind,
    links: Vec<Attached>,
    before: Totals,
    block: Block,
    control: Control,
}

impl Following {
    /// Waits until the expected tokens have been seen, or are missing for good.
    ///
    /// # Errors
    /// [`virtax_model::error::Error::Interrupted`].
    pub fn lead_in(&self, probes: &Loaded, expected: Expected) -> Result<()> {
        let start = Instant::now();
        loop {
            interrupt::sleep(LEAD_IN)?;
            if expected.are_seen(probes, self.control.epoch()) || start.elapsed() > LONGEST_LEAD_IN {
                return Ok(());
            }
        }
    }

    /// The configurations that are followed, in order.
    pub fn configurations(&self) -> impl Iterator<Item = ConfigurationId> + use<> {
        self.block.configurations()
    }

    /// Whether the expected tokens have been seen.
    #[must_use]
    pub fn has_seen(&self, probes: &Loaded, expected: Expected) -> bool {
        expected.are_seen(probes, self.control.epoch())
    }

    /// Records what falls into the block's first window.
    #[must_use]
    pub fn open(self, probes: &Loaded, window: Window) -> Open {
        let Self { kind, links, before, block, control } = self;
        let (midst, is_late) = (Midst::default(), false);
        Open { kind, links, before, block, control, midst, window, is_late }.record(probes, window)
    }
}

/// A window is recorded.
pub struct Open {
    kind: PhaseKind,
    links: Vec<Attached>,
    before: Totals,
    block: Block,
    control: Control,
    /// What the ends of earlier windows cut off.
    midst: Midst,
    window: Window,
    is_late: bool,
}

impl Open {
    /// What is attached.
    #[must_use]
    pub const fn kind(&self) -> PhaseKind {
        self.kind
    }
    /// Whether a window had begun when it was set.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.is_late
    }
    /// The window.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }

    fn record(mut self, probes: &Loaded, window: Window) -> Self {
        probes.record(window);
        self.control.turn = self.control.turn.of(window.configuration.number());
        (self.control.open_ns, self.control.close_ns) = (window.open_ns, window.close_ns);
        // Late ourselves: its beginning is missing.
        self.is_late |= now_ns() >= window.open_ns;
        self.window = window;
        self
    }

    /// Records what falls into the block's next window, once the one before has drained. What the end of that one cut
    /// off is added up first: from now on, threads and processors are asked about the next.
    #[must_use]
    pub fn next(mut self, probes: &Loaded, window: Window) -> Self {
        self.midst.add(probes.midst_of(&self.control));
        self.record(probes, window)
    }

    /// After the window: goes on until all that began in it has ended, or has waited for `longest`.
    ///
    /// # Errors
    /// If a table cannot be read, or [`virtax_model::error::Error::Interrupted`].
    pub fn drain(&self, probes: &mut Loaded, longest: Duration, mut meanwhile: impl FnMut(&mut Loaded)) -> Result<()> {
        let (since, mut drain) = (Instant::now(), Drain::default());
        loop {
            interrupt::sleep_with(LEAD_OUT.max(since.elapsed() / 10), || meanwhile(probes))?;
            if drain.is_over(probes, &self.before, self.control.epoch())? || since.elapsed() > longest {
                return Ok(());
            }
        }
    }

    /// Follows nothing any more, and detaches.
    #[must_use]
    pub fn close(self, probes: &Loaded) -> Closed {
        let until_ns = now_ns();
        probes.stop();
        let Self { kind, links, before, block, control, mut midst, window, is_late } = self;
        drop(links);
        midst.add(probes.midst_of(&control));
        Closed { kind, before, block, control, midst, window, until_ns, is_late }
    }
}

/// Nothing is attached any more, and what was counted can be read.
pub struct Closed {
    kind: PhaseKind,
    before: Totals,
    block: Block,
    control: Control,
    midst: Midst,
    window: Window,
    until_ns: u64,
    is_late: bool,
}

impl Closed {
    /// What was attached.
    #[must_use]
    pub const fn kind(&self) -> PhaseKind {
        self.kind
    }
    /// Whether a window had begun when it was set.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.is_late
    }
    /// The last window.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }
    /// Whether a record or an event is of this phase.
    #[must_use]
    pub const fn is_own(&self, epoch: u32) -> bool {
        self.control.epoch() == epoch
    }
    /// Requests that came into the VM and left it: number, and how long they stayed, ns.
    #[must_use]
    pub fn crossings(&self, probes: &Loaded) -> Vec<(u32, u64)> {
        probes.crossings(&self.control)
    }
    /// What was counted in the block's windows, of each of its configurations, in order.
    ///
    /// # Errors
    /// If a table cannot be read, or the probes name what does not exist.
    pub fn counts(&self, probes: &Loaded, labels: &Labels) -> Result<Vec<ProbeCounts>> {
        let Self { before, midst, until_ns, .. } = self;
        let over = Over { before, midst, epoch: self.control.epoch(), until_ns: *until_ns };
        probes.counts_of(&over, self.block.configurations(), labels)
    }

    /// What was counted of the first configuration, which is the only one of a repetition's phase.
    ///
    /// # Errors
    /// As [`Closed::counts`].
    pub fn first_counts(&self, probes: &Loaded, labels: &Labels) -> Result<ProbeCounts> {
        Ok(self.counts(probes, labels)?.swap_remove(usize::from(ConfigurationId::FIRST.number())))
    }
}
