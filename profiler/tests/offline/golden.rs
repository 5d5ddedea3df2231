//! Recorded runs, computed and rendered anew: eight rounds over host network and NAT, three of asynchronous reads of
//! a file.

use std::{fs, path::Path};

use crate::common::{Out, text, virtax};
use profiler::{
    analysis::comparison::Verdict,
    counts::{PhaseKind, Point},
    experiment::store,
    render::terminal::{self, Look},
    result::RunResult,
    run,
};

/// A copy of the recorded run in a folder of the test's own.
pub fn recorded() -> Out {
    copied("run")
}

pub fn copied(name: &str) -> Out {
    let out = Out::new();
    fs::create_dir(out.path()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    for entry in fs::read_dir(source).unwrap().flatten() {
        fs::copy(entry.path(), out.path().join(entry.file_name())).unwrap();
    }
    out
}

fn replace_in(path: &Path, from: &str, to: &str) {
    let content = fs::read_to_string(path).unwrap();
    assert!(content.contains(from));
    fs::write(path, content.replacen(from, to, 1)).unwrap();
}

pub fn the_report_is_as_reviewed() {
    let run::Report { result, .. } = run::report(&recorded().path()).unwrap();
    let shown = terminal::report(&result, Look { width: Some(200), styled: false });
    insta::assert_snapshot!(shown);
}

pub fn the_report_of_file_operations_is_as_reviewed() {
    let run::Report { result, .. } = run::report(&copied("run-file").path()).unwrap();
    let shown = terminal::report(&result, Look { width: Some(200), styled: false });
    insta::assert_snapshot!(shown);
}

/// While an operation is with its disk, samples of CPUs divide what little code ran for it, and not the disk's time.
pub fn a_disks_time_is_no_codes() {
    let out = copied("run-file");
    let run::Report { result, .. } = run::report(&out.path()).unwrap();
    let native = &result.configurations[0];
    let disk = native.stages.iter().find(|stage| stage.id == "request/issue(vda)→complete(vda)").unwrap();
    let device = disk.layers.iter().find(|layer| layer.layer == "device").unwrap();
    assert!(device.share > 0.9 && device.samples == 0, "{:?}", disk.layers);
    let [low, high] = device.ci95.unwrap();
    assert!(low <= device.share && device.share <= high && high <= 1.0, "{device:?}");
    assert!(disk.layers.len() > 1, "the driver has samples: {:?}", disk.layers);
    // As wide in the picture as in the table, beside the same stage's code.
    let folded = fs::read_to_string(out.path().join("latency.native.folded")).unwrap();
    let width = |has: &dyn Fn(&str) -> bool| -> f64 {
        let lines = folded.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(stack, _)| has(stack));
        lines.map(|(_, ns)| ns.parse::<f64>().unwrap()).sum()
    };
    let drawn = width(&|stack| stack.ends_with("issue(vda) → complete(vda);device"));
    assert!((drawn / (device.share * disk.ns_per_op) - 1.0).abs() < 0.01, "{drawn} of {}", disk.ns_per_op);
    let stages: f64 = native.stages.iter().map(|stage| stage.ns_per_op).sum();
    assert!((width(&|_| true) / stages - 1.0).abs() < 0.001);
    for stage in &native.stages {
        let shares: f64 = stage.layers.iter().map(|layer| layer.share).sum();
        assert!((shares - 1.0).abs() < 1e-6, "{}: {:?}", stage.id, stage.layers);
    }
}

pub fn stages_and_residual_sum_to_the_clients_latency() {
    let run::Report { result, .. } = run::report(&recorded().path()).unwrap();
    for configuration in &result.configurations {
        let stages: f64 = configuration.stages.iter().map(|stage| stage.ns_per_op).sum();
        let sum = stages + configuration.residual_ns_per_op;
        assert!((sum - configuration.traced_latency.mean_ns).abs() < 1e-3, "{}: {sum}", configuration.name);
        assert_eq!(configuration.incomplete, Vec::<String>::new());
        let n = configuration.tail_stages[0].n;
        assert!(configuration.tail_stages.iter().all(|stage| stage.n == n) && n >= 10);
    }
    for comparison in &result.comparisons {
        let rows: f64 = comparison.stages.iter().map(|stage| stage.delta_ns).sum();
        assert!((rows + comparison.residual_delta_ns - comparison.traced_delta_ns).abs() < 1e-3);
    }
}

/// Turning the pair around turns every sign around, and no interval's width.
pub fn comparisons_are_antisymmetric() {
    let run::Report { result, .. } = run::report(&recorded().path()).unwrap();
    let (there, back) = (&result.comparisons[0], &result.comparisons[1]);
    assert_eq!((&there.baseline, &there.candidate), (&back.candidate, &back.baseline));
    assert!((there.latency_delta_ns + back.latency_delta_ns).abs() < 1e-6);
    for stage in &there.stages {
        let other = back.stages.iter().find(|other| other.id == stage.id).unwrap();
        assert!((stage.delta_ns + other.delta_ns).abs() < 1e-6, "{}", stage.id);
        assert_eq!(stage.significant, other.significant, "{}", stage.id);
    }
}

