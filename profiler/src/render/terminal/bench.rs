//! The table of `virtax bench`.

use std::fmt::Write;

use comfy_table::Cell;

use super::{Look, lines, micros, number, percent};
use crate::experiment::bench::{Benchmark, Variant};

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
    for variant in [Variant::TracedNoRecords, Variant::Traced, Variant::Detailed, Variant::Script] {
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
    let mut table = look.table(&["program", "hits/op", "ns/hit"]);
    let mut total = 0.0;
    for cost in &benchmark.costs.probes {
        total += cost.hits_per_op * (cost.ns_per_hit + benchmark.costs.dispatch_ns);
        table.add_row(vec![
            Cell::new(&cost.probe),
            number(format!("{:.2}", cost.hits_per_op)),
            number(format!("{:.0}", cost.ns_per_hit)),
        ]);
    }
    text.push_str(&lines(&table));
    let _ = writeln!(
        text,
        "dispatch: {:.0} ns per hit; floor of the statistics, subtracted: {:.0} ns; hits × (ns + dispatch): {total:.0} ns per operation",
        benchmark.costs.dispatch_ns, benchmark.costs.floor_ns
    );
    text
}
