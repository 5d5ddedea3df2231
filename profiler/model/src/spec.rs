//! How a run measures.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::placement::Placement;

/// How a run measures, whatever it runs: the same on the command line, in the plan, and in `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "command-line", derive(clap::Args))]
pub struct RunSpec {
    /// How often every configuration is measured.
    #[cfg_attr(feature = "command-line", arg(
        long, default_value_t = USUAL.rounds, value_parser = clap::value_parser!(u32).range(1..=10_000),
        help = "How often every configuration is started and measured; verdicts from 5"
    ))]
    pub rounds: u32,
    /// Measured time per configuration and round, seconds.
    #[cfg_attr(feature = "command-line", arg(
        long = "duration", default_value_t = USUAL.duration_s, value_name = "S", value_parser = said::seconds,
        help = "Measured seconds per configuration and round"
    ))]
    pub duration_s: f64,
    /// How configurations take turns within a round.
    #[serde(default = "Turns::before_there_were_windows")]
    #[cfg_attr(feature = "command-line", arg(
        long = "window", default_value = said::USUAL_WINDOW, value_name = "MS|rounds", value_parser = said::turns,
        help = "Ask all configurations in turns of at least so many ms, or one after another, in whole rounds"
    ))]
    pub turns: Turns,
    /// Where client and server run.
    #[cfg_attr(feature = "command-line", arg(
        long, value_enum, default_value = USUAL.placement.name(),
        help = "CPUs: client and server on one, on one each, or anywhere"
    ))]
    pub placement: Placement,
    /// Records per second that the probes aim at; 0: none.
    #[serde(default)]
    #[cfg_attr(feature = "command-line", arg(
        long = "records", default_value_t = USUAL.records_per_s, value_name = "N", value_parser = said::rate,
        help = "Records of single requests per second; 0: none"
    ))]
    pub records_per_s: f64,
    /// Samples a second on each CPU; 0: none, and no sampled phases.
    #[cfg_attr(feature = "command-line", arg(
        long = "sample-rate", default_value_t = USUAL.sample_rate_hz, value_name = "HZ",
        value_parser = clap::value_parser!(u32).range(0..=10_000),
        help = "Stacks sampled per second on each CPU, in phases of their own; 0: none"
    ))]
    pub sample_rate_hz: u32,
    /// Half width of the layers' shares, as a share, until which sampled phases go on; `None`: no longer than the
    /// others.
    #[serde(default)]
    #[cfg_attr(feature = "command-line", arg(
        long, value_name = "PERCENT", value_parser = said::half_width,
        help = "Go on sampling until the layers of every stage with 5 % of the samples are known to ± this share of it"
    ))]
    pub samples_until: Option<f64>,
    /// Seed of the order within rounds.
    #[cfg_attr(feature = "command-line", arg(
        long, default_value_t = USUAL.seed, help = "Seed of the order of configurations within rounds"
    ))]
    pub seed: u64,
    /// Half width of mean latencies, as a share, until which rounds go on; `None`: no longer than `rounds`. A ladder
    /// has a limit of its own.
    #[serde(default)]
    #[cfg_attr(feature = "command-line", arg(skip))]
    pub until_precision: Option<f64>,
    /// Difference, as a share of the baseline's latency, that does not matter to who asked.
    #[serde(default)]
    #[cfg_attr(feature = "command-line", arg(skip))]
    pub equivalent_within: Option<f64>,
}

/// How configurations take turns within a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// One after another: each is started, measured and ended.
    Rounds,
    /// All are alive, and asked in windows of at least so many ms; who cannot be, one after another.
    Windows(f64),
}

impl Turns {
    const fn before_there_were_windows() -> Self {
        Self::Rounds
    }

    /// The shortest window; `None`: there are none.
    #[must_use]
    pub fn window(self) -> Option<Duration> {
        match self {
            Self::Rounds => None,
            Self::Windows(ms) => Some(Duration::from_secs_f64(ms / 1e3)),
        }
    }
}

impl std::fmt::Display for Turns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rounds => formatter.write_str("rounds"),
            Self::Windows(ms) => write!(formatter, "{ms}"),
        }
    }
}

/// How a run measures that is told nothing else.
const USUAL: RunSpec = RunSpec {
    rounds: 5,
    duration_s: 1.0,
    turns: Turns::Windows(10.0),
    placement: Placement::Same,
    records_per_s: 2000.0,
    sample_rate_hz: 997,
    samples_until: None,
    seed: 1,
    until_precision: None,
    equivalent_within: None,
};

