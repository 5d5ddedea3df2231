//! Latency flame graphs: root → direction → role@namespace → stage, as wide as ns per operation.

use std::{
    fs,
    path::{Path, PathBuf},
};

use inferno::flamegraph::{self, Options};

use crate::{
    configuration::file_stem,
    counts::Place,
    error::{Error, Result},
    result::{ConfigurationResult, RunResult, StageResult},
};

/// Where a stage takes place: the namespace of the device where it begins, else of the one where it ends, else its role's.
fn scene(stage: &StageResult) -> String {
    let namespace = |place: &Place| {
        let device = place.device.as_deref()?;
        Some(device.rsplit_once('@')?.1.to_owned())
    };
    let found = namespace(&stage.from).or_else(|| namespace(&stage.to)).unwrap_or_else(|| stage.role.name().to_owned());
    format!("{}@{found}", stage.role.name())
}

/// Frames must not hold what separates them.
fn frame(text: &str) -> String {
    text.replace(';', ",")
}

/// The stack of a stage, root excluded; what it consists of makes further frames.
fn stacks(configuration: &ConfigurationResult) -> Vec<(String, f64)> {
    let mut stacks = Vec::new();
    for stage in &configuration.stages {
        let what = if stage.label.is_empty() { String::new() } else { format!(" ({})", stage.label) };
        let name = format!("{} → {}{what}", stage.from, stage.to);
        let base = format!("{};{};{}", frame(&stage.direction), frame(&scene(stage)), frame(&name));
        if stage.parts.is_empty() {
            stacks.push((base, stage.ns_per_op));
            continue;
        }
        for part in &stage.parts {
            stacks.push((format!("{base};{}", frame(&format!("{} → {}", part.from, part.to))), part.ns_per_op));
        }
    }
    stacks
}

/// Whole ns for every stack, so that their sum is the sum of the stages, rounded once: each gets what the running
/// sum has gained. Negative ones (a residual of the client's ends) have no width.
fn whole(stacks: &[(String, f64)]) -> Vec<(String, u64)> {
    let (mut exact, mut given) = (0.0f64, 0u64);
    stacks
        .iter()
        .map(|(stack, ns)| {
            exact += ns.max(0.0);
            let now = exact.round() as u64 - given;
            given += now;
            (stack.clone(), now)
        })
        .collect()
}

/// Folded stacks of a configuration: `root;direction;role@namespace;stage ns`.
#[must_use]
pub fn folded(configuration: &ConfigurationResult) -> Vec<String> {
    whole(&stacks(configuration))
        .into_iter()
        .filter(|(_, ns)| *ns > 0)
        .map(|(stack, ns)| format!("{};{stack} {ns}", frame(&configuration.name)))
        .collect()
}

/// Folded stacks of two configurations: `root;… before after`, with every stack that either has.
#[must_use]
pub fn folded_difference(baseline: &ConfigurationResult, candidate: &ConfigurationResult) -> Vec<String> {
    let (before, after) = (whole(&stacks(baseline)), whole(&stacks(candidate)));
    let find = |list: &[(String, u64)], stack: &str| {
        list.iter().filter(|(other, _)| other == stack).map(|(_, ns)| ns).sum::<u64>()
    };
    let mut names: Vec<&str> = after.iter().chain(&before).map(|(stack, _)| stack.as_str()).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
        .into_iter()
        .map(|stack| format!("ns per operation;{stack} {} {}", find(&before, stack), find(&after, stack)))
        .filter(|line| !line.ends_with(" 0 0"))
        .collect()
}

fn draw(lines: &[String], title: &str, subtitle: &str, path: &Path) -> Result<()> {
    let mut options = Options::default();
    options.title = title.to_owned();
    options.subtitle = Some(subtitle.to_owned());
    options.count_name = "ns per operation".to_owned();
    options.name_type = "Stage:".to_owned();
    // Stages in path order, not sorted by name, so that the picture reads like the waterfall. As a chart the library
    // keeps the order of its lines, the last one leftmost.
    options.flame_chart = true;
    options.min_width = 0.0;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), &mut svg)
        .map_err(|error| Error::file("draw", path, error))?;
    fs::write(path, svg).map_err(|error| Error::file("write", path, error))
}

/// Writes all flame graphs of a result and their folded stacks into its directory; returns the pictures.
///
/// # Errors
/// If a file cannot be written.
pub fn write_all(result: &RunResult, folder: &Path) -> Result<Vec<PathBuf>> {
    let run = format!(
        "run {}, {} placement {}, {} rounds, width: ns per operation in traced phases",
        result.run_id,
        result.workload.name,
        result.placement.name(),
        result.rounds
    );
    let mut pictures = Vec::new();
    for configuration in &result.configurations {
        let lines = folded(configuration);
        if lines.is_empty() {
            continue;
        }
        let stem = folder.join(format!("latency.{}", file_stem(&configuration.name)));
        let path = with_ending(&stem, "folded");
        fs::write(&path, lines.join("\n") + "\n").map_err(|error| Error::file("write", &path, error))?;
        let path = with_ending(&stem, "svg");
        let title = format!(
            "Latency of {}: {:.2} µs per operation (residual {:.2} µs)",
            configuration.name,
            configuration.stages.iter().map(|stage| stage.ns_per_op).sum::<f64>() / 1000.0,
            configuration.residual_ns_per_op / 1000.0
        );
        draw(&lines, &title, &run, &path)?;
        pictures.push(path);
    }
    for comparison in &result.comparisons {
        let pair = (result.configuration(&comparison.baseline), result.configuration(&comparison.candidate));
        let (Some(baseline), Some(candidate)) = pair else { continue };
        let lines = folded_difference(baseline, candidate);
        let name = format!("latency.{}.minus.{}.svg", file_stem(&candidate.name), file_stem(&baseline.name));
        let path = folder.join(name);
        let title = format!(
            "{} less {}: {:+.2} µs traced (red: more, blue: less; width: {})",
            candidate.name,
            baseline.name,
            comparison.traced_delta_ns / 1000.0,
            candidate.name
        );
        draw(&lines, &title, &run, &path)?;
        pictures.push(path);
    }
    Ok(pictures)
}

fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}
