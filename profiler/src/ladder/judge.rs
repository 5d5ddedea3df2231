//! What a ladder's run says of every mechanism. Pure functions of its result.

use serde::{Deserialize, Serialize};

use super::rungs::{Order, Rung, below, rungs};
use crate::{
    analysis::comparison::Verdict,
    result::{ComparisonResult, LayerDelta, RunResult, StageDelta},
};

/// Version of the shape of `ladder.json`.
pub const SCHEMA_VERSION: u32 = 1;
/// A gap of more than this share of the measured increment (or than the precision, if that is more) is a disagreement.
const GAP: f64 = 0.1;
/// An interval of the gap that reaches further than this share of the measured increment agrees with too much.
const VAGUE: f64 = 0.5;
/// Rows and layers that a rung names.
const NAMED: usize = 4;

/// What can be said of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// The mechanism costs something, and the waterfalls attribute as much.
    Agrees,
    /// The mechanism costs something, and the waterfalls attribute something else.
    Disagrees,
    /// The mechanism costs nothing, within the precision.
    EqualToNothing,
    /// The mechanism costs something; whether the waterfalls attribute as much cannot be told at this number of rounds.
    Unexplained,
    /// Too small to tell at this number of rounds whether it costs anything.
    TooSmall,
    /// Fewer than five rounds.
    TooFewRounds,
    /// One of the two results is incomplete.
    Incomplete,
    /// This host lacks it.
    Missing,
    /// The lowest rung: it stands on none.
    Ground,
}

/// A rung's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RungResult {
    /// The mechanism.
    pub mechanism: String,
    /// The configuration that has it.
    pub configuration: String,
    /// The mechanism that it was measured on top of.
    pub on: Option<String>,
    /// Mean latency, nothing attached, ns.
    pub latency_ns: f64,
    /// What it adds to that of the rung below, ns per operation.
    pub measured_ns: f64,
    /// Interval of 95 %.
    pub measured_ci95_ns: Option<[f64; 2]>,
    /// What the stages' differences add up to, less the probes' own time, ns per operation.
    pub attributed_ns: f64,
    /// Interval of 95 %.
    pub attributed_ci95_ns: Option<[f64; 2]>,
    /// Attributed less measured, ns, paired by round.
    pub gap_ns: f64,
    /// Interval of 95 %.
    pub gap_ci95_ns: Option<[f64; 2]>,
    /// What its own layers add, ns per operation, with the probes attached; `null` if it has none, or without samples.
    pub own_layers_ns: Option<f64>,
    /// The stages that changed most.
    pub stages: Vec<StageDelta>,
    /// The layers that changed most.
    pub layers: Vec<LayerDelta>,
    /// The verdict.
    pub says: Says,
    /// How equal to nothing, % of the latency of the rung below, by the interval's far end; `null` where it is not.
    pub equal_within_percent: Option<f64>,
    /// Rounds that would tell, by the width of the interval and how it shrinks with the root of their number.
    pub rounds_needed: Option<u32>,
    /// Why it is missing.
    pub why: Option<String>,
}

/// `ladder.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which ladder.
    pub order: Order,
    /// The workload.
    pub workload: String,
    /// Differences of less than this are nothing, % of the latency.
    pub precision_percent: f64,
    /// Rounds.
    pub rounds: usize,
    /// The rungs, from below.
    pub rungs: Vec<RungResult>,
}

/// Why rungs are missing, by index.
pub type MissingRungs = [Option<String>];

/// Judges every rung of an order; `missing`: one entry a rung.
#[must_use]
pub fn judge(order: Order, result: &RunResult, missing: &MissingRungs, precision_percent: f64) -> Ladder {
    let rungs = rungs(order);
    let name = |index: usize| canonical(&rungs[index]);
    let stands =
        |index: usize| missing.get(index).is_none_or(Option::is_none) && result.configuration(&name(index)).is_some();
    let judged = (0..rungs.len())
        .map(|index| {
            let mut rung = empty(&rungs[index], name(index));
            if !stands(index) {
                rung.says = Says::Missing;
                let why = missing.get(index).cloned().flatten();
                rung.why = Some(why.unwrap_or_else(|| "it was not measured".to_owned()));
                return rung;
            }
            rung.latency_ns = result.configuration(&name(index)).map_or(0.0, |found| found.latency.mean_ns);
            let Some(ground) = below(rungs, index, &stands) else { return rung };
            let found = result
                .comparisons
                .iter()
                .find(|found| found.baseline == name(ground) && found.candidate == name(index));
            if let Some(comparison) = found {
                rung.on = Some(rungs[ground].mechanism.to_owned());
                let base_ns = result.configuration(&name(ground)).map_or(0.0, |found| found.latency.mean_ns);
                fill(&mut rung, &rungs[index], comparison, base_ns, precision_percent);
            }
            rung
        })
        .collect();
    Ladder {
        schema_version: SCHEMA_VERSION,
        order,
        workload: result.workload.name.clone(),
        precision_percent,
        rounds: result.configurations.iter().map(|configuration| configuration.rounds).min().unwrap_or(0),
        rungs: judged,
    }
}

