//! A comparison in words: what it says first, then its causes, which add up to it.

use super::LayerDelta;
use virtax_analysis::{
    comparison::{Comparison, Verdict},
    label::Label,
    statistics::Estimate,
};

/// Fewest ns that the sentence names, and most rows.
const SMALLEST_NS: f64 = 100.0;
const MOST_ROWS: usize = 5;
const MOST_LAYERS: usize = 8;
/// Samples below which a layer is not named.
const FEWEST_SAMPLES: u64 = 5;

/// A row of a comparison, as the sentence names it.
pub struct NamedRow {
    /// Label of the row, in words.
    pub label: Label,
    /// What it adds to the latency, less the probes' own time, ns.
    pub corrected_ns: f64,
    /// What it adds to the CPU time, ns per operation.
    pub service_ns: f64,
    /// Whether it differs from 0, all rows considered at once.
    pub significant: bool,
}

/// A quantile of either latency, ns, and the difference of the rounds' quantiles.
#[derive(Debug, Clone, Copy)]
pub struct Quantiles {
    /// Latencies of the baseline and of the candidate.
    pub of: [f64; 2],
    /// Their difference.
    pub delta: Estimate,
}

/// What a comparison is of where a CPU of both has no time left: latency is then what queues, and cost shows in
/// throughput.
#[derive(Debug, Clone, Copy)]
pub struct Saturated {
    /// Requests that are under way at once.
    pub in_flight: u32,
    /// CPU time per operation of the baseline and of the candidate, without probes, ns.
    pub cpu_ns: [f64; 2],
    /// What the candidate's work beside the path adds, ns of CPU time per operation.
    pub off_path_ns: f64,
}

/// Everything that a sentence is made of.
pub struct Finding<'a> {
    /// What a person calls either configuration.
    pub names: [String; 2],
    /// The numbers.
    pub compared: &'a Comparison,
    /// Mean latency of the baseline, ns.
    pub base_ns: f64,
    /// Rows of the comparison.
    pub rows: &'a [NamedRow],
    /// Layers of the comparison.
    pub layers: &'a [LayerDelta],
    /// The 99 % quantiles.
    pub p99: Option<Quantiles>,
    /// `None`: there is time left.
    pub saturated: Option<Saturated>,
}

/// µs with as many digits as the sentence needs.
fn micros(ns: f64) -> String {
    let digits = if ns.abs() < 1000.0 { 2 } else { 1 };
    let text = format!("{:.digits$}", ns / 1000.0);
    if text.trim_start_matches('-').trim_matches(['0', '.']).is_empty() {
        text.trim_start_matches('-').to_owned()
    } else {
        text.replace('-', "−")
    }
}

fn signed(ns: f64) -> String {
    let text = micros(ns);
    if text.starts_with('−') { text } else { format!("+{text}") }
}

/// "[5.9, 6.3]": of what is a size, its own sign taken off.
fn bounds(estimate: &Estimate, of_size: bool) -> String {
    let turn = of_size && estimate.mean < 0.0;
    estimate.ci95.map_or(String::new(), |[low, high]| {
        let [low, high] = if turn { [-high, -low] } else { [low, high] };
        format!(" [{}, {}]", micros(low), micros(high))
    })
}

fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:+.0} %", 100.0 * part / whole).replace('-', "−") } else { String::new() }
}

