//! Operations of files: followed from the call to the disk and back, wherever the file lies.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use crate::common::{
    Feature, Out, Traces, alone, check, full, has, of, run_workload, succeed, text, virtax, wait_until,
};
use profiler::{
    counts::{PhaseKind, Point, Repetition},
    result::{ConfigurationResult, StageResult},
};
use profiler_common::Counter;

/// The smaller the file, the less is there to be written first, and given back to the disk in the end.
const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "0.8", "--set", "size=16"];

pub fn run(out: &Out, configurations: &str, settings: &[&str]) -> profiler::result::RunResult {
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    run_workload("block", out, &[&["--in", configurations], &SHORT[..], &settings].concat())
}

pub fn stage<'a>(configuration: &'a ConfigurationResult, from: &str, to: &str) -> Option<&'a StageResult> {
    configuration.stages.iter().find(|stage| stage.from.point.name() == from && stage.to.point.name() == to)
}

/// How often a stage occurs per operation.
pub fn count(configuration: &ConfigurationResult, from: &str, to: &str) -> f64 {
    stage(configuration, from, to).map_or(0.0, |stage| stage.count_per_op)
}

/// A read past the page cache is one bio; nearly all of its time is the disk's.
pub fn a_direct_read_is_one_bio() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let result = run(&Out::new(), "native", &[]);
    assert_eq!(before, Traces::now());
    let native = of(&result, "native");
    check(native);
    for (from, to) in [("enter", "bio"), ("issue", "complete"), ("complete", "exit"), ("exit", "enter")] {
        let found = count(native, from, to);
        assert!((found - 1.0).abs() < 0.02, "{from} → {to}: {found} in {:#?}", native.stages);
    }
    let disk = stage(native, "issue", "complete").unwrap();
    assert!(disk.ns_per_op > 0.3 * native.traced_latency.mean_ns, "{disk:?}");
    // Detailed phases say what lies between the interrupt and the return.
    let woken: Vec<&str> =
        stage(native, "complete", "exit").unwrap().parts.iter().map(|part| part.to.point.name()).collect();
    assert!(woken.contains(&"wakeup") && woken.last() == Some(&"exit"), "{woken:?}");
    let bios = native.counters.of(Counter::Bios) as f64 / native.losses.followed as f64;
    assert!((bios - 1.0).abs() < 0.02, "{bios}");
    // Untyped tracepoints see the same.
    let untyped = run_workload("block", &Out::new(), &[&["--in", "native", "--probes", "raw_tp"], &SHORT[..]].concat());
    let untyped = of(&untyped, "native");
    check(untyped);
    let ids = |found: &ConfigurationResult| {
        let regular = found.stages.iter().filter(|stage| stage.count_per_op > 0.5);
        regular.map(|stage| stage.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(native), ids(untyped));
}

/// What is written into the page cache does no input or output; what syncs it does, and waits for the disk's own cache.
pub fn writes_and_their_syncs() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = run(&Out::new(), "native", &["kind=write", "direct=off", "sync-every=1"]);
    let native = of(&result, "native");
    check(native);
    // One operation in two is a sync.
    let (writes, syncs) = (count(native, "enter", "exit"), count(native, "enter", "bio"));
    assert!((writes - 0.5).abs() < 0.05 && (syncs - 0.5).abs() < 0.05, "{writes} and {syncs}");
    assert!(count(native, "complete", "exit") > 0.4, "{:#?}", native.stages);
    // Who waits for the disk is woken in the row that it ends; nobody wakes who wrote into memory.
    let has_wait = |from| stage(native, from, "exit").unwrap().parts.iter().any(|part| part.to.point == Point::Wakeup);
    assert!(has_wait("complete") && !has_wait("enter"), "{:#?}", native.stages);
}

/// Large operations have many bios, of which some are too large for their disk: the call ends with the last of them.
pub fn large_operations_end_with_their_last_bio() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    for settings in [["bytes=4194304", "direct=on"], ["bytes=4194304", "direct=off"]] {
        let result = run(&Out::new(), "native", &[&settings[..], &["kind=write", "sync-every=1"]].concat());
        let native = of(&result, "native");
        assert_eq!(native.losses.lost.values().sum::<u64>(), 0, "{:?}", native.losses);
        assert!(native.conservation_percent.abs() <= 0.5, "{}", native.conservation_percent);
        assert!(native.counters.of(Counter::Bios) > native.losses.followed / 2, "{:?}", native.counters);
        assert_eq!(native.counters.of(Counter::BioTable), 0);
        // Woken by the last bio: what is left then is short.
        let rest = stage(native, "complete", "exit").map_or(0.0, |stage| stage.ns_per_op);
        assert!(rest < 0.1 * native.traced_latency.mean_ns, "{settings:?}: {rest} ns after it: {:#?}", native.stages);
    }
}

