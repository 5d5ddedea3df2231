//! Known costs, put into one place of a configuration: how it is tested that they are found there (`virtax truth`).
//!
//! `native+spin-us=20` is `native` with a server that computes for 20 µs before it answers; `native+copy=2` is
//! `native` once more.

use std::fmt;

use serde::{Deserialize, Serialize};

use virtax_model::error::{Error, Result, did_you_mean};

/// A kind of cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// None at all: the same configuration under another name.
    Copy,
    /// The server sleeps before it answers.
    SleepUs,
    /// The server computes before it answers.
    SpinUs,
    /// The server computes before one answer in fifty.
    SlowUs,
    /// A queue lets one request pass in this time, at the client's end of the wire.
    QueueWireRequestUs,
    /// A queue lets one response pass in this time, at the router's end of the wire.
    QueueWireResponseUs,
    /// A queue lets one request pass in this time, at the router's end of the server's link.
    QueueVethRequestUs,
    /// A queue lets one response pass in this time, at the server's end of its link.
    QueueVethResponseUs,
    /// Rules that match nothing, in the way of what is forwarded.
    ForwardRules,
    /// Rules in the raw table.
    RawRules,
    /// A quota of CPU time, % of a CPU, in periods of 5 ms.
    QuotaPercent,
    /// Programs that compute on the server's CPU.
    Hogs,
    /// System-call filters that look at arguments.
    Filters,
    /// Bridges in a row.
    Bridges,
    /// Reads of the disk below a loop device, as many as that a second.
    ReadIops,
    /// A userland proxy in the way: as `proxy=on`, under the name of what it is put into.
    Proxies,
}

/// One request in this many is slow with [`Kind::SlowUs`].
pub const SLOW_EVERY: u64 = 50;

/// All kinds: name, largest value, what it is.
const KINDS: [(Kind, &str, u32, &str); 16] = [
    (Kind::Copy, "copy", 999, "nothing: the same configuration once more"),
    (Kind::SleepUs, "sleep-us", 100_000, "the server sleeps so long before it answers (tcp-rr)"),
    (Kind::SpinUs, "spin-us", 100_000, "the server computes so long before it answers (tcp-rr)"),
    (Kind::SlowUs, "slow-us", 100_000, "the same before one answer in fifty"),
    (Kind::QueueWireRequestUs, "queue-wire-request-us", 10_000, "a queue at the client's end of the wire (ns)"),
    (Kind::QueueWireResponseUs, "queue-wire-response-us", 10_000, "a queue at the host's end of the wire (ns)"),
    (Kind::QueueVethRequestUs, "queue-veth-request-us", 10_000, "a queue at the host's end of the server's link (ns)"),
    (Kind::QueueVethResponseUs, "queue-veth-response-us", 10_000, "a queue at the server's end of its link (ns)"),
    (Kind::ForwardRules, "forward-rules", 20_000, "rules that match nothing in the forward chain (ns)"),
    (Kind::RawRules, "raw-rules", 20_000, "rules that match nothing in the raw table (ns)"),
    (Kind::QuotaPercent, "quota-percent", 1_000, "a CPU quota in periods of 5 ms (ns)"),
    (Kind::Hogs, "hogs", 64, "programs that compute on the server's CPU (ns)"),
    (Kind::Filters, "filters", 32, "system-call filters that look at arguments (ns)"),
    (Kind::Bridges, "bridges", 16, "bridges in a row (ns:net=bridge)"),
    (
        Kind::ReadIops,
        "read-iops",
        1_000_000,
        "at most so many reads a second of the disk below (block, ns:fs=loop,cgroup=on)",
    ),
    (Kind::Proxies, "proxies", 1, "a userland proxy in the way (ns:net=bridge)"),
];

/// A known cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Injection {
    /// What it is.
    pub kind: Kind,
    /// How much.
    pub value: u32,
}

impl fmt::Display for Injection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "+{}={}", self.kind.name(), self.value)
    }
}

