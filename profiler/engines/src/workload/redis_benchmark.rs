//! What redis-benchmark says at its end.

use workloads::protocol::new_histogram;

use super::{Summary, Tool};

/// The program.
pub(super) const TOOL: Tool = Tool { name: "redis-benchmark", package: "redis-tools" };

/// Whether it is a summary.
#[must_use]
pub fn understand(text: &str) -> bool {
    parse(text).is_some()
}

/// Reads the summary and the percentiles, whose counts are cumulative.
pub(super) fn parse(text: &str) -> Option<Summary> {
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name).map(str::trim));
    let requests_per_s: f64 = after("throughput summary:")?.split_whitespace().next()?.parse().ok()?;
    let mut lines = text.lines().skip_while(|line| !line.trim().starts_with("latency summary"));
    let mean_ms: f64 = lines.nth(2)?.split_whitespace().next()?.parse().ok()?;
    let mut histogram = new_histogram();
    let mut before = 0;
    let percentiles = text
        .lines()
        .skip_while(|line| !line.starts_with("Latency by percentile distribution"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty());
    for line in percentiles {
        let (_, rest) = line.split_once("<= ")?;
        let (ms, rest) = rest.split_once(" milliseconds (cumulative count ")?;
        let cumulative: u64 = rest.trim_end_matches(')').parse().ok()?;
        histogram.saturating_record_n((ms.parse::<f64>().ok()? * 1e6) as u64, cumulative.saturating_sub(before));
        before = cumulative;
    }
    let sane = requests_per_s > 0.0 && requests_per_s.is_finite() && mean_ms >= 0.0 && mean_ms.is_finite();
    sane.then_some(Summary { requests_per_s, mean_ns: mean_ms * 1e6, histogram })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 7.0.15, shortened.
    const SAID: &str = "\
====== SET ======
  20000 requests completed in 0.25 seconds
  50 parallel clients
  multi-thread: no

Latency by percentile distribution:
0.000% <= 0.127 milliseconds (cumulative count 3)
50.000% <= 0.263 milliseconds (cumulative count 10034)
100.000% <= 1.503 milliseconds (cumulative count 20000)

Cumulative distribution of latencies:
0.000% <= 0.103 milliseconds (cumulative count 0)

Summary:
  throughput summary: 80321.29 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        0.312     0.120     0.263     0.327     0.415     1.503
";

    #[test]
    fn its_summary_is_understood() {
        let summary = parse(SAID).unwrap();
        assert_eq!((summary.requests_per_s, summary.mean_ns), (80_321.29, 312_000.0));
        assert_eq!(summary.histogram.len(), 20_000);
        let median = summary.histogram.value_at_quantile(0.5) as f64;
        assert!((median - 263_000.0).abs() < 300.0, "{median}");
    }

    #[test]
    fn another_shape_is_none() {
        for broken in ["", "ERROR: connection refused", &SAID[..SAID.len() - 60], &SAID.replace("80321.29", "nan")] {
            assert!(parse(broken).is_none(), "{broken}");
        }
    }
}
