//! Tables for the terminal.

mod bench;
mod profiled;
mod requests;
mod stage;
mod vcpus;

pub use bench::benchmark;
pub use requests::{requests, runs_diff};
pub use stage::stage;

use std::fmt::Write;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};
use profiler_common::Counter;

use super::numbers::{bounds, micros, percent, share_bounds, signed_micros};
use crate::result::{ComparisonResult, ConfigurationResult, PartResult, RunResult, StageResult};
use virtax_model::points;

/// Stages below this share of the latency are summed up in one line of the table.
const SMALLEST_SHARE: f64 = 0.0005;

/// What a table may use.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Columns, if known.
    pub width: Option<u16>,
    /// Whether bold text is wanted.
    pub styled: bool,
}

impl Look {
    /// An empty table with these headings, as wide as the terminal is.
    #[must_use]
    pub fn table(self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = self.width {
            table.set_width(width);
        }
        if self.styled {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().enumerate().map(|(index, text)| {
            let is_words = index == 0 || *text == "what" || text.starts_with("share of");
            let cell = if is_words { Cell::new(text) } else { number(text) };
            cell.add_attribute(Attribute::Bold)
        }));
        table
    }
}

/// A cell of a number, aligned to the right.
pub fn number(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A table as text, without trailing spaces.
#[must_use]
pub fn lines(table: &Table) -> String {
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The whole result.
#[must_use]
pub fn report(result: &RunResult, look: Look) -> String {
    let mut text = String::new();
    let settings: Vec<String> = result.workload.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let _ = writeln!(
        text,
        "run {}: {} ({}), placement {}, {} rounds of {} s, kernel {}{}\n",
        result.run_id,
        result.workload.name,
        settings.join(" "),
        result.placement.name(),
        result.rounds,
        result.duration_s,
        result.environment.kernel,
        match result.tables_bytes {
            0 => String::new(),
            bytes => format!(", {} MiB of tables in the kernel", bytes.div_ceil(1 << 20)),
        }
    );
    for configuration in &result.configurations {
        text.push_str(&waterfall(configuration, look));
        text.push('\n');
    }
    text.push_str(&summary(result, look));
    for comparison in result.comparisons.iter().filter(|comparison| comparison.baseline == result.baseline) {
        text.push('\n');
        text.push_str(&difference(comparison, look));
    }
    text.push_str(&warnings(result));
    text
}

/// A caveat in parentheses, if there is one.
pub(super) fn caveat(caveat: Option<&str>) -> String {
    caveat.map_or(String::new(), |caveat| format!(" ({caveat})"))
}

fn stage_name(stage: &StageResult) -> String {
    if points::is_of_files(stage.from.point) {
        return format!("{} → {}", stage.from, stage.to);
    }
    format!("{} {} → {}", stage.role.name(), stage.from, stage.to)
}

/// A part as shown: between two points, or what the reader did meanwhile and what that means.
fn part_name(part: &PartResult) -> (String, String) {
    match points::reader(part.to.point) {
        Some(row) => (row.point.name().to_owned(), row.meaning.to_owned()),
        None => (format!("{} → {}", part.from, part.to), part.label.clone()),
    }
}

/// The waterfall of one configuration, times in µs.
#[must_use]
pub fn waterfall(configuration: &ConfigurationResult, look: Look) -> String {
    let mut table = look.table(&["stage", "µs/op", "95 %", "corrected", "count/op", "p50", "p99", "what"]);
    add_stages(configuration, &mut table);
    add_sums(configuration, &mut table);
    add_latencies(configuration, &mut table);
    let mut text = format!("{}{}\n{}", configuration.name, caveat(configuration.caveat()), lines(&table));
    text.push_str(&tail(configuration, look));
    text.push_str(&profiled::tables(configuration, look));
    for reason in &configuration.incomplete {
        let _ = writeln!(text, "INCOMPLETE: {reason}");
    }
    text
}

/// The rows of stages and their parts; rare ones are put together.
fn add_stages(configuration: &ConfigurationResult, table: &mut Table) {
    let smallest_ns = SMALLEST_SHARE * configuration.traced_latency.mean_ns;
    let mut direction = None;
    let (mut rare, mut rare_ns) = (0, 0.0);
    for stage in &configuration.stages {
        if stage.ns_per_op.abs() < smallest_ns {
            rare += 1;
            rare_ns += stage.ns_per_op;
            continue;
        }
        if direction != Some(stage.direction) {
            direction = Some(stage.direction);
            let name = if of_files(configuration) { "operation" } else { stage.direction.name() };
            table.add_row(vec![Cell::new(name)]);
        }
        let optional = |value: Option<f64>| value.map_or("–".to_owned(), micros);
        table.add_row(vec![
            Cell::new(format!("  {}", stage_name(stage))),
            number(micros(stage.ns_per_op)),
            number(bounds(stage.ci95_ns)),
            number(micros(stage.corrected_ns_per_op)),
            number(format!("{:.4}", stage.count_per_op)),
            number(optional(stage.p50_ns)),
            number(optional(stage.p99_ns)),
            Cell::new(&stage.label),
        ]);
        for part in stage.parts.iter().filter(|part| part.ns_per_op > smallest_ns) {
            let (name, meaning) = part_name(part);
            table.add_row(vec![
                Cell::new(format!("    · {name}")),
                number(micros(part.ns_per_op)),
                number(""),
                number(""),
                number(format!("{:.4}", part.count_per_op)),
                number(""),
                number(""),
                Cell::new(meaning),
            ]);
        }
    }
    if rare > 0 {
        table.add_row(vec![Cell::new(format!("  {rare} rare stages")), number(micros(rare_ns))]);
    }
}

/// What the stages sum to, and what stands beside that sum.
fn add_sums(configuration: &ConfigurationResult, table: &mut Table) {
    let total: f64 = configuration.stages.iter().map(|stage| stage.ns_per_op).sum();
    let corrected: f64 = configuration.stages.iter().map(|stage| stage.corrected_ns_per_op).sum();
    table.add_row(vec![Cell::new("sum of the stages"), number(micros(total)), number(""), number(micros(corrected))]);
    let mut row = |name: &str, ns: f64| {
        table.add_row(vec![Cell::new(name), number(micros(ns))]);
    };
    row("unfinished at the ends of phases, beside the sum", configuration.unfinished_ns_per_op);
    row("residual", configuration.residual_ns_per_op);
    if let Some(open) = &configuration.open_loop {
        row("waited for earlier operations of its connection, detached, in the latency", open.queued_ns_per_op);
        row("the client itself was late, detached, in no latency", open.lateness_ns_per_op);
    }
}

/// What the client, or the program, says itself.
fn add_latencies(configuration: &ConfigurationResult, table: &mut Table) {
    let by = if of_files(configuration) { "the program" } else { "the client" };
    table.add_row(vec![
        Cell::new(format!("latency, traced phases, by {by}")),
        number(micros(configuration.traced_latency.mean_ns)),
        number(bounds(configuration.traced_latency.ci95_ns)),
    ]);
    table.add_row(vec![
        Cell::new(format!("latency, detached phases, by {by}")),
        number(latency_of(configuration)),
        number(bounds(configuration.latency.ci95_ns)),
        number(""),
        number(""),
        number(micros(configuration.latency.p50_ns)),
        number(micros(configuration.latency.p99_ns)),
    ]);
}

/// The mean latency without probes; without any operation there is none.
fn latency_of(configuration: &ConfigurationResult) -> String {
    if configuration.operations == 0 || configuration.rounds == 0 {
        "none".to_owned()
    } else {
        micros(configuration.latency.mean_ns)
    }
}

/// Whether its operations are a file's, which no client asks for.
fn of_files(configuration: &ConfigurationResult) -> bool {
    configuration.stages.iter().any(|stage| points::is_of_files(stage.from.point))
}

/// The largest stages of the slowest requests.
fn tail(configuration: &ConfigurationResult, look: Look) -> String {
    let Some(first) = configuration.tail_stages.first() else { return String::new() };
    let total: f64 = configuration.tail_stages.iter().map(|stage| stage.ns_per_op).sum();
    let n = first.n;
    let mut table = look.table(&["slowest 1 %", "µs/op", "n", "what"]);
    let mut largest: Vec<_> = configuration.tail_stages.iter().collect();
    largest.sort_by(|a, b| b.ns_per_op.total_cmp(&a.ns_per_op));
    for stage in largest.iter().take(5) {
        table.add_row(vec![
            Cell::new(format!("  {}", stage.id)),
            number(micros(stage.ns_per_op)),
            number(stage.n),
            Cell::new(&stage.label),
        ]);
    }
    let ends = if of_files(configuration) { "enter → exit" } else { "send → received" };
    table.add_row(vec![Cell::new(format!("  all stages, {ends}")), number(micros(total)), number(n)]);
    lines(&table)
}

/// What says how far each configuration can be trusted.
#[must_use]
pub fn summary(result: &RunResult, look: Look) -> String {
    let mut header = vec!["per configuration"];
    header.extend(result.configurations.iter().map(|configuration| configuration.name.as_str()));
    let mut table = look.table(&header);
    type Value = fn(&ConfigurationResult) -> String;
    let rows: &[(&str, Value)] = &[
        ("latency, mean µs", |c| format!("{} {}", latency_of(c), bounds(c.latency.ci95_ns))),
        ("operations per second", |c| format!("{:.0}", c.throughput_per_s)),
        ("probe effect", |c| {
            let interval =
                c.probe_effect_ci95_percent.map_or(String::new(), |[low, high]| format!(" [{low:.1}, {high:.1}]"));
            format!("{:.1} %{interval}", c.probe_effect_percent)
        }),
        ("residual", |c| percent(c.residual_share())),
        ("conservation, deviation", |c| format!("{:.3} %", c.conservation_percent)),
        ("requests followed", |c| c.losses.followed.to_string()),
        ("  completed", |c| c.losses.completed.to_string()),
        ("  unfinished", |c| c.losses.unfinished.to_string()),
        ("  lost", |c| format!("{} ({})", c.losses.lost.values().sum::<u64>(), percent(c.losses.lost_share()))),
        ("stacks and waits noted", |c| c.samples.events.to_string()),
        ("  lost", |c| c.samples.lost.to_string()),
        ("records committed", |c| c.records.committed.to_string()),
        ("  lost", |c| c.records.lost.to_string()),
        ("client's turn-around µs", |c| micros(c.turnaround_ns_per_op)),
        ("virtax's CPU, of one core", |c| percent(c.virtax_cpu_share)),
    ];
    let files = result.configurations.iter().any(of_files);
    for (name, value) in rows {
        let name = match *name {
            "requests followed" if files => "operations followed",
            "client's turn-around µs" if files => "between operations µs",
            other => other,
        };
        let mut row = vec![Cell::new(name)];
        row.extend(result.configurations.iter().map(|configuration| number(value(configuration))));
        table.add_row(row);
    }
    let mut text = lines(&table);
    for configuration in &result.configurations {
        if let Some(found) = &configuration.write_back {
            let counted = |counter: Counter| configuration.counters.of(counter) as f64;
            let (bios, mib) = (counted(Counter::WriteBacks), counted(Counter::WriteBackBytes) / f64::from(1 << 20));
            let interval = found.device_ci95_ns.map_or(String::new(), |[low, high]| format!(" [{low:.0}, {high:.0}]"));
            let _ = writeln!(
                text,
                " written back in {}, beside the latency: {mib:.1} MiB in {bios} bios; per operation {:.0} bytes, and {:.0}{interval} ns \
                 of their disk's",
                configuration.name, found.bytes_per_op, found.device_ns_per_op
            );
        }
        for (cause, count) in configuration.losses.lost.iter().filter(|(_, count)| **count > 0) {
            let _ = writeln!(text, " lost in {}: {count} {cause}", configuration.name);
        }
    }
    text
}

/// A comparison, largest change first, times in µs.
#[must_use]
pub fn difference(comparison: &ComparisonResult, look: Look) -> String {
    let mut table = look.table(&["change", "µs/op", "95 %", "corrected", "", "what"]);
    let shown = |delta: f64| delta.abs() >= SMALLEST_SHARE * comparison.traced_delta_ns.abs().max(10_000.0);
    let (mut rare, mut rare_ns) = (0, 0.0);
    for stage in &comparison.stages {
        if !shown(stage.delta_ns) {
            rare += 1;
            rare_ns += stage.delta_ns;
            continue;
        }
        table.add_row(vec![
            Cell::new(format!("  {}", stage.id)),
            number(signed_micros(stage.delta_ns)),
            number(bounds(stage.ci95_ns)),
            number(signed_micros(stage.corrected_delta_ns)),
            Cell::new(if stage.significant { "*" } else { "" }),
            Cell::new(&stage.label),
        ]);
    }
    if rare > 0 {
        table.add_row(vec![Cell::new(format!("  {rare} small changes")), number(signed_micros(rare_ns))]);
    }
    let mut add = |name: &str, ns: f64, interval: Option<[f64; 2]>| {
        table.add_row(vec![Cell::new(name), number(signed_micros(ns)), number(bounds(interval))]);
    };
    add("difference of residuals", comparison.residual_delta_ns, None);
    add("traced delta (sum of the above)", comparison.traced_delta_ns, comparison.traced_ci95_ns);
    add(
        "difference of probe effects",
        comparison.probe_effect_difference_ns,
        comparison.probe_effect_difference_ci95_ns,
    );
    add("detached delta", comparison.latency_delta_ns, comparison.ci95_ns);
    add("sum of corrected changes", comparison.corrected_sum_ns, comparison.corrected_sum_ci95_ns);
    let detectable = comparison.detectable_ns.map_or_else(String::new, |ns| {
        format!("the smallest difference that as many rounds find four times in five: {} µs\n", micros(ns))
    });
    let scatter = comparison.scatter.map_or_else(String::new, |scatter| {
        let [within, between] = [scatter.within_ns, scatter.between_ns].map(micros);
        let left_out = if scatter.disturbed > 0.0 {
            format!(" ({:.1} more were disturbed by the host, and left out)", scatter.disturbed)
        } else {
            String::new()
        };
        format!(
            "a round's difference: ± {within} µs by its {:.0} blocks{left_out}; {between} µs between rounds\n",
            scatter.blocks
        )
    });
    format!(
        "{}.\n{}{}* differs from 0, all rows of a table considered at once ({} rounds)\n{scatter}{detectable}",
        comparison.sentence,
        lines(&table),
        profiled::layer_changes(comparison, look),
        comparison.rounds
    )
}

fn warnings(result: &RunResult) -> String {
    let mut text = String::new();
    for warning in &result.warnings {
        let _ = write!(text, "\nwarning [{}]: {}\n  remedy: {}", warning.name, warning.text, warning.remedy);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}
