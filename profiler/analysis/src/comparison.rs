//! One configuration against another: paired round by round, row by row.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    describe::direction,
    path::StageKey,
    statistics::{Estimate, estimate, mean, variance},
    waterfall::{Blocks, Round, Row, Waterfall, quiet},
};
use virtax_model::counts::Role;

/// What can be said about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate is slower.
    Slower,
    /// The candidate is faster.
    Faster,
    /// The interval holds 0.
    NotTold,
    /// The interval lies within what was said not to matter.
    Equivalent,
    /// The difference is no larger than that of the probes' effects.
    WithinProbeEffect,
    /// Fewer than five rounds.
    TooFewRounds,
    /// One of the two results is incomplete.
    Incomplete,
}

/// A row of the difference.
#[derive(Debug, Clone)]
pub struct RowDelta {
    /// The stage.
    pub key: StageKey,
    /// Candidate less baseline, ns per operation; a stage that one of them lacks counts as 0 there.
    pub delta: Estimate,
    /// The difference less the probes' own time.
    pub corrected_ns: f64,
}

/// Where the scatter of the rounds' differences of latencies comes from (a random-effects model, DerSimonian & Laird,
/// Control. Clin. Trials 7, 1986, with the moment estimator).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scatter {
    /// Blocks of a round that both share and that count, on average.
    pub blocks: f64,
    /// Blocks of a round that do not, because the host disturbed them by its own accounts; others were measured in
    /// their place.
    #[serde(default)]
    pub disturbed: f64,
    /// Standard error of a round's difference by its own blocks, ns.
    pub within_ns: f64,
    /// Standard deviation of what differs between rounds, beyond that, ns: fresh processes, and the host's speed.
    pub between_ns: f64,
}

/// A comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Rounds that both have.
    pub rounds: usize,
    /// Difference of mean latencies without probes, ns.
    pub latency: Estimate,
    /// The difference with probes.
    pub traced: Estimate,
    /// Difference of the probes' effects: traced less detached.
    pub probe_effect: Estimate,
    /// Difference of the residuals.
    pub residual: Estimate,
    /// Rows, in the candidate's path order, then what only the baseline has.
    pub rows: Vec<RowDelta>,
    /// Difference of the times from one operation to the next, over all connections, without probes, ns.
    pub interval: Estimate,
    /// Sum of the corrected rows, with its interval.
    pub corrected_sum: Estimate,
    /// That less the difference of mean latencies without probes: what the attribution is off by.
    pub gap: Estimate,
    /// Where the rounds' scatter comes from; `None` where a round is not made of blocks.
    pub scatter: Option<Scatter>,
    /// What can be said.
    pub verdict: Verdict,
    /// Where no difference can be told: the interval's far end, % of the baseline's latency.
    pub equal_within_percent: Option<f64>,
}

/// Identifies a stage across configurations.
#[must_use]
pub fn stage_id(key: &StageKey) -> String {
    // A message is received and sent by the proxy as by whom it is for; a guest's operation is one of QEMU's, too.
    let at = match key.role {
        Role::ProxyIn | Role::ProxyOut => "proxy/",
        Role::Vmm => "vmm/",
        Role::Client | Role::Server | Role::Vcpu | Role::Vhost => "",
    };
    format!("{}/{at}{}→{}", direction(key.role, key.from.point), key.from, key.to)
}