/// Threads wait for one another, each with an operation of its own.
pub fn many_threads_have_an_operation_each() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = run(&Out::new(), "native", &["threads=16", "kind=mixed", "sync-every=8"]);
    check(of(&result, "native"));
}

/// The file lies where each configuration says, and operations on memory have no bio.
pub fn files_lie_where_configurations_say() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let all = "native,ns:net=own,fs=bind,ns:net=own,fs=overlay,docker:net=host,docker:net=host,fs=volume,docker:net=host,fs=tmpfs";
    let result = run(&Out::new(), all, &[]);
    assert_eq!(before, Traces::now());
    let system = |configuration: &ConfigurationResult| configuration.settings["filesystem"].clone();
    let [native, bind, overlay, layer, volume, memory] = &result.configurations[..] else {
        panic!("{}", result.configurations.len())
    };
    for configuration in [native, bind, overlay, layer, volume] {
        check(configuration);
        assert!(count(configuration, "issue", "complete") > 0.9, "{}: {:#?}", configuration.name, configuration.stages);
    }
    check(memory);
    assert_eq!(system(native), system(bind));
    assert_eq!([system(overlay), system(layer), system(memory)], ["overlay", "overlay", "tmpfs"]);
    assert_ne!(system(volume), "overlay");
    assert_eq!(memory.counters.of(Counter::Bios), 0);
    assert!((count(memory, "enter", "exit") - 1.0).abs() < 0.02, "{:#?}", memory.stages);
}

/// The kernel's own record of bios and requests, by its own clock.
struct Trace {
    folder: tempfile::TempDir,
}

impl Trace {
    const EVENTS: [&str; 3] = ["block_bio_queue", "block_rq_issue", "block_rq_complete"];

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let none = None::<&str>;
        nix::mount::mount(Some("none"), folder.path(), Some("tracefs"), nix::mount::MsFlags::empty(), none).unwrap();
        let trace = Self { folder };
        fs::create_dir(trace.instance()).unwrap();
        let events = Self::EVENTS.map(|event| (format!("events/block/{event}/enable"), "1"));
        let settings = [("trace_clock".to_owned(), "mono"), ("buffer_size_kb".to_owned(), "65536")];
        for (file, value) in settings.into_iter().chain(events) {
            fs::write(trace.instance().join(file), value).unwrap();
        }
        trace
    }
    fn instance(&self) -> std::path::PathBuf {
        self.folder.path().join("instances/virtax-test")
    }
    /// Times at which the server's threads queued bios, and from issue to completion of the requests that they
    /// issued, ns.
    fn read(&self) -> (Vec<u64>, Vec<(u64, u64)>) {
        fs::write(self.instance().join("tracing_on"), "0").unwrap();
        let recorded = fs::read_to_string(self.instance().join("trace")).unwrap();
        let (mut queued, mut issued, mut done) = (Vec::new(), BTreeMap::new(), Vec::new());
        for line in recorded.lines().filter(|line| !line.starts_with('#')) {
            let Some((head, event)) = line.split_once(": block_") else { continue };
            let at_ns = (head.rsplit(' ').next().unwrap().parse::<f64>().unwrap() * 1e9).round() as u64;
            let words: Vec<&str> = event.split_whitespace().collect();
            // `bio_queue: 254,0 R SECTOR + COUNT [COMMAND]`, `rq_issue: 254,0 R BYTES () SECTOR + COUNT …`,
            // `rq_complete: 254,0 R () SECTOR …`
            match words[0] {
                "bio_queue:" if event.contains("[virtax-workload") => queued.push(at_ns),
                "rq_issue:" if event.contains("[virtax-workload") => drop(issued.insert(words[5].to_owned(), at_ns)),
                "rq_complete:" => {
                    if let Some(since_ns) = issued.remove(words[4]) {
                        done.push((since_ns, at_ns));
                    }
                }
                _ => {}
            }
        }
        (queued, done)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for event in Self::EVENTS {
            let _ = fs::write(self.instance().join(format!("events/block/{event}/enable")), "0");
        }
        let _ = fs::remove_dir(self.instance());
        let _ = nix::mount::umount(self.folder.path());
    }
}

