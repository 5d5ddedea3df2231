//! What the table of points is made of.

use crate::counts::PhaseKind;

/// In which phases a probe is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// In all phases with probes of runs of requests over the network: what the totals and records need.
    Core,
    /// In detailed and sampled phases: what threads and softirqs do.
    Schedule,
    /// In detailed phases only: what splits stages into parts, at a cost that would distort the totals.
    Detail,
    /// In detailed phases of runs with virtual machines of the kernel's: their processors.
    Machine,
    /// In all phases with probes of any run: who is followed.
    Processes,
    /// As [`Set::Core`], of runs of file operations.
    File,
    /// As [`Set::File`], where operations may be asynchronous.
    FileAsynchronous,
    /// As [`Set::Detail`], of runs of file operations.
    FileDetail,
    /// As [`Set::Detail`], of runs of requests over the network.
    NetworkDetail,
}

impl Set {
    /// Whether it is attached in phases of this kind.
    #[must_use]
    pub const fn is_attached_in(self, kind: PhaseKind) -> bool {
        match self {
            Self::Core | Self::Processes | Self::File | Self::FileAsynchronous => !matches!(kind, PhaseKind::Detached),
            Self::Schedule => matches!(kind, PhaseKind::Detailed | PhaseKind::Sampled),
            Self::Detail | Self::Machine | Self::FileDetail | Self::NetworkDetail => {
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

/// How a point's number is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// One number.
    Fixed(u8),
    /// One number a network device, by what happens there.
    Device(u8),
    /// One number a disk, by what happens there.
    Disk(u8),
}

/// A point.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Its number in the kernel.
    pub number: Number,
    /// Its name.
    pub name: &'static str,
    /// The hand-over: holder before → holder after. The same on both sides: only a time is noted.
    pub passes: &'static str,
    /// Names of the points that may come next on the same request.
    pub successors: &'static [&'static str],
    /// Whether it only splits the stage in which it lies.
    pub is_part: bool,
}

/// A row of the table: one probe, and the points it sees.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Its name, in costs and in `virtax doctor`.
    pub name: &'static str,
    /// When it is attached.
    pub set: Set,
    /// What is lost without it; `None`: nothing works without it.
    pub without: Option<&'static str>,
    /// Ways to attach it, best first.
    pub alternatives: &'static [Alternative],
    /// The points it sees; none: it keeps the books in order.
    pub points: &'static [Point],
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
