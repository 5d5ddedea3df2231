//! VMs through libvirt's embedded driver, and what can be changed of them.

use std::{fs, path::Path};

use crate::common::{
    Feature, Out, Running, Traces, alone, check, full, has, is_wanted_in_full, of, run_workload, text, virtax,
};

const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "1.2", "--placement", "split"];

fn ready() -> bool {
    has(Feature::Probes) && has(Feature::Vm) && has(Feature::Libvirt)
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("domain.xml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Without libvirt, QEMU is started by virtax; the longer test compares what is seen then with the same guest by
/// libvirt, whatever the network.
pub fn vms_without_libvirt_are_the_same() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let run = |configurations: &str, more: &[&str]| {
        let result = run_workload("tcp-rr", &Out::new(), &[&["--in", configurations], &SHORT[..], more].concat());
        result.configurations.iter().for_each(check);
        assert_eq!(before, Traces::now(), "{configurations}");
        result
    };
    let without = run("tcg", &["--connect", "none"]);
    let started_by = |result: &profiler::result::RunResult, name: &str| of(result, name).settings["started_by"].clone();
    assert_eq!(started_by(&without, "tcg:net=tap"), "virtax");
    assert_eq!(of(&without, "tcg:net=tap").settings["threads"], "1 for processors, 0 for I/O, by QMP");
    let labels = |result: &profiler::result::RunResult| {
        let stages = of(result, "tcg:net=tap").stages.iter().filter(|stage| stage.count_per_op > 0.9);
        stages.map(|stage| stage.label.clone()).collect::<Vec<_>>()
    };
    assert!(labels(&without).iter().any(|label| label.contains("(guest)")));
    // Two VMs more; by default, those of all other tests are libvirt's.
    if full() {
        let with = run("tcg,tcg:net=user", &[]);
        for name in ["tcg:net=tap", "tcg:net=user"] {
            let said = started_by(&with, name);
            assert!(said.starts_with("libvirt ") && said.ends_with("qemu:///embed"), "{said}");
        }
        assert_eq!(labels(&with), labels(&without));
    }
}

/// What QEMU was told and given, while its guest is measured.
struct Seen {
    words: String,
    nice: i64,
    huge_kb: u64,
    /// CPUs of its main thread and of the guest's processor.
    cpus: [usize; 2],
}

/// Measures a configuration, and looks at its VM meanwhile.
fn look_at(configuration: &str, more: &[&str]) -> (Seen, profiler::result::RunResult) {
    let out = Out::new();
    let mut run = Running::of(&out, &[&["--in", configuration, "--rounds", "1", "--duration", "1.2"], more].concat());
    run.wait_for("step: detached phase");
    let pid = run.qemu();
    let process = procfs::process::Process::new(pid as i32).unwrap();
    let count = |thread: u32| {
        let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(thread as i32)).unwrap();
        (0..nix::sched::CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).count()
    };
    let named = profiler::process::named_threads(pid);
    let processor = named.iter().find(|(_, name)| name.starts_with("CPU 0/")).unwrap().0;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let huge = status.lines().find_map(|line| line.strip_prefix("HugetlbPages:")).unwrap();
    let vm = Seen {
        words: process.cmdline().unwrap().join(" "),
        nice: process.stat().unwrap().nice,
        huge_kb: huge.trim().trim_end_matches(" kB").parse().unwrap(),
        cpus: [count(pid), count(processor)],
    };
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    let text = fs::read_to_string(out.path().join("result.json")).unwrap();
    (vm, serde_json::from_str(&text).unwrap())
}