/// Each bio is counted that the kernel records, and the disk's time is what lies between its own records of issue and
/// completion.
pub fn bios_are_those_that_the_kernel_records() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let all = [&[][..], &["engine=libaio", "depth=8"], &["engine=io-uring", "depth=8"]];
    all[..if full() { 3 } else { 2 }].iter().for_each(|settings| compare_with_kernel(settings));
}

fn compare_with_kernel(settings: &[&str]) {
    let (trace, out) = (Trace::start(), Out::new());
    run(&out, "native", settings);
    let (queued, done) = trace.read();
    drop(trace);
    let repetitions = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    let repetitions = repetitions.lines().map(|line| serde_json::from_str::<Repetition>(line).unwrap());
    let mut compared = 0;
    for phase in repetitions.flat_map(|repetition| repetition.phases) {
        if phase.kind != PhaseKind::Traced {
            continue;
        }
        let within = phase.open_ns..phase.open_ns + phase.length_ns;
        let probes = phase.probes.unwrap();
        let (ours, theirs) =
            (probes.counters.of(Counter::Bios), queued.iter().filter(|at| within.contains(at)).count() as u64);
        // The text's times are rounded to a microsecond.
        assert!(ours.abs_diff(theirs) <= 2 && ours > 20, "{ours} bios, by the kernel {theirs}");
        let disk = probes
            .stages
            .iter()
            .find(|stage| stage.from.point == Point::Issue && stage.to.point == Point::Complete)
            .unwrap();
        let clipped = |(since, until): &(u64, u64)| until.min(&within.end).saturating_sub(*since.max(&within.start));
        let theirs_ns: u64 = done.iter().map(clipped).sum();
        let apart = disk.total_ns as f64 / theirs_ns as f64 - 1.0;
        assert!(apart.abs() < 0.05, "{} ns, by the kernel {theirs_ns}", disk.total_ns);
        compared += 1;
    }
    assert!(compared >= 2, "{compared} phases");
}

/// However many of a thread's are under way: each has a beginning, bios and an end of its own, and with several
/// threads none is taken for another's.
pub fn asynchronous_operations_are_each_followed() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let all = [
        ["engine=io-uring", "kind=read", "threads=1", "depth=1"],
        ["engine=io-uring", "kind=mixed", "threads=1", "depth=8"],
        ["engine=libaio", "kind=read", "threads=2", "depth=16"],
    ];
    for settings in all {
        let result = run(&Out::new(), "native", &settings);
        let native = of(&result, "native");
        check(native);
        for (from, to) in [("issue", "complete"), ("complete", "exit"), ("exit", "enter")] {
            let found = count(native, from, to);
            assert!((found - 1.0).abs() < 0.05, "{settings:?}: {from} → {to}: {found}");
        }
        assert_eq!(native.counters.of(Counter::AtOnceMany), 0);
        // A bio that was given to another operation of its call is done after that one, as often as not. A few writes
        // are left to workers: those that are to set the file's time.
        let share = |counter| native.counters.of(counter) as f64 / native.losses.followed as f64;
        assert!(
            share(Counter::BiosLater) < 0.01 && share(Counter::ByWorkers) < 0.05,
            "{settings:?}: {:?}",
            native.counters
        );
    }
    // Without a tracepoint's types, too.
    let untyped = ["--in", "native", "--probes", "raw_tp", "--set", "engine=libaio", "--set", "depth=8"];
    check(of(&run_workload("block", &Out::new(), &[&untyped, &SHORT[..]].concat()), "native"));
}

/// File systems that cannot promise not to wait leave operations to io_uring's workers: they are followed into these.
/// What these do through the page cache is not told apart, and that is said.
pub fn operations_are_followed_into_workers() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let result = run(&Out::new(), "ns:net=own,fs=overlay", &["engine=io-uring", "depth=4"]);
    assert_eq!(before, Traces::now());
    let overlay = &result.configurations[0];
    check(overlay);
    for (from, to) in [("enter", "bio"), ("bio", "issue"), ("issue", "complete"), ("complete", "exit")] {
        assert!((count(overlay, from, to) - 1.0).abs() < 0.05, "{from} → {to}: {:#?}", overlay.stages);
    }
    assert!(overlay.counters.of(Counter::ByWorkers) as f64 > 0.9 * overlay.losses.followed as f64);
    let is_said =
        |result: &profiler::result::RunResult| result.warnings.iter().any(|warning| warning.name == "io-workers");
    assert!(!is_said(&result), "{:?}", result.warnings);
    // A worker that slept has to be woken.
    let begin =
        overlay.stages.iter().find(|stage| stage.from.point == Point::Enter && stage.to.point == Point::Bio).unwrap();
    let running =
        begin.parts.iter().filter(|part| part.from.point == Point::Enter && part.to.point == Point::IoRunning);
    let running: f64 = running.map(|part| part.count_per_op).sum();
    assert!((0.05..1.05).contains(&running), "{running}: {:#?}", begin.parts);

    let cached = run(&Out::new(), "native", &["engine=io-uring", "kind=write", "direct=off"]);
    let native = of(&cached, "native");
    check(native);
    assert!(native.counters.of(Counter::InWorkers) == 0 && is_said(&cached), "{:?}", native.counters);
}

