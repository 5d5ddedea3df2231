//! What host and agent say to each other: a line of JSON each.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    counts::{Costs, DeviceInfo, PhaseKind, ProbeCounts, Role},
    histogram::bucket_of,
    input,
    profile::Profile,
};

/// Both sides must have the same.
pub const VERSION: u32 = 5;
/// Name of the machine's port.
pub const PORT: &str = "virtax";
/// Longest line, bytes: a guest may be broken, or hostile.
pub const LONGEST: usize = 4 << 20;

/// What the host wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum Request {
    /// To know whom it talks to.
    Hello {
        /// The host's [`VERSION`].
        version: u32,
    },
    /// Probes attached, and requests followed.
    Begin {
        /// In what kind of phase.
        kind: PhaseKind,
        /// Connections whose tokens are to be seen first.
        connections: u32,
        /// In sampled phases: samples a second.
        rate_hz: u32,
        /// In sampled phases: one wait in about this many leaves its stacks; 0: none.
        wait_every: u32,
    },
    /// What its clock shows.
    Clock,
    /// The phase recorded.
    Record {
        /// From now, ns.
        in_ns: u64,
        /// From then, by the agent's clock, ns, instead: the same that a program in the guest was told.
        at_ns: Option<u64>,
        /// Its length, ns.
        length_ns: u64,
    },
    /// What was counted, once the phase is over; and probes detached.
    End,
    /// What all sampled phases together saw.
    Profile,
    /// What the probes cost there, while requests come.
    Costs {
        /// Connections whose tokens are to be seen first.
        connections: u32,
    },
}

/// What the agent answers. There is none to [`Request::Record`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum Reply {
    /// It is there, and its probes are loaded.
    Hello {
        /// Its [`VERSION`].
        version: u32,
        /// The guest's kernel.
        release: String,
        /// Points that it cannot see.
        lacks: Vec<String>,
    },
    /// Requests are followed.
    Begun,
    /// `CLOCK_MONOTONIC`, ns.
    Clock {
        /// Now.
        now_ns: u64,
    },
    /// The phase is over.
    Counted(Box<GuestCounts>),
    /// Stacks, with the names of the guest's functions.
    Profiled(Box<Profile>),
    /// What the probes cost.
    Costs(Costs),
    /// It could not do what it was told.
    Failed {
        /// Why.
        why: String,
    },
}

/// What an agent counted in one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCounts {
    /// As on the host. Its stages lie between the guest's network card and back.
    pub probes: ProbeCounts,
    /// Devices on the path.
    pub devices: Vec<DeviceInfo>,
    /// In traced phases: single requests by number, and how long the guest had them, ns. Only while they travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crossings: Vec<(u32, u64)>,
    /// Of files: these are the host's counts, of what the machine's process did for its guest, and the phase's own
    /// are the guest's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_host: bool,
    /// It was told of the phase only when that had begun: its beginning is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Those put together with the host's, by the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
}

/// Requests that host and guest saw both, put together one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// How many there are.
    pub count: u64,
    /// Those left out because the guest had them for longer than its machine: none, if both tell the truth.
    pub contradicted: u64,
    /// Time in the machine, by the host, ns.
    pub held_ns: u64,
    /// Time in the guest, by its own clock, ns.
    pub residence_ns: u64,
    /// `(bucket, count)` of the differences, see [`crate::histogram`].
    pub buckets: Vec<(u16, u32)>,
}

/// Beginning of the names of counters that the host has, of what a machine's process did.
pub const HOSTS: &str = "vmm_";
/// Of operations: those of the guest's say it all.
const COUNTED_ANYWAY: [&str; 5] = ["followed", "completed", "unfinished", "operations", "events"];

impl GuestCounts {
    /// Of files, operations begin in the guest, and the host has its machine's share: returned are the guest's
    /// counts, and the host's in their place, without the time that the machine's process was not asked for anything.
    #[must_use]
    pub fn inside_out(mut self, host: ProbeCounts) -> (ProbeCounts, Self) {
        let mut guests = std::mem::replace(&mut self.probes, host);
        // What virtual processors did, only the host says.
        guests.vcpus = std::mem::take(&mut self.probes.vcpus);
        // And what it could not follow is as much a loss as the guest's own.
        let of_host =
            self.probes.counters.iter().filter(|(name, count)| **count > 0 && !COUNTED_ANYWAY.contains(&name.as_str()));
        guests.counters.extend(of_host.map(|(name, count)| (format!("{HOSTS}{name}"), *count)));
        self.probes.stages.retain(|stage| stage.part || stage.from.point != "exit");
        // Requests have the roles of client, server and proxy only.
        for stage in &mut self.probes.stages {
            match stage.role {
                Role::Server => stage.role = Role::Vmm,
                // `layout::BETWEEN`: to and from virtual processors.
                Role::ProxyIn => stage.role = Role::Vcpu,
                _ => {}
            }
        }
        self.is_host = true;
        (guests, self)
    }
}