/// Compares two waterfalls of one run; `complete`: both results are; `equivalent_within`: the share of the baseline's
/// latency below which a difference does not matter.
#[must_use]
pub fn compare(
    baseline: &Waterfall,
    candidate: &Waterfall,
    complete: bool,
    equivalent_within: Option<f64>,
) -> Comparison {
    let index: BTreeMap<u32, usize> =
        baseline.rounds.iter().enumerate().map(|(index, round)| (round.round, index)).collect();
    let pairs: Vec<(usize, usize)> = candidate
        .rounds
        .iter()
        .enumerate()
        .filter_map(|(of_candidate, round)| Some((*index.get(&round.round)?, of_candidate)))
        .collect();
    let of_rounds = |value: fn(&Round) -> f64| -> Vec<f64> {
        pairs.iter().map(|(b, c)| value(&candidate.rounds[*c]) - value(&baseline.rounds[*b])).collect()
    };
    let latency = pairs.iter().map(|pair| latency_difference(baseline, candidate, *pair)).collect::<Vec<f64>>();
    let traced = of_rounds(|round| round.traced_ns);
    // Against what is said of the latency, so that rows, gap and effect add up to it.
    let effect = traced.iter().zip(&latency).map(|(traced, latency)| traced - latency).collect();
    let residual = of_rounds(|round| round.residual_ns);
    let (keys, deltas, probes) = row_deltas(baseline, candidate, &pairs);
    let corrected: Vec<f64> = (0..pairs.len())
        .map(|round| deltas.iter().zip(&probes).map(|(row, probes)| row[round] - probes[round]).sum())
        .collect();

    let scatter = scatter(baseline, candidate, &pairs, &latency);
    let gap = corrected.iter().zip(&latency).map(|(attributed, measured)| attributed - measured).collect();
    let mut rows = estimate(&deltas);
    let interval = of_rounds(|round| round.detached_interval_ns);
    let mut heads = estimate(&[latency, traced, effect, residual, corrected, gap, interval]);
    let interval = heads.remove(6);
    let gap = heads.remove(5);
    let corrected_sum = heads.remove(4);
    let rows = keys
        .into_iter()
        .zip(rows.drain(..))
        .zip(&probes)
        .map(|((key, delta), probes)| RowDelta { key, corrected_ns: delta.mean - mean(probes), delta })
        .collect();
    let [latency, traced, probe_effect, residual] = [heads[0], heads[1], heads[2], heads[3]];
    let base_ns = baseline.mean_of(|round| round.detached_ns);
    let verdict = verdict(&latency, &probe_effect, complete, equivalent_within.map(|share| share * base_ns));
    let equal_within_percent = match (verdict, latency.ci95) {
        (Verdict::NotTold | Verdict::Equivalent, Some([low, high])) if base_ns > 0.0 => {
            Some(100.0 * low.abs().max(high.abs()) / base_ns)
        }
        _ => None,
    };
    Comparison {
        rounds: pairs.len(),
        scatter,
        verdict,
        equal_within_percent,
        latency,
        traced,
        probe_effect,
        residual,
        rows,
        interval,
        corrected_sum,
        gap,
    }
}

/// Keys of all rows of both, their differences by round, and the differences of the probes' time in them.
type RowDeltas = (Vec<StageKey>, Vec<Vec<f64>>, Vec<Vec<f64>>);

fn row_deltas(baseline: &Waterfall, candidate: &Waterfall, pairs: &[(usize, usize)]) -> RowDeltas {
    let find = |waterfall: &'_ Waterfall, key: &StageKey| waterfall.rows.iter().position(|row| row.key == *key);
    let mut keys: Vec<StageKey> = candidate.rows.iter().map(|row| row.key.clone()).collect();
    keys.extend(baseline.rows.iter().map(|row| row.key.clone()).filter(|key| find(candidate, key).is_none()));
    let difference = |key: &StageKey, values: fn(&Row) -> &Vec<f64>| -> Vec<f64> {
        let at = |waterfall: &Waterfall, round: usize| {
            find(waterfall, key).map_or(0.0, |row| values(&waterfall.rows[row])[round])
        };
        pairs.iter().map(|(of_b, of_c)| at(candidate, *of_c) - at(baseline, *of_b)).collect()
    };
    let deltas = keys.iter().map(|key| difference(key, |row| &row.rounds_ns)).collect();
    let probes = keys.iter().map(|key| difference(key, |row| &row.probes_ns)).collect();
    (keys, deltas, probes)
}

