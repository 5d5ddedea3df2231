//! Flame graphs, as wide as ns per operation: of the latency (in path order), of CPU time, of waiting, and of what
//! each of them is more or less than the baseline's.

pub(super) mod palette;
mod tree;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use inferno::flamegraph::{
    self, Options, TextTruncateDirection,
    color::{PaletteMap, parse_hex_color},
};

use self::tree::{Node, Side};
use super::{
    numbers::{micros, signed_micros},
    terminal::caveat,
};
use crate::result::{Built, ComparisonResult, ConfigurationResult, RunResult};
use virtax_analysis::stacks::{Stacks, Weighted};
use virtax_model::{
    error::{Error, Result},
    run_folder::file_stem,
    whole::write_whole,
};

/// Frames narrower than this share of the picture, in %, are left out.
const NARROWEST_PERCENT: f64 = 0.05;

/// What the library calls the frame beneath all others.
const ROOT: &str = "all";

/// A kind of picture.
struct Kind {
    shows: Shows,
    /// What its width is, in titles.
    what: &'static str,
    stacks: fn(&Stacks) -> &[Weighted],
}

/// What a flame graph's width stands for.
#[derive(Clone, Copy)]
enum Shows {
    Latency,
    Cpu,
    OffCpu,
}

impl Shows {
    /// First part of the files' names.
    const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Cpu => "cpu",
            Self::OffCpu => "off-cpu",
        }
    }
}

const KINDS: &[Kind] = &[
    Kind { shows: Shows::Latency, what: "Latency", stacks: |stacks| &stacks.latency },
    Kind { shows: Shows::Cpu, what: "CPU time", stacks: |stacks| &stacks.cpu },
    Kind { shows: Shows::OffCpu, what: "Waiting", stacks: |stacks| &stacks.off_cpu },
];

/// Frames must not hold what separates them, nor end in what looks like a count.
fn frame(text: &str) -> String {
    text.replace(';', ",")
}

/// Whole ns for every width, so that their sum is the sum of all, rounded once: each gets what the running sum has
/// gained.
#[derive(Default)]
struct Rounding {
    exact: f64,
    given: u64,
}
impl Rounding {
    fn whole(&mut self, ns: f64) -> u64 {
        self.exact += ns;
        let now = (self.exact.round() as u64).saturating_sub(self.given);
        self.given += now;
        now
    }
}

/// Folded stacks of a configuration: `root;frame;… ns`.
#[must_use]
pub fn folded(name: &str, stacks: &[Weighted]) -> Vec<String> {
    let mut root = Node::root(name);
    root.add(stacks, Side::After);
    let mut rounding = Rounding::default();
    let mut lines = Vec::new();
    root.visit(&mut |path| {
        let ns = rounding.whole(path[path.len() - 1].own_after_ns());
        if ns > 0 {
            let frames: Vec<String> = path.iter().map(|node| frame(&node.name)).collect();
            lines.push(format!("{};{} {ns}", frame(name), frames.join(";")));
        }
    });
    lines
}

/// What is drawn: lines for the library, and the colour of every frame's name.
#[derive(Default)]
struct Drawing {
    lines: Vec<String>,
    colours: PaletteMap,
    legend: Vec<(String, String)>,
}

impl Drawing {
    fn colour(&mut self, name: &str, colour: &str) {
        if let Some(colour) = parse_hex_color(colour) {
            self.colours.insert(name, colour);
        }
    }

    /// One configuration: frames carry their time, and the colour of their layer.
    fn single(name: &str, stacks: &[Weighted]) -> Self {
        let mut root = Node::root(name);
        root.add(stacks, Side::After);
        let mut drawing = Self::default();
        let title = frame(name);
        drawing.colour(&title, palette::PLAIN);
        drawing.colour(ROOT, palette::PLAIN);
        let mut rounding = Rounding::default();
        let mut layers = BTreeSet::new();
        root.visit(&mut |path| {
            let frames: Vec<String> = path
                .iter()
                .map(|node| {
                    let mark = palette::mark(node.layer.as_deref());
                    frame(&format!("{} {} µs{mark}", node.name, micros(node.after_ns)))
                })
                .collect();
            let last = path[path.len() - 1];
            drawing.colour(&frames[frames.len() - 1], palette::of_layer(last.layer.as_deref()));
            layers.extend(last.layer.clone());
            let ns = rounding.whole(last.own_after_ns());
            if ns > 0 {
                drawing.lines.push(format!("{title};{} {ns}", frames.join(";")));
            }
        });
        drawing.legend =
            layers.into_iter().map(|layer| (layer.clone(), palette::of_layer(Some(&layer)).to_owned())).collect();
        drawing
    }