pub fn the_same_counts_give_the_same_result_and_it_survives_the_file() {
    let out = recorded();
    let run::Report { result: first, .. } = run::report(&out.path()).unwrap();
    assert!(RunResult::load(&out.path()).unwrap() == first, "what was written is not what is read");
    let bytes = fs::read(out.path().join("result.json")).unwrap();
    let run::Report { result: second, .. } = run::report(&out.path()).unwrap();
    assert!(first == second && bytes == fs::read(out.path().join("result.json")).unwrap());
}

pub fn flame_graphs_are_as_wide_as_the_stages_and_say_what_they_are() {
    let out = recorded();
    let run::Report { result, pictures, .. } = run::report(&out.path()).unwrap();
    // Three kinds, for two configurations and their difference in both directions.
    assert_eq!(pictures.len(), 12);
    for configuration in &result.configurations {
        let stem = configuration.name.replace([':', '='], "-");
        let read = |kind: &str| fs::read_to_string(out.path().join(format!("{kind}.{stem}.folded"))).unwrap();
        let width = |folded: &str| -> f64 {
            folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        let latency = read("latency");
        let stages: f64 = configuration.stages.iter().map(|stage| stage.ns_per_op).sum();
        assert!((width(&latency) / stages - 1.0).abs() < 0.001, "{} {stages}", width(&latency));
        assert!(latency.lines().all(|line| line.starts_with(&format!("{};re", configuration.name))));
        let cpu: f64 = configuration.cpu_layers.iter().map(|layer| layer.ns_per_op).sum();
        assert!((width(&read("cpu")) / cpu - 1.0).abs() < 0.001);
        assert!(read("cpu").lines().any(|line| line.contains(";softirq;conntrack;handle_softirqs;")));
        assert!(read("off-cpu").lines().any(|line| line.contains(";server;blocked;") && line.contains("woken by")));
    }
    // The stage that does NAT, the layer that does it, the function that does it.
    let nat = fs::read_to_string(out.path().join("latency.docker-net-nat.folded")).unwrap();
    let is_nat = |line: &str| {
        line.contains("receive(wire@host) → xmit(bridge@host)") && line.contains(";NAT;") && line.contains(";nf_nat_")
    };
    assert!(nat.lines().any(is_nat));
    for picture in pictures {
        let svg = fs::read_to_string(picture).unwrap();
        assert!(svg.contains(&format!("run {}", result.run_id)) && svg.contains("ns per operation"));
        assert!(svg.trim_end().ends_with("</svg>") && svg.contains("id=\"legend\""));
    }
}

pub fn json_on_standard_output_is_the_result() {
    let out = recorded();
    let output = virtax().arg("report").arg(out.path()).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: RunResult = serde_json::from_slice(&output.stdout).unwrap();
    assert!(shown == RunResult::load(&out.path()).unwrap());
}

pub fn an_interrupted_run_reports_what_it_has() {
    let out = recorded();
    let path = out.path().join("repetitions.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    // Five repetitions, and the sixth cut off in its middle.
    fs::write(&path, format!("{}\n{}", lines[..5].join("\n"), &lines[5][..lines[5].len() / 2])).unwrap();
    let run::Report { result, .. } = run::report(&out.path()).unwrap();
    assert_eq!(result.configurations.iter().map(|configuration| configuration.rounds).sum::<usize>(), 5);
    assert!(result.comparisons.iter().all(|comparison| comparison.verdict == Verdict::TooFewRounds));
}

/// A precision that was wished for and not reached is said, with what it would take.
pub fn a_wish_that_was_not_reached_is_said() {
    let wishing = recorded();
    replace_in(&wishing.path().join("run.json"), "\"seed\":", "\"until_precision\": 0.01, \"seed\":");
    let result = run::compute(&wishing.path()).unwrap();
    let said: Vec<_> = result.warnings.iter().filter(|warning| warning.name == "precision-not-reached").collect();
    assert_eq!(said.len(), result.configurations.len());
    assert!(
        said.iter().all(|warning| warning.remedy.contains("--budget") && warning.text.contains("rounds")),
        "{said:?}"
    );
    let none = run::compute(&recorded().path()).unwrap();
    assert!(none.warnings.iter().all(|warning| warning.name != "precision-not-reached"));
}

pub fn newer_and_broken_files_are_refused() {
    let newer = recorded();
    replace_in(&newer.path().join("run.json"), "\"schema_version\": 2", "\"schema_version\": 3");
    let error = run::report(&newer.path()).unwrap_err();
    assert_eq!(error.exit_code(), 6);
    assert!(error.to_string().contains("schema version 3 is newer"), "{error}");

    let broken = recorded();
    replace_in(&broken.path().join("repetitions.jsonl"), "\"round\":0", "\"round\":\"zero\"");
    let error = run::report(&broken.path()).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");

    let hostile = recorded();
    let records = fs::read_dir(hostile.path()).unwrap().flatten().map(|entry| entry.path());
    for path in records.filter(|path| path.to_string_lossy().ends_with(".gz")) {
        fs::write(path, b"\x1f\x8bnot gzip").unwrap();
    }
    assert_eq!(run::report(&hostile.path()).unwrap_err().exit_code(), 6);
}

/// A loss above a thousandth withholds the verdict.
pub fn losses_withhold_the_verdict() {
    let out = recorded();
    let path = out.path().join("repetitions.jsonl");
    let content = fs::read_to_string(&path).unwrap().replace("\"freed\":0", "\"freed\":900");
    fs::write(&path, content).unwrap();
    let run::Report { result, .. } = run::report(&out.path()).unwrap();
    let reasons = &result.configurations[0].incomplete;
    assert!(reasons.iter().any(|reason| reason.contains("were lost")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("contradict")), "{reasons:?}");
    assert!(result.comparisons.iter().all(|comparison| comparison.verdict == Verdict::Incomplete));
}

/// Layers: shares that sum to their stage, changes that sum to the difference, intervals around them.
pub fn layers_sum_to_what_they_divide() {
    let run::Report { result, .. } = run::report(&recorded().path()).unwrap();
    for configuration in &result.configurations {
        for stage in configuration.stages.iter().filter(|stage| !stage.layers.is_empty()) {
            let whole: f64 = stage.layers.iter().map(|layer| layer.share).sum();
            assert!((whole - 1.0).abs() < 1e-9, "{} {whole}", stage.id);
            for layer in &stage.layers {
                // A wait that hardly varies, or in few rounds, has no interval; a sampled share always has one.
                assert!(layer.ci95.is_some() || layer.samples == 0, "{} {layer:?}", stage.id);
                let [low, high] = layer.ci95.unwrap_or([layer.share; 2]);
                assert!(low <= layer.share + 1e-9 && layer.share <= high + 1e-9, "{} {layer:?}", stage.id);
            }
        }
        assert!(configuration.samples.unmatched_share <= 0.05);
        assert!(configuration.syscalls.iter().any(|call| call.name == "recvfrom"));
    }
    for comparison in &result.comparisons {
        let whole: f64 = comparison.layers.iter().map(|layer| layer.delta_ns).sum();
        let off = whole + comparison.residual_delta_ns - comparison.traced_delta_ns;
        assert!(off.abs() < 1.0, "{off}");
    }
}

/// No layer has more time than its samples stand for, in any stage of any recorded run.
pub fn layers_have_no_time_that_their_samples_have_not_seen() {
    for name in ["run", "run-file"] {
        let out = copied(name);
        let run::Report { result, .. } = run::report(&out.path()).unwrap();
        let (header, repetitions) = store::load(&out.path()).unwrap();
        let period_ns = 1e9 / f64::from(header.spec.sample_rate_hz);
        let mut compared = 0;
        for configuration in &result.configurations {
            let of_name = repetitions.iter().filter(|found| found.configuration == configuration.name);
            let sampled = of_name.flat_map(|found| &found.phases).filter(|phase| phase.kind == PhaseKind::Sampled);
            let operations: u64 = sampled.map(|phase| phase.client.operations).sum();
            let one_ns = period_ns / operations as f64;
            for stage in &configuration.stages {
                // What the parts say exactly is not sampled; samples only divide the reader's work within it.
                let is_divided = stage.parts.iter().any(|part| part.to.point == Point::ReaderHere);
                for layer in stage.layers.iter().filter(|layer| layer.samples > 0 && !is_divided) {
                    let ns = layer.share * stage.ns_per_op;
                    // A sampled phase is slower than the traced ones to which its shares are applied, never faster by
                    // more than chance.
                    let most_ns = layer.samples as f64 * one_ns * 1.1;
                    assert!(ns <= most_ns, "{name}, {}: {} has {ns} ns of {most_ns}", stage.id, layer.layer);
                    compared += 1;
                }
            }
        }
        assert!(compared > 10, "{name}: {compared}");
    }
}

/// Without its stacks a run is computed as before them.
pub fn a_run_without_stacks_has_no_layers() {
    let out = recorded();
    for entry in fs::read_dir(out.path()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("stacks.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let run::Report { result, pictures, .. } = run::report(&out.path()).unwrap();
    assert_eq!(pictures.len(), 4);
    assert!(result.configurations.iter().all(|configuration| configuration.cpu_layers.is_empty()));
    assert!(
        result.comparisons.iter().all(|comparison| comparison.layers.iter().all(|layer| layer.layer == "unsampled"))
    );
}
