//! What host and agent say to each other: a line of JSON each.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use virtax_model::{
    counts::{Costs, OtherSide, PhaseKind},
    input,
    profile::Profile,
};

/// Both sides must have the same.
pub const VERSION: u32 = 5;
/// Name of the VM's port.
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
        /// Kind of the phase.
        kind: PhaseKind,
        /// Connections whose tokens are to be seen first.
        connections: u32,
        /// Samples a second, in sampled phases.
        rate_hz: u32,
        /// Waits of which about one leaves its stacks, in sampled phases; 0: none does.
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
        /// Length of the interval, ns.
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
    /// The agent is there, and its probes are loaded.
    Hello {
        /// [`VERSION`] of the agent.
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
    Counted(Box<OtherSide>),
    /// Stacks, with the names of the guest's functions.
    Profiled(Box<Profile>),
    /// What the probes cost.
    Costs(Costs),
    /// The agent could not do what it was told.
    Failed {
        /// Why.
        why: String,
    },
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
    fn silence_and_endless_lines_are_errors() {
        let kind = |bytes: &[u8]| hear::<Reply>(&mut BufReader::new(bytes)).unwrap_err().kind();
        assert_eq!(kind(b""), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"{\"say\":\"begun\"}"), io::ErrorKind::InvalidData);
        assert_eq!(kind(b"{\"say\":\"nonsense\"}\n"), io::ErrorKind::InvalidData);
        // What would act on a terminal, and a count that wrapped around.
        let controls = "{\"say\":\"failed\",\"why\":\"\\u001b[2J\"}\n";
        assert_eq!(kind(controls.as_bytes()), io::ErrorKind::InvalidData);
        let mut wrapped = OtherSide::default();
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
