//! Virtual machines through libvirt's embedded driver, and what can be changed of them.

mod common;

use std::{fs, path::Path};

use common::{Feature, Out, Traces, alone, check, has, of, run_workload, text, virtax};

const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "1.2", "--placement", "split"];

fn ready() -> bool {
    has(Feature::Probes) && has(Feature::Vm) && has(Feature::Libvirt)
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("domain.xml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// By default it is libvirt that starts QEMU, whatever the network; without libvirt the same guest shows the same stages.
#[test]
fn machines_are_the_same_with_libvirt_and_without() {
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
    let with = run("tcg,tcg:net=user", &[]);
    let without = run("tcg", &["--connect", "none"]);
    let started_by = |result: &profiler::result::RunResult, name: &str| of(result, name).settings["started_by"].clone();
    for name in ["tcg:net=tap", "tcg:net=user"] {
        let said = started_by(&with, name);
        assert!(said.starts_with("libvirt ") && said.ends_with("qemu:///embed"), "{said}");
    }
    assert_eq!(started_by(&without, "tcg:net=tap"), "virtax");
    let labels = |result: &profiler::result::RunResult| {
        let stages = of(result, "tcg:net=tap").stages.iter().filter(|stage| stage.count_per_op > 0.9);
        stages.map(|stage| stage.label.clone()).collect::<Vec<_>>()
    };
    assert_eq!(labels(&with), labels(&without));
    assert!(labels(&with).iter().any(|label| label.ends_with("(guest)")));
}

/// Keys that shape a machine arrive in it, by libvirt and by QEMU's own words; what the run reserved is given back.
#[test]
fn tuned_machines_are_measured() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let tuned = "tcg:pin=on,topology=host,numa=bind,hugepages=on,memory=256";
    for more in [&[][..], &["--connect", "none"]] {
        let arguments = [&["--in", tuned], &SHORT[..], more].concat();
        let result = run_workload("tcp-rr", &Out::new(), &arguments);
        check(&result.configurations[0]);
        assert_eq!(before, Traces::now());
    }
    let out = Out::new();
    let output =
        virtax().args(["run", "tcp-rr", "--in", "tcg:pin=on", "--placement", "free", "--out"]).arg(out.path()).output();
    let said = text(&output.unwrap().stderr);
    assert!(said.contains("take `--placement split`"), "{said}");
    assert_eq!(before, Traces::now());
}

/// A user's part of the domain is used, and libvirt's refusal of it is shown in libvirt's words.
#[test]
fn parts_of_users_are_used_or_refused() {
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
    refused(bad_card, &[], 4, &["libvirt refuses", "qemu:///embed", "network", "--connect none"]);
    refused("<domain><name>mine</name></domain>", &[], 2, &["<name> is virtax's own"]);
    refused("<domain", &[], 2, &["the domain's part cannot be used"]);
    refused("<domain><cpu mode='maximum'/></domain>", &["--connect", "none"], 2, &["--domain"]);
    refused(
        "<domain><cpu mode='maximum'/></domain>",
        &["--connect", "qemu+unix:///system?socket=/nonexistent"],
        4,
        &["libvirt refuses", "/nonexistent"],
    );
    // Another processor: what the guest then lacks, its kernel would say; here it only has to be QEMU that gets it.
    let file = write(folder.path(), "<domain><cpu mode='custom'><model>Haswell-noTSX</model></cpu></domain>");
    let result = run_workload("tcp-rr", &Out::new(), &[&["--in", "tcg", "--domain", &file], &SHORT[..]].concat());
    check(&result.configurations[0]);
    assert_eq!(before, Traces::now());
}

#[test]
fn the_domain_is_shown() {
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
