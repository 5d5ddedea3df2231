//! The table of `virtax bench`.

use std::fmt::Write;

use comfy_table::Cell;

use super::{Look, lines, micros, number, percent};
use crate::result::bench::{Benchmark, Variant};
use virtax_model::counts::Costs;

const VARIANTS: [Variant; 7] = [
    Variant::Idle,
    Variant::TracedNoRecords,
    Variant::Traced,
    Variant::Detailed,
    Variant::Sampled,
    Variant::Run,
    Variant::Script,
];

/// What watching costs: effect by set of probes, and ns per hit by program.
#[must_use]
pub fn benchmark(benchmark: &Benchmark, look: Look) -> String {
    let middle = |values: &[f64], share: f64| {
        let index = (share * (values.len().saturating_sub(1)) as f64).round() as usize;
        values.get(index).copied()
    };
    let script = middle(&benchmark.effects_ns(Variant::Script), 0.5);
    let mut detached: Vec<f64> = benchmark.rounds.iter().map(|round| round.detached_ns).collect();
    detached.sort_by(f64::total_cmp);
    let base = middle(&detached, 0.5).unwrap_or(0.0);
    let mut table =
        look.table(&["effect on the latency", "ns, median", "quartiles", "of the latency", "of the script's"]);
    for variant in VARIANTS {
        let effects = benchmark.effects_ns(variant);
        let Some(median) = middle(&effects, 0.5) else { continue };
        let quartile = |share| middle(&effects, share).unwrap_or(0.0);
        table.add_row(vec![
            Cell::new(variant.name()),
            number(format!("{median:.0}")),
            number(format!("{:.0} – {:.0}", quartile(0.25), quartile(0.75))),
            number(percent(median / base)),
            number(script.map_or(String::new(), |script| format!("{:.3}", median / script))),
        ]);
    }
    let mut text = format!(
        "latency with nothing attached: {} µs (median of {} interleaved rounds)\n\n{}\n",
        micros(base),
        benchmark.rounds.len(),
        lines(&table)
    );
    for (set, costs) in ["totals and records", "and parts"].into_iter().zip(&benchmark.costs) {
        text.push_str(&programs(set, costs, look));
    }
    text
}

/// ns per hit by program, of one kind of phase.
fn programs(set: &str, costs: &Costs, look: Look) -> String {
    let mut table = look.table(&[&format!("program ({set})"), "hits/op", "ns/hit", "ns/op with dispatch"]);
    let mut total = 0.0;
    for cost in costs.probes.iter().filter(|cost| cost.hits_per_op > 0.0) {
        let ns_per_op = cost.hits_per_op * (cost.ns_per_hit + costs.dispatch_ns);
        total += ns_per_op;
        table.add_row(vec![
            Cell::new(cost.probe),
            number(format!("{:.2}", cost.hits_per_op)),
            number(format!("{:.0}", cost.ns_per_hit)),
            number(format!("{ns_per_op:.0}")),
        ]);
    }
    let mut text = format!("\n{}", lines(&table));
    let _ = writeln!(
        text,
        "dispatch: {:.0} ns per hit; floor of the statistics, subtracted: {:.0} ns; hits × (ns + dispatch): {total:.0} ns per operation",
        costs.dispatch_ns, costs.floor_ns
    );
    text
}