    /// Two configurations: as wide as the candidate's, red where that is more than the baseline's, blue where it is
    /// less. What only the baseline has stands beside it, as wide as it was.
    fn difference(baseline: &str, candidate: &str, before: &[Weighted], after: &[Weighted]) -> Self {
        let mut root = Node::root(candidate);
        root.add(before, Side::Before);
        root.add(after, Side::After);
        let mut largest: f64 = 1.0;
        root.visit(&mut |path| largest = largest.max(path[path.len() - 1].delta_ns().abs()));
        let mut drawing = Self::default();
        let (here, gone) = (frame(candidate), frame(&format!("only in {baseline}")));
        drawing.colour(&here, palette::PLAIN);
        drawing.colour(ROOT, palette::PLAIN);
        drawing.colour(&gone, palette::PLAIN);
        let (mut kept, mut vanished) = (Rounding::default(), Rounding::default());
        let mut of_gone = Vec::new();
        root.visit(&mut |path| {
            let frames: Vec<String> = path
                .iter()
                .map(|node| {
                    let change = signed_micros(node.delta_ns());
                    frame(&format!("{} {} µs ({change})", node.name, micros(node.after_ns)))
                })
                .collect();
            let last = path[path.len() - 1];
            drawing.colour(&frames[frames.len() - 1], &palette::of_change(last.delta_ns() / largest));
            let ns = kept.whole(last.own_after_ns());
            if ns > 0 {
                drawing.lines.push(format!("{here};{} {ns}", frames.join(";")));
            }
            if last.after_ns == 0.0 {
                let ns = vanished.whole(last.own_before_ns());
                if ns > 0 {
                    of_gone.push(format!("{gone};{} {ns}", frames.join(";")));
                }
            }
        });
        drawing.lines.extend(of_gone);
        drawing.legend = [
            (format!("more than {baseline}"), palette::of_change(1.0)),
            ("no change".to_owned(), palette::of_change(0.0)),
            (format!("less than {baseline}"), palette::of_change(-1.0)),
        ]
        .to_vec();
        drawing
    }

    fn draw(mut self, title: &str, subtitle: &str, path: &Path) -> Result<()> {
        let mut options = Options::default();
        options.title = title.to_owned();
        options.subtitle = Some(subtitle.to_owned());
        options.count_name = "ns per operation".to_owned();
        options.name_type = "Frame:".to_owned();
        // In the order of the lines, not sorted by name, so that the latency reads like the waterfall. As a chart the
        // library keeps their order, the last one leftmost.
        options.flame_chart = true;
        options.min_width = NARROWEST_PERCENT;
        options.text_truncate_direction = TextTruncateDirection::Right;
        options.palette_map = Some(&mut self.colours);
        let mut svg = Vec::new();
        flamegraph::from_lines(&mut options, self.lines.iter().rev().map(String::as_str), &mut svg)
            .map_err(|error| Error::file("draw", path, error))?;
        let svg = palette::with_legend(&String::from_utf8_lossy(&svg), &self.legend);
        write_whole(path, svg.as_bytes())
    }
}

