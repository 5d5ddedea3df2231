//! Warnings of what the rounds and latencies look like: numbers whose mean and interval do not tell all.

use hdrhistogram::Histogram;
use workloads::protocol::{decode_histogram, new_histogram};

use super::{
    ConfigurationResult, details,
    warning::{Warning, warning},
};
use virtax_analysis::statistics::ROUNDS_FOR_VERDICTS;
use virtax_model::{
    counts::{PhaseKind, Repetition},
    header::Header,
};

/// Beyond so many scaled median deviations from the median, a round is an outlier (Iglewicz & Hoaglin, How to Detect
/// and Handle Outliers, 1993).
const OUTLIER: f64 = 3.5;
/// What makes a median deviation the standard deviation of a normal distribution.
const SCALE: f64 = 1.4826;
/// Two-sided 1 % of a normal distribution: a rank correlation times √(n − 1) is nearly normal (Spearman's ρ, without
/// a trend).
const TREND: f64 = 2.576;
/// Share of the operations that each of two modes has at least; how far apart they are; how deep the valley is
/// between them.
const MODE_SHARE: f64 = 0.1;
const APART: f64 = 1.3;
const VALLEY: f64 = 0.5;

/// Warnings of each configuration, and of how the workload asks.
pub(super) fn of(header: &Header, configurations: &[ConfigurationResult], repetitions: &[Repetition]) -> Vec<Warning> {
    let mut found = Vec::new();
    for configuration in configurations {
        let name = &configuration.name;
        let of_name: Vec<&Repetition> =
            repetitions.iter().filter(|repetition| repetition.configuration == *name).collect();
        let rounds = means(&of_name);
        if rounds.len() >= ROUNDS_FOR_VERDICTS {
            found.extend(drift(name, &rounds));
            found.extend(outliers(name, &rounds));
        }
        found.extend(two_modes(name, &of_name));
    }
    if header.settings.get("rate").is_some_and(|rate| rate == "0") {
        found.push(warning(
            "closed-loop",
            "every connection waits for its answer before it asks again: a server that stalls is asked less meanwhile, and the slowest \
             latencies say too little of it",
            "--set rate=N: requests a second, whether answers come or not",
        ));
    }
    found
}

/// Rounds and their mean latencies with nothing attached, ns.
fn means(repetitions: &[&Repetition]) -> Vec<(u32, f64)> {
    let mut means: Vec<(u32, f64)> = repetitions
        .iter()
        .filter_map(|repetition| {
            let detached = repetition.phases.iter().filter(|phase| phase.kind == PhaseKind::Detached);
            let sums = detached.map(|phase| (phase.client.latency_sum_ns, phase.client.operations));
            let (ns, operations) = sums.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
            (operations > 0).then(|| (repetition.round, ns as f64 / operations as f64))
        })
        .collect();
    means.sort_by_key(|(round, _)| *round);
    means
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count() as f64;
    let same = |value: f64| values.iter().filter(|other| **other == value).count() as f64;
    values.iter().map(|value| below(*value) + (same(*value) + 1.0) / 2.0).collect()
}

/// Spearman's ρ of values with their order; 0 where they do not vary.
fn trend(values: &[f64]) -> f64 {
    let (ranks, count) = (ranks(values), values.len() as f64);
    let middle = (count + 1.0) / 2.0;
    let (mut together, mut of_order, mut of_values) = (0.0, 0.0, 0.0);
    for (index, rank) in ranks.iter().enumerate() {
        let (order, value) = (index as f64 + 1.0 - middle, rank - middle);
        together += order * value;
        of_order += order * order;
        of_values += value * value;
    }
    if of_values > 0.0 { together / (of_order * of_values).sqrt() } else { 0.0 }
}

fn drift(name: &str, rounds: &[(u32, f64)]) -> Option<Warning> {
    let values: Vec<f64> = rounds.iter().map(|(_, ns)| *ns).collect();
    let rho = trend(&values);
    if rho.abs() * (values.len() as f64 - 1.0).sqrt() <= TREND {
        return None;
    }
    let third = values.len().div_ceil(3);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64 / 1000.0;
    let text = format!(
        "{name} drifts: the mean latency goes from {:.1} µs in the first third of the rounds to {:.1} µs in the last (rank correlation {rho:.2}); \
         differences of rounds in turns hold, its own mean is that of a moving thing",
        mean(&values[..third]),
        mean(&values[values.len() - third..]),
    );
    Some(warning("drift", text, "more --rounds, once the machine has settled"))
}

/// Whether each value is one.
fn are_outliers(values: &[f64]) -> Vec<bool> {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
    };
    let centre = median(values.to_vec());
    let reach = OUTLIER * SCALE * median(values.iter().map(|value| (value - centre).abs()).collect());
    values.iter().map(|value| reach > 0.0 && (value - centre).abs() > reach).collect()
}

fn outliers(name: &str, rounds: &[(u32, f64)]) -> Option<Warning> {
    let values: Vec<f64> = rounds.iter().map(|(_, ns)| *ns).collect();
    let all = rounds.iter().zip(are_outliers(&values)).filter(|(_, is_one)| *is_one);
    let numbers: Vec<String> = all.map(|((round, _), _)| (round + 1).to_string()).collect();
    let text = format!(
        "{name}: rounds more than {OUTLIER} scaled median deviations from the median: {} (of {})",
        numbers.join(", "),
        rounds.len()
    );
    (!numbers.is_empty()).then(|| warning("outlier-rounds", text, "stop other work on this machine, or more --rounds"))
}

