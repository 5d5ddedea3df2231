//! fio, the well-known program, as it makes operations in each configuration; its own word for their latency is the
//! witness.

use std::fs;

use crate::common::{Feature, Out, Traces, alone, check, full, has, of, run_workload, text, virtax};
use profiler::{
    counts::{PhaseKind, Point, Repetition},
    result::ConfigurationResult,
};
use profiler_common::Counter;

const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "0.8", "--set", "size=16"];

fn run(out: &Out, workload: &str, configurations: &str) -> profiler::result::RunResult {
    run_workload(workload, out, &[&["--in", configurations], &SHORT[..]].concat())
}

fn bios_per_operation(configuration: &ConfigurationResult) -> f64 {
    configuration.counters.of(Counter::Bios) as f64 / configuration.losses.followed as f64
}

/// Each of a job's sixteen is followed by itself, to the disk and back, natively and in containers; fio's own mean
/// and count agree.
pub fn what_fio_says_is_what_is_seen() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) || !has(Feature::Fio) {
        return;
    }
    let before = Traces::now();
    let (out, volume) = (Out::new(), "docker:net=host,fs=volume");
    let further = if full() { ",ns:net=host,fs=overlay" } else { "" };
    let result = run(&out, "fio-randread-qd16", &format!("native,{volume}{further}"));
    assert_eq!(before, Traces::now());
    for configuration in &result.configurations {
        check(configuration);
        let bios = bios_per_operation(configuration);
        assert!((bios - 1.0).abs() < 0.05, "{bios} bios");
        let disk = configuration.stages.iter().find(|stage| stage.to.point == Point::Complete).unwrap();
        assert!((disk.count_per_op - 1.0).abs() < 0.05, "{disk:?}");
    }
    assert_eq!(of(&result, volume).settings["filesystem"], of(&result, "native").settings["filesystem"]);
    // Its operations are what it counted, and its mean is none of a run around the phase.
    let repetitions = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    let mut compared = 0;
    for line in repetitions.lines() {
        let repetition: Repetition = serde_json::from_str(line).unwrap();
        for phase in repetition.phases.iter().filter(|phase| phase.kind == PhaseKind::Traced) {
            assert!(phase.client.asked_around && !phase.client.whole_run);
            let seen = phase.probes.as_ref().unwrap().counter(profiler_common::Counter::Operations) as f64;
            let said = phase.client.operations as f64;
            assert!((said / seen - 1.0).abs() < 0.1, "{said} operations by fio, {seen} by the probes");
            compared += 1;
        }
    }
    assert!(compared >= 2, "{compared} traced phases");
    // And it says what is smaller than in the study.
    assert!(result.warnings.iter().any(|warning| warning.name == "scaled" && warning.text.contains("16 MiB")));
}

/// 8 × 32 at once, reads and writes; and one large write after another.
pub fn many_at_once_and_large_ones() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Fio) {
        return;
    }
    let many = run(&Out::new(), "fio-randrw-qd32x8", "native");
    // 256 at once wait for each other in fio itself, of which the probes know nothing: 8 % may be that.
    let found = &many.configurations[0];
    assert_eq!(found.incomplete, Vec::<String>::new());
    assert!(found.residual_share().abs() <= 0.08, "{}", found.residual_share());
    assert!(found.conservation_percent.abs() <= 0.5 && found.losses.lost_share() <= 0.001, "{:?}", found.losses);
    assert!((bios_per_operation(&many.configurations[0]) - 1.0).abs() < 0.05);
    if full() {
        let large = run(&Out::new(), "fio-seqwrite", "native");
        check(&large.configurations[0]);
    }
}

/// What cannot be is said in words, by fio or before it.
pub fn where_fio_cannot_work_it_says_why() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Fio) {
        return;
    }
    let before = Traces::now();
    // A file system without direct transfers.
    let folder = tempfile::tempdir().unwrap();
    let none = None::<&str>;
    nix::mount::mount(Some("none"), folder.path(), Some("ramfs"), nix::mount::MsFlags::empty(), none).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(folder.path(), open).unwrap();
    let there = format!("folder={}", folder.path().display());
    let mut command = virtax();
    command.args(["run", "fio-seqread", "--in", "native", "--rounds", "1", "--duration", "0.3", "--set", "size=8"]);
    let refused = command.args(["--set", &there]).arg("--out").arg(Out::new().path()).output().unwrap();
    nix::mount::umount(folder.path()).unwrap();
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Invalid argument"), "{said}");
    assert!(said.contains("direct=off"), "{said}");
    assert_eq!(before, Traces::now());
    // And where there is none.
    let mut without = virtax();
    without.env("PATH", "/nonexistent").args(["run", "fio-seqread", "--in", "native", "--out"]);
    let refused = without.arg(Out::new().path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("no fio"), "{}", text(&refused.stderr));
}