/// The name that a rung's configuration has in the result.
#[must_use]
pub fn canonical(rung: &Rung) -> String {
    crate::engine::configuration::parse(rung.configuration)
        .map_or_else(|_| rung.configuration.to_owned(), |(configuration, _)| configuration.to_string())
}

fn empty(rung: &Rung, configuration: String) -> RungResult {
    RungResult {
        mechanism: rung.mechanism.to_owned(),
        configuration,
        on: None,
        latency_ns: 0.0,
        measured_ns: 0.0,
        measured_ci95_ns: None,
        attributed_ns: 0.0,
        attributed_ci95_ns: None,
        gap_ns: 0.0,
        gap_ci95_ns: None,
        own_layers_ns: None,
        stages: Vec::new(),
        layers: Vec::new(),
        says: Says::Ground,
        equal_within_percent: None,
        rounds_needed: None,
        why: None,
    }
}

fn fill(result: &mut RungResult, rung: &Rung, comparison: &ComparisonResult, base_ns: f64, precision_percent: f64) {
    (result.measured_ns, result.measured_ci95_ns) = (comparison.latency_delta_ns, comparison.ci95_ns);
    (result.attributed_ns, result.attributed_ci95_ns) = (comparison.corrected_sum_ns, comparison.corrected_sum_ci95_ns);
    (result.gap_ns, result.gap_ci95_ns) = (comparison.gap_ns, comparison.gap_ci95_ns);
    let significant = comparison.stages.iter().filter(|stage| stage.significant);
    result.stages = significant.take(NAMED).cloned().collect();
    let significant = comparison.layers.iter().filter(|layer| layer.significant);
    result.layers = significant.take(NAMED).cloned().collect();
    if !rung.layers.is_empty() && !comparison.layers.is_empty() {
        let own = comparison.layers.iter().filter(|layer| rung.layers.contains(&layer.layer.as_str()));
        result.own_layers_ns = Some(own.map(|layer| layer.delta_ns).sum());
    }
    let incomplete = comparison.verdict == Verdict::Incomplete;
    (result.says, result.equal_within_percent, result.rounds_needed) =
        says(result, comparison.rounds, base_ns, precision_percent, incomplete);
}

fn says(
    rung: &RungResult,
    rounds: usize,
    base_ns: f64,
    precision_percent: f64,
    incomplete: bool,
) -> (Says, Option<f64>, Option<u32>) {
    if incomplete {
        return (Says::Incomplete, None, None);
    }
    let (Some([low, high]), Some([gap_low, gap_high])) = (rung.measured_ci95_ns, rung.gap_ci95_ns) else {
        return (Says::TooFewRounds, None, None);
    };
    let precision_ns = precision_percent / 100.0 * base_ns;
    if low > 0.0 || high < 0.0 {
        let allowed = precision_ns.max(GAP * rung.measured_ns.abs());
        let vague = allowed.max(VAGUE * rung.measured_ns.abs());
        let within = |reach: f64| gap_low >= -reach && gap_high <= reach;
        let holds_zero = gap_low <= 0.0 && gap_high >= 0.0;
        if within(allowed) || holds_zero && within(vague) {
            return (Says::Agrees, None, None);
        }
        if !holds_zero && rung.gap_ns.abs() > allowed {
            return (Says::Disagrees, None, None);
        }
        let half = (gap_high - gap_low) / 2.0;
        return (Says::Unexplained, None, Some(rounds_for(rounds, half, vague - rung.gap_ns.abs())));
    }
    let far_percent = 100.0 * low.abs().max(high.abs()) / base_ns.max(1.0);
    if far_percent <= precision_percent {
        return (Says::EqualToNothing, Some(far_percent), None);
    }
    let half = (high - low) / 2.0;
    // Enough for the interval to leave 0 out, or to lie within the precision: whichever comes first.
    let to_tell = rung.measured_ns.abs();
    let to_equal = precision_ns - rung.measured_ns.abs();
    (Says::TooSmall, None, Some(rounds_for(rounds, half, to_tell.max(to_equal))))
}