/// Differences of latencies in the blocks that two share in a round, and how many of those were left out because the
/// host disturbed them for one of the two; `None`: the round is not made of blocks.
fn differences_by_block(
    baseline: &Waterfall,
    candidate: &Waterfall,
    (of_b, of_c): (usize, usize),
) -> Option<(Vec<f64>, usize)> {
    let (in_b, in_c) = (baseline.blocks.get(of_b)?, candidate.blocks.get(of_c)?);
    let both = |in_b: &Blocks, in_c: &Blocks| -> Vec<f64> {
        in_c.iter().filter_map(|(block, ns)| Some(ns - in_b.get(block)?)).collect()
    };
    let all = both(&in_b.all, &in_c.all);
    let quiet = both(&in_b.quiet, &in_c.quiet);
    let lost =
        |of: &Blocks| in_c.all.keys().filter(|block| in_b.all.contains_key(block) && !of.contains_key(block)).count();
    let is_alike = are_alike(lost(&in_b.quiet), lost(&in_c.quiet));
    match all.len() {
        0 => None,
        shared if is_alike && quiet::are_enough(quiet.len(), shared) => Some((quiet.clone(), shared - quiet.len())),
        _ => Some((all, 0)),
    }
}

/// Whether two counts of blocks may differ by chance: by two standard deviations of a Poisson difference and one more.
/// A host meets both alike; what disturbs the blocks of one alone may be of that one's own doing, and counts.
fn are_alike(one: usize, other: usize) -> bool {
    one.abs_diff(other) as f64 <= 1.0 + 2.0 * ((one + other) as f64).sqrt()
}

/// Difference of the mean latencies of a round.
fn latency_difference(baseline: &Waterfall, candidate: &Waterfall, pair: (usize, usize)) -> f64 {
    match differences_by_block(baseline, candidate, pair) {
        Some((blocks, _)) => mean(&blocks),
        None => candidate.rounds[pair.1].detached_ns - baseline.rounds[pair.0].detached_ns,
    }
}

/// Splits the scatter of the differences of rounds, by the blocks that both have.
fn scatter(
    baseline: &Waterfall,
    candidate: &Waterfall,
    pairs: &[(usize, usize)],
    differences: &[f64],
) -> Option<Scatter> {
    let mut squares = Vec::with_capacity(pairs.len());
    let (mut blocks, mut disturbed) = (0, 0);
    for pair in pairs {
        let (both, left_out) = differences_by_block(baseline, candidate, *pair)?;
        if both.len() < 2 {
            return None;
        }
        squares.push(variance(&both) / both.len() as f64);
        blocks += both.len();
        disturbed += left_out;
    }
    if squares.len() < 2 {
        return None;
    }
    let within = mean(&squares);
    let between = (variance(differences) - within).max(0.0);
    let [blocks, disturbed] = [blocks, disturbed].map(|count| count as f64 / pairs.len() as f64);
    Some(Scatter { blocks, disturbed, within_ns: within.sqrt(), between_ns: between.sqrt() })
}

