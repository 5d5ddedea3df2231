//! How well latencies are known, and how many rounds a wish would take.

use super::{ConfigurationResult, RunResult};

/// Half of the 95 % interval of a configuration's mean latency, as a share of that; `None`: too few rounds for an
/// interval.
#[must_use]
pub fn precision(configuration: &ConfigurationResult) -> Option<f64> {
    let latency = &configuration.latency;
    let [low, high] = latency.ci95_ns?;
    (latency.mean_ns > 0.0).then(|| (high - low) / 2.0 / latency.mean_ns)
}

/// Whether every configuration's mean latency is known to this share of it.
#[must_use]
pub fn is_reached(result: &RunResult, share: f64) -> bool {
    result.configurations.iter().all(|configuration| precision(configuration).is_some_and(|known| known <= share))
}

/// Rounds that would be needed for it, if they scatter as before: the interval's width goes with their root.
#[must_use]
pub fn rounds_needed(rounds: usize, known: f64, wished: f64) -> u64 {
    (rounds as f64 * (known / wished).powi(2)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_width_takes_four_times_the_rounds() {
        assert_eq!(rounds_needed(10, 0.06, 0.03), 40);
        assert_eq!(rounds_needed(10, 0.03, 0.03), 10);
        assert_eq!(rounds_needed(8, 0.02, 0.03), 4);
    }
}
