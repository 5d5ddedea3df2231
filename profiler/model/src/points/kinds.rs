//! What the table of points is made of.

use std::fmt;

pub use profiler_common::point::Point;

pub use super::words::Next;
use crate::terms::PhaseKind;

/// The phases in which a probe is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// All phases with probes of runs of requests over the network: what the totals and records need.
    Core,
    /// Detailed and sampled phases: what threads and softirqs do.
    Schedule,
    /// Detailed phases only: what splits stages into parts, at a cost that would distort the totals.
    Detail,
    /// Detailed phases of runs with VMs of the kernel's: their processors.
    Vm,
    /// All phases with probes of any run: who is followed.
    Processes,
    /// Phases of [`Set::Core`], of runs of file operations.
    File,
    /// Phases of [`Set::File`], where operations may be asynchronous.
    FileAsynchronous,
    /// Phases of [`Set::Detail`], of runs of file operations.
    FileDetail,
    /// Phases of [`Set::Detail`], of runs of requests over the network.
    NetworkDetail,
}

impl Set {
    /// Whether it is attached in phases of this kind.
    #[must_use]
    pub const fn is_attached_in(self, kind: PhaseKind) -> bool {
        match self {
            Self::Core | Self::Processes | Self::File | Self::FileAsynchronous => !matches!(kind, PhaseKind::Detached),
            Self::Schedule => matches!(kind, PhaseKind::Detailed | PhaseKind::Sampled),
            Self::Detail | Self::Vm | Self::FileDetail | Self::NetworkDetail => {
                matches!(kind, PhaseKind::Detailed)
            }
        }
    }
}

/// What a program wants of a tracepoint's record: the symbol of its offset, the field, its bytes.
pub type Field = (&'static str, &'static str, u32);

/// One way to see a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint whose arguments are typed by BTF: fields are plain loads.
    TypedTracepoint(&'static str),
    /// A raw tracepoint: fields through a helper.
    RawTracepoint(&'static str),
    /// A tracepoint by its record, laid out as the running kernel's `format` file says.
    Tracepoint {
        /// `category/name`.
        event: &'static str,
        /// What the program wants of the record.
        fields: &'static [Field],
    },
    /// A function's entry, by trampoline.
    Fentry(&'static str),
    /// A function's return, by trampoline.
    Fexit(&'static str),
    /// A function's entry, by breakpoint or ftrace.
    Kprobe(&'static str),
    /// A function's return, with a second program at its entry.
    KretprobePair {
        /// The function.
        function: &'static str,
        /// The program at its entry.
        entry: &'static str,
    },
}

/// A hook and the program that is made for it.
#[derive(Debug, Clone, Copy)]
pub struct Alternative {
    /// Name of the program in the probes' object.
    pub program: &'static str,
    /// Name of the program that is attached in its place where nothing but totals and records is kept.
    pub plain: Option<&'static str>,
    /// Where it is attached.
    pub hook: Hook,
}

/// At what a request is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At no device.
    NoDevice,
    /// At a network device.
    NetworkDevice,
    /// At a disk.
    Disk,
}

/// What holds a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A socket.
    Socket,
    /// A packet.
    Skb,
    /// A socket, or a packet on its way between devices.
    SocketOrSkb,
    /// A connection into a VM.
    Connection,
    /// A thread that makes file operations.
    Thread,
    /// A file operation.
    Call,
    /// The bios of a file operation.
    Bios,
    /// A VM's process.
    Vm,
    /// A guest.
    Guest,
    /// A guest, or its VM's process.
    GuestOrVm,
    /// The holder before the point: only a time is noted.
    TheSame,
}

impl Holder {
    /// Name of the point, as shown to a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Skb => "skb",
            Self::SocketOrSkb => "socket or skb",
            Self::Connection => "connection",
            Self::Thread => "thread",
            Self::Call => "call",
            Self::Bios => "bios",
            Self::Vm => "machine",
            Self::Guest => "guest",
            Self::GuestOrVm => "guest or machine",
            Self::TheSame => "the same",
        }
    }
}