impl Finding<'_> {
    /// "NAT adds 7.1 µs [6.7, 7.5] (+43 %) over host networking: 4.9 forwarding (conntrack, ip); 1.2 across the link;
    /// …"
    pub fn sentence(&self) -> String {
        let [baseline, candidate] = &self.names;
        let delta = self.compared.latency;
        let size = format!("{} µs", micros(delta.mean.abs()));
        let interval = bounds(&delta, true);
        let verb = if delta.mean >= 0.0 { "adds" } else { "saves" };
        match self.compared.verdict {
            Verdict::TooFewRounds => format!(
                "{candidate} against {baseline}: {} µs over {} rounds; no verdict below 5 rounds",
                signed(delta.mean),
                self.compared.rounds
            ),
            Verdict::NotTold => {
                let equal = self
                    .compared
                    .equal_within_percent
                    .map_or(String::new(), |percent| format!("; they are equal within {percent:.1} %"));
                let between = self.between();
                format!("{candidate} cannot be told from {baseline}: the difference lies between {between} µs{equal}")
            }
            Verdict::Equivalent => format!(
                "{candidate} is equivalent to {baseline} within {:.1} %, less than what was said to matter: the difference lies between \
                 {} µs",
                self.compared.equal_within_percent.unwrap_or_default(),
                self.between()
            ),
            Verdict::WithinProbeEffect => format!(
                "{candidate} {verb} {size}{interval} over {baseline}, no more than the probes' effects differ ({} µs): no verdict",
                micros(self.compared.probe_effect.mean)
            ),
            Verdict::Incomplete => {
                format!(
                    "{candidate} against {baseline}: {} µs{}, but a result is incomplete: no verdict",
                    signed(delta.mean),
                    bounds(&delta, false)
                )
            }
            Verdict::Slower | Verdict::Faster => match self.saturated {
                Some(saturated) => self.of_saturated(&saturated, baseline, candidate),
                None => format!(
                    "{candidate} {verb} {size}{interval} ({}) over {baseline}{}{}{}",
                    percent(delta.mean, self.base_ns),
                    self.causes(),
                    self.tail(),
                    self.by_layer()
                ),
            },
        }
    }

    fn between(&self) -> String {
        let [low, high] = self.compared.latency.ci95.unwrap_or_default();
        format!("{} and {}", micros(low), micros(high))
    }

    /// Rows by where they lie, largest first, and what is left, so that all of them add up to the difference.
    fn merged(&self, of: fn(&NamedRow) -> f64) -> Vec<(Label, f64)> {
        let mut sums: Vec<(Label, f64, bool)> = Vec::new();
        for row in self.rows {
            match sums.iter_mut().find(|(label, ..)| label.structure == row.label.structure) {
                Some(sum) => {
                    sum.0 = std::mem::take(&mut sum.0).with(&row.label);
                    sum.1 += of(row);
                    sum.2 |= row.significant;
                }
                None => sums.push((row.label.clone(), of(row), row.significant)),
            }
        }
        sums.retain(|(_, ns, significant)| *significant && ns.abs() >= SMALLEST_NS);
        sums.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        sums.into_iter().take(MOST_ROWS).map(|(label, ns, _)| (label, ns)).collect()
    }

    fn causes(&self) -> String {
        let named = self.merged(|row| row.corrected_ns);
        if named.is_empty() {
            return String::new();
        }
        let whole: f64 = self.rows.iter().map(|row| row.corrected_ns).sum();
        let told: f64 = named.iter().map(|(_, ns)| ns).sum();
        let mut parts: Vec<String> =
            named.iter().map(|(label, ns)| format!("{} {}", micros(*ns), label.phrase())).collect();
        parts.extend(rest(whole - told, "in other stages"));
        parts.extend(rest(self.compared.latency.mean - whole, "not attributed"));
        format!(": {}", parts.join("; "))
    }

    fn tail(&self) -> String {
        self.p99.map_or(String::new(), |p99| {
            format!(
                ". 99 % quantile: {} → {} µs ({}{})",
                micros(p99.of[0]),
                micros(p99.of[1]),
                signed(p99.delta.mean),
                bounds(&p99.delta, false)
            )
        })
    }

    /// "NAT costs 7.6 µs [7.2, 8.0] of CPU time per request (+48 %) over host networking: …"
    fn of_saturated(&self, saturated: &Saturated, baseline: &str, candidate: &str) -> String {
        let cost = self.compared.interval;
        let [base_ns, candidate_ns] = saturated.cpu_ns;
        let verb = if cost.mean >= 0.0 { "costs" } else { "saves" };
        let per_s = |ns: f64| if ns > 0.0 { format!("{:.0}", 1e9 / ns) } else { "0".to_owned() };
        let mut parts: Vec<String> = self
            .merged(|row| row.service_ns)
            .iter()
            .map(|(label, ns)| format!("{} {}", micros(*ns), label.phrase()))
            .collect();
        let told: f64 = self.merged(|row| row.service_ns).iter().map(|(_, ns)| ns).sum();
        let on_path: f64 = self.rows.iter().map(|row| row.service_ns).sum();
        parts.extend(rest(saturated.off_path_ns, "beside the requests' path"));
        parts.extend(rest(on_path - told, "in other stages"));
        let whole = on_path + saturated.off_path_ns;
        let where_ = if parts.is_empty() || told == 0.0 {
            String::new()
        } else {
            format!(". Of the CPU time, {} µs with probes: {}", micros(whole), parts.join("; "))
        };
        format!(
            "{candidate} {verb} {} µs{} of CPU time per request ({}) over {baseline}: a CPU is busy all the time, so throughput goes from {} \
             to {} per second; with {} requests under way at once, queueing makes {} µs{} of latency of it{}{where_}",
            micros(cost.mean.abs()),
            bounds(&cost, true),
            percent(candidate_ns - base_ns, base_ns),
            per_s(base_ns),
            per_s(candidate_ns),
            saturated.in_flight,
            signed(self.compared.latency.mean),
            bounds(&self.compared.latency, false),
            self.tail(),
        )
    }

    /// ". By layer, of the 7.2 µs with probes: conntrack 1.9 [1.6, 2.2], NAT 0.9 [0.7, 1.1]"
    fn by_layer(&self) -> String {
        let told: Vec<String> = self
            .layers
            .iter()
            .filter(|layer| layer.significant && layer.delta_ns.abs() >= SMALLEST_NS)
            .filter(|layer| layer.samples.is_none_or(|samples| samples >= FEWEST_SAMPLES))
            .take(MOST_LAYERS)
            .map(|layer| {
                let delta = Estimate { mean: layer.delta_ns, ci95: layer.ci95_ns, simultaneous: None };
                format!("{} {}{}", layer.layer, micros(layer.delta_ns), bounds(&delta, false))
            })
            .collect();
        if told.is_empty() {
            return String::new();
        }
        format!(". By layer, of the {} µs with probes: {}", micros(self.compared.traced.mean), told.join(", "))
    }
}

