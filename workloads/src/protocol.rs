//! Lines of JSON between virtax and a client: [`Request`] on its standard input, [`Reply`] on its standard output.

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize};

/// What virtax tells a client.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// From now on, make operations all the time, collect those that begin in `[open_ns, close_ns)`, whenever they
    /// end, and forget the phase before.
    Phase {
        /// Start, `CLOCK_MONOTONIC` ns.
        open_ns: u64,
        /// End, `CLOCK_MONOTONIC` ns.
        close_ns: u64,
    },
    /// From now on, make operations in these windows only, one after the other; collect what begins in their counted
    /// parts, whenever it ends, and forget the phase before. Without a window: rest.
    Windows {
        /// The windows, in order, none overlapping another.
        windows: Vec<Window>,
    },
    /// Say what the last phase held.
    Report,
}

/// A time in which a client makes operations, `CLOCK_MONOTONIC` ns.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct Window {
    /// From then on it does.
    pub open_ns: u64,
    /// Operations that begin from then on count.
    pub from_ns: u64,
    /// No operation begins from then on.
    pub close_ns: u64,
}

/// A window, as its client saw it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct WindowSeen {
    /// Operations that count and have ended.
    pub operations: u64,
    /// Sum of their latencies, ns.
    pub latency_sum_ns: u64,
    /// Time of the same work on the client's CPU right before and after, ns ([`crate::speed`]); 0: not measured.
    #[serde(default)]
    pub work_ns: [u64; 2],
}

/// Operations that were asked as the same after a rest, over all windows and connections.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct AfterRest {
    /// How many.
    pub operations: u64,
    /// Sum of their latencies, ns.
    pub latency_sum_ns: u64,
}

/// So many operations after a rest are told apart.
pub const AFTER_REST: usize = 200;

/// What a client answers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// All connections are open and working.
    Ready {
        /// How many there are.
        connections: u32,
    },
    /// The answer to [`Request::Report`].
    Phase(PhaseReport),
    /// The client cannot go on.
    Failed {
        /// Why, for the user.
        reason: String,
    },
}

impl Reply {
    /// The answer to [`Request::Windows`] of who cannot make operations in windows only.
    #[must_use]
    pub fn cannot_rest() -> Self {
        Self::Failed { reason: "it cannot be asked in turns with others".to_owned() }
    }
}

/// A phase, as its client saw it. An operation belongs to the phase in which it began.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct PhaseReport {
    /// When the client heard of the phase, `CLOCK_MONOTONIC` ns: only before its start does it hold everything.
    pub heard_ns: u64,
    /// Operations that began in the phase and have ended, whenever that was.
    pub operations: u64,
    /// Sum of their latencies from the sending call to the receiving call's return, ns.
    pub latency_sum_ns: u64,
    /// Time between the return before and the sending call of each of them, ns.
    pub turnaround_sum_ns: u64,
    /// Time by which, with a rate, the client itself sent them later than it could have, ns: after the intended time,
    /// and after the connection had its answer before. Otherwise 0.
    pub lateness_sum_ns: u64,
    /// Time that, with a rate, they waited for an earlier request on their connection, from the intended time on, ns;
    /// part of the histogram's latencies. `None`: the report is of a version in which `lateness_sum_ns` held both,
    /// and the histogram as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_sum_ns: Option<u64>,
    /// Operations that began in the phase and are still under way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unfinished: u64,
    /// Sum of their ages, from the sending call until the report, ns.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unfinished_sum_ns: u64,
    /// The client knows no phases: operations and latencies are those of its whole run around this one, operations
    /// scaled to the phase's length, and its turn-around is not known.
    #[serde(default)]
    pub whole_run: bool,
    /// The witness only counts on: operations and latencies are differences of what it said shortly before the phase
    /// and at its end, operations scaled to the phase's length, and its turn-around is not known.
    #[serde(default)]
    pub asked_around: bool,
    /// Part of the time that it counted over, with that, which lies outside of the phase, ns.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub around_ns: u64,
    /// Latencies, ns: with a rate, what waited for an earlier request on its connection from the intended time on.
    /// HDR histogram V2, base64.
    pub histogram: String,
    /// The windows of [`Request::Windows`] apart; empty: it was one interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowSeen>,
    /// The first operations of each connection in a window, those that do not count included: the first, the second …
    /// the 200th; as many as there were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_rest: Vec<AfterRest>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl PhaseReport {
    /// Operations that began in the phase, and the sum of their latencies from the sending call: of those that are
    /// still under way, their age so far.
    #[must_use]
    pub const fn begun(&self) -> (u64, u64) {
        (self.operations.saturating_add(self.unfinished), self.latency_sum_ns.saturating_add(self.unfinished_sum_ns))
    }
}

/// Latencies, ns.
pub type Latencies = Histogram<u64>;

/// A histogram for latencies: 1 ns to 100 s, three significant digits.
#[must_use]
pub fn new_histogram() -> Latencies {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("the bounds are constants that the library accepts")
}

/// A histogram as text for [`PhaseReport::histogram`].
#[must_use]
pub fn encode_histogram(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("writing to memory cannot fail");
    BASE64_STANDARD.encode(bytes)
}

/// The inverse of [`encode_histogram`].
///
/// # Errors
/// A sentence fragment, if the text is no histogram.
pub fn decode_histogram(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| format!("histogram is not base64: {error}"))?;
    check_header(&bytes)?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("histogram cannot be read: {error:?}"))
}

/// Bytes before the counts: cookie, length of what follows, and 32 bytes of settings that are always the same here
/// (HdrHistogram's V2 encoding).
const HEADER: usize = 40;
const LENGTH: std::ops::Range<usize> = 4..8;

/// Checks that a header says what [`new_histogram`] has, and how long the rest is: the library takes both as they come,
/// and makes as much room, up to gigabytes.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    let mut expected = Vec::new();
    V2Serializer::new().serialize(&new_histogram(), &mut expected).expect("writing to memory cannot fail");
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return Err("histogram cannot be read: it is too short".to_owned());
    };
    expected.truncate(HEADER);
    expected[LENGTH].copy_from_slice(&u32::try_from(rest.len()).unwrap_or(u32::MAX).to_be_bytes());
    if header == expected { Ok(()) } else { Err("histogram cannot be read: its header is another one".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_survive_the_way_through_text() {
        let mut histogram = new_histogram();
        for value in [1, 19_000, 19_001, 70_000_000] {
            histogram.record(value).unwrap();
        }
        let back = decode_histogram(&encode_histogram(&histogram)).unwrap();
        assert_eq!(back, histogram);
    }

    #[test]
    fn a_histogram_does_not_say_how_much_memory_it_takes() {
        let whole = BASE64_STANDARD.decode(encode_histogram(&new_histogram())).unwrap();
        let damaged = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            decode_histogram(&BASE64_STANDARD.encode(bytes)).unwrap_err()
        };
        // Its length, its digits, its highest value.
        for at in [LENGTH.start, 15, 24] {
            assert!(damaged(at, 0x7f).contains("header"), "{at}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode_histogram("%").unwrap_err().contains("base64"));
        assert!(decode_histogram("AAAA").unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn requests_have_one_line_each() {
        let line = serde_json::to_string(&Request::Phase { open_ns: 1, close_ns: 2 }).unwrap();
        assert_eq!(line, r#"{"request":"phase","open_ns":1,"close_ns":2}"#);
    }
}
