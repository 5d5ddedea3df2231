//! A comparison in one sentence.

use super::{LayerDelta, StageDelta};
use crate::{
    analysis::comparison::{Comparison, Verdict},
    configuration, engine,
};

/// Fewest ns that the sentence names, and most rows.
const SMALLEST_NS: f64 = 100.0;
const MOST_ROWS: usize = 5;
const MOST_LAYERS: usize = 8;

/// A configuration as a person would call it.
fn phrase(name: &str) -> String {
    let of = |found: configuration::Configuration| {
        let phrase = engine::by_name(&found.engine)?.phrase(&found);
        Some(found.injection.map_or(phrase.clone(), |injection| format!("{phrase} ({injection})")))
    };
    configuration::parse(name).ok().and_then(|(found, _)| of(found)).unwrap_or_else(|| name.to_owned())
}

fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1000.0).replace('-', "−")
}

/// "NAT adds 7.1 µs ± 0.4 over host networking: 4.9 ip receive, conntrack, DNAT, routing, forward; 1.2 bridge; …"
pub fn of(
    baseline: &str,
    candidate: &str,
    compared: &Comparison,
    stages: &[StageDelta],
    layers: &[LayerDelta],
) -> String {
    let (baseline, candidate) = (phrase(baseline), phrase(candidate));
    let delta = compared.latency;
    let size = format!("{} µs", micros(delta.mean.abs()));
    let spread = delta.ci95.map_or(String::new(), |[low, high]| format!(" ± {}", micros((high - low) / 2.0)));
    let verb = if delta.mean >= 0.0 { "adds" } else { "saves" };
    match compared.verdict {
        Verdict::TooFewRounds => format!(
            "{candidate} against {baseline}: {}{size} over {} rounds; no verdict below 8 rounds",
            if delta.mean >= 0.0 { "+" } else { "−" },
            compared.rounds
        ),
        Verdict::NotTold => {
            let [low, high] = delta.ci95.unwrap_or_default();
            let equal = compared
                .equal_within_percent
                .map_or(String::new(), |percent| format!("; they are equal within {percent:.1} %"));
            format!(
                "{candidate} cannot be told from {baseline}: the difference lies between {} and {} µs{equal}",
                micros(low),
                micros(high)
            )
        }
        Verdict::Equivalent => {
            let [low, high] = delta.ci95.unwrap_or_default();
            format!(
                "{candidate} is equivalent to {baseline} within {:.1} %, less than what was said to matter: the difference lies between {} and \
                 {} µs",
                compared.equal_within_percent.unwrap_or_default(),
                micros(low),
                micros(high)
            )
        }
        Verdict::WithinProbeEffect => format!(
            "{candidate} {verb} {size}{spread} over {baseline}, no more than the probes' effects differ ({} µs): no verdict",
            micros(compared.probe_effect.mean)
        ),
        Verdict::Incomplete => {
            format!("{candidate} against {baseline}: {size}{spread}, but a result is incomplete: no verdict")
        }
        Verdict::Slower | Verdict::Faster => {
            let rows = largest(stages);
            let colon = if rows.is_empty() { "" } else { ": " };
            let traced = compared.traced.mean;
            format!("{candidate} {verb} {size}{spread} over {baseline}{colon}{rows}{}", by_layer(traced, layers))
        }
    }
}

/// Deltas by what the stages hold, largest first, corrected for the probes.
fn largest(stages: &[StageDelta]) -> String {
    let mut sums: Vec<(&str, f64, bool)> = Vec::new();
    for stage in stages {
        match sums.iter_mut().find(|(label, ..)| *label == stage.label) {
            Some(sum) => {
                sum.1 += stage.corrected_delta_ns;
                sum.2 |= stage.significant;
            }
            None => sums.push((&stage.label, stage.corrected_delta_ns, stage.significant)),
        }
    }
    sums.retain(|(_, ns, significant)| *significant && ns.abs() >= SMALLEST_NS);
    sums.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    sums.iter().take(MOST_ROWS).map(|(label, ns, _)| format!("{} {label}", micros(*ns))).collect::<Vec<_>>().join("; ")
}

/// ". Of the 7.2 µs with probes: conntrack 1.9 ± 0.3, NAT 0.9 ± 0.2, routing 0.7 ± 0.2"
fn by_layer(traced_ns: f64, layers: &[LayerDelta]) -> String {
    let told: Vec<String> = layers
        .iter()
        .filter(|layer| layer.significant && layer.delta_ns.abs() >= SMALLEST_NS)
        .take(MOST_LAYERS)
        .map(|layer| {
            let spread =
                layer.ci95_ns.map_or(String::new(), |[low, high]| format!(" ± {}", micros((high - low) / 2.0)));
            format!("{} {}{spread}", layer.layer, micros(layer.delta_ns))
        })
        .collect();
    if told.is_empty() {
        return String::new();
    }
    format!(". By layer, of the {} µs with probes: {}", micros(traced_ns), told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::statistics::Estimate;

    fn compared(mean: f64, verdict: Verdict) -> Comparison {
        let sure = |mean: f64| Estimate { mean, ci95: Some([mean - 400.0, mean + 400.0]), simultaneous: None };
        Comparison {
            rounds: 10,
            latency: sure(mean),
            traced: sure(mean),
            probe_effect: sure(300.0),
            residual: sure(0.0),
            rows: Vec::new(),
            corrected_sum: sure(mean),
            gap: sure(0.0),
            verdict,
            equal_within_percent: (verdict == Verdict::NotTold).then_some(2.25),
        }
    }
    fn row(label: &str, ns: f64, significant: bool) -> StageDelta {
        StageDelta {
            id: label.to_owned(),
            label: label.to_owned(),
            delta_ns: ns,
            ci95_ns: None,
            corrected_delta_ns: ns,
            detectable_ns: None,
            significant,
        }
    }

    #[test]
    fn sentences() {
        let rows = [
            row("bridge", 700.0, true),
            row("DNAT", 2_400.0, true),
            row("bridge", 500.0, true),
            row("noise", 900.0, false),
        ];
        let layer = |name: &str, delta_ns: f64, significant| LayerDelta {
            layer: name.to_owned(),
            delta_ns,
            ci95_ns: Some([delta_ns - 300.0, delta_ns + 300.0]),
            significant,
        };
        let layers = [layer("conntrack", 1_900.0, true), layer("NAT", 900.0, true), layer("tcp", 500.0, false)];
        let say = |mean, verdict| of("docker:net=host", "docker:net=nat", &compared(mean, verdict), &rows, &layers);
        insta::assert_snapshot!(
            [
                say(7_100.0, Verdict::Slower),
                say(-7_100.0, Verdict::Faster),
                say(50.0, Verdict::NotTold),
                say(200.0, Verdict::WithinProbeEffect),
                say(7_100.0, Verdict::Incomplete),
                say(7_100.0, Verdict::TooFewRounds),
            ]
            .join("\n")
        );
    }
}
