//! The report as one page: opens from disk, needs no network, and holds all that it shows.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::flame::palette;
use crate::result::{Built, Details, RunResult};
use virtax_analysis::stacks::{Stacks, Weighted};
use virtax_model::error::{Error, Result};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("app.js");
/// Stacks of less than this, ns per operation, are not in the page: at most so much of each picture is missing.
const LEAST_NS: f64 = 0.05;

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    result: &'a RunResult,
    details: &'a [Details],
    /// Names and layers of frames.
    frames: Vec<(&'a str, Option<&'a str>)>,
    stacks: Vec<Pictures>,
    colours: BTreeMap<&'a str, &'static str>,
}

/// Stacks of a configuration: indices of frames, and ns per operation.
#[derive(Serialize)]
struct Pictures {
    latency: Vec<(Vec<usize>, f64)>,
    cpu: Vec<(Vec<usize>, f64)>,
    off_cpu: Vec<(Vec<usize>, f64)>,
}

/// Frames by their number.
#[derive(Default)]
struct Frames<'a> {
    all: Vec<(&'a str, Option<&'a str>)>,
    numbers: HashMap<(&'a str, Option<&'a str>), usize>,
}

impl<'a> Frames<'a> {
    fn number(&mut self, frame: (&'a str, Option<&'a str>)) -> usize {
        *self.numbers.entry(frame).or_insert_with(|| {
            self.all.push(frame);
            self.all.len() - 1
        })
    }

    fn stacks(&mut self, stacks: &'a [Weighted]) -> Vec<(Vec<usize>, f64)> {
        let large = stacks.iter().filter(|stack| stack.ns >= LEAST_NS);
        let numbers = |stack: &'a Weighted| {
            let frames = stack.frames.iter();
            frames.map(|frame| self.number((frame.name.as_str(), frame.layer.as_deref()))).collect()
        };
        let tenths = |ns: f64| (ns * 10.0).round() / 10.0;
        let widths: Vec<f64> = large.clone().map(|stack| tenths(stack.ns)).collect();
        large.map(numbers).collect::<Vec<Vec<usize>>>().into_iter().zip(widths).collect()
    }

    fn pictures(&mut self, stacks: &'a Stacks) -> Pictures {
        Pictures {
            latency: self.stacks(&stacks.latency),
            cpu: self.stacks(&stacks.cpu),
            off_cpu: self.stacks(&stacks.off_cpu),
        }
    }
}

/// The page.
///
/// # Errors
/// If the result has a number that JSON has not.
pub fn page(built: &Built) -> Result<String> {
    let result = &built.result;
    let mut frames = Frames::default();
    let stacks = built.stacks.iter().map(|stacks| frames.pictures(stacks)).collect();
    let colours = frames.all.iter().filter_map(|(_, layer)| *layer);
    let of_stages = result.configurations.iter().flat_map(|found| &found.stages).flat_map(|stage| &stage.layers);
    let colours = colours.chain(of_stages.map(|layer| layer.layer.as_str()));
    let colours = colours.map(|layer| (layer, palette::of_layer(Some(layer)))).collect();
    let data = Data { result, details: &built.details, frames: frames.all, stacks, colours };
    let json = serde_json::to_string(&data)
        .map_err(|error| Error::Files { what: "cannot write the page".to_owned(), why: error.to_string() })?;
    let title = format!("{} in {}", result.workload.name, names(result));
    let parts = [
        ("@TITLE@", escape(&title)),
        ("@META@", escape(&meta(result))),
        ("@FINDING@", finding(result)),
        ("@WARNINGS@", warnings(result)),
        ("@METHOD@", METHOD.to_owned()),
        ("@COMMAND@", escape(&result.command)),
        ("@STYLE@", STYLE.to_owned()),
        ("@SCRIPT@", SCRIPT.to_owned()),
        // No text of it can end the element that holds it.
        ("@DATA@", json.replace('<', "\\u003c")),
    ];
    Ok(fill(PAGE, &parts))
}

/// Puts parts in their places, each once: what stands in one is no place for another.
fn fill(page: &str, parts: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = page;
    while let Some((at, mark, text)) =
        parts.iter().filter_map(|(mark, text)| Some((rest.find(mark)?, *mark, text))).min_by_key(|(at, ..)| *at)
    {
        filled.push_str(&rest[..at]);
        filled.push_str(text);
        rest = &rest[at + mark.len()..];
    }
    filled + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn names(result: &RunResult) -> String {
    result.configurations.iter().map(|found| found.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn meta(result: &RunResult) -> String {
    let settings: Vec<String> =
        result.workload.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!(
        "run {}, virtax {}; {}; placement {}, {} rounds of {} s",
        result.run_id,
        result.virtax_version,
        settings.join(" "),
        result.placement.name(),
        result.rounds,
        result.duration_s
    )
}

/// What each configuration costs against the baseline, in words; and what keeps a result from being one.
fn finding(result: &RunResult) -> String {
    let of_baseline = result.comparisons.iter().filter(|found| found.baseline == result.baseline);
    let mut text: String =
        of_baseline.map(|found| format!("<p class=\"sentence\">{}</p>", escape(&found.sentence))).collect();
    if text.is_empty() {
        text = "<p class=\"sentence\">One configuration: nothing is compared.</p>".to_owned();
    }
    for found in result.configurations.iter().filter(|found| !found.incomplete.is_empty()) {
        text += &format!(
            "<p class=\"warning\"><b>Incomplete:</b> {}: {}</p>",
            escape(&found.name),
            escape(&found.incomplete.join("; "))
        );
    }
    for (found, caveat) in result.configurations.iter().filter_map(|found| Some((found, found.caveat()?))) {
        text += &format!("<p class=\"warning\"><b>{}</b>: {}</p>", escape(&found.name), escape(caveat));
    }
    text
}

fn warnings(result: &RunResult) -> String {
    let warnings = result.warnings.iter().map(|warning| {
        format!(
            "<p class=\"warning\"><b>{}</b>: {}<span class=\"remedy\">{}</span></p>",
            escape(&warning.name),
            escape(&warning.text),
            escape(&warning.remedy)
        )
    });
    warnings.collect()
}

const METHOD: &str = "<p>At any instant a request is held by one thing: a socket, a packet, a bio, a virtual machine. Probes in the kernel \
hand its token over from holder to holder and add the time since the last point to the stage between the two: the stages of a path therefore sum to \
the time that requests exist (<i>conservation</i>), and, but for what clients do outside of the points, to the latency that the client measures itself \
(<i>residual</i>).</p><p>Each round runs every configuration once, in turn, in phases: with nothing attached (<i>latency</i>, by the client alone), with the core \
probes (<i>traced</i>: stages), with all (<i>detailed</i>: parts of stages), and with a sampler (<i>sampled</i>: layers and flame graphs). The <i>probe effect</i> is the mean of \
traced over detached latency of each round, less one. Differences are paired by round; intervals are Student's over the rounds, 95 %, and appear from five rounds on; \
stars consider all rows of a table at once. Layers are shares of the samples that lie in a stage.</p>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_one_part_is_no_place_for_another() {
        let parts = [("@A@", "@B@".to_owned()), ("@B@", "x".to_owned())];
        assert_eq!(fill("<@A@|@B@|@C@>", &parts), "<@B@|x|@C@>");
        assert_eq!(escape("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }
}
