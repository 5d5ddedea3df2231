//! The page, and the forms for other tools, of recorded runs: each is read as its own readers would.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::Path,
};

use prost::Message;
use serde_json::Value;

use super::golden::{copied, recorded};
use super::schema::faults;
use crate::common::{full, harness, text, virtax};
use profiler::{
    export::{Format, Kind, pprof::Profile},
    render::terminal::{self, Look},
    result::RunResult,
    run, run_folder,
};

fn exported(folder: &str, format: Format, kind: Kind) -> String {
    String::from_utf8(run::export(&copied(folder).path(), format, kind, 20).unwrap()).unwrap()
}

fn result() -> RunResult {
    run::compute(&recorded().path()).unwrap()
}

/// Sums of a picture's widths, ns.
fn width(kind: Kind) -> f64 {
    let lines = exported("run", Format::Folded, kind);
    lines.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

pub fn the_page_holds_all_and_asks_nobody() {
    let out = recorded();
    let printed = virtax().args(["report", "--html"]).arg(out.path()).output().unwrap();
    let path = out.path().join(run_folder::PAGE);
    assert_eq!(text(&printed.stdout), format!("{}\n", path.display()));
    let page = fs::read_to_string(path).unwrap();
    // Two configurations: half of what four may have.
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
    let addresses = page.match_indices("http://").chain(page.match_indices("https://"));
    let addresses = addresses.map(|(at, _)| page[at..].split(['"', '\'']).next().unwrap());
    assert_eq!(addresses.collect::<Vec<_>>(), ["http://www.w3.org/2000/svg"]);
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let result = result();
    assert_eq!(data["result"], serde_json::to_value(&result).unwrap());
    assert_eq!(data["details"].as_array().unwrap().len(), result.configurations.len());
    for (index, configuration) in result.configurations.iter().enumerate() {
        let details = &data["details"][index];
        assert_eq!(details["rounds"].as_array().unwrap().len(), configuration.rounds);
        assert_eq!(details["stages"].as_array().unwrap().len(), configuration.stages.len());
        let counted: u64 = details["histogram"].as_array().unwrap().iter().map(|step| step[1].as_u64().unwrap()).sum();
        assert_eq!(counted, configuration.operations);
        // Around the median, a request takes about the median.
        let typical = details["typical"].as_array().unwrap();
        let sum: f64 = typical.iter().map(|stage| stage["ns_per_op"].as_f64().unwrap()).sum();
        let ratio = sum / configuration.traced_latency.p50_ns;
        assert!(typical.is_empty() || (0.8..1.2).contains(&ratio), "{ratio}");
    }
    // Every finding and warning stands in it without its script.
    let shell = page.split("<script").next().unwrap();
    assert!(result.warnings.iter().all(|warning| shell.contains(&warning.name)));
    insta::assert_snapshot!(shell.split("<body>").nth(1).unwrap());
}

/// A script at the page's end that does what a reader would, and leaves what came of it where it can be read.
const READER: &str = r###"<script>
const found = [], errors = [];
const see = (name, value) => found.push(name + "=" + value);
const texts = selector => [...document.querySelectorAll(selector)].map(one => one.textContent);
addEventListener("error", event => errors.push(event.message));
see("ready", document.documentElement.dataset.ready);
see("bars", document.querySelectorAll("#bars .segment").length);
const first = () => texts("#stages tbody tr td:first-child button")[0];
see("first", first());
const heading = document.querySelectorAll("#stages th button")[1];
heading.click();
see("largest", first());
see("sorted", document.querySelectorAll("#stages th")[1].getAttribute("aria-sort"));
heading.click();
see("smallest-differs", first() !== texts("#stages tbody tr td:first-child button").at(-1));
document.querySelector("#stages td button.stage").click();
see("detail", document.querySelectorAll("#stage-detail h3").length > 1);
document.querySelector("input[value=tail]").click();
see("tail", document.querySelectorAll("#stages tbody tr").length > 3);
document.querySelector("input[value=median]").click();
see("median", document.querySelectorAll("#bars .segment").length > 10);
const search = document.getElementById("flame-search");
search.value = "tcp";
search.dispatchEvent(new Event("input"));
see("hits", document.querySelectorAll("#flame .hit").length > 5 && texts("#flame-found")[0].includes("%"));
const frames = document.querySelectorAll("#flame .frame").length;
[...document.querySelectorAll("#flame .frame")].at(2).dispatchEvent(new Event("click"));
see("zoomed", document.querySelectorAll("#flame .frame").length !== frames);
for (const kind of ["cpu", "off_cpu"]) {
  document.getElementById("flame-kind").value = kind;
  document.getElementById("flame-kind").dispatchEvent(new Event("change"));
  see(kind, document.querySelectorAll("#flame rect").length > 5);
}
document.getElementById("flame-less").value = "1";
document.getElementById("flame-less").dispatchEvent(new Event("change"));
see("difference", [...document.querySelectorAll("#flame rect")].some(rect => rect.getAttribute("fill").startsWith("rgb(255,")));
document.getElementById("theme").click();
see("theme", document.documentElement.className !== "");
see("errors", errors.join(";"));
document.title = found.join(" ");
</script></body>"###;

/// A browser shows the page: what can be clicked, searched and sorted does what it should, and nothing goes wrong. One
/// of the longer tests: the browser is larger than all else that tests need.
pub fn a_browser_shows_it() {
    let Some(browser) =
        ["chromium", "chromium-browser"].iter().find_map(|name| profiler::pack::find_program(name, name).ok())
    else {
        if full() {
            harness::skip("chromium")
        } else {
            harness::skip_anyway("chromium")
        }
        return;
    };
    let out = recorded();
    let page = run::report(&out.path()).unwrap().page;
    let read = fs::read_to_string(&page).unwrap().replace("</body>", READER);
    let copy = out.path().join("read.html");
    fs::write(&copy, read).unwrap();
    let mut command = std::process::Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", out.path().join("browser").display()));
    let shown = command.arg(format!("file://{}", copy.display())).output().unwrap();
    let shown = text(&shown.stdout);
    let title = shown.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
    let bars: usize = result().configurations.iter().map(|found| found.stages.len()).sum();
    let expected = format!(
        "ready=yes bars={bars} first=request/call→send largest=request/ready→received sorted=descending \
         smallest-differs=true detail=true tail=true median=true hits=true zoomed=true cpu=true off_cpu=true difference=true \
         theme=true errors="
    );
    assert_eq!(title, expected);
}

/// What a stranger's run calls itself is text on the page, and nothing else.
pub fn names_are_no_markup() {
    let out = recorded();
    let path = out.path().join("run.json");
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>";
    let header = fs::read_to_string(&path).unwrap();
    let mut header: Value = serde_json::from_str(&header).unwrap();
    header["command"] = evil.into();
    fs::write(&path, header.to_string()).unwrap();
    let page = fs::read_to_string(run::report(&out.path()).unwrap().page).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains("<img"), "it is in the page as it is");
    assert_eq!(page.matches("</script>").count(), 2);
}