/// Rounds at which half an interval's width is the target: it shrinks with the root of their number.
fn rounds_for(rounds: usize, half: f64, target: f64) -> u32 {
    let needed = (rounds as f64 * (half / target.max(1e-3)).powi(2)).ceil().max(rounds as f64 + 1.0);
    needed.min(f64::from(u32::MAX)) as u32
}

impl RungResult {
    /// Whether it surely costs, or saves, something.
    #[must_use]
    pub fn costs_something(&self) -> bool {
        self.measured_ci95_ns.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }
}

impl Ladder {
    /// Whether an interval, of what was measured or of the gap, is still wider than the precision. By the width
    /// alone, whatever the sign: a run that goes on until its interval leaves 0 out would find costs where there are
    /// none.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        let base = |rung: &RungResult| {
            let on = self.rungs.iter().find(|other| Some(&other.mechanism) == rung.on.as_ref());
            on.map_or(0.0, |on| on.latency_ns)
        };
        let too_wide = |rung: &RungResult, interval: Option<[f64; 2]>| {
            interval.is_none_or(|[low, high]| (high - low) / 2.0 > self.precision_percent / 100.0 * base(rung))
        };
        let measured = self.rungs.iter().filter(|rung| rung.on.is_some());
        measured
            .filter(|rung| rung.says != Says::Incomplete)
            .any(|rung| too_wide(rung, rung.measured_ci95_ns) || too_wide(rung, rung.gap_ci95_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(measured: [f64; 2], gap: [f64; 2]) -> RungResult {
        let mut rung = empty(&rungs(Order::Network)[1], "x".to_owned());
        rung.measured_ns = (measured[0] + measured[1]) / 2.0;
        rung.measured_ci95_ns = Some(measured);
        rung.gap_ns = (gap[0] + gap[1]) / 2.0;
        rung.gap_ci95_ns = Some(gap);
        rung
    }

    #[test]
    fn verdicts() {
        let of = |measured, gap| says(&rung(measured, gap), 10, 20_000.0, 2.0, false);
        assert_eq!(of([900.0, 1100.0], [-50.0, 90.0]).0, Says::Agrees);
        assert_eq!(of([900.0, 1100.0], [50.0, 90.0]).0, Says::Agrees);
        assert_eq!(of([900.0, 1100.0], [500.0, 600.0]).0, Says::Disagrees);
        assert_eq!(of([900.0, 1100.0], [-450.0, 490.0]).0, Says::Agrees);
        // A wide gap agrees with everything: 1000 has to shrink to half of what was measured.
        assert_eq!(of([900.0, 1100.0], [-1000.0, 1000.0]), (Says::Unexplained, None, Some(40)));
        assert_eq!(of([9000.0, 9200.0], [-800.0, 900.0]).0, Says::Agrees);
        assert_eq!(of([-1100.0, -900.0], [-50.0, 90.0]).0, Says::Agrees);
        assert_eq!(of([-100.0, 300.0], [0.0, 1.0]), (Says::EqualToNothing, Some(1.5), None));
        // Half a width of 1000 has to shrink to 400: a fifth of an eighth of the variance.
        assert_eq!(of([-1000.0, 1000.0], [0.0, 1.0]), (Says::TooSmall, None, Some(63)));
        assert_eq!(of([-100.0, 1900.0], [0.0, 1.0]), (Says::TooSmall, None, Some(13)));
        let mut few = rung([1.0, 2.0], [0.0, 1.0]);
        few.measured_ci95_ns = None;
        assert_eq!(says(&few, 3, 20_000.0, 2.0, false).0, Says::TooFewRounds);
        assert_eq!(says(&few, 3, 20_000.0, 2.0, true).0, Says::Incomplete);
    }
}
