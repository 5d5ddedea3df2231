//! What a run may do: each capability that it needs, what for, and when, checked before anything is changed.
//!
//! The list was found by taking one capability away at a time (`profiler/tests/host/privileges.rs` does so again),
//! and giving no others: see `docs/privileges.md`.

use crate::error::{Error, Result};

/// A capability of Linux (capabilities(7)).
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    /// Name of the capability, as capabilities(7) has it.
    pub name: &'static str,
    /// Bit of the capability (`include/uapi/linux/capability.h`).
    bit: u32,
    /// A capability that includes it.
    within: Option<u32>,
    /// What a run needs it for.
    pub purpose: &'static str,
    /// When it does.
    pub when: When,
}

/// When a capability is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every run needs it.
    Always,
    /// Where stacks are sampled.
    Stacks,
    /// Where client and server have CPUs of their own.
    Placement,
}

impl When {
    /// For a person.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Stacks => "unless `--sample-rate 0`",
            Self::Placement => "unless `--placement free`",
        }
    }
}

const SYS_ADMIN: u32 = 21;

const fn needed(name: &'static str, bit: u32, purpose: &'static str, when: When) -> Capability {
    Capability { name, bit, within: None, purpose, when }
}

/// All that a run needs.
pub const CAPABILITIES: &[Capability] = &[
    Capability { within: Some(SYS_ADMIN), ..needed("CAP_BPF", 39, "load the probes and their tables", When::Always) },
    Capability {
        within: Some(SYS_ADMIN),
        ..needed("CAP_PERFMON", 38, "attach the probes to tracepoints, and sample", When::Always)
    },
    needed("CAP_NET_ADMIN", 12, "make links, addresses and firewall rules", When::Always),
    needed(
        "CAP_SYS_ADMIN",
        SYS_ADMIN,
        "make the client's network namespace, enter it, and ask for the run times of the probes",
        When::Always,
    ),
    needed(
        "CAP_SYS_PTRACE",
        19,
        "see the namespaces and files of servers and clients, which are another user's",
        When::Always,
    ),
    needed("CAP_SETUID", 7, "run servers and clients as nobody", When::Always),
    needed("CAP_SETGID", 6, "run servers and clients as nobody", When::Always),
    needed("CAP_KILL", 5, "end servers and clients, which are another user's", When::Always),
    needed("CAP_SYS_NICE", 23, "place servers and clients on their CPUs", When::Placement),
    needed("CAP_SYSLOG", 34, "name the kernel's functions in stacks", When::Stacks),
    needed(
        "CAP_DAC_OVERRIDE",
        1,
        "make control groups, and keep the ledger in /run and the programs in /var/lib",
        When::Always,
    ),
];

/// What a run is going to do that needs more than others.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Stacks are sampled.
    pub stacks: bool,
    /// Client and server have CPUs of their own.
    pub placement: bool,
}

/// Those of the needed capabilities that are not among the effective ones.
#[must_use]
pub fn missing(effective: u64, wanted: Wanted) -> Vec<&'static Capability> {
    let has = |bit: u32| effective >> bit & 1 != 0;
    let is_needed = |when| match when {
        When::Always => true,
        When::Stacks => wanted.stacks,
        When::Placement => wanted.placement,
    };
    CAPABILITIES
        .iter()
        .filter(|capability| is_needed(capability.when))
        .filter(|capability| !has(capability.bit) && !capability.within.is_some_and(has))
        .collect()
}

/// Refuses a run that may not do what it will have to.
///
/// # Errors
/// [`Error::Unsupported`] with each missing capability and what it is for.
pub fn check(stacks: bool, placement: bool) -> Result<()> {
    let wanted = Wanted { stacks, placement };
    refuse(&missing(effective(), wanted))
}

fn refuse(missing: &[&Capability]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> =
        missing.iter().map(|capability| format!("{} (to {})", capability.name, capability.purpose)).collect();
    Err(Error::unsupported(
        "a run needs privileges that this process lacks",
        list.join("; "),
        "run as root (sudo virtax run …); in a container or service, grant these capabilities",
    ))
}

/// Effective capabilities of this process; all, if the kernel does not tell: then its own refusals have to do.
#[must_use]
pub fn effective() -> u64 {
    crate::process::status_field(std::process::id(), "CapEff")
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Wanted = Wanted { stacks: true, placement: true };

    #[test]
    fn what_is_missing_is_named_with_its_purpose() {
        assert!(missing(u64::MAX, EVERYTHING).is_empty());
        let error = refuse(&missing(0, EVERYTHING)).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        insta::assert_snapshot!(error.to_string().replace("; ", ";\n"));
    }

    #[test]
    fn what_is_not_wanted_is_not_needed() {
        let names = |wanted| missing(0, wanted).iter().map(|capability| capability.name).collect::<Vec<_>>();
        let least = names(Wanted { stacks: false, placement: false });
        for name in ["CAP_SYSLOG", "CAP_SYS_NICE"] {
            assert!(!least.contains(&name) && names(EVERYTHING).contains(&name), "{name}");
        }
    }

    #[test]
    fn the_administrators_capability_includes_the_new_ones() {
        let names: Vec<_> = missing(1 << SYS_ADMIN, EVERYTHING).iter().map(|capability| capability.name).collect();
        assert!(!names.contains(&"CAP_BPF") && !names.contains(&"CAP_PERFMON") && names.contains(&"CAP_NET_ADMIN"));
    }
}
