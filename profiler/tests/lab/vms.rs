//! VMs: exits, steps of requests and of operations on disks, by the probes, by the kernel's own record,
//! and by perf.

use std::{collections::BTreeMap, fs};

use profiler::{
    counts::{PhaseKind, Point, Repetition, Side, VcpuState},
    histogram::Histogram,
    result::ConfigurationResult,
};

use crate::{
    SHORT,
    common::{Out, Traces, alone, check, is_wanted_in_full, of, run_workload, text, virtax},
    only_in_lab,
    record::{Exits, Perf, Trace, parse_notifications},
};

/// Exits by reason: count, ns.
type Reasons = BTreeMap<String, (u64, u64)>;

/// Beginning and end of the detailed phases of a run, and exits in each.
fn detailed(out: &Out) -> Vec<(u64, u64, Reasons)> {
    let text = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    let repetitions = text.lines().map(|line| serde_json::from_str::<Repetition>(line).unwrap());
    let mut found = Vec::new();
    for phase in repetitions.flat_map(|repetition| repetition.phases) {
        if phase.kind != PhaseKind::Detailed {
            continue;
        }
        let mut reasons = Reasons::new();
        for total in phase.probes.iter().flat_map(|probes| &probes.vcpus) {
            if total.state == VcpuState::Exit && !total.holding {
                reasons.insert(total.reason.clone(), (total.count, total.total_ns));
            }
        }
        found.push((phase.open_ns, phase.open_ns + phase.length_ns, reasons));
    }
    found
}

/// Whether two accounts of the same agree; if not, in which way.
type Agreement = Result<(), String>;

fn agree(they_do: bool, otherwise: impl FnOnce() -> String) -> Agreement {
    if they_do { Ok(()) } else { Err(otherwise()) }
}

/// Makes a run that is compared with another account of it, and again if they do not agree, at most three times: the
/// emulated processor loses its own to other processes of the host, between the two accounts of an event, too, and
/// nothing in the lab shows that. What is counted wrongly is so each time.
fn agrees_in_one_of_three(mut run_and_compare: impl FnMut() -> Agreement) {
    let mut found = Vec::new();
    for _ in 0..3 {
        match run_and_compare() {
            Ok(()) => return,
            Err(how) => {
                println!("measured again: {how}");
                found.push(how);
            }
        }
    }
    panic!("{found:#?}");
}

/// A virtual processor's time has no gaps, and its exits have the kernel's names.
fn check_vcpus(configuration: &ConfigurationResult) {
    assert_eq!(configuration.vcpus.len(), 1, "{:?}", configuration.vcpus);
    for vcpu in &configuration.vcpus {
        assert!(vcpu.deviation_percent.abs() <= 1.0, "{vcpu:?}");
        assert!(vcpu.times.guest_ns_per_op > 0.0 && vcpu.times.kernel_ns_per_op > 0.0, "{vcpu:?}");
    }
    let reasons: Vec<&str> = configuration.exits.iter().map(|exit| exit.reason.as_str()).collect();
    assert!(reasons.contains(&"npf") && reasons.contains(&"msr"), "{reasons:?}");
    for exit in &configuration.exits {
        let parts = exit.kernel_ns_per_op
            + exit.user_ns_per_op
            + exit.scheduled_out_ns_per_op
            + exit.blocked_ns_per_op
            + exit.polled_ns_per_op;
        // What crosses an end of a phase is in the parts only.
        assert!(exit.ns_per_op <= 1.05 * parts + 1.0, "{exit:?}");
    }
}

