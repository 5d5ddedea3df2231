//! Lines of JSON between virtax and a client: [`Request`] on its standard input, [`Reply`] on its standard output.

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize};

/// What virtax tells a client.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// From now on, collect the operations that end in `[open_ns, close_ns)`, and forget the phase before.
    Phase {
        /// Start, `CLOCK_MONOTONIC` ns.
        open_ns: u64,
        /// End, `CLOCK_MONOTONIC` ns.
        close_ns: u64,
    },
    /// Say what the last phase held.
    Report,
}

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

/// A phase, as its client saw it. An operation belongs to the phase in which its response was received.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct PhaseReport {
    /// When the client heard of the phase, `CLOCK_MONOTONIC` ns: only before its start does it hold everything.
    pub heard_ns: u64,
    /// Operations that ended in the phase.
    pub operations: u64,
    /// Sum of their latencies from the sending call to the receiving call's return, ns.
    pub latency_sum_ns: u64,
    /// Time between a return and the next sending call, as far as it lies in the phase, ns.
    pub turnaround_sum_ns: u64,
    /// With a rate: sum of the times between the intended and the actual sending call, ns. Otherwise 0.
    pub lateness_sum_ns: u64,
    /// The client knows no phases: operations and latencies are those of its whole run around this one, operations scaled
    /// to the phase's length, and its turn-around is not known.
    #[serde(default)]
    pub whole_run: bool,
    /// The witness only counts on: operations and latencies are differences of what it said shortly before the phase and at its end,
    /// operations scaled to the phase's length, and its turn-around is not known.
    #[serde(default)]
    pub asked_around: bool,
    /// Latencies, ns: from the intended time where there is a rate. HDR histogram V2, base64.
    pub histogram: String,
}

/// A histogram for latencies: 1 ns to 100 s, three significant digits.
#[must_use]
pub fn new_histogram() -> Histogram<u64> {
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
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("histogram cannot be read: {error:?}"))
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