/// Two separate groups of latencies: a mean between them is none that anything takes.
fn two_modes(name: &str, repetitions: &[&Repetition]) -> Option<Warning> {
    let mut all: Histogram<u64> = new_histogram();
    let detached = repetitions.iter().flat_map(|repetition| &repetition.phases);
    for phase in detached.filter(|phase| phase.kind == PhaseKind::Detached) {
        all.add(decode_histogram(&phase.client.histogram).ok()?).ok()?;
    }
    let (low, high) = modes(&details::steps_of(&all))?;
    let micros = |ns: u64| ns as f64 / 1000.0;
    let text = format!(
        "{name} has two kinds of latencies, around {:.1} and {:.1} µs: a mean is between them, and moves with their shares",
        micros(low),
        micros(high)
    );
    Some(warning(
        "bimodal",
        text,
        "--placement split or same, so that wake-ups are alike; see the distribution in report.html",
    ))
}

/// The two largest separate modes of a distribution over logarithmic steps, ns.
fn modes(steps: &[(u64, u64)]) -> Option<(u64, u64)> {
    let total: u64 = steps.iter().map(|(_, count)| count).sum();
    // What neighbours have evens out the edges of the witness's own bins.
    let smooth: Vec<f64> = (0..steps.len())
        .map(|at| {
            let around = &steps[at.saturating_sub(2)..(at + 3).min(steps.len())];
            around.iter().map(|(_, count)| *count as f64).sum::<f64>() / around.len() as f64
        })
        .collect();
    let mut best: Option<(f64, usize, usize)> = None;
    for valley in 1..smooth.len().saturating_sub(1) {
        let peak = |range: std::ops::Range<usize>| range.max_by(|a, b| smooth[*a].total_cmp(&smooth[*b]));
        let (Some(left), Some(right)) = (peak(0..valley), peak(valley + 1..smooth.len())) else { continue };
        let mass = |part: &[(u64, u64)]| part.iter().map(|(_, count)| *count as f64).sum::<f64>() / total.max(1) as f64;
        let lower = smooth[left].min(smooth[right]);
        let is_deep = smooth[valley] < VALLEY * lower;
        let are_apart = steps[right].0 as f64 > APART * steps[left].0 as f64;
        let (below, above) = (mass(&steps[..valley]), mass(&steps[valley..]));
        if is_deep && are_apart && below >= MODE_SHARE && above >= MODE_SHARE {
            let depth = lower - smooth[valley];
            if best.is_none_or(|(deepest, ..)| depth > deepest) {
                best = Some((depth, left, right));
            }
        }
    }
    best.map(|(_, left, right)| (steps[left].0, steps[right].0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_one_of_ranks() {
        assert!((trend(&[1.0, 2.0, 3.0, 50.0]) - 1.0).abs() < 1e-12);
        assert!((trend(&[4.0, 3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(trend(&[5.0; 6]), 0.0);
        let rounds = |values: &[f64]| values.iter().enumerate().map(|(at, ns)| (at as u32, *ns)).collect::<Vec<_>>();
        let rising: Vec<f64> = (0..10).map(|at| 1000.0 + 10.0 * f64::from(at)).collect();
        assert!(drift("native", &rounds(&rising)).is_some_and(|found| found.text.contains("1.0 µs")));
        assert!(drift("native", &rounds(&[5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 2.5, 4.5])).is_none());
    }

    #[test]
    fn outliers_are_far_from_the_median() {
        let values = [10.0, 10.2, 9.9, 10.1, 30.0, 10.0, 9.8, 10.1];
        assert_eq!(are_outliers(&values).iter().position(|is_one| *is_one), Some(4));
        // Rounds that never vary have none.
        assert!(are_outliers(&[5.0; 8]).iter().all(|is_one| !is_one));
        let rounds: Vec<(u32, f64)> = values.iter().enumerate().map(|(at, ns)| (at as u32, *ns)).collect();
        assert!(outliers("native", &rounds).unwrap().text.ends_with(": 5 (of 8)"));
    }

    #[test]
    fn two_humps_are_two_modes_and_one_is_none() {
        let hump = |centre: f64, weight: f64| {
            move |at: usize| (weight * (-((at as f64 - centre) / 4.0).powi(2)).exp()).round() as u64
        };
        let steps = |of: &dyn Fn(usize) -> u64| -> Vec<(u64, u64)> {
            (0..80).map(|at| ((1000.0 * 1.04_f64.powi(at as i32)) as u64, of(at))).collect()
        };
        let one = hump(30.0, 1000.0);
        assert_eq!(modes(&steps(&one)), None);
        let (low, high) = (hump(20.0, 1000.0), hump(55.0, 600.0));
        let found = modes(&steps(&|at| low(at) + high(at))).unwrap();
        assert!((2000..2400).contains(&found.0) && (8000..9500).contains(&found.1), "{found:?}");
        // A few slow ones are a tail.
        let few = hump(55.0, 40.0);
        assert_eq!(modes(&steps(&|at| low(at) + few(at))), None);
        assert_eq!(modes(&[]), None);
    }
}