/// What the processor did while the VM held a request, with one request at a time and one virtual processor, is
/// the VM's stage.
fn check_holding(out: &Out) -> Agreement {
    let text = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    let repetitions = text.lines().map(|line| serde_json::from_str::<Repetition>(line).unwrap());
    let (mut holding_ns, mut vm_ns, mut unfinished_ns, mut crossing_ns) = (0, 0, 0, 0.0);
    for phase in repetitions.flat_map(|repetition| repetition.phases) {
        if phase.kind != PhaseKind::Detailed {
            continue;
        }
        if let Some(probes) = &phase.probes {
            let held = probes.vcpus.iter().filter(|total| total.holding);
            holding_ns += held.map(|total| total.total_ns).sum::<u64>();
            let mut durations = Histogram::default();
            for stage in probes.stages.iter().filter(|stage| stage.from.point == Point::Taken && !stage.part) {
                vm_ns += stage.total_ns;
                durations.add(&stage.buckets);
            }
            // What holds is counted within the phase, and stages by where their request begins: one of them crosses
            // an end of the phase.
            crossing_ns += durations.quantile_ns(1.0).unwrap_or(0.0);
            // What the VM still holds at a phase's end is in no stage: milliseconds, where the emulated
            // processor lost its CPU.
            unfinished_ns += probes.unfinished_ns;
        }
    }
    let least = 0.97 * vm_ns as f64 - crossing_ns;
    let most = 1.03 * (vm_ns + unfinished_ns) as f64 + crossing_ns;
    let words = format!(
        "{holding_ns} ns holding, {vm_ns} ns in the VM, {unfinished_ns} ns unfinished, {crossing_ns} ns crossing"
    );
    assert!(vm_ns > 0, "{words}");
    agree(crossing_ns < 0.2 * vm_ns as f64 && (least..most).contains(&(holding_ns as f64)), || words)
}

/// ns per operation of a part of the time that the VM holds a request.
fn step(configuration: &ConfigurationResult, from: &str, to: &str) -> f64 {
    let vm = configuration.stages.iter().find(|stage| stage.id == "request/taken→receive(tap@host)").unwrap();
    let found = vm.parts.iter().find(|part| part.from.point.name() == from && part.to.point.name() == to);
    found.unwrap_or_else(|| panic!("{from} → {to}: {:?}", vm.parts)).ns_per_op
}

/// The way of a request from its VM to the guest and back: the steps are there, nearly every request takes them,
/// and they sum to the stage.
fn check_steps(configuration: &ConfigurationResult) {
    let vm = configuration.stages.iter().find(|stage| stage.id == "request/taken→receive(tap@host)").unwrap();
    for point in ["injected", "entered", "notified"] {
        let came = vm.parts.iter().filter(|part| part.to.point.name() == point).map(|part| part.count_per_op);
        let (came, seen) = (came.sum::<f64>(), &vm.parts);
        assert!((0.75..1.1).contains(&came), "{point}: {came} of {seen:?}");
    }
    assert!(step(configuration, "taken", "injected") > 0.0 && step(configuration, "entered", "notified") > 0.0);
    // The exit that notifies the VM lies outside of the guest's residence; what the guest does for the request,
    // inside.
    let notifying = configuration.exits.iter().find(|exit| exit.reason == "npf").unwrap();
    assert!(notifying.inside_ns_per_op < 0.25 * notifying.holding_ns_per_op, "{notifying:?}");
    assert!(configuration.exits.iter().any(|exit| exit.inside_per_op > 0.1), "{:?}", configuration.exits);
}

/// The steps that were counted make up the stage, but for requests that had none.
fn check_step_sum(out: &Out) {
    let text = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    let repetitions = text.lines().map(|line| serde_json::from_str::<Repetition>(line).unwrap());
    let (mut steps_ns, mut vm_ns) = (0, 0);
    for probes in repetitions.flat_map(|repetition| repetition.phases).filter_map(|phase| phase.probes) {
        let steps = ["taken", "injected", "vcpu-running", "entered", "notified"];
        let of_vm = |part: bool| {
            let found = probes.stages.iter().filter(move |stage| stage.part == part);
            let found = found.filter(move |stage| steps[..if part { 5 } else { 1 }].contains(&stage.from.point.name()));
            found.map(|stage| stage.total_ns).sum::<u64>()
        };
        if of_vm(true) > 0 {
            steps_ns += of_vm(true);
            vm_ns += of_vm(false);
        }
    }
    let share = steps_ns as f64 / vm_ns as f64;
    assert!((0.7..1.02).contains(&share), "{steps_ns} ns in steps, {vm_ns} ns in the VM");
}

