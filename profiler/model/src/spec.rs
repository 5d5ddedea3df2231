//! How a run measures.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::placement::Placement;

/// How a run measures, whatever it runs: the same values on the command line, in the plan, and in `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Where client and server run.
    pub placement: Placement,
    /// How often every configuration is measured.
    pub rounds: u32,
    /// Measured time per configuration and round, seconds.
    pub duration_s: f64,
    /// Seed of the order within rounds.
    pub seed: u64,
    /// Records per second that the probes aim at; 0: none.
    #[serde(default)]
    pub records_per_s: f64,
    /// Samples a second on each CPU; 0: none, and no sampled phases.
    pub sample_rate_hz: u32,
    /// Half width of the layers' shares, as a share, until which sampled phases go on; `None`: no longer than the
    /// others.
    #[serde(default)]
    pub samples_until: Option<f64>,
    /// Half width of mean latencies, as a share, until which rounds go on; `None`: no longer than `rounds`.
    #[serde(default)]
    pub until_precision: Option<f64>,
    /// Difference, as a share of the baseline's latency, that does not matter to who asked.
    #[serde(default)]
    pub equivalent_within: Option<f64>,
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            placement: Placement::Same,
            rounds: 10,
            duration_s: 1.0,
            seed: 1,
            records_per_s: 2000.0,
            sample_rate_hz: 997,
            samples_until: None,
            until_precision: None,
            equivalent_within: None,
        }
    }
}

impl RunSpec {
    /// Measured time per configuration and round.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }

    /// Whether stacks are sampled.
    #[must_use]
    pub const fn samples(&self) -> bool {
        self.sample_rate_hz > 0
    }

    /// What is given by the command line to say the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let percent = |name: &str, share: f64| format!("{name} {}%", 100.0 * share);
        let mut words = vec![
            format!("--rounds {} --duration {}", self.rounds, self.duration_s),
            format!("--placement {} --seed {} --records {}", self.placement.name(), self.seed, self.records_per_s),
            format!("--sample-rate {}", self.sample_rate_hz),
        ];
        words.extend(self.samples_until.map(|share| percent("--samples-until", share)));
        words.extend(self.until_precision.map(|share| percent("--until-precision", share)));
        words.extend(self.equivalent_within.map(|share| percent("--equivalent-within", share)));
        words
    }

    /// Why its values cannot be a run's; `None`: they can.
    #[must_use]
    pub fn impossible(&self) -> Option<&'static str> {
        let shares = [self.samples_until, self.until_precision, self.equivalent_within];
        // Comparisons with what is no number are false.
        let is_positive = |value: f64| value > 0.0;
        let are_positive = is_positive(self.duration_s) && shares.into_iter().flatten().all(is_positive);
        (!are_positive).then_some("a limit or duration is not above 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_needs_time_and_limits_above_0() {
        let spec = RunSpec::default();
        assert_eq!(spec.impossible(), None);
        for bad in [0.0, -1.0, f64::NAN] {
            assert!(RunSpec { duration_s: bad, ..spec.clone() }.impossible().is_some(), "{bad}");
            assert!(RunSpec { samples_until: Some(bad), ..spec.clone() }.impossible().is_some(), "{bad}");
            assert!(RunSpec { until_precision: Some(bad), ..spec.clone() }.impossible().is_some(), "{bad}");
            assert!(RunSpec { equivalent_within: Some(bad), ..spec.clone() }.impossible().is_some(), "{bad}");
        }
        assert_eq!(RunSpec { equivalent_within: Some(0.02), ..spec }.impossible(), None);
    }

    #[test]
    fn stacks_are_sampled_at_a_rate() {
        let spec = RunSpec::default();
        assert!(spec.samples() && !RunSpec { sample_rate_hz: 0, ..spec }.samples());
    }
}
