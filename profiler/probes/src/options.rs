//! How the probes are loaded.

use super::Limits;
use virtax_model::points::{Alternative, Set};

/// Which alternatives may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// The first that loads.
    #[default]
    Best,
    /// This kind of program wherever a probe has it and the kernel takes it, the best elsewhere: tests force what
    /// other kernels would get.
    Kind(&'static str),
}

/// Kinds of programs that may be asked for, see [`virtax_model::points::Hook::kind`].
pub const KINDS: [&str; 7] = ["tp_btf", "raw_tp", "tracepoint", "fentry", "fexit", "kprobe", "kretprobe"];

impl Preference {
    /// A probe's alternatives in the order in which they are tried.
    pub(super) fn order(self, alternatives: &'static [Alternative]) -> Vec<&'static Alternative> {
        let mut order: Vec<_> = alternatives.iter().collect();
        if let Self::Kind(kind) = self {
            // Stable: the rest stays in its order.
            order.sort_by_key(|alternative| alternative.hook.kind() != kind);
        }
        order
    }
}

/// How the probes are loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Which alternatives may be used.
    pub preference: Preference,
    /// Whether faults of the probes go to the terminal.
    pub debug: bool,
    /// Sizes of the tables.
    pub limits: Limits,
    /// Whether there are VMs under KVM: without, nothing of them is loaded.
    pub vms: bool,
    /// Whether operations are a file's, instead of requests over the network: what the others need is not loaded.
    pub files: bool,
    /// Whether all of those are calls that return when they are done: what only others need is not loaded, each of
    /// which would cost every operation.
    pub synchronous: bool,
}

impl Options {
    /// Whether the probes of a set are loaded.
    #[must_use]
    pub const fn wants(&self, set: Set) -> bool {
        match set {
            Set::Vm => self.vms,
            Set::Core | Set::NetworkDetail => !self.files,
            Set::File | Set::FileDetail => self.files,
            Set::FileAsynchronous => self.files && !self.synchronous,
            Set::Processes | Set::Schedule | Set::Detail => true,
        }
    }
}
