//! Layers, CPU time, system calls: the tables of sampled and detailed phases.

use std::fmt::Write;

use comfy_table::Cell;

use super::{Look, bounds, lines, micros, number, percent, share_bounds, signed_micros, stage_name};
use crate::result::{ComparisonResult, ConfigurationResult, LayerResult};

/// Layers below this share of their stage, or of the CPU time, are left out of the tables.
const SMALLEST_SHARE: f64 = 0.02;
/// Layers of a stage in its line.
const MOST_LAYERS: usize = 8;
/// Calls below this number per operation are not the workload's.
const FEWEST_CALLS: f64 = 0.005;

/// All of them; empty without samples and system calls.
pub(super) fn tables(configuration: &ConfigurationResult, look: Look) -> String {
    [
        layers(configuration, look),
        cpu(configuration, look),
        syscalls(configuration, look),
        super::vcpus::tables(configuration, look),
        samples(configuration),
    ]
    .concat()
}

fn layer(layer: &LayerResult) -> String {
    let interval = share_bounds(layer.ci95);
    format!("{} {:.0}{}{interval}", layer.layer, 100.0 * layer.share, if interval.is_empty() { "" } else { " " })
}

/// The layers of every stage of some size.
fn layers(configuration: &ConfigurationResult, look: Look) -> String {
    let latency = configuration.traced_latency.mean_ns;
    let mut table = look.table(&["layers of a stage", "µs/op", "samples", "share of its time, % and 95 %"]);
    let stages = configuration.stages.iter().filter(|stage| stage.ns_per_op > SMALLEST_SHARE * latency);
    let mut any = false;
    for stage in stages.filter(|stage| !stage.layers.is_empty()) {
        any = true;
        let shown: Vec<String> =
            stage.layers.iter().filter(|layer| layer.share >= SMALLEST_SHARE).take(MOST_LAYERS).map(layer).collect();
        table.add_row(vec![
            Cell::new(format!("  {}", stage_name(stage))),
            number(micros(stage.ns_per_op)),
            number(stage.layers.iter().map(|layer| layer.samples).sum::<u64>()),
            Cell::new(shown.join(", ")),
        ]);
    }
    if any { lines(&table) } else { String::new() }
}

fn cpu(configuration: &ConfigurationResult, look: Look) -> String {
    if configuration.cpu_times.is_empty() {
        return String::new();
    }
    let mut table = look.table(&["CPU time, sampled phases", "µs/op", "95 %", "by samples", "schedstat", "what"]);
    for time in &configuration.cpu_times {
        let softirqs = if time.softirq_ns_per_op > 0.0 {
            format!("of it {} in softirqs on top of its threads", micros(time.softirq_ns_per_op))
        } else {
            String::new()
        };
        table.add_row(vec![
            Cell::new(format!("  {}", time.role)),
            number(micros(time.running_ns_per_op)),
            number(""),
            number(micros(time.sampled_ns_per_op)),
            number(time.schedstat_ns_per_op.map_or("–".to_owned(), micros)),
            Cell::new(softirqs),
        ]);
    }
    let whole: f64 = configuration.cpu_layers.iter().map(|layer| layer.ns_per_op).sum();
    for layer in configuration.cpu_layers.iter().filter(|layer| layer.ns_per_op >= SMALLEST_SHARE * whole) {
        table.add_row(vec![
            Cell::new(format!("    · {} {}", layer.role, layer.layer)),
            number(micros(layer.ns_per_op)),
            number(bounds(layer.ci95_ns)),
        ]);
    }
    lines(&table)
}

fn syscalls(configuration: &ConfigurationResult, look: Look) -> String {
    let shown: Vec<_> = configuration.syscalls.iter().filter(|call| call.count_per_op >= FEWEST_CALLS).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut table = look.table(&["system calls, detailed phases", "count/op", "µs/op", "p50", "p99"]);
    for call in shown {
        let optional = |value: Option<f64>| value.map_or("–".to_owned(), micros);
        table.add_row(vec![
            Cell::new(format!("  {} {}", call.role.name(), call.name)),
            number(format!("{:.4}", call.count_per_op)),
            number(micros(call.ns_per_op)),
            number(optional(call.p50_ns)),
            number(optional(call.p99_ns)),
        ]);
    }
    lines(&table)
}

fn samples(configuration: &ConfigurationResult) -> String {
    let samples = &configuration.samples;
    if samples.all == 0 {
        return String::new();
    }
    let mut text = format!(
        " {} samples at {} Hz, {} on the path; in the kernel {} match no layer",
        samples.all,
        samples.rate_hz,
        samples.on_path,
        percent(samples.unmatched_share)
    );
    let worst: Vec<String> = samples
        .unmatched
        .iter()
        .take(3)
        .map(|unmatched| {
            format!("{} {} or {} µs/op", unmatched.function, percent(unmatched.share), micros(unmatched.ns_per_op))
        })
        .collect();
    if !worst.is_empty() {
        let _ = write!(text, " ({})", worst.join(", "));
    }
    text + "\n"
}

/// The comparison by layer.
pub(super) fn layer_changes(comparison: &ComparisonResult, look: Look) -> String {
    if comparison.layers.is_empty() {
        return String::new();
    }
    let mut table = look.table(&["change by layer", "µs/op", "95 %", ""]);
    let smallest = super::SMALLEST_SHARE * comparison.traced_delta_ns.abs().max(10_000.0);
    let small: Vec<f64> =
        comparison.layers.iter().map(|layer| layer.delta_ns).filter(|delta| delta.abs() < smallest).collect();
    for layer in comparison.layers.iter().filter(|layer| layer.delta_ns.abs() >= smallest) {
        table.add_row(vec![
            Cell::new(format!("  {}", layer.layer)),
            number(signed_micros(layer.delta_ns)),
            number(bounds(layer.ci95_ns)),
            Cell::new(if layer.significant { "*" } else { "" }),
        ]);
    }
    if !small.is_empty() {
        let name = format!("  {} small changes", small.len());
        table.add_row(vec![Cell::new(name), number(signed_micros(small.iter().sum()))]);
    }
    lines(&table)
}