impl Default for RunSpec {
    fn default() -> Self {
        USUAL
    }
}

/// Values as a person says them.
pub mod said {
    use std::time::Duration;

    /// A number of seconds, with or without an `s`.
    ///
    /// # Errors
    /// What it is not.
    pub fn duration(text: &str) -> Result<Duration, String> {
        let seconds = text.trim_end_matches('s').parse::<f64>().ok();
        // A century: more, and points in time would be none.
        let sane = seconds.filter(|seconds| *seconds < 3.2e9);
        let duration = sane.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration.ok_or_else(|| "not a number of seconds, such as 1.5".to_owned())
    }

    /// A number of seconds as [`duration`] reads it.
    ///
    /// # Errors
    /// As [`duration`].
    pub fn seconds(text: &str) -> Result<f64, String> {
        duration(text).map(|duration| duration.as_secs_f64())
    }

    /// A rate per second.
    ///
    /// # Errors
    /// What it is not.
    pub fn rate(text: &str) -> Result<f64, String> {
        match text.parse::<f64>() {
            Ok(rate) if (0.0..=1e6).contains(&rate) => Ok(rate),
            _ => Err("not a number from 0 to 1000000".to_owned()),
        }
    }

    /// The usual window, ms.
    pub const USUAL_WINDOW: &str = "10";

    /// A window in ms, or `rounds`.
    ///
    /// # Errors
    /// What it is not.
    pub fn turns(text: &str) -> Result<super::Turns, String> {
        if text == "rounds" {
            return Ok(super::Turns::Rounds);
        }
        match text.trim_end_matches("ms").trim_end().parse::<f64>() {
            Ok(ms) if (1.0..=10_000.0).contains(&ms) => Ok(super::Turns::Windows(ms)),
            _ => Err("not a time from 1 to 10000 ms, and not `rounds`".to_owned()),
        }
    }

    /// A percentage as a share.
    ///
    /// # Errors
    /// What it is not.
    pub fn half_width(text: &str) -> Result<f64, String> {
        match text.trim_end_matches('%').trim_end().parse::<f64>() {
            Ok(percent) if (0.5..=50.0).contains(&percent) => Ok(percent / 100.0),
            _ => Err("not a percentage from 0.5 to 50".to_owned()),
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
            format!("--rounds {} --duration {} --window {}", self.rounds, self.duration_s, self.turns),
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
        let window = match self.turns {
            Turns::Rounds => None,
            Turns::Windows(ms) => Some(ms),
        };
        let are_positive =
            is_positive(self.duration_s) && shares.into_iter().chain([window]).flatten().all(is_positive);
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
            assert!(RunSpec { turns: Turns::Windows(bad), ..spec.clone() }.impossible().is_some(), "{bad}");
        }
        assert_eq!(RunSpec { equivalent_within: Some(0.02), ..spec }.impossible(), None);
    }

    #[test]
    fn what_a_person_says_is_read_or_refused() {
        assert_eq!((said::seconds("1.5s"), said::rate("0"), said::half_width("4 %")), (Ok(1.5), Ok(0.0), Ok(0.04)));
        for text in ["-1", "nan", "inf", "1e10", "", "x"] {
            assert!(said::duration(text).is_err() && said::half_width(text).is_err(), "{text}");
        }
        for text in ["-0.1", "1000001", "nan", ""] {
            assert!(said::rate(text).is_err(), "{text}");
        }
        assert!(said::half_width("0.4").is_err() && said::half_width("51%").is_err());
        assert_eq!(said::turns(said::USUAL_WINDOW), Ok(RunSpec::default().turns));
        assert_eq!((said::turns("rounds"), said::turns("7.5ms")), (Ok(Turns::Rounds), Ok(Turns::Windows(7.5))));
        for text in ["0", "0.9", "10001", "nan", "", "round"] {
            assert!(said::turns(text).is_err(), "{text}");
        }
        for turns in [Turns::Rounds, Turns::Windows(0.5 + 19.0)] {
            assert_eq!(said::turns(&turns.to_string()), Ok(turns));
        }
    }

    #[test]
    fn stacks_are_sampled_at_a_rate() {
        let spec = RunSpec::default();
        assert!(spec.samples() && !RunSpec { sample_rate_hz: 0, ..spec }.samples());
    }
}
