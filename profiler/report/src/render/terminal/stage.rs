//! One stage, in every configuration that has it: how its durations are distributed, its layers, the functions on top.

use std::collections::BTreeMap;

use comfy_table::Cell;

use super::{
    super::numbers::{bounds, micros, percent, share_bounds},
    Look, lines, number,
};
use crate::result::{Built, StageResult};
use virtax_analysis::{path::StageKey, stacks::Weighted};
use virtax_model::error::{Error, Result, did_you_mean};

/// Widest bar, letters; lines of a distribution; functions that are shown.
const BAR: f64 = 40.0;
const STEPS: usize = 24;
const FUNCTIONS: usize = 10;
/// Frames above which a stage's layers and functions stand: direction, scene, stage.
const ABOVE: usize = 3;

/// A stage by its id.
///
/// # Errors
/// [`Error::Usage`] if no configuration has it.
pub fn stage(built: &Built, id: &str, look: Look) -> Result<String> {
    let mut text = String::new();
    let all = built.result.configurations.iter().zip(&built.details).zip(&built.stacks);
    for ((configuration, details), stacks) in all {
        let Some(index) = configuration.stages.iter().position(|stage| stage.id == id) else { continue };
        let stage = &configuration.stages[index];
        text += &format!("{}\n{}", configuration.name, summary(stage));
        text += &distribution(&details.stages[index], look);
        text += &layers(stage, look);
        text += &functions(stage, &stacks.latency, look);
        text.push('\n');
    }
    if text.is_empty() {
        let stages = built.result.configurations.iter().flat_map(|found| &found.stages);
        let mut known: Vec<&str> = stages.map(|stage| stage.id.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        let near = did_you_mean(id, known.iter().copied());
        return Err(Error::Usage(format!(
            "no configuration has a stage `{id}`{near}; stages:\n  {}",
            known.join("\n  ")
        )));
    }
    Ok(text)
}

fn summary(stage: &StageResult) -> String {
    let or_none = |ns: Option<f64>| ns.map_or_else(|| "unknown".to_owned(), |ns| format!("{} µs", micros(ns)));
    format!(
        "  {}: {} µs per operation {}, {:.3} times; median {}, 99 % below {}\n",
        if stage.label.is_empty() { &stage.id } else { &stage.label },
        micros(stage.ns_per_op),
        bounds(stage.ci95_ns),
        stage.count_per_op,
        or_none(stage.p50_ns),
        or_none(stage.p99_ns)
    )
}

/// Counts up to each step's end, several steps a line where there are many.
fn distribution(steps: &[(u64, u64)], look: Look) -> String {
    let total: u64 = steps.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return "  no durations are known\n".to_owned();
    }
    let lines_of: Vec<(u64, u64)> = steps
        .chunks(steps.len().div_ceil(STEPS))
        .map(|chunk| (chunk[chunk.len() - 1].0, chunk.iter().map(|(_, count)| count).sum()))
        .collect();
    let most = lines_of.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let mut table = look.table(&["  up to µs", "share", "what"]);
    for (end_ns, count) in lines_of {
        let letters = (BAR * count as f64 / most as f64).round() as usize;
        table.add_row([
            number(micros(end_ns as f64)),
            number(percent(count as f64 / total as f64)),
            Cell::new("█".repeat(letters)),
        ]);
    }
    lines(&table)
}

fn layers(stage: &StageResult, look: Look) -> String {
    if stage.layers.is_empty() {
        return "  no sample lies in it\n".to_owned();
    }
    let mut table = look.table(&["  layer", "share", "95 %", "µs/op", "samples"]);
    for layer in &stage.layers {
        let interval = share_bounds(layer.ci95);
        table.add_row([
            Cell::new(format!("  {}", layer.layer)),
            number(percent(layer.share)),
            number(interval),
            number(micros(layer.share * stage.ns_per_op)),
            number(layer.samples),
        ]);
    }
    lines(&table)
}

/// The innermost functions of a stage's stacks, most time first.
fn functions(stage: &StageResult, stacks: &[Weighted], look: Look) -> String {
    let key = StageKey { role: stage.role, from: stage.from.clone(), to: stage.to.clone() };
    let is_in = |stack: &&Weighted| stack.stage.as_ref() == Some(&key);
    let mut by_function: BTreeMap<&str, f64> = BTreeMap::new();
    // Below the stage stands the layer; what has no function below that is no code.
    for stack in stacks.iter().filter(is_in).filter(|stack| stack.frames.len() > ABOVE + 1) {
        *by_function.entry(&stack.frames[stack.frames.len() - 1].name).or_default() += stack.ns;
    }
    let mut top: Vec<(&str, f64)> = by_function.into_iter().collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1));
    if top.is_empty() {
        return String::new();
    }
    let mut table = look.table(&["  function", "µs/op"]);
    for (name, ns) in top.into_iter().take(FUNCTIONS) {
        table.add_row([Cell::new(format!("  {name}")), number(micros(ns))]);
    }
    lines(&table)
}