/// Counts of a run's detailed phases are the kernel's; times agree.
fn compare(out: &Out, exits: &Exits) -> Agreement {
    // Between the kernel's record and the probe lie some microseconds (see `between`), and times in its text are
    // rounded: what ends that near an end may lie on either side.
    let slack = 12_000;
    // Between the two clocks lie the kernel's record and the probe at either end: some microseconds on this processor.
    let between = |ns: u64, count: u64| 0.05 * ns as f64 + 10_000.0 * count as f64;
    let phases: Vec<_> = detailed(out).into_iter().filter(|(.., reasons)| !reasons.is_empty()).collect();
    assert!(!phases.is_empty());
    let (mut seen, mut ours_ns, mut kernels_ns) = (0, 0, 0);
    for (open_ns, close_ns, reasons) in phases {
        // The emulated processor itself may lose its own to another process, in the midst of the two: for as long as
        // a scheduler's slice, which then is the record's alone.
        let (mut slices, slice_ns) = (1, 10_000_000.0);
        for (reason, (count, total_ns)) in reasons {
            seen += count;
            ours_ns += total_ns;
            let within = |slack: i64| {
                let (open_ns, close_ns) =
                    (open_ns.saturating_add_signed(-slack), close_ns.saturating_add_signed(slack));
                exits.iter().filter(|(found, _, to)| *found == reason && (open_ns..close_ns).contains(to)).count()
                    as u64
            };
            agree((within(-slack)..=within(slack)).contains(&count), || {
                format!("{reason}: {count}, by the kernel {}", within(0))
            })?;
            let theirs_ns: u64 = exits
                .iter()
                .filter(|(found, ..)| *found == reason)
                .map(|(_, from, to)| to.min(&close_ns).saturating_sub(*from.max(&open_ns)))
                .sum();
            kernels_ns += theirs_ns;
            // Once in a while, an interrupt falls between the two.
            let interrupted_ns = 500_000.0;
            let mut over_ns = total_ns.abs_diff(theirs_ns) as f64 - between(total_ns, count) - interrupted_ns;
            if over_ns > 0.0 && slices > 0 && total_ns < theirs_ns {
                slices -= 1;
                over_ns -= slice_ns;
            }
            agree(over_ns <= 0.0, || format!("{reason}: {total_ns} ns, by the kernel {theirs_ns}"))?;
        }
    }
    let apart_ns = ours_ns.abs_diff(kernels_ns) as f64;
    assert!(seen > 100, "{seen} exits");
    agree(apart_ns <= between(ours_ns, seen), || format!("{ours_ns} ns, by the kernel {kernels_ns}"))
}

/// What `perf kvm stat` counted from power on to off is what stands in the kernel's record, so that what is compared
/// with the latter phase by phase is compared with perf, which cannot be asked for a phase.
fn compare_perf(by_perf: &BTreeMap<String, (u64, f64)>, exits: &Exits) {
    let mut by_kernel = BTreeMap::<String, (u64, f64)>::new();
    for (reason, from, to) in exits {
        let (count, total_ns) = by_kernel.entry(reason.clone()).or_default();
        *count += 1;
        *total_ns += (to - from) as f64;
    }
    let counts = |of: &BTreeMap<String, (u64, f64)>| -> BTreeMap<String, u64> {
        of.iter().map(|(reason, (count, _))| (reason.clone(), *count)).collect()
    };
    assert_eq!(counts(by_perf), counts(&by_kernel));
    let sum = |of: &BTreeMap<String, (u64, f64)>| of.values().map(|(_, total_ns)| total_ns).sum::<f64>();
    let (theirs_ns, ours_ns) = (sum(by_perf), sum(&by_kernel));
    assert!((theirs_ns / ours_ns - 1.0).abs() < 0.05, "{theirs_ns} ns by perf, {ours_ns} ns by the kernel's record");
}