/// `margin_ns`: what does not matter. With the whole interval within it, two one-sided tests at 2.5 % both refuse a
/// difference as large (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).
fn verdict(latency: &Estimate, probe_effect: &Estimate, complete: bool, margin_ns: Option<f64>) -> Verdict {
    if !complete {
        return Verdict::Incomplete;
    }
    let Some([low, high]) = latency.ci95 else { return Verdict::TooFewRounds };
    if margin_ns.is_some_and(|margin| low > -margin && high < margin) {
        Verdict::Equivalent
    } else if low <= 0.0 && high >= 0.0 {
        Verdict::NotTold
    } else if latency.mean.abs() <= probe_effect.mean.abs() {
        Verdict::WithinProbeEffect
    } else if low > 0.0 {
        Verdict::Slower
    } else {
        Verdict::Faster
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::Counter;
    use virtax_model::{
        counts::{Phase, PhaseKind, Place, ProbeCounts},
        points::Point,
        testing,
    };

    use super::*;
    use crate::waterfall;

    #[test]
    fn what_disturbs_one_alone_counts() {
        assert!(are_alike(0, 0) && are_alike(2, 5) && are_alike(0, 3));
        assert!(!are_alike(0, 7) && !are_alike(20, 3));
    }

    const OPERATIONS: u64 = 1000;
    /// How much longer an operation takes with probes, ns.
    const EFFECT: u64 = 40;

    /// A phase with operations of this latency, each a call and a wait of this much of it.
    fn phase(kind: PhaseKind, latency_ns: u64, wait_ns: u64) -> Phase {
        let mut phase = testing::phase(kind, OPERATIONS * (latency_ns + 500));
        if kind != PhaseKind::Detached {
            let [call, send, received] = [Point::Call, Point::Send, Point::Received].map(|point| Place::at(point, ""));
            let stage = |from: &Place, to: &Place, ns: u64| {
                testing::stage(Role::Client, from.clone(), to.clone(), OPERATIONS, OPERATIONS * ns)
            };
            let stages = vec![stage(&call, &send, latency_ns - wait_ns), stage(&send, &received, wait_ns)];
            let counters = [Counter::Operations, Counter::Followed, Counter::Completed];
            let counters = counters.map(|counter| (counter, OPERATIONS)).into();
            phase = phase.with_probes(ProbeCounts { stages, counters, tokens: 1, ..ProbeCounts::default() });
        }
        (phase.client.operations, phase.client.latency_sum_ns) = (OPERATIONS, OPERATIONS * latency_ns);
        phase
    }

    /// Rounds of a configuration, of these latencies without probes.
    fn rounds(name: &str, first: u32, latencies: &[u64], wait_ns: u64) -> Waterfall {
        let repetitions: Vec<_> = (first..)
            .zip(latencies)
            .map(|(round, latency)| {
                let traced = phase(PhaseKind::Traced, latency + EFFECT, wait_ns);
                let phases = vec![phase(PhaseKind::Detached, *latency, wait_ns), traced];
                testing::repetition(name, round, 0, phases)
            })
            .collect();
        waterfall::build(name, &repetitions.iter().collect::<Vec<_>>())
    }

    fn near(estimate: &Estimate, expected: f64) -> bool {
        (estimate.mean - expected).abs() < 0.5
    }

    #[test]
    fn rounds_that_both_have_are_compared_stage_by_stage() {
        let baseline: Vec<u64> = (0..10).map(|round| 10_000 + 700 * (round % 3)).collect();
        // A microsecond more in each of the same rounds, whatever they are like; and the first one is missing.
        let candidate: Vec<u64> = baseline[1..].iter().map(|latency| latency + 1000).collect();
        let (baseline, candidate) = (rounds("a", 0, &baseline, 4000), rounds("b", 1, &candidate, 4300));
        let found = compare(&baseline, &candidate, true, None);
        assert_eq!((found.rounds, found.verdict, found.equal_within_percent), (9, Verdict::Slower, None));
        assert!(near(&found.latency, 1000.0) && near(&found.traced, 1000.0), "{found:?}");
        assert!(near(&found.interval, 1000.0) && near(&found.corrected_sum, 1000.0), "{found:?}");
        let nothing = [&found.probe_effect, &found.residual, &found.gap];
        assert!(nothing.iter().all(|estimate| near(estimate, 0.0)), "{found:?}");
        let rows: Vec<(String, f64)> =
            found.rows.iter().map(|row| (stage_id(&row.key), row.corrected_ns.round())).collect();
        let expected = [("request/call()→send()", 700.0), ("request/send()→received()", 300.0)];
        assert_eq!(rows, expected.map(|(id, ns)| (id.to_owned(), ns)));
        // The other way round.
        let found = compare(&candidate, &baseline, true, None);
        assert_eq!(found.verdict, Verdict::Faster);
        assert!(near(&found.latency, -1000.0) && near(&found.corrected_sum, -1000.0), "{found:?}");
        // What does not matter is a share of the baseline's latency, here of 10,700 ns.
        let verdict = |share| compare(&baseline, &candidate, true, Some(share)).verdict;
        assert_eq!((verdict(0.1), verdict(0.09)), (Verdict::Equivalent, Verdict::Slower));
    }

    #[test]
    fn how_equal_what_cannot_be_told_apart_is() {
        let of = |name: &str, offset: u64| {
            let latencies: Vec<u64> = (0..10).map(|round| 10_000 + offset * (round % 2)).collect();
            rounds(name, 0, &latencies, 4000)
        };
        let found = compare(&of("a", 100), &of("b", 200), true, None);
        // Differences of 0 and 100 by turns: 50 in the mean, ± 38.
        assert_eq!(found.verdict, Verdict::Slower);
        let (one, other) = (rounds("a", 0, &[10_100, 10_000].repeat(5), 4000), of("b", 100));
        let found = compare(&one, &other, true, None);
        assert_eq!(found.verdict, Verdict::NotTold);
        let [low, high] = found.latency.ci95.unwrap();
        let far = low.abs().max(high.abs());
        assert!((60.0..80.0).contains(&far), "{far}");
        assert!((found.equal_within_percent.unwrap() - 100.0 * far / 10_050.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn stages_of_a_proxy_and_of_a_vm_have_ids_of_their_own() {
        let id = |role: Role| {
            let (from, to) = (Place::at(Point::Send, ""), Place::at(Point::Received, ""));
            stage_id(&StageKey { role, from, to })
        };
        let ids: Vec<String> = [Role::Client, Role::ProxyIn, Role::Vmm, Role::Server].map(id).into();
        let ends = ["/send()→received()", "/proxy/send()→received()", "/vmm/send()→received()", "/send()→received()"];
        let starts = ["request", "request", "request", "response"];
        assert_eq!(ids, std::iter::zip(starts, ends).map(|(start, end)| start.to_owned() + end).collect::<Vec<_>>());
    }

    fn sure(mean: f64) -> Estimate {
        Estimate { mean, ci95: Some([mean - 1.0, mean + 1.0]), simultaneous: Some([mean - 1.5, mean + 1.5]) }
    }

    #[test]
    fn verdicts() {
        let of = |latency: &Estimate, effect: &Estimate, complete| verdict(latency, effect, complete, None);
        assert_eq!(of(&sure(700.0), &sure(50.0), true), Verdict::Slower);
        assert_eq!(of(&sure(-700.0), &sure(50.0), true), Verdict::Faster);
        assert_eq!(of(&sure(0.5), &sure(50.0), true), Verdict::NotTold);
        assert_eq!(of(&sure(40.0), &sure(-50.0), true), Verdict::WithinProbeEffect);
        assert_eq!(of(&sure(700.0), &sure(50.0), false), Verdict::Incomplete);
        // What does not matter: all of the interval has to lie within it.
        assert_eq!(verdict(&sure(700.0), &sure(50.0), true, Some(900.0)), Verdict::Equivalent);
        assert_eq!(verdict(&sure(-700.0), &sure(50.0), true, Some(900.0)), Verdict::Equivalent);
        assert_eq!(verdict(&sure(700.0), &sure(50.0), true, Some(600.0)), Verdict::Slower);
        assert_eq!(verdict(&sure(0.5), &sure(50.0), false, Some(900.0)), Verdict::Incomplete);
        let few = Estimate { mean: 700.0, ci95: None, simultaneous: None };
        assert_eq!(of(&few, &few, true), Verdict::TooFewRounds);
        assert_eq!(of(&few, &few, false), Verdict::Incomplete);
    }
}
