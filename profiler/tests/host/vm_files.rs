//! Operations of files in VMs: through the guest's kernel, QEMU and the host's disk.

use crate::common::{Feature, Out, Traces, alone, check, has, is_wanted_in_full, run_workload, text, virtax};
use profiler::{counts::Point, result::ConfigurationResult};

const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "1", "--set", "size=16"];

fn run(workload: &str, configurations: &str, more: &[&str]) -> profiler::result::RunResult {
    run_workload(workload, &Out::new(), &[&["--in", configurations], &SHORT[..], more].concat())
}

/// How often a stage occurs per operation, and its share of the latency.
fn stage(configuration: &ConfigurationResult, id: &str) -> (f64, f64) {
    let found = configuration.stages.iter().find(|stage| stage.id == id);
    found.map_or((0.0, 0.0), |stage| (stage.count_per_op, stage.ns_per_op / configuration.traced_latency.mean_ns))
}

/// An operation passes the guest's file system and block layer, QEMU, and the host's: each of the guest's is one of
/// QEMU's, and all of them sum to what the guest's program says.
fn check_whole_way(vm: &ConfigurationResult, disk: &str) {
    check(vm);
    let at = |point: &str| format!("{point}({disk}@guest)");
    for (from, to) in [("enter".to_owned(), at("bio")), (at("bio"), at("issue")), (at("issue"), at("complete"))] {
        let (count, share) = stage(vm, &format!("request/{from}→{to}"));
        assert!((count - 1.0).abs() < 0.05 && share > 0.0, "{from} → {to}: {count} {:#?}", vm.stages);
    }
    let host: Vec<_> = vm.stages.iter().filter(|stage| stage.id.starts_with("request/vmm/")).collect();
    let of_disk = host.iter().find(|stage| stage.from.point == Point::Issue && stage.to.point == Point::Complete);
    let of_disk = of_disk.unwrap_or_else(|| panic!("{:#?}", vm.stages));
    assert!((of_disk.count_per_op - 1.0).abs() < 0.1, "{of_disk:?}");
    assert!(!of_disk.from.is_in_guest(), "{of_disk:?}");
    assert_eq!(vm.settings["filesystem"], "ext4");
    assert!(vm.settings["device"].starts_with("an image on "), "{:?}", vm.settings);
}

/// What lies between the guest's operation and QEMU's is divided by who wakes whom: QEMU's I/O thread, which wakes a
/// worker, and what is left of the row. An emulated processor that is awake is told without anybody seeing it, so the
/// way back is known of some only.
fn check_boundary(vm: &ConfigurationResult) {
    let row = vm.stages.iter().find(|stage| stage.id == "request/issue(vda@guest)→complete(vda@guest)").unwrap();
    let part = |from: &str, to: &str| {
        let found = row.parts.iter().find(|part| part.from.point.name() == from && part.to.point.name() == to);
        found.unwrap_or_else(|| panic!("{from} → {to}: {:#?}", row.parts))
    };
    for (from, to, times) in
        [("io-waking", "io-running", 2.0), ("io-running", "io-waking", 1.0), ("io-running", "enter", 1.0)]
    {
        let found = part(from, to);
        assert!((0.7 * times..1.1 * times).contains(&found.count_per_op) && found.ns_per_op > 0.0, "{found:?}");
        assert!(found.label.contains("QEMU"), "{found:?}");
    }
    for (from, to) in [("back-waking", "back-running"), ("back-running", "injected"), ("injected", "vcpu-running")] {
        assert!(part(from, to).ns_per_op > 0.0, "{:#?}", row.parts);
    }
    let rest = part("entered", "complete");
    assert!((0.02..0.95).contains(&rest.share), "{:#?}", row.parts);
}

pub fn an_operation_passes_guest_and_host() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Vm) {
        return;
    }
    let before = Traces::now();
    let result = run("block", "tcg:blk=virtio", &[]);
    assert_eq!(before, Traces::now());
    check_whole_way(&result.configurations[0], "vda");
    check_boundary(&result.configurations[0]);
}

/// However QEMU gets at its image.
pub fn every_kind_of_disk_is_followed() {
    let _alone = alone();
    if !is_wanted_in_full() || !has(Feature::Probes) || !has(Feature::Vm) {
        return;
    }
    let before = Traces::now();
    for vm in [
        "blk=virtio,aio=io_uring",
        "blk=virtio,aio=native",
        "blk=virtio,image=qcow2",
        "machine=microvm,blk=virtio",
        "blk=virtio,cache=directsync",
    ] {
        let result = run("block", &format!("tcg:{vm}"), &[]);
        check_whole_way(&result.configurations[0], "vda");
        if vm.contains("aio=") {
            check_steps(&result.configurations[0]);
        }
    }
    check_whole_way(&run("block", "tcg:blk=nvme", &[]).configurations[0], "nvme0n1");
    // What QEMU keeps in the host's memory never comes to its disk.
    let kept = run("block", "tcg:blk=virtio,cache=writeback", &[]);
    check(&kept.configurations[0]);
    assert!(stage(&kept.configurations[0], "request/vmm/enter→exit").0 > 0.9);
    // Several at once.
    let many = run("block", "tcg:blk=virtio", &["--set", "engine=libaio", "--set", "depth=4"]);
    check(&many.configurations[0]);
    assert_eq!(before, Traces::now());
}

/// However QEMU makes its operations, its I/O thread is woken for most, and the steps add up to their row.
fn check_steps(found: &ConfigurationResult) {
    let row = found.stages.iter().find(|stage| stage.id == "request/issue(vda@guest)→complete(vda@guest)").unwrap();
    let of = |from: &str, to: &str| {
        let parts = row.parts.iter().filter(|part| part.from.point.name() == from && part.to.point.name() == to);
        parts.map(|part| part.count_per_op).sum::<f64>()
    };
    for (from, to) in [("io-waking", "io-running"), ("io-running", "enter"), ("entered", "complete")] {
        assert!((0.5..1.1).contains(&of(from, to)), "{from} → {to}: {:#?}", row.parts);
    }
    let shares: f64 = row.parts.iter().map(|part| part.share).sum();
    assert!((shares - 1.0).abs() < 0.02, "{shares}: {:#?}", row.parts);
}

pub fn a_vm_without_a_disk_or_without_eyes_is_refused() {
    for (vm, word) in
        [("tcg", "blk=virtio"), ("tcg:blk=virtio,agent=off", "agent=on"), ("tcg:blk=virtio,net=user", "net=tap")]
    {
        let output = virtax().args(["run", "block", "--in", vm, "--out"]).arg(Out::new().path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{vm}");
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
}