pub fn exits_are_those_that_the_kernel_records() {
    let _alone = alone();
    only_in_lab();
    agrees_in_one_of_three(|| {
        let before = Traces::now();
        let (trace, out) = (Trace::start(), Out::new());
        // Two rounds: the second begins with what the first left in the tables.
        let arguments = ["--rounds", "2", "--duration", "1.2", "--placement", "free"];
        let machine = "kvm:machine=microvm,agent=off";
        let result = run_workload("tcp-rr", &out, &[&["--in", machine], &arguments[..]].concat());
        let exits = trace.exits();
        drop(trace);
        assert_eq!(before, Traces::now());
        result.configurations.iter().for_each(check);
        let kvm = of(&result, "kvm:net=tap,machine=microvm,agent=off");
        check_vcpus(kvm);
        let vm = kvm.stages.iter().find(|stage| stage.id == "request/taken→receive(tap@host)").unwrap();
        assert!(vm.ns_per_op > 0.5 * kvm.traced_latency.mean_ns, "{vm:?}");
        // And shown.
        let report = text(&virtax().arg("report").arg(out.path()).output().unwrap().stdout);
        for words in ["virtual CPU, detailed phases", "exits by reason", "vCPU 0 npf"] {
            assert!(report.contains(words), "{report}");
        }
        check_holding(&out)?;
        compare(&out, &exits)
    });
}

/// One of the longer tests: perf's record of each exit since power on is large.
pub fn exits_are_those_that_perf_counts() {
    let _alone = alone();
    only_in_lab();
    if !is_wanted_in_full() {
        return;
    }
    agrees_in_one_of_three(|| {
        let (perf, trace, out) = (Perf::start(), Trace::start(), Out::new());
        let arguments =
            ["--rounds", "1", "--duration", "4", "--placement", "free", "--in", "kvm:machine=microvm,agent=off"];
        let result = run_workload("tcp-rr", &out, &arguments);
        let (exits, by_perf) = (trace.exits(), perf.report());
        check_vcpus(&result.configurations[0]);
        compare_perf(&by_perf, &exits);
        compare(&out, &exits)
    });
}

/// What a role's threads ran, ns per operation.
fn cpu_of(configuration: &ConfigurationResult, role: &str) -> f64 {
    configuration.cpu_times.iter().find(|time| time.role == role).map_or(0.0, |time| time.running_ns_per_op)
}

/// Packets are moved by a worker of the kernel's, or by QEMU: each is on the VM's bill.
pub fn with_vhost_the_kernel_moves_packets_and_without_it_qemu() {
    let _alone = alone();
    only_in_lab();
    let [with, without] = ["kvm:vhost=on,agent=off", "kvm:agent=off"];
    let out = Out::new();
    let result = run_workload("tcp-rr", &out, &[&["--in", &format!("{with},{without}")], &SHORT[..]].concat());
    check_step_sum(&out);
    result.configurations.iter().for_each(check);
    let [with, without] = &result.configurations[..] else { panic!("{}", result.configurations.len()) };
    assert!(cpu_of(with, "vCPU") > 0.0 && cpu_of(without, "vCPU") > 0.0);
    // QEMU has other things to do, which on a slow host weigh more per operation.
    let moves = cpu_of(with, "vhost") / (cpu_of(with, "vhost") + cpu_of(with, "VMM"));
    assert!(moves > 0.25, "{:?}", with.cpu_times);
    assert!(cpu_of(without, "vhost") == 0.0 && cpu_of(without, "VMM") > 0.0, "{:?}", without.cpu_times);
    check_steps(with);
    check_steps(without);
    // They move the same packets to the same guest and back; the worker does it in less time.
    let around = |vm| step(vm, "taken", "injected") + step(vm, "notified", "receive");
    assert!(around(with) < around(without), "{} and {} ns", around(with), around(without));
}

