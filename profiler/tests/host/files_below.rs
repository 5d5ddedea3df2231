//! What lies below or beside a file's operations: the disk under a loop device, the layer that an overlay copies
//! from, write-back.

use std::time::Duration;

use super::files::{count, run};
use crate::common::{Feature, Out, Traces, alone, check, has, of, run_workload, text, virtax};
use profiler::{experiment::store, result::ConfigurationResult};
use profiler_common::Counter;
use workloads::clock::now_ns;

/// Pages that operations left are charged to them when the kernel writes them back, those of other files are not.
pub fn write_back_is_charged_to_whose_file_it_is() {
    const MIB: usize = 1 << 20;
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let out = Out::new();
    let (result, rounds) = std::thread::scope(|scope| {
        // Others' pages are four times as many.
        let others = scope.spawn(|| {
            let foreign = tempfile::tempfile_in("/var/tmp").unwrap();
            let mut rounds = Vec::new();
            while !stop.load(order) && rounds.len() < 200 {
                let began_ns = now_ns();
                std::os::unix::fs::FileExt::write_all_at(&foreign, &vec![7; 64 * MIB], 0).unwrap();
                nix::unistd::sync();
                rounds.push(began_ns..now_ns());
                std::thread::sleep(Duration::from_millis(100));
            }
            rounds
        });
        let result = run(&out, "native", &["kind=write", "direct=off"]);
        stop.store(true, order);
        (result, others.join().unwrap())
    });
    assert_eq!(before, Traces::now());
    let native = of(&result, "native");
    let found = native.write_back.as_ref().expect("pages written back");
    // Each of the rounds above that lies in a recorded phase, or touches it, writes our file back once; so may the
    // kernel by itself, once a phase.
    let (_, repetitions) = store::load(&out.path()).unwrap();
    let phases = repetitions.into_iter().flat_map(|repetition| repetition.phases);
    let most: usize = phases
        .filter(|phase| phase.probes.is_some())
        .map(|phase| {
            let end_ns = phase.open_ns + phase.length_ns;
            1 + rounds.iter().filter(|round| round.start < end_ns && round.end > phase.open_ns).count()
        })
        .sum();
    let (bytes, most) = (native.counters.of(Counter::WriteBackBytes), (most * 17 * MIB) as u64);
    assert!(bytes > MIB as u64 && bytes < most, "{bytes} of at most {most}");
    assert!(found.device_ns_per_op > 0.0 && found.bios_per_op > 0.0, "{found:?}");
    assert_eq!(native.counters.of(Counter::Bios), 0, "they are no operation's own");
    // What is written past the page cache leaves nothing in it.
    let direct = run(&Out::new(), "native", &["kind=write"]);
    assert_eq!(of(&direct, "native").write_back, None);
}

/// What overlayfs copies at a file's first write is an operation of its own kind; later writes know nothing of it.
pub fn first_writes_are_told_apart_from_later_ones() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let (before, overlay) = (Traces::now(), "ns:net=host,fs=overlay");
    let result = run(&Out::new(), &format!("native,{overlay}"), &["kind=first-write", "bytes=65536"]);
    let later = run(&Out::new(), overlay, &["kind=write", "bytes=65536"]);
    let out = Out::new();
    let refused = ["run", "block", "--in", "docker:net=host", "--set", "kind=first-write", "--out"];
    let output = virtax().args(refused).arg(out.path()).output().unwrap();
    let words = text(&output.stderr);
    assert!(output.status.code() == Some(2) && words.contains("ns:fs=overlay"), "{words}");
    assert_eq!(before, Traces::now());
    let [native, first] = [of(&result, "native"), of(&result, overlay)];
    [native, first, of(&later, overlay)].into_iter().for_each(check);
    // Where nothing lies below, it is a call like others. A copy is written out before it gets its name.
    assert!(native.counters.of(Counter::Bios) == 0 && count(native, "enter", "exit") > 0.99, "{:#?}", native.stages);
    assert!((count(first, "enter", "bio") - 1.0).abs() < 0.05, "{:#?}", first.stages);
    assert!(first.latency.mean_ns > 5.0 * native.latency.mean_ns, "{}", first.latency.mean_ns);
    // The second layer is none of later writes': in them is one bio, and no other after it.
    assert!(count(of(&later, overlay), "complete", "bio") < 0.05 && count(first, "complete", "bio") > 0.5);
}

/// A disk below a loop device that is let read only so often: what an operation then takes longer, it waits on the
/// way there.
pub fn what_a_limit_below_a_loop_device_costs_is_its_devices() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    // A disk that is slower in one configuration's turns than in the other's, for reasons of its own, is asked again:
    // the stage that is its alone says so.
    let before = Traces::now();
    let moved = (0..3).map(|_| limit_below_a_loop_device()).take_while(|disks| disks.abs() >= 0.15).collect::<Vec<_>>();
    assert!(moved.len() < 3, "the disk's own time, of what the limit costs: {moved:?}");
    assert_eq!(before, Traces::now());
}

/// Checks where the cost of the limit lies; how much of it is the disk's own time, which should be nothing.
fn limit_below_a_loop_device() -> f64 {
    let base = "ns:net=host,fs=loop";
    let limited = format!("{base}+read-iops=4000");
    // In turns, because the disk's speed changes.
    let arguments = ["--rounds", "4", "--duration", "0.8", "--set", "size=16", "--sample-rate", "0"];
    let configurations = format!("{base},{limited}");
    let result = run_workload("block", &Out::new(), &[&["--in", &configurations], &arguments[..]].concat());
    let [base, limited] = [of(&result, base), of(&result, &limited)];
    check(base);
    assert_eq!(base.settings["filesystem"], "ext4");
    // From the loop device to the disk below and back, each time once.
    let row = |found: &ConfigurationResult, from: (&str, bool), to: (&str, bool)| {
        let is = |place: &profiler::counts::Place, (point, is_loop): (&str, bool)| {
            let device = place.device.as_ref().map_or("", |device| device.label());
            place.point.name() == point && device.starts_with("loop") == is_loop && !device.is_empty()
        };
        let stage = found.stages.iter().find(|stage| is(&stage.from, from) && is(&stage.to, to));
        stage.map(|stage| (stage.count_per_op, stage.ns_per_op)).unwrap_or_default()
    };
    let way =
        [("bio", true), ("issue", true), ("bio", false), ("issue", false), ("complete", false), ("complete", true)];
    for found in [base, limited] {
        for step in way.windows(2) {
            let (count, _) = row(found, step[0], step[1]);
            assert!((count - 1.0).abs() < 0.03, "{step:?}: {count} in {:#?}", found.stages);
        }
    }
    let disk = |found: &ConfigurationResult| row(found, ("issue", false), ("complete", false)).1;
    assert!(disk(base) > 0.3 * base.traced_latency.mean_ns, "{:#?}", base.stages);
    // A bio that has to wait for its group's limit is not yet at the disk.
    let device = |found: &ConfigurationResult| row(found, ("issue", true), ("bio", false)).1;
    // In the same phases as the stages: a disk that got slower between two phases is not what is tested.
    let injected = limited.traced_latency.mean_ns - base.traced_latency.mean_ns;
    // The limit itself: 250 us an operation. Its pieces are a tenth of a second long, some of which the ends of
    // phases cut.
    assert!((0.8..1.25).contains(&(limited.latency.mean_ns / 250_000.0)), "{}", limited.latency.mean_ns);
    let found = (device(limited) - device(base)) / injected;
    let disks = (disk(limited) - disk(base)) / injected;
    assert!((0.85..1.15).contains(&found) || disks.abs() >= 0.15, "{found}");
    disks
}