/// Keys that shape a VM arrive in it, by libvirt and by QEMU's own words, and the same rest; what the run
/// reserved is given back.
pub fn tuned_vms_are_as_they_are_called() {
    let _alone = alone();
    if !is_wanted_in_full() || !ready() {
        return;
    }
    let before = Traces::now();
    let tuned =
        "tcg:pin=on,topology=host,numa=bind,hugepages=on,memory=256,agent=off,blk=virtio,cache=directsync,aio=native";
    let has_nodes = Path::new("/sys/devices/system/node/node0").exists();
    let allowed = profiler::process::allowed_cpus().unwrap().len();
    for (more, starter) in [(&[][..], "libvirt"), (&["--connect", "none"], "virtax")] {
        let (vm, result) = look_at(tuned, &[&["--placement", "free"], more].concat());
        let configuration = &result.configurations[0];
        assert!(configuration.settings["started_by"].starts_with(starter), "{:?}", configuration.settings);
        assert_eq!(before, Traces::now(), "{starter}");
        assert_eq!((vm.huge_kb, vm.nice), (256 << 10, 0), "{starter}");
        assert_eq!(vm.cpus, [allowed, 1], "{starter}");
        assert!(vm.words.contains("sockets=1,"), "{}", vm.words);
        assert!(!has_nodes || vm.words.contains("host-nodes"), "{}", vm.words);
        // What the guest itself says of its disk.
        assert_eq!(configuration.settings["guest_disk"], "vda, virtio_blk, 256 MiB, write through", "{starter}");
        assert!(vm.words.contains("iothread") && vm.words.contains("native"), "{}", vm.words);
        if starter == "virtax" {
            assert_eq!(configuration.settings["threads"], "1 for processors, 1 for I/O, by QMP");
        }
        // On one CPU, whoever shares it with virtax.
        let plain = if starter == "virtax" { "tcg:agent=off,blk=nvme" } else { "tcg:agent=off" };
        let (vm, result) = look_at(plain, &[&["--placement", "split"], more].concat());
        let disk = result.configurations[0].settings.get("guest_disk");
        assert_eq!(
            disk.is_some_and(|disk| disk.starts_with("nvme0n1, nvme, 256 MiB")),
            starter == "virtax",
            "{disk:?}"
        );
        assert_eq!((vm.huge_kb, vm.nice, vm.cpus), (0, 0, [1, 1]), "{starter}");
        assert_eq!(before, Traces::now(), "{starter}");
    }
}

/// A user's part of the domain is used, and libvirt's refusal of it is shown in libvirt's words.
pub fn parts_of_users_are_used_or_refused() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let folder = tempfile::tempdir().unwrap();
    let refused = |snippet: &str, more: &[&str], code: i32, words: &[&str]| {
        let (out, file) = (Out::new(), write(folder.path(), snippet));
        let mut command = virtax();
        command.args(["run", "tcp-rr", "--in", "tcg", "--rounds", "1", "--duration", "0.4", "--out"]).arg(out.path());
        let output = command.args(["--domain", &file]).args(more).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
        assert_eq!(before, Traces::now(), "{snippet}");
    };
    let bad_card = "<domain><devices><interface type='network'><source network='none'/></interface></devices></domain>";
    refused(bad_card, &[], 4, &["libvirt refuses", "qemu:///embed", "network", "virtax vm xml"]);
    refused("<domain><name>mine</name></domain>", &[], 2, &["<name> is virtax's own"]);
    refused("<domain><cputune/></domain>", &[], 2, &["<cputune> is virtax's own"]);
    refused("<domain", &[], 2, &["the domain's part cannot be used"]);
    refused("<domain><cpu mode='maximum'/></domain>", &["--connect", "none"], 2, &["--domain"]);
    refused(
        "<domain><cpu mode='maximum'/></domain>",
        &["--connect", "qemu+unix:///system?socket=/nonexistent"],
        4,
        &["libvirt refuses", "/nonexistent"],
    );
    if !full() {
        return;
    }
    // Another processor: what the guest then lacks, its kernel would say; here it only has to be QEMU that gets it.
    let file = write(folder.path(), "<domain><cpu mode='custom'><model>Haswell-noTSX</model></cpu></domain>");
    let result = run_workload("tcp-rr", &Out::new(), &[&["--in", "tcg", "--domain", &file], &SHORT[..]].concat());
    check(&result.configurations[0]);
    assert_eq!(before, Traces::now());
}

pub fn the_domain_is_shown() {
    let xml = |arguments: &[&str]| {
        let output = virtax().args(["vm", "xml"]).args(arguments).output().unwrap();
        if output.status.success() { text(&output.stdout) } else { text(&output.stderr) }
    };
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        folder.path(),
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><cpu mode='host-model'/>\
         <devices><watchdog model='i6300esb'/></devices>\
         <qemu:commandline><qemu:arg value='-global'/><qemu:arg value='a.b=c'/></qemu:commandline></domain>",
    );
    let shown = [
        xml(&["tcg:net=user"]),
        xml(&["kvm:tuned,vcpus=2,numa=any,topology=flat"]),
        xml(&["kvm:memory=1024,hugepages=on", "--domain", &file]),
        xml(&["native"]),
        xml(&["tcg:vcpus=2"]),
        xml(&["kvm:machine=microvm"]),
        xml(&["tcg:halt-poll=0"]),
        xml(&["kvm:tunde"]),
    ];
    insta::assert_snapshot!(shown.join("\n"));
}