impl Matched {
    /// Puts together what either side knows of requests by their numbers. A number that one side has twice is of two
    /// requests.
    #[must_use]
    pub fn of(host: &[(u32, u64)], guest: &[(u32, u64)]) -> Self {
        let mut inside: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (number, ns) in guest {
            inside.entry(*number).and_modify(|found| *found = None).or_insert(Some(*ns));
        }
        let mut matched = Self::default();
        let mut buckets: BTreeMap<u16, u32> = BTreeMap::new();
        for (number, held_ns) in host {
            let Some(residence_ns) = inside.remove(number).flatten() else { continue };
            let Some(toll_ns) = held_ns.checked_sub(residence_ns) else {
                matched.contradicted += 1;
                continue;
            };
            matched.count += 1;
            matched.held_ns += held_ns;
            matched.residence_ns += residence_ns;
            *buckets.entry(bucket_of(toll_ns)).or_default() += 1;
        }
        matched.buckets = buckets.into_iter().collect();
        matched
    }
}

/// Sends a line.
///
/// # Errors
/// If the other side is gone.
pub fn say(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// The next line.
///
/// # Errors
/// If the other side is gone, says nothing in time, too much, or something else.
pub fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    let length = io::Read::take(from, LONGEST as u64).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is cut off, or too long"));
    }
    understand(&line)
}

/// What a line says. It is checked like any file from elsewhere: what a guest says stands in the run's files.
///
/// # Errors
/// If it is none of ours, or has numbers or texts that cannot be.
pub fn understand<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    input::parse(line).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;
    use crate::counts::StageTotal;

    #[test]
    fn what_is_said_is_heard() {
        let mut line = Vec::new();
        let said = Request::Begin { kind: PhaseKind::Traced, connections: 3, rate_hz: 0, wait_every: 2 };
        say(&mut line, &said).unwrap();
        assert_eq!(hear::<Request>(&mut BufReader::new(line.as_slice())).unwrap(), said);
        line.clear();
        let said = Reply::Counted(Box::default());
        say(&mut line, &said).unwrap();
        assert_eq!(hear::<Reply>(&mut BufReader::new(line.as_slice())).unwrap(), said);
    }

    #[test]
    fn requests_are_put_together_by_their_numbers() {
        let host = [(1, 100), (2, 200), (3, 300), (4, 50), (5, 70)];
        let guest = [(3, 100), (1, 60), (9, 1), (4, 51), (5, 1), (5, 2)];
        let matched = Matched::of(&host, &guest);
        assert_eq!((matched.count, matched.contradicted), (2, 1));
        assert_eq!((matched.held_ns, matched.residence_ns), (400, 160));
        assert_eq!(matched.buckets, [(bucket_of(40), 1), (bucket_of(200), 1)]);
        assert_eq!(Matched::of(&host, &[]), Matched::default());
    }

    #[test]
    fn of_files_the_guests_counts_come_first() {
        let stage = |role, from: &str, to: &str| StageTotal {
            part: false,
            role,
            from: crate::counts::Place::fixed(from),
            to: crate::counts::Place::fixed(to),
            count: 1,
            total_ns: 5,
            buckets: Vec::new(),
        };
        let host = ProbeCounts {
            stages: vec![
                stage(Role::Server, "enter", "exit"),
                stage(Role::Server, "exit", "enter"),
                StageTotal { part: true, ..stage(Role::ProxyIn, "exit", "injected") },
            ],
            ..ProbeCounts::default()
        };
        let inside = ProbeCounts { stages: vec![stage(Role::Client, "exit", "enter")], ..ProbeCounts::default() };
        let guest = GuestCounts { probes: inside.clone(), ..GuestCounts::default() };
        let (first, second) = guest.inside_out(host);
        assert_eq!(first, inside);
        assert!(second.is_host);
        // Without the time that nobody asked QEMU for anything.
        let between = StageTotal { part: true, ..stage(Role::Vcpu, "exit", "injected") };
        assert_eq!(second.probes.stages, [stage(Role::Vmm, "enter", "exit"), between]);
    }

    #[test]
    fn silence_and_endless_lines_are_errors() {
        let kind = |bytes: &[u8]| hear::<Reply>(&mut BufReader::new(bytes)).unwrap_err().kind();
        assert_eq!(kind(b""), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"{\"say\":\"begun\"}"), io::ErrorKind::InvalidData);
        assert_eq!(kind(b"{\"say\":\"nonsense\"}\n"), io::ErrorKind::InvalidData);
        // What would act on a terminal, and a count that wrapped around.
        let controls = "{\"say\":\"failed\",\"why\":\"\\u001b[2J\"}\n";
        assert_eq!(kind(controls.as_bytes()), io::ErrorKind::InvalidData);
        let mut wrapped = GuestCounts::default();
        wrapped.probes.unfinished_ns = u64::MAX;
        let mut line = Vec::new();
        say(&mut line, &Reply::Counted(Box::new(wrapped))).unwrap();
        assert_eq!(kind(&line), io::ErrorKind::InvalidData);
        let mut endless = BufReader::new(io::repeat(b'['));
        assert_eq!(hear::<Reply>(&mut endless).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = hear::<Reply>(&mut BufReader::new(bytes.as_slice()));
        }
    }
}
