//! A/A: configurations compared with themselves.

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::{Options, request};
use crate::{
    analysis::comparison::Verdict, error::Result, interrupt, placement::Placement, result::ComparisonResult, run,
};

/// What is compared with itself, in turns.
const CONFIGURATIONS: [(&str, Placement); 4] = [
    ("native", Placement::Same),
    ("ns:net=nat", Placement::Same),
    ("ns:net=veth,seccomp=docker", Placement::Same),
    ("native", Placement::Split),
];
/// Comparisons with a significant row that may be: twice as many as intervals of 95 % let through on average.
const ALLOWED_SHARE: f64 = 0.1;

/// What comparisons of configurations with themselves brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Again {
    /// How many were asked for.
    pub wanted: usize,
    /// All of them.
    pub comparisons: Vec<AgainResult>,
}

/// A configuration compared with itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgainResult {
    /// The configuration.
    pub configuration: String,
    /// Where client and server ran.
    pub placement: Placement,
    /// Difference of the latencies, ns.
    pub latency_delta_ns: f64,
    /// Interval of the difference.
    pub ci95_ns: Option<[f64; 2]>,
    /// Verdict of the comparison.
    pub verdict: Verdict,
    /// Rows that differ from 0, all rows considered at once.
    pub significant: Vec<String>,
}

impl Again {
    /// Comparisons in which something differs.
    #[must_use]
    pub fn wrong(&self) -> usize {
        self.comparisons.iter().filter(|comparison| !comparison.significant.is_empty()).count()
    }
    /// Verdicts that say that one of the two is slower.
    #[must_use]
    pub fn wrong_verdicts(&self) -> usize {
        let is_told = |comparison: &&AgainResult| matches!(comparison.verdict, Verdict::Slower | Verdict::Faster);
        self.comparisons.iter().filter(is_told).count()
    }
    /// Whether few enough are wrong, and every one could have been.
    #[must_use]
    pub fn holds(&self) -> bool {
        let able = self.comparisons.len() == self.wanted
            && self.comparisons.iter().all(|comparison| comparison.ci95_ns.is_some());
        let allowed = ALLOWED_SHARE * self.comparisons.len() as f64;
        able && self.wrong() as f64 <= allowed && self.wrong_verdicts() as f64 <= allowed
    }
}

/// Runs so many comparisons.
///
/// # Errors
/// If a run cannot be completed.
pub fn run_again(options: &Options, count: usize) -> Result<Again> {
    let mut again = Again { wanted: count, comparisons: Vec::new() };
    let bar = ProgressBar::new(count as u64);
    for number in 0..count {
        interrupt::check()?;
        let (configuration, placement) = CONFIGURATIONS[number % CONFIGURATIONS.len()];
        let folder = options.out.join("again");
        let mut request = request(&format!("{configuration},{configuration}"), placement, folder, options);
        request.spec.seed = number as u64 + 1;
        let (plan, _) = run::plan(&request)?;
        let outcome = run::run(&request, &plan)?;
        if let Some(error) = outcome.ended_by {
            return Err(error);
        }
        if let Some(comparison) = outcome.result.comparisons.first() {
            again.comparisons.push(of(comparison, placement));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(again)
}

fn of(comparison: &ComparisonResult, placement: Placement) -> AgainResult {
    let significant = comparison.stages.iter().filter(|stage| stage.significant);
    AgainResult {
        configuration: comparison.baseline.clone(),
        placement,
        latency_delta_ns: comparison.latency_delta_ns,
        ci95_ns: comparison.ci95_ns,
        verdict: comparison.verdict,
        significant: significant.map(|stage| stage.id.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(significant: &[&str], verdict: Verdict, able: bool) -> AgainResult {
        AgainResult {
            configuration: "native".to_owned(),
            placement: Placement::Same,
            latency_delta_ns: 0.0,
            ci95_ns: able.then_some([-1.0, 1.0]),
            verdict,
            significant: significant.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn four_of_forty_may_differ_and_all_must_be_able_to() {
        let of = |wrong: usize, told: usize| {
            let mut comparisons: Vec<AgainResult> = (0..40).map(|_| comparison(&[], Verdict::NotTold, true)).collect();
            comparisons[..wrong].fill(comparison(&["row"], Verdict::NotTold, true));
            comparisons[20..20 + told].fill(comparison(&[], Verdict::Slower, true));
            Again { wanted: 40, comparisons }
        };
        assert!(of(4, 4).holds() && !of(5, 0).holds() && !of(0, 5).holds());
        let few = vec![comparison(&[], Verdict::TooFewRounds, false)];
        assert!(!Again { wanted: 1, comparisons: few }.holds());
        assert!(!Again { wanted: 40, comparisons: of(0, 0).comparisons[1..].to_vec() }.holds());
    }
}