/// What is left, if it is enough to be said.
fn rest(ns: f64, words: &str) -> Option<String> {
    (ns.abs() >= SMALLEST_NS / 2.0).then(|| format!("{} {words}", micros(ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sure(mean: f64) -> Estimate {
        Estimate { mean, ci95: Some([mean - 400.0, mean + 300.0]), simultaneous: None }
    }

    fn compared(mean: f64, verdict: Verdict) -> Comparison {
        Comparison {
            rounds: 10,
            latency: sure(mean),
            traced: sure(mean),
            probe_effect: sure(300.0),
            residual: sure(0.0),
            rows: Vec::new(),
            interval: sure(mean / 50.0),
            corrected_sum: sure(mean),
            gap: sure(0.0),
            scatter: None,
            verdict,
            equal_within_percent: (verdict == Verdict::NotTold).then_some(2.25),
        }
    }
    fn row(structure: &str, code: &[&str], ns: f64, significant: bool) -> NamedRow {
        let label =
            Label { structure: structure.to_owned(), code: code.iter().map(|name| (*name).to_owned()).collect() };
        NamedRow { label, corrected_ns: ns, service_ns: ns / 50.0, significant }
    }

    fn say(mean: f64, verdict: Verdict, saturated: Option<Saturated>) -> String {
        let rows = [
            row("across the link", &["veth"], 700.0, true),
            row("forwarding", &["conntrack", "NAT"], 5_400.0, true),
            row("across the link", &["softirq"], 500.0, true),
            row("up to the socket", &[], 400.0, false),
        ];
        let layer = |name: &str, delta_ns: f64, significant, samples| LayerDelta {
            layer: name.to_owned(),
            delta_ns,
            ci95_ns: Some([delta_ns - 300.0, delta_ns + 300.0]),
            significant,
            samples: Some(samples),
        };
        let layers =
            [layer("conntrack", 1_900.0, true, 300), layer("NAT", 900.0, true, 4), layer("tcp", 500.0, false, 90)];
        let p99 = Some(Quantiles { of: [21_600.0, 37_700.0], delta: sure(16_100.0) });
        let finding = Finding {
            names: ["host networking", "NAT"].map(str::to_owned),
            compared: &compared(mean, verdict),
            base_ns: 16_000.0,
            rows: &rows,
            layers: &layers,
            p99,
            saturated,
        };
        finding.sentence()
    }

    #[test]
    fn sentences() {
        let saturated = Saturated { in_flight: 50, cpu_ns: [15_700.0, 23_300.0], off_path_ns: 60.0 };
        insta::assert_snapshot!(
            [
                say(7_100.0, Verdict::Slower, None),
                say(-7_100.0, Verdict::Faster, None),
                say(50.0, Verdict::NotTold, None),
                say(200.0, Verdict::WithinProbeEffect, None),
                say(7_100.0, Verdict::Incomplete, None),
                say(7_100.0, Verdict::TooFewRounds, None),
                say(382_000.0, Verdict::Slower, Some(saturated)),
            ]
            .join("\n")
        );
    }

    /// The causes add up to what they explain.
    #[test]
    fn causes_add_up() {
        let said = say(7_100.0, Verdict::Slower, None);
        let causes = said.split(": ").nth(1).unwrap().split(". ").next().unwrap();
        let first = |part: &str| part.trim().split(' ').next().unwrap().replace('−', "-").parse::<f64>().unwrap();
        let sum: f64 = causes.split("; ").map(first).sum();
        assert!((sum - 7.1).abs() < 0.06, "{causes}");
    }
}