/// What lies between a guest's operation on its disk and QEMU's own, and back: every step of nearly every operation,
/// in as much time as there is, and the first as often and as long as in the kernel's record.
pub fn the_way_to_a_guests_disk_and_back_is_divided() {
    let _alone = alone();
    only_in_lab();
    let before = Traces::now();
    let (trace, out) = (Trace::of(&["kvm/kvm_exit", "sched/sched_waking"]), Out::new());
    let disk =
        ["--in", "kvm:blk=virtio,cache=writeback", "--set", "folder=/tmp", "--set", "size=16", "--sample-rate", "0"];
    let result = run_workload("block", &out, &[&disk[..], &SHORT[..]].concat());
    let notifications = parse_notifications(&trace.text());
    drop(trace);
    assert_eq!(before, Traces::now());
    let kvm = &result.configurations[0];
    check(kvm);
    let row = kvm.stages.iter().find(|stage| stage.id == "request/issue(vda@guest)→complete(vda@guest)").unwrap();
    for (from, to, times) in [
        ("notified", "io-waking", 1.0),
        // The I/O thread, and its worker.
        ("io-waking", "io-running", 2.0),
        ("io-running", "io-waking", 1.0),
        ("io-running", "enter", 1.0),
        ("exit", "back-waking", 1.0),
        ("back-waking", "back-running", 1.0),
        ("back-running", "injected", 1.0),
        ("entered", "complete", 1.0),
    ] {
        let found = row.parts.iter().find(|part| part.from.point.name() == from && part.to.point.name() == to);
        let found = found.unwrap_or_else(|| panic!("{from} → {to}: {:#?}", row.parts));
        assert!((0.85 * times..1.1 * times).contains(&found.count_per_op) && found.share > 0.0, "{found:?}");
    }
    // A processor that did not sleep is not woken.
    let entered = row.parts.iter().filter(|part| part.to.point == Point::Entered).map(|part| part.count_per_op);
    assert!((0.85..1.1).contains(&entered.sum::<f64>()), "{:#?}", row.parts);
    let rest = row.parts.iter().find(|part| part.from.point == Point::Entered).unwrap();
    assert!((0.02..0.7).contains(&rest.share), "{:#?}", row.parts);

    let text = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    let repetitions = text.lines().map(|line| serde_json::from_str::<Repetition>(line).unwrap());
    let phases = repetitions.flat_map(|repetition| repetition.phases).filter(|phase| phase.kind == PhaseKind::Detailed);
    let (mut ours, mut theirs, mut extra) = ((0, 0), (0, 0), 0);
    for phase in phases {
        let host = phase.guest.filter(|other| other.side == Side::Host).unwrap();
        let steps = host.probes.stages.iter().filter(|stage| stage.part && stage.from.point == Point::Notified);
        steps.for_each(|step| ours = (ours.0 + step.count, ours.1 + step.total_ns));
        let within = notifications.iter().filter(|(at_ns, _)| at_ns.wrapping_sub(phase.open_ns) < phase.length_ns);
        within.for_each(|(_, ns)| theirs = (theirs.0 + 1, theirs.1 + ns));
        // What crosses an end.
        extra += 2;
    }
    let words = format!("{ours:?}, by the kernel's record {theirs:?}");
    // The record has what was not for an operation of ours, too.
    assert!(ours.0 > 20 && ours.0 <= theirs.0 + extra && ours.0 as f64 > 0.85 * theirs.0 as f64, "{words}");
    let mean = |(count, ns): (u64, u64)| ns as f64 / count as f64;
    assert!((0.75..1.3).contains(&(mean(ours) / mean(theirs))), "{words}");
}

/// Guest and boundary, each a part of what the VM took. One of the longer tests: in an emulator, shorter ones
/// see it, too.
pub fn the_inside_of_a_guest_is_seen() {
    let _alone = alone();
    only_in_lab();
    if !is_wanted_in_full() {
        return;
    }
    let before = Traces::now();
    let result = run_workload("tcp-rr", &Out::new(), &[&["--in", "kvm:machine=microvm"], &SHORT[..]].concat());
    let kvm = &result.configurations[0];
    check(kvm);
    assert!(kvm.settings["guest_agent"].starts_with("on "), "{:?}", kvm.settings);
    for id in ["request/taken→receive(tap@host)", "request/received→send", "response/send→xmit(eth0@guest)"] {
        let stage = kvm.stages.iter().find(|stage| stage.id == id).unwrap_or_else(|| panic!("{id}: {:?}", kvm.stages));
        assert!(stage.ns_per_op > 0.0 && (stage.count_per_op - 1.0).abs() < 0.1, "{stage:?}");
    }
    assert_eq!(before, Traces::now());
}
