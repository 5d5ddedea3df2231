//! Tables of the result's numbers: for spreadsheets, texts and metrics.

use std::fmt::Write;

use crate::{
    render::numbers::{bounds, micros, signed_micros},
    result::{ComparisonResult, ConfigurationResult, RunResult},
};
use virtax_model::error::Result;

/// Stages of all configurations, one a line. Empty: there is no such number.
///
/// # Errors
/// If it cannot be written.
pub fn csv(result: &RunResult) -> Result<String> {
    let mut text = String::new();
    let mut line = |fields: &[String]| {
        let quoted: Vec<String> = fields.iter().map(|field| quote(field)).collect();
        text.push_str(&quoted.join(","));
        text.push_str("\r\n");
    };
    line(
        &[
            "configuration",
            "stage",
            "label",
            "direction",
            "ns_per_op",
            "ci95_low_ns",
            "ci95_high_ns",
            "corrected_ns_per_op",
            "count_per_op",
            "p50_ns",
            "p99_ns",
        ]
        .map(str::to_owned),
    );
    for configuration in &result.configurations {
        for stage in &configuration.stages {
            let or_empty = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
            line(&[
                configuration.name.clone(),
                stage.id.clone(),
                stage.label.clone(),
                stage.direction.name().to_owned(),
                stage.ns_per_op.to_string(),
                or_empty(stage.ci95_ns.map(|interval| interval[0])),
                or_empty(stage.ci95_ns.map(|interval| interval[1])),
                stage.corrected_ns_per_op.to_string(),
                stage.count_per_op.to_string(),
                or_empty(stage.p50_ns),
                or_empty(stage.p99_ns),
            ]);
        }
    }
    Ok(text)
}

/// RFC 4180: quotes around what has a comma, a quote or a line's end, quotes doubled.
fn quote(field: &str) -> String {
    let needs = field.contains([',', '"', '\r', '\n']);
    if needs { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

/// Findings, stages and changes as a text with tables (GitHub's Markdown).
pub fn markdown(result: &RunResult) -> String {
    let mut text = format!("# {} ({})\n\n", cell(&result.workload.name), result.run_id);
    let of_baseline = || result.comparisons.iter().filter(|found| found.baseline == result.baseline);
    for found in of_baseline() {
        let _ = writeln!(text, "{}\n", cell(&found.sentence));
    }
    for configuration in &result.configurations {
        configuration_table(configuration, &mut text);
    }
    for found in of_baseline() {
        changes(found, &mut text);
    }
    if !result.warnings.is_empty() {
        text.push_str("## Warnings\n\n");
    }
    for warning in &result.warnings {
        let _ = writeln!(text, "- **{}**: {} ({})", warning.name, cell(&warning.text), cell(&warning.remedy));
    }
    let _ = write!(text, "\n`{}`\n", result.command.replace('`', "'"));
    text
}

fn configuration_table(configuration: &ConfigurationResult, text: &mut String) {
    let _ = writeln!(text, "## {}\n", cell(&configuration.name));
    for reason in &configuration.incomplete {
        let _ = writeln!(text, "**INCOMPLETE: {}**\n", cell(reason));
    }
    let effect = configuration.probe_effect_ci95_percent;
    let effect = effect.map_or_else(String::new, |[low, high]| format!(" ({low:.1} to {high:.1})"));
    let _ = writeln!(
        text,
        "mean {} {} µs, residual {:.2} %, probe effect {:.1} %{effect}, {} of {} lost\n",
        micros(configuration.latency.mean_ns),
        bounds(configuration.latency.ci95_ns),
        100.0 * configuration.residual_share(),
        configuration.probe_effect_percent,
        configuration.losses.lost.values().sum::<u64>(),
        configuration.losses.followed,
    );
    text.push_str("| stage | µs/op | ± 95 % | count/op | what |\n|---|---:|---:|---:|---|\n");
    for stage in &configuration.stages {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.3} | {} |",
            cell(&stage.id),
            micros(stage.ns_per_op),
            bounds(stage.ci95_ns),
            stage.count_per_op,
            cell(&stage.label)
        );
    }
    text.push('\n');
}

fn changes(found: &ComparisonResult, text: &mut String) {
    let _ = writeln!(text, "## {} less {}\n", cell(&found.candidate), cell(&found.baseline));
    text.push_str("| stage | change, µs/op | ± 95 % | | what |\n|---|---:|---:|---|---|\n");
    for stage in &found.stages {
        let star = if stage.significant { "*" } else { "" };
        let (change, interval) = (signed_micros(stage.delta_ns), bounds(stage.ci95_ns));
        let _ = writeln!(text, "| {} | {change} | {interval} | {star} | {} |", cell(&stage.id), cell(&stage.label));
    }
    text.push('\n');
}

/// What would end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\r', '\n'], " ")
}

/// Metrics in OpenMetrics' text format, times in seconds.
pub fn openmetrics(result: &RunResult) -> String {
    let mut text = String::new();
    let mut family = |name: &str, unit: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(text, "# TYPE {name} gauge");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "# HELP {name} {help}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    };
    let seconds = |ns: f64| ns / 1e9;
    let run = format!("run=\"{}\",workload=\"{}\"", label(&result.run_id), label(&result.workload.name));
    let of = |configuration: &ConfigurationResult| format!("{run},configuration=\"{}\"", label(&configuration.name));
    let all = || result.configurations.iter();
    let each = |value: &dyn Fn(&ConfigurationResult) -> f64| -> Vec<(String, f64)> {
        all().map(|found| (of(found), value(found))).collect()
    };
    let stages: Vec<(String, f64)> = all()
        .flat_map(|found| found.stages.iter().map(move |stage| (found, stage)))
        .map(|(found, stage)| (format!("{},stage=\"{}\"", of(found), label(&stage.id)), seconds(stage.ns_per_op)))
        .collect();
    family("virtax_stage_seconds", "seconds", "Time in a stage, per operation, in traced phases.", &stages);
    let quantile =
        |name: &str, found: &ConfigurationResult, ns: f64| (format!("{},statistic=\"{name}\"", of(found)), seconds(ns));
    let latencies: Vec<(String, f64)> = all()
        .flat_map(|found| {
            let latency = &found.latency;
            [("mean", latency.mean_ns), ("p50", latency.p50_ns), ("p99", latency.p99_ns), ("max", latency.max_ns)]
                .map(|(name, ns)| quantile(name, found, ns))
        })
        .collect();
    family("virtax_latency_seconds", "seconds", "Latency by the client, nothing attached.", &latencies);
    family(
        "virtax_operations_per_second",
        "",
        "Operations a second, nothing attached.",
        &each(&|found| found.throughput_per_s),
    );
    family(
        "virtax_residual_ratio",
        "ratio",
        "Latency that no stage holds, of the latency.",
        &each(&|found| found.residual_share()),
    );
    family(
        "virtax_probe_effect_ratio",
        "ratio",
        "What the core probes add to the mean latency.",
        &each(&|found| found.probe_effect_percent / 100.0),
    );
    family(
        "virtax_lost_ratio",
        "ratio",
        "Requests that were lost sight of, of those followed.",
        &each(&|found| found.losses.lost_share()),
    );
    text.push_str("# EOF\n");
    text
}

/// A label's value, escaped.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_field_is_quoted() {
        assert_eq!(quote("docker:net=host,fs=volume"), "\"docker:net=host,fs=volume\"");
        assert_eq!(quote("say \"no\""), "\"say \"\"no\"\"\"");
        assert_eq!(quote("plain"), "plain");
        assert_eq!(cell("a|b\nc"), "a\\|b c");
        assert_eq!(label("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }
}
