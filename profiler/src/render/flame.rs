//! Latency flame graphs: root → direction → role@namespace → stage, as wide as ns per operation.

use std::{
    fs,
    path::{Path, PathBuf},
};

use inferno::flamegraph::{self, Options, TextTruncateDirection};

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

/// The stack of a stage, root excluded: what it holds comes first, so that it can be read in a narrow frame.
fn stack(stage: &StageResult) -> String {
    let points = format!("{} → {}", stage.from, stage.to);
    let name = if stage.label.is_empty() { points } else { format!("{}: {points}", stage.label) };
    format!("{};{};{}", frame(&stage.direction), frame(&scene(stage)), frame(&name))
}

/// Stacks with further frames for what a stage consists of.
fn part_stacks(configuration: &ConfigurationResult) -> Vec<(String, f64)> {
    let mut stacks = Vec::new();
    for stage in &configuration.stages {
        let base = stack(stage);
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
    whole(&part_stacks(configuration))
        .into_iter()
        .filter(|(_, ns)| *ns > 0)
        .map(|(stack, ns)| format!("{};{stack} {ns}", frame(&configuration.name)))
        .collect()
}

/// Folded stacks of two configurations: `root;… before after`, with every stage that either has. A stage that only one
/// has is held against the one that does the same work at another device, if there is one: a server's output goes
/// through `eth0` in a container and through the wire on the host. Without parts: only the last frame of a stack is
/// coloured by its difference.
#[must_use]
pub fn folded_difference(baseline: &ConfigurationResult, candidate: &ConfigurationResult) -> Vec<String> {
    let mut unmatched: Vec<&StageResult> = baseline.stages.iter().collect();
    let mut take = |matches: &dyn Fn(&StageResult) -> bool| {
        let index = unmatched.iter().position(|stage| matches(stage))?;
        Some(unmatched.remove(index))
    };
    let mut before: Vec<Option<&StageResult>> =
        candidate.stages.iter().map(|stage| take(&|other| other.id == stage.id)).collect();
    for (stage, before) in candidate.stages.iter().zip(&mut before) {
        if before.is_none() && !stage.label.is_empty() {
            *before = take(&|other| other.direction == stage.direction && other.label == stage.label);
        }
    }
    let line = |stage: &StageResult, before_ns: f64, after_ns: f64| {
        format!("ns per operation;{} {:.0} {:.0}", stack(stage), before_ns.max(0.0), after_ns.max(0.0))
    };
    let kept = candidate
        .stages
        .iter()
        .zip(before)
        .map(|(stage, before)| line(stage, before.map_or(0.0, |before| before.ns_per_op), stage.ns_per_op));
    let vanished = unmatched.iter().map(|stage| line(stage, stage.ns_per_op, 0.0));
    kept.chain(vanished).filter(|line| !line.ends_with(" 0 0")).collect()
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
    options.text_truncate_direction = TextTruncateDirection::Right;
    // The same stage has the same colour in every picture.
    options.hash = true;
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
        // Nothing to draw: the candidate saw no operation.
        if lines.iter().all(|line| line.ends_with(" 0")) {
            continue;
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_width_of_the_root_is_the_sum_of_the_stages(times in prop::collection::vec(0.0f64..50_000.0, 1..60)) {
            let stacks: Vec<(String, f64)> = times.iter().enumerate().map(|(index, ns)| (index.to_string(), *ns)).collect();
            let root: u64 = whole(&stacks).iter().map(|(_, ns)| ns).sum();
            prop_assert!((root as f64 - times.iter().sum::<f64>()).abs() <= 0.5);
            for ((_, ns), exact) in whole(&stacks).iter().zip(&times) {
                prop_assert!((*ns as f64 - exact).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn frames_do_not_hold_what_separates_them() {
        assert_eq!(frame("a;b"), "a,b");
    }
}