/// The baseline's stages under the names of the candidate's that do the same work at another device: a server's
/// output goes through `eth0` in a container and through the wire on the host.
fn align(before: &[Weighted], after: &[Weighted]) -> Vec<Weighted> {
    const STAGE: usize = 3;
    let stages = |stacks: &[Weighted]| {
        let mut found: Vec<Vec<String>> = Vec::new();
        for stack in stacks {
            let stage: Vec<String> = stack.frames.iter().take(STAGE).map(|frame| frame.name.clone()).collect();
            if !found.contains(&stage) {
                found.push(stage);
            }
        }
        found
    };
    let (of_before, of_after) = (stages(before), stages(after));
    let mut free: Vec<&Vec<String>> = of_after.iter().filter(|stage| !of_before.contains(stage)).collect();
    let label = |stage: &[String]| stage.get(2).and_then(|name| Some(name.split_once(": ")?.0.to_owned()));
    let mut renamed = Vec::new();
    for stage in of_before.iter().filter(|stage| !of_after.contains(stage)) {
        let same =
            |other: &&Vec<String>| other[0] == stage[0] && label(stage).is_some() && label(other) == label(stage);
        if let Some(index) = free.iter().position(same) {
            renamed.push((stage, free.remove(index)));
        }
    }
    let mut aligned = before.to_vec();
    for stack in &mut aligned {
        let found = renamed.iter().find(|(stage, _)| {
            stage.len() <= stack.frames.len()
                && stage.iter().zip(&stack.frames).all(|(name, frame)| *name == frame.name)
        });
        for (name, frame) in found.iter().flat_map(|(_, other)| other.iter()).zip(&mut stack.frames) {
            frame.name.clone_from(name);
        }
    }
    aligned
}