/// A hand-over: the holder before a point, and after it. The same on both sides: only a time is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes(pub Holder, pub Holder);

impl fmt::Display for Passes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} → {}", self.0.name(), self.1.name())
    }
}

/// Who has a message from a point on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// The sender of the message has it, or it travels.
    Sends,
    /// Nobody: a segment of it was dropped, and its sender has not tried again yet.
    Lost,
    /// The receiver of the message gets it at this point.
    Arrives,
    /// The receiver of the message has it.
    Receives,
}

/// Whether a request begins or ends at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// A request begins here, in the client.
    Begins,
    /// A request ends here, in the client.
    Ends,
    /// Neither.
    Within,
}

/// Which stage a point splits into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splits {
    /// None: stages begin and end at it.
    Nothing,
    /// The one that ends at this point, at the same device.
    StageThatEndsAt(Point),
    /// The one in which a thread is woken: the reader of a socket, or one that waits for its file operation.
    Waiting,
    /// The one in which a segment waits to be sent again.
    Retransmission,
    /// The one in which a VM holds a request.
    Vm,
    /// The one in which a guest waits for its disk.
    GuestsDisk,
    /// The one in which a guest waits for its disk, or an operation for one of io_uring's workers.
    GuestsDiskOrWorker,
}

/// The row of a point.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The point.
    pub point: Point,
    /// At what a request is seen.
    pub at: At,
    /// The hand-over.
    pub passes: Passes,
    /// What may come next on the same request, and what happens until then.
    pub next: &'static [Next],
    /// The stage that it splits.
    pub splits: Splits,
    /// Rank among the points that split one stage.
    pub rank: u8,
    /// Who has a message from here on.
    pub leg: Leg,
    /// Whether a request begins or ends here.
    pub edge: Edge,
    /// Whether somebody waits for it: programs that end no stage run meanwhile, mostly.
    pub is_waited_for: bool,
}

/// The row of what a socket's reader does while a message waits in it, or its answer is made. It is an end of parts.
#[derive(Debug, Clone, Copy)]
pub struct ReaderRow {
    /// What it does.
    pub point: Point,
    /// Meaning of the state, in words.
    pub meaning: &'static str,
    /// Whether it works for the message itself.
    pub is_own_work: bool,
    /// Whether this grows with what is under way at once: a wait for other operations, or for a CPU that they have.
    pub is_queueing: bool,
}

/// A row of the table: one probe, and the points it sees.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Name of the probe, in costs and in `virtax doctor`.
    pub name: &'static str,
    /// When it is attached.
    pub set: Set,
    /// What is lost without it; `None`: nothing works without it.
    pub without: Option<&'static str>,
    /// Ways to attach it, best first.
    pub alternatives: &'static [Alternative],
    /// The points it sees; none: it keeps the books in order.
    pub points: &'static [Row],
}

impl Hook {
    /// The kind of program, as `virtax doctor` shows it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::TypedTracepoint(_) => "tp_btf",
            Self::RawTracepoint(_) => "raw_tp",
            Self::Tracepoint { .. } => "tracepoint",
            Self::Fentry(_) => "fentry",
            Self::Fexit(_) => "fexit",
            Self::Kprobe(_) => "kprobe",
            Self::KretprobePair { .. } => "kretprobe",
        }
    }
}

impl Alternative {
    /// The program that is attached in phases of a kind.
    #[must_use]
    pub fn program_in(&self, kind: PhaseKind) -> &'static str {
        match (kind, self.plain) {
            (PhaseKind::Traced, Some(plain)) => plain,
            _ => self.program,
        }
    }
}

/// A way to see what has no tracepoint whose arguments are the same in every kernel.
pub(super) const fn only(program: &'static str, hook: Hook) -> Alternative {
    Alternative { program, plain: None, hook }
}
