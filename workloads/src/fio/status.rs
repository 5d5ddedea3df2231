//! What fio says of itself: one JSON object for each time that it is asked, among lines of words.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::protocol::new_histogram;

/// Longest answer that is read: fio's with all bins of its histograms is some hundred kilobytes long.
const LONGEST: u64 = 8 << 20;

/// All that was counted so far, reads and writes together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// When it was asked to be written, `CLOCK_REALTIME`, ms.
    pub at_ms: u64,
    /// Operations that were completed.
    pub operations: u64,
    /// Sum of their latencies, from being given to the engine to being taken from it, ns.
    pub latency_sum_ns: f64,
    /// Latency in ns (the middle of a bin of fio's): operations.
    bins: BTreeMap<u64, u64>,
}

#[derive(Deserialize)]
struct Answer {
    timestamp_ms: u64,
    jobs: Vec<Job>,
}
#[derive(Deserialize)]
struct Job {
    #[serde(default)]
    error: i64,
    read: Direction,
    write: Direction,
}
#[derive(Deserialize)]
struct Direction {
    lat_ns: Latency,
}
#[derive(Deserialize)]
struct Latency {
    mean: f64,
    #[serde(rename = "N")]
    count: u64,
    #[serde(default)]
    bins: BTreeMap<String, u64>,
}

impl Status {
    /// Reads an answer.
    ///
    /// # Errors
    /// If it has another shape than `json+` of fio 3, or a job has failed: in words for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let answer: Answer =
            serde_json::from_str(text).map_err(|error| format!("fio says what is not understood: {error}"))?;
        let mut total = Self { at_ms: answer.timestamp_ms, ..Self::default() };
        for job in answer.jobs {
            if job.error != 0 {
                let error = io::Error::from_raw_os_error(job.error as i32);
                return Err(format!("fio's job failed: {error}{}", hint(&error)));
            }
            for direction in [job.read, job.write] {
                total.add(&direction.lat_ns)?;
            }
        }
        Ok(total)
    }

    fn add(&mut self, latency: &Latency) -> Result<(), String> {
        if !latency.mean.is_finite() || latency.mean < 0.0 {
            return Err(format!("fio says what is not understood: a mean latency of {}", latency.mean));
        }
        self.operations = self.operations.saturating_add(latency.count);
        self.latency_sum_ns += latency.mean * latency.count as f64;
        for (ns, count) in &latency.bins {
            let ns = ns.parse().map_err(|_| format!("fio says what is not understood: a latency of `{ns}`"))?;
            let bin: &mut u64 = self.bins.entry(ns).or_default();
            *bin = bin.saturating_add(*count);
        }
        Ok(())
    }

    /// Latencies that were counted since.
    #[must_use]
    pub fn histogram_since(&self, before: &Self) -> Histogram<u64> {
        let mut histogram = new_histogram();
        for (ns, count) in &self.bins {
            let earlier = before.bins.get(ns).copied().unwrap_or(0);
            histogram.saturating_record_n(*ns, count.saturating_sub(earlier));
        }
        histogram
    }
}

/// What probably is wrong, where the kernel only says that something is.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            "; its file system may have no transfers past the page cache: give another `folder`, or take `block` with `direct=off`"
        }
        Some(libc::ENOSPC) => "; its file system is full: give less `size`, or another `folder`",
        _ => "",
    }
}

/// The next answer; `None`: there is none any more. Its lines are between one that is `{` and one that is `}`; others
/// are words.
///
/// # Errors
/// If it cannot be read, or not be understood.
pub fn read_next(from: &mut impl BufRead) -> io::Result<Option<Status>> {
    let mut answer = String::new();
    let mut from = from.take(LONGEST);
    loop {
        let began = answer.len();
        if from.read_line(&mut answer)? == 0 {
            return Ok(None);
        }
        match answer[began..].trim_end_matches('\n') {
            "{" if began == 0 => {}
            "}" if began > 0 => return Status::parse(&answer).map(Some).map_err(io::Error::other),
            _ if began == 0 => answer.clear(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two answers of fio 3.33's, and what it said at its end.
    const SAID: &str = include_str!("said.txt");

    fn answers(said: &str) -> Vec<io::Result<Status>> {
        let mut from = io::Cursor::new(said);
        std::iter::from_fn(|| read_next(&mut from).transpose()).collect()
    }

    #[test]
    fn what_lies_between_two_answers_is_their_difference() {
        let answers: Vec<Status> = answers(SAID).into_iter().map(Result::unwrap).collect();
        let [first, second, last] = &answers[..] else { panic!("{}", answers.len()) };
        assert!(first.operations < second.operations && second.operations <= last.operations);
        let histogram = second.histogram_since(first);
        let between = second.operations - first.operations;
        assert_eq!(histogram.len(), between);
        // fio's bins are 1/64 wide at most.
        let mean_ns = (second.latency_sum_ns - first.latency_sum_ns) / between as f64;
        assert!((histogram.mean() / mean_ns - 1.0).abs() < 0.02, "{} {mean_ns}", histogram.mean());
    }

    #[test]
    fn reads_and_writes_are_taken_together() {
        let answer = |error: i64| {
            let direction = |mean: f64, count: u64| serde_json::json!({"lat_ns": {"mean": mean, "N": count, "bins": {"100": count}}});
            serde_json::json!({"timestamp_ms": 5, "jobs": [{"error": error, "read": direction(100.0, 3), "write": direction(200.0, 1)}]})
        };
        let status = Status::parse(&answer(0).to_string()).unwrap();
        assert_eq!((status.operations, status.latency_sum_ns), (4, 500.0));
        assert_eq!(status.bins[&100], 4);
        let refused = Status::parse(&answer(22).to_string()).unwrap_err();
        assert!(refused.contains("Invalid argument") && refused.contains("`direct=off`"), "{refused}");
        assert!(Status::parse(&answer(28).to_string()).unwrap_err().contains("full"));
    }

    #[test]
    fn another_shape_is_an_error() {
        for broken in ["{}", "{\"jobs\": [{}]}", "[]", "{\"jobs\": 1}"] {
            assert!(Status::parse(broken).unwrap_err().contains("not understood"), "{broken}");
        }
        assert!(answers("fio: words\n").is_empty());
        assert!(answers("{\n\"jobs\": []\n").is_empty());
        assert!(answers("{\n}\n")[0].is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(cut in 0..SAID.len(), from in 0..SAID.len(), text in ".{0,20}") {
            let (cut, from) = (cut.min(from), cut.max(from));
            // The recording is ASCII.
            answers(&format!("{}{text}{}", &SAID[..cut], &SAID[from..]));
        }
    }
}