/// Writes all flame graphs of a result and their folded stacks into its directory; returns the pictures.
///
/// # Errors
/// If a file cannot be written.
pub fn write_all(built: &Built, folder: &Path, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<PathBuf>> {
    let result = &built.result;
    let mut pictures = Vec::new();
    for kind in KINDS {
        for (configuration, stacks) in result.configurations.iter().zip(&built.stacks) {
            go_on()?;
            pictures.extend(write_single(result, kind, configuration, (kind.stacks)(stacks), folder)?);
        }
        let against_baseline = |comparison: &&ComparisonResult| {
            comparison.baseline == result.baseline || comparison.candidate == result.baseline
        };
        for comparison in result.comparisons.iter().filter(against_baseline) {
            go_on()?;
            pictures.extend(write_difference(built, kind, comparison, folder)?);
        }
    }
    Ok(pictures)
}

fn subtitle(result: &RunResult) -> String {
    format!(
        "run {}, {} placement {}, {} rounds, width: ns per operation",
        result.run_id,
        result.workload.name,
        result.placement.name(),
        result.rounds
    )
}

fn width(stacks: &[Weighted]) -> f64 {
    stacks.iter().map(|stack| stack.ns.max(0.0)).sum()
}

fn write_single(
    result: &RunResult,
    kind: &Kind,
    configuration: &ConfigurationResult,
    stacks: &[Weighted],
    folder: &Path,
) -> Result<Option<PathBuf>> {
    let lines = folded(&configuration.name, stacks);
    if lines.is_empty() {
        return Ok(None);
    }
    let stem = format!("{}.{}", kind.shows.name(), file_stem(&configuration.name));
    let path = folder.join(format!("{stem}.folded"));
    write_whole(&path, (lines.join("\n") + "\n").as_bytes())?;
    let path = folder.join(format!("{stem}.svg"));
    let residual = match kind.shows {
        Shows::Latency => format!(" (residual {} µs)", micros(configuration.residual_ns_per_op)),
        Shows::Cpu | Shows::OffCpu => String::new(),
    };
    let caveat = caveat(configuration.caveat());
    let title = format!(
        "{} of {}: {} µs per operation{residual}{caveat}",
        kind.what,
        configuration.name,
        micros(width(stacks))
    );
    Drawing::single(&configuration.name, stacks).draw(&title, &subtitle(result), &path)?;
    Ok(Some(path))
}

fn write_difference(
    built: &Built,
    kind: &Kind,
    comparison: &ComparisonResult,
    folder: &Path,
) -> Result<Option<PathBuf>> {
    let of = |name: &str| {
        let index = built.result.configurations.iter().position(|configuration| configuration.name == name)?;
        Some((kind.stacks)(built.stacks.get(index)?))
    };
    let (Some(before), Some(after)) = (of(&comparison.baseline), of(&comparison.candidate)) else { return Ok(None) };
    let (baseline, candidate) = (&comparison.baseline, &comparison.candidate);
    let before = match kind.shows {
        Shows::Latency => align(before, after),
        Shows::Cpu | Shows::OffCpu => before.to_vec(),
    };
    let drawing = Drawing::difference(baseline, candidate, &before, after);
    if drawing.lines.is_empty() {
        // Nothing to draw: neither saw an operation, or nothing was sampled.
        return Ok(None);
    }
    let path = folder.join(format!("{}.{}.minus.{}.svg", kind.shows.name(), file_stem(candidate), file_stem(baseline)));
    let title = format!(
        "{}: {candidate} less {baseline}, {} µs (red: more, blue: less; width: {candidate})",
        kind.what,
        signed_micros(width(after) - width(&before))
    );
    let either = [baseline, candidate].map(|name| built.result.configurations.iter().find(|found| found.name == *name));
    let title = title + &caveat(either.into_iter().flatten().find_map(ConfigurationResult::caveat));
    drawing.draw(&title, &subtitle(&built.result), &path)?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use virtax_analysis::stacks::Named;

    fn stack(path: &[&str], ns: f64) -> Weighted {
        let frames = path.iter().map(|name| Named { name: (*name).to_owned(), layer: None }).collect();
        Weighted { stage: None, frames, ns }
    }

    proptest! {
        #[test]
        fn the_width_of_the_root_is_the_sum_of_the_stacks(times in prop::collection::vec(0.0f64..50_000.0, 1..60)) {
            let names: Vec<String> = (0..times.len()).map(|index| index.to_string()).collect();
            let stacks: Vec<Weighted> = names.iter().zip(&times).map(|(name, ns)| stack(&[name], *ns)).collect();
            let count = |line: &String| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
            let root: u64 = folded("all", &stacks).iter().map(count).sum();
            prop_assert!((root as f64 - times.iter().sum::<f64>()).abs() <= 0.5);
        }
    }

    #[test]
    fn frames_do_not_hold_what_separates_them() {
        assert_eq!(frame("a;b"), "a,b");
    }

    /// The library knows colours by a frame's text alone: equal functions of equal width must not share one across
    /// layers.
    #[test]
    fn equal_frames_of_two_layers_have_two_colours() {
        let of_layer = |layer: &str| Weighted {
            stage: None,
            frames: vec![Named { name: "process_backlog".to_owned(), layer: Some(layer.to_owned()) }],
            ns: 10.0,
        };
        let drawing = Drawing::single("all", &[of_layer("tcp"), of_layer("irqs-off")]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.svg");
        drawing.draw("title", "subtitle", &path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for layer in ["tcp", "irqs-off"] {
            let colour = parse_hex_color(palette::of_layer(Some(layer))).unwrap();
            let fill = format!("fill=\"rgb({},{},{})\"", colour.r, colour.g, colour.b);
            assert!(svg.contains(&fill), "{layer}: {fill}");
        }
    }

    #[test]
    fn a_stage_at_another_device_is_held_against_its_like() {
        let before = [stack(&["response", "server@host", "output: send → xmit(wire)", "tcp"], 5.0)];
        let after = [
            stack(&["response", "server@server", "output: send → xmit(eth0)", "tcp"], 7.0),
            stack(&["request", "x", "output: send → xmit(wire)"], 1.0),
        ];
        let aligned = align(&before, &after);
        assert_eq!(aligned[0].frames[..3], after[0].frames[..3]);
        assert_eq!(aligned[0].frames[3].name, "tcp");
        assert_eq!(align(&before, &before), before);
    }

    #[test]
    fn what_vanished_stands_beside_the_rest() {
        let before = [stack(&["a", "gone"], 40.0), stack(&["a", "kept"], 60.0), stack(&["lost"], 5.0)];
        let after = [stack(&["a", "kept"], 90.0)];
        let drawing = Drawing::difference("old", "new", &before, &after);
        assert_eq!(
            drawing.lines,
            [
                "new;a 0.09 µs (−0.01);kept 0.09 µs (+0.03) 90",
                "only in old;a 0.09 µs (−0.01);gone 0.00 µs (−0.04) 40",
                "only in old;lost 0.00 µs (−0.01) 5",
            ]
        );
    }
}