impl Kind {
    fn row(self) -> &'static (Self, &'static str, u32, &'static str) {
        // Every kind has a row: a test looks.
        KINDS.iter().find(|(kind, ..)| *kind == self).unwrap_or(&KINDS[0])
    }
    /// Name of the kind in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }
    /// Whether the server itself does it.
    #[must_use]
    pub const fn is_servers(self) -> bool {
        matches!(self, Self::SleepUs | Self::SpinUs | Self::SlowUs)
    }
    /// Whether it is a queue of a rate that follows from the size of messages.
    #[must_use]
    pub const fn is_queue(self) -> bool {
        matches!(
            self,
            Self::QueueWireRequestUs | Self::QueueWireResponseUs | Self::QueueVethRequestUs | Self::QueueVethResponseUs
        )
    }
    /// Whether a server with it can rest while others are asked. Limits of a rate are restored meanwhile, so that they
    /// would hardly be met; what is beside the server does not rest; and what comes with a count of requests is in step
    /// with windows.
    #[must_use]
    pub const fn can_rest(self) -> bool {
        match self {
            Self::Copy
            | Self::SleepUs
            | Self::SpinUs
            | Self::ForwardRules
            | Self::RawRules
            | Self::Filters
            | Self::Bridges
            | Self::Proxies => true,
            Self::QueueWireRequestUs
            | Self::QueueWireResponseUs
            | Self::QueueVethRequestUs
            | Self::QueueVethResponseUs
            | Self::QuotaPercent
            | Self::ReadIops
            | Self::Hogs
            // Every fiftieth: windows end in the slow ones more often than elsewhere, and begin after them.
            | Self::SlowUs => false,
        }
    }
    /// Whether every engine can do it: it changes nothing outside of the server.
    #[must_use]
    pub const fn is_everywhere(self) -> bool {
        self.is_servers() || matches!(self, Self::Copy)
    }
}

/// Names and explanations of all kinds.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS.iter().map(|(_, name, _, help)| (*name, *help))
}

impl Injection {
    /// Parses what follows the `+`.
    ///
    /// # Errors
    /// [`Error::Usage`] for unknown kinds and values.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (kind, _, largest, _) = KINDS.iter().find(|(_, known, ..)| *known == name).ok_or_else(|| {
            let near = did_you_mean(name, KINDS.iter().map(|(_, known, ..)| *known));
            Error::Usage(format!("there is no known cost `{name}`{near}; `virtax list` has them all"))
        })?;
        match value.parse() {
            Ok(value) if (1..=*largest).contains(&value) => Ok(Self { kind: *kind, value }),
            _ => Err(Error::Usage(format!("`{name}` cannot be `{value}`: give a whole number from 1 to {largest}"))),
        }
    }

    /// The value, if it is of this kind; else 0.
    #[must_use]
    pub fn of(injection: Option<Self>, kind: Kind) -> u32 {
        injection.filter(|found| found.kind == kind).map_or(0, |found| found.value)
    }

    /// What our own server is told.
    #[must_use]
    pub fn server_arguments(self) -> Vec<String> {
        let value = self.value.to_string();
        match self.kind {
            Kind::SleepUs => vec!["--sleep-us".to_owned(), value],
            Kind::SpinUs => vec!["--spin-us".to_owned(), value],
            Kind::SlowUs => {
                vec!["--spin-us".to_owned(), value, "--spin-every".to_owned(), SLOW_EVERY.to_string()]
            }
            Kind::Copy
            | Kind::QueueWireRequestUs
            | Kind::QueueWireResponseUs
            | Kind::QueueVethRequestUs
            | Kind::QueueVethResponseUs
            | Kind::ForwardRules
            | Kind::RawRules
            | Kind::QuotaPercent
            | Kind::Hogs
            | Kind::Filters
            | Kind::Bridges
            | Kind::ReadIops
            | Kind::Proxies => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_limit_or_works_by_itself_does_not_rest() {
        let resting: Vec<&str> = KINDS.iter().filter(|row| row.0.can_rest()).map(|row| row.1).collect();
        let expected = "copy sleep-us spin-us forward-rules raw-rules filters bridges proxies";
        assert_eq!(resting.join(" "), expected);
    }

    #[test]
    fn every_kind_has_a_row_of_its_own_and_parses_to_itself() {
        for (kind, name, largest, _) in KINDS {
            assert_eq!(kind.name(), name);
            let injection = Injection { kind, value: largest };
            assert_eq!(Injection::parse(&injection.to_string()[1..]).unwrap(), injection);
            assert!(Injection::parse(&format!("{name}={}", largest + 1)).is_err());
        }
        for bad in ["", "spin", "spin-us", "spin-us=", "spin-us=0", "spin-us=-1", "spin-us=x"] {
            assert_eq!(Injection::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        assert!(Injection::parse("spin-u=3").unwrap_err().to_string().contains("did you mean `spin-us`"));
    }
}
