//! Single requests, each with its own waterfall.

use comfy_table::Cell;

use super::{
    super::numbers::{bounds, micros, signed_micros},
    Look, lines, number,
};
use crate::result::runs::{Change, RunsDiff};
use virtax_analysis::tail::slowest_of;
use virtax_model::{
    points,
    records::{Pass, Record},
};

/// Widest bar, letters.
const BAR: f64 = 40.0;

/// The slowest traced requests of a configuration, slowest first.
#[must_use]
pub fn requests(name: &str, records: &[Record], most: usize, look: Look) -> String {
    let mut chosen = slowest_of(records, most);
    chosen.sort_by_key(|record| std::cmp::Reverse(record.latency_ns()));
    let mut text = format!("{name}: {} of {} recorded\n", chosen.len(), records.len());
    for record in chosen {
        let whole = record.latency_ns().unwrap_or(0);
        let mut table = look.table(&["", "µs", "CPU", "what"]);
        let is_stage = |pass: &&Pass| !points::is_part(pass.place.point);
        let passes: Vec<&Pass> = record.passes.iter().filter(is_stage).collect();
        for pair in passes.windows(2) {
            let ns = pair[1].at_ns.saturating_sub(pair[0].at_ns);
            let letters = (BAR * ns as f64 / whole.max(1) as f64).round().min(BAR) as usize;
            let stage = Cell::new(format!("{} → {}", pair[0].place, pair[1].place));
            table.add_row([stage, number(micros(ns as f64)), number(pair[1].cpu), Cell::new("█".repeat(letters))]);
        }
        text += &format!("\n{} µs, round {}\n{}", micros(whole as f64), record.round + 1, lines(&table));
    }
    text
}

/// A configuration of one run against one of another, largest change first.
#[must_use]
pub fn runs_diff(diff: &RunsDiff, look: Look) -> String {
    let mut table = look.table(&["", "first", "second", "change, µs", "95 %", "", "what"]);
    let mut add = |change: &Change| {
        table.add_row([
            Cell::new(&change.id),
            number(micros(change.first_ns)),
            number(micros(change.second_ns)),
            number(signed_micros(change.delta_ns)),
            number(bounds(change.ci95_ns)),
            Cell::new(if change.significant { "*" } else { "" }),
            Cell::new(&change.label),
        ]);
    };
    let mut stages: Vec<&Change> = diff.stages.iter().collect();
    stages.sort_by(|a, b| b.delta_ns.abs().total_cmp(&a.delta_ns.abs()));
    stages.into_iter().for_each(&mut add);
    add(&diff.latency);
    let notes: String = diff.notes.iter().map(|note| format!("note: {note}\n")).collect();
    let [first, second] = diff.rounds;
    format!(
        "{}, less {}\n{}* differs from 0, all stages considered at once ({first} and {second} rounds)\n{notes}",
        diff.second,
        diff.first,
        lines(&table)
    )
}