pub fn a_spreadsheet_reads_every_stage() {
    let text = exported("run", Format::Csv, Kind::Latency);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap().len(), 11);
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    let result = result();
    assert_eq!(rows.len(), result.configurations.iter().map(|found| found.stages.len()).sum::<usize>());
    let first = &result.configurations[0].stages[0];
    assert_eq!((&rows[0]["stage"], rows[0]["ns_per_op"].parse()), (&first.id, Ok(first.ns_per_op)));
}

pub fn markdown_is_as_reviewed() {
    insta::assert_snapshot!(exported("run-file", Format::Markdown, Kind::Latency));
}

/// OpenMetrics 1.0: families one after another, each sample of the family before it, seconds in their names, an end.
pub fn metrics_keep_their_rules() {
    let text = exported("run", Format::Openmetrics, Kind::Latency);
    assert!(text.ends_with("# EOF\n"));
    let (mut family, mut seen) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(!seen.contains(&family), "{family} twice");
            seen.push(family.clone());
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (labels, value) = line.strip_prefix(&family).unwrap().rsplit_once("} ").unwrap();
            assert!(labels.starts_with('{') && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert_eq!(seen.len(), 6);
    let mean = result().configurations[0].latency.mean_ns / 1e9;
    assert!(text.contains(&format!("statistic=\"mean\"}} {mean}")), "{mean}");
}

/// Every sample names frames that are there, and has a weight, by speedscope's schema.
pub fn stacks_for_speedscope_are_those_of_the_pictures() {
    for kind in [Kind::Latency, Kind::Cpu, Kind::OffCpu] {
        let file: Value = serde_json::from_str(&exported("run", Format::Speedscope, kind)).unwrap();
        assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");
        let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
        let mut sum = 0.0;
        for profile in file["profiles"].as_array().unwrap() {
            assert_eq!((profile["type"].as_str(), profile["unit"].as_str()), (Some("sampled"), Some("nanoseconds")));
            let (samples, weights) = (profile["samples"].as_array().unwrap(), profile["weights"].as_array().unwrap());
            assert_eq!(samples.len(), weights.len());
            let numbers = samples.iter().flat_map(|sample| sample.as_array().unwrap());
            assert!(numbers.map(|number| number.as_u64().unwrap()).all(|number| number < frames));
            let weights: f64 = weights.iter().map(|weight| weight.as_f64().unwrap()).sum();
            assert!((weights - profile["endValue"].as_f64().unwrap()).abs() < 1e-3);
            sum += weights;
        }
        assert!((sum / width(kind) - 1.0).abs() < 0.01, "{sum}");
    }
}

/// The first text is empty, every number is of something that is there, by pprof's own rules (`profile.proto`), and
/// values are of the types.
pub fn stacks_for_pprof_are_those_of_the_pictures() {
    for kind in [Kind::Latency, Kind::Cpu, Kind::OffCpu] {
        let packed = run::export(&copied("run").path(), Format::Pprof, kind, 20).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        let profile = Profile::decode(bytes.as_slice()).unwrap();
        let text = |number: i64| profile.string_table[usize::try_from(number).unwrap()].as_str();
        assert_eq!(text(0), "");
        let types: Vec<_> = profile.sample_type.iter().map(|value| (text(value.r#type), text(value.unit))).collect();
        assert_eq!(types, [("time", "nanoseconds")]);
        let functions: BTreeMap<u64, &str> =
            profile.function.iter().map(|function| (function.id, text(function.name))).collect();
        let frames: BTreeMap<u64, &str> =
            profile.location.iter().map(|location| (location.id, functions[&location.line[0].function_id])).collect();
        assert!(frames.len() == profile.location.len() && !frames.contains_key(&0));
        let mut lines = BTreeSet::new();
        let mut sum = 0;
        for sample in &profile.sample {
            let [label] = &sample.label[..] else { panic!("{sample:?}") };
            assert_eq!((text(label.key), sample.value.len()), ("configuration", 1));
            let stack: Vec<&str> = sample.location_id.iter().rev().map(|id| frames[id]).collect();
            lines.insert(format!("{};{}", text(label.str), stack.join(";")));
            sum += sample.value[0];
        }
        assert!((sum as f64 / width(kind) - 1.0).abs() < 0.02, "{sum}");
        // The same stacks, the innermost frame last there and first here.
        let folded = exported("run", Format::Folded, kind);
        let wide = folded.lines().filter(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() >= 2.0);
        let found = wide.clone().filter(|line| lines.contains(line.rsplit_once(' ').unwrap().0)).count();
        assert!(found as f64 > 0.9 * wide.count() as f64, "{found}");
    }
}

/// Tables are as long as they say, and their numbers are of rows that are there, by the Firefox Profiler's processed
/// format.
pub fn stacks_for_firefox_are_those_of_the_pictures() {
    for kind in [Kind::Latency, Kind::Cpu, Kind::OffCpu] {
        let file: Value = serde_json::from_str(&exported("run", Format::Firefox, kind)).unwrap();
        assert!(file["meta"]["preprocessedProfileVersion"].as_u64().unwrap() > 40, "{}", file["meta"]);
        let threads = file["threads"].as_array().unwrap();
        assert_eq!(threads.len(), result().configurations.len());
        let mut sum = 0.0;
        for thread in threads {
            let lengths =
                ["samples", "stackTable", "frameTable", "funcTable"].map(|name| thread[name]["length"].as_u64());
            let [samples, stacks, frames, functions] = lengths.map(Option::unwrap);
            let below = |values: &Value, most: u64| {
                values
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|value| !value.is_null())
                    .all(|value| value.as_u64().unwrap() < most)
            };
            assert!(samples > 0 && below(&thread["samples"]["stack"], stacks));
            assert!(below(&thread["stackTable"]["frame"], frames) && below(&thread["stackTable"]["prefix"], stacks));
            assert!(below(&thread["frameTable"]["func"], functions));
            let weights = thread["samples"]["weight"].as_array().unwrap();
            assert_eq!(weights.len() as u64, samples);
            sum += weights.iter().map(|weight| weight.as_f64().unwrap()).sum::<f64>();
        }
        assert!((sum / width(kind) - 1.0).abs() < 0.02, "{sum}");
    }
}

/// What is published is what the types say, and results keep to it; what is broken does not.
pub fn results_keep_to_the_published_schema() {
    let printed = virtax().arg("schema").output().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/result.schema.json");
    let known = fs::read_to_string(&published).unwrap_or_default();
    assert_eq!(known, text(&printed.stdout), "virtax schema > docs/result.schema.json");
    let schema: Value = serde_json::from_str(&known).unwrap();
    for folder in ["run", "run-file"] {
        let result = serde_json::to_value(run::compute(&copied(folder).path()).unwrap()).unwrap();
        let found = faults(&schema, &result);
        assert!(found.is_empty(), "{found:#?}");
        for (name, broken) in [("configurations", Value::Null), ("run_id", 7.into()), ("rounds", (-1).into())] {
            let mut other = result.clone();
            other[name] = broken;
            assert!(!faults(&schema, &other).is_empty(), "{name}");
        }
        let mut lacking = result.clone();
        lacking.as_object_mut().unwrap().remove("baseline");
        assert!(!faults(&schema, &lacking).is_empty());
    }
}

/// Slices of a request follow each other without a gap, on a named track each, and sum to its latency.
pub fn perfetto_shows_hand_overs() {
    for folder in ["run", "run-file"] {
        let trace: Value = serde_json::from_str(&exported(folder, Format::Perfetto, Kind::Latency)).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let named: Vec<(u64, u64)> = events
            .iter()
            .filter(|event| event["name"] == "thread_name")
            .map(|event| (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap()))
            .collect();
        let mut requests: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
        for event in events.iter().filter(|event| event["ph"] == "X") {
            let (process, track) = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
            assert!(named.contains(&(process, track)), "{event}");
            let times = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            requests.entry((process, event["args"]["request"].as_u64().unwrap())).or_default().push(times);
        }
        assert!(requests.len() >= 20, "{}", requests.len());
        for slices in requests.values() {
            assert!(slices.windows(2).all(|pair| (pair[0].0 + pair[0].1 - pair[1].0).abs() < 0.01), "{slices:?}");
        }
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
        assert_eq!((of("s"), of("f")), (requests.len(), requests.len()));
    }
}

pub fn the_slowest_requests_are_as_reviewed() {
    let out = copied("run-file");
    let all = run::requests(&out.path(), None).unwrap();
    let look = Look { width: Some(100), styled: false };
    insta::assert_snapshot!(terminal::requests(&all[0].0, &all[0].1, 2, look));
    let missing = run::requests(&out.path(), Some("docker")).unwrap_err();
    assert_eq!(missing.exit_code(), 2);
}

/// A run against itself differs nowhere, whatever is asked; runs of other workloads are refused with all reasons.
pub fn runs_are_compared_where_they_can_be() {
    let (first, second) = (recorded(), recorded());
    let all = run::diff(&first.path(), &second.path(), None, None).unwrap();
    assert_eq!(all.len(), 2);
    for diff in &all {
        assert_eq!(diff.latency.delta_ns, 0.0);
        let [low, high] = diff.latency.ci95_ns.unwrap();
        assert!(low <= 0.0 && 0.0 <= high && low < high, "{diff:?}");
        assert!(diff.stages.iter().all(|stage| stage.delta_ns == 0.0 && !stage.significant));
    }
    let (of, with) = (Some("docker:net=host"), Some("docker:net=nat"));
    let differs = run::diff(&first.path(), &second.path(), of, with).unwrap().swap_remove(0);
    // By the same rounds, paired: as much, and less exactly known here.
    let result = result();
    let paired = result.comparisons.iter().find(|found| found.candidate == "docker:net=nat").unwrap();
    assert!((differs.latency.delta_ns / paired.latency_delta_ns - 1.0).abs() < 1e-6, "{differs:?}");
    assert!(differs.stages.iter().filter(|stage| stage.significant).count() > 2);
    let sum: f64 = differs.stages.iter().map(|stage| stage.second_ns - stage.first_ns - stage.delta_ns).sum();
    assert!(sum.abs() < 1.0, "{sum}");
    insta::assert_snapshot!(terminal::runs_diff(&differs, Look { width: Some(160), styled: false }));
    let of_files = copied("run-file");
    let nothing = run::diff(&first.path(), &of_files.path(), None, None).unwrap_err();
    assert!(nothing.to_string().contains("`--of` and `--with`"), "{nothing}");
    let refused = run::diff(&first.path(), &of_files.path(), of, Some("native")).unwrap_err();
    assert!(refused.exit_code() == 2 && refused.to_string().contains("workload: tcp-rr and block"), "{refused}");
}

pub fn a_stage_is_shown_as_reviewed() {
    let look = Look { width: Some(120), styled: false };
    let built = run::built(&recorded().path()).unwrap();
    insta::assert_snapshot!(terminal::stage(&built, "request/ready→received", look).unwrap());
    let unknown = terminal::stage(&built, "request/redy→received", look).unwrap_err();
    assert!(
        unknown.exit_code() == 2 && unknown.to_string().contains("did you mean `request/ready→received`"),
        "{unknown}"
    );
}