/// On the layers of a container, and on memory, where operations are done before their submission returns.
pub fn asynchronous_operations_in_containers() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let result = run(&Out::new(), "docker:net=host,docker:net=host,fs=tmpfs", &["engine=libaio", "depth=4"]);
    result.configurations.iter().for_each(check);
    assert_eq!(before, Traces::now());
    let [layer, memory] = &result.configurations[..] else { panic!("{}", result.configurations.len()) };
    assert!(count(layer, "issue", "complete") > 0.9 && memory.counters.of(Counter::Bios) == 0);
    assert!((count(memory, "enter", "exit") - 1.0).abs() < 0.02, "{:#?}", memory.stages);
}

/// What cannot be is said, with the place; and nothing stays.
pub fn files_that_cannot_be_are_explained() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let small = tempfile::tempdir().unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), small.path(), Some("tmpfs"), none, Some("size=2m,mode=1777")).unwrap();
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let said_in = |configuration: &str, folder: &Path| {
        let mut command = virtax();
        command.args(["run", "block", "--in", configuration, "--rounds", "1", "--duration", "0.5", "--out"]);
        let output = command.arg(Out::new().path()).arg("--set").arg(format!("folder={}", folder.display())).output();
        let output = output.unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let said = |folder: &Path| said_in("native", folder);
    let (code, words) = said(small.path());
    let left = fs::read_dir(small.path()).unwrap().count();
    nix::mount::umount(small.path()).unwrap();
    assert!(code == Some(5) && words.contains("cannot fill a file in") && words.contains("No space left"), "{words}");
    assert_eq!(left, 0);
    // A file system that may only be read.
    nix::mount::mount(Some("none"), small.path(), Some("tmpfs"), nix::mount::MsFlags::MS_RDONLY, Some("size=2m"))
        .unwrap();
    let (code, words) = said(small.path());
    nix::mount::umount(small.path()).unwrap();
    assert!(code == Some(5) && words.contains("cannot make a file in") && words.contains("Read-only"), "{words}");
    let (code, words) = said(closed.path());
    assert!(
        code == Some(5) && words.contains("cannot make a file in") && words.contains("Permission denied"),
        "{words}"
    );
    let (code, words) = said(Path::new("/nonexistent"));
    assert!(code == Some(5) && words.contains("cannot make a file in /nonexistent"), "{words}");
    for configuration in ["ns:net=own,fs=bind", "ns:net=own,fs=overlay"] {
        let (code, words) = said_in(configuration, Path::new("/nonexistent"));
        assert!(code == Some(2) && words.contains("`folder=/nonexistent` is no folder"), "{words}");
    }
    let marked = tempfile::Builder::new().prefix("a,b").tempdir().unwrap();
    let (code, words) = said_in("ns:net=own,fs=overlay", marked.path());
    assert!(code == Some(2) && words.contains("cannot be an overlay's"), "{words}");
    let (code, words) = said(Path::new("/proc"));
    assert!(code == Some(5) && words.contains("cannot make a file in /proc"), "{words}");
    assert_eq!(before, Traces::now());
}

/// An overlay's layers lie on the disk that was asked for, and go after a kill as well.
pub fn a_killed_run_leaves_no_layer() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let layers = || {
        let found = fs::read_dir("/var/tmp").unwrap().flatten();
        found.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtax-")).count()
    };
    let there = layers();
    let out = Out::new();
    let mut command = virtax();
    command.args(["run", "block", "--in", "ns:net=own,fs=overlay", "--rounds", "50", "--out"]).arg(out.path());
    let mut run = command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_until("the layer", || layers() > there);
    std::thread::sleep(Duration::from_millis(300));
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(layers() > there);
    let mut clean = virtax();
    clean.arg("clean");
    succeed(clean);
    assert_eq!(layers(), there);
    assert_eq!(before, Traces::now());
}
