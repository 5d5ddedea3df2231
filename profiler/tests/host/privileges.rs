//! The least that a run must be allowed, and the less that its children are.

use std::process::Command;

use crate::common::{Feature, Out, Running, Traces, alone, child_with, has, text, virtax, wait_until};
use profiler::{child::NOBODY, privileges::CAPABILITIES};

fn short(name: &str) -> String {
    name.trim_start_matches("CAP_").to_lowercase()
}

/// `virtax run` with these capabilities at most.
fn run_with(bounds: &str, out: &Out, configurations: &str) -> std::process::Output {
    Command::new("setpriv")
        .arg(format!("--bounding-set={bounds}"))
        .arg(env!("CARGO_BIN_EXE_virtax"))
        .args(["run", "tcp-rr", "--in", configurations, "--rounds", "1", "--duration", "0.3", "--out"])
        .arg(out.path())
        .output()
        .unwrap()
}

pub fn the_listed_capabilities_suffice() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let listed = CAPABILITIES.iter().map(|capability| format!("+{}", short(capability.name)));
    let bounds = std::iter::once("-all".to_owned()).chain(listed).collect::<Vec<_>>().join(",");
    let output = run_with(&bounds, &Out::new(), "native,docker:net=nat,docker:net=bridge");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(before, Traces::now());
}

pub fn a_missing_capability_is_named_before_anything_is_changed() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    for capability in CAPABILITIES {
        // The administrator's capability includes the two of BPF.
        if ["CAP_BPF", "CAP_PERFMON"].contains(&capability.name) {
            continue;
        }
        let out = Out::new();
        let output = run_with(&format!("-{}", short(capability.name)), &out, "native");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(&format!("{} (to {})", capability.name, capability.purpose)), "{said}");
        assert!(!out.path().exists() && !std::path::Path::new("/run/virtax").exists());
    }
}

pub fn without_the_administrators_capability_those_of_bpf_are_asked_for() {
    let _alone = alone();
    let output = run_with("-sys_admin,-bpf,-perfmon", &Out::new(), "native");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for name in ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"] {
        assert!(said.contains(name), "{said}");
    }
}

/// Whoever calls it may be strict about new files: nobody has to get at the programs all the same.
pub fn a_strict_umask_does_not_lock_servers_and_clients_out() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let line = format!(
        "umask 077; exec {} run tcp-rr --in native --rounds 1 --duration 0.3 --out {}",
        env!("CARGO_BIN_EXE_virtax"),
        out.path().display()
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

pub fn servers_and_clients_run_without_privileges() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    for configuration in ["native", "docker:net=nat"] {
        let out = Out::new();
        let mut command = virtax();
        command.args(["run", "tcp-rr", "--verbose", "--in", configuration, "--rounds", "1", "--out"]).arg(out.path());
        let mut run = Running::start(command);
        run.wait_for("step: detached phase");
        let mut checked = 0;
        for process in procfs::process::all_processes().unwrap().flatten() {
            let (Ok(status), Ok(line)) = (process.status(), process.cmdline()) else { continue };
            if !line.iter().any(|word| word.starts_with("tcp-rr-")) || line.iter().any(|word| word == "run") {
                continue;
            }
            checked += 1;
            assert_eq!(
                (status.ruid, status.euid, status.suid, status.fuid),
                (NOBODY, NOBODY, NOBODY, NOBODY),
                "{line:?}"
            );
            assert_eq!((status.rgid, status.egid), (NOBODY, NOBODY), "{line:?}");
            assert_eq!((status.capprm, status.capeff), (0, 0), "{line:?}");
            assert!(status.groups.is_empty() || status.groups == [NOBODY], "{line:?}: {:?}", status.groups);
        }
        // In a container, what keeps its servers has their names in its arguments.
        let expected = if configuration == "native" { 2 } else { 3 };
        assert_eq!(checked, expected, "{configuration}");
        wait_until("the client", || child_with(run.child.id(), "tcp-rr-client").is_some());
        run.signal(libc::SIGINT);
        assert_eq!(run.end().0, Some(130));
    }
}
