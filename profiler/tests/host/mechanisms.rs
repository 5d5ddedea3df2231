//! Containers of bare mechanisms, ladders of them, and known costs.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::common::{
    Feature, Out, Traces, alone, check, full, has, is_wanted_in_full, of, run_workload, succeed, text, virtax,
};
use profiler::{
    counts::Role,
    ladder::{Ladder, Says},
    result::ConfigurationResult,
    truth::Truth,
};

const SHORT: [&str; 4] = ["--rounds", "1", "--duration", "0.6"];

fn setting<'a>(configuration: &'a ConfigurationResult, name: &str) -> &'a str {
    configuration.settings.get(name).map_or("", String::as_str)
}

pub fn every_mechanism_is_what_it_says() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let all = "native,ns:net=host,ns:net=host,pid=on,user=on,ns:net=host,seccomp=docker,ns:net=host,fs=bind,\
               ns:net=host,fs=overlay,pid=on,ns:net=own,ns:net=veth,ns:net=bridge,ns:net=bridge,hooks=on,\
               ns:net=bridge,conntrack=on,ns:net=nat";
    let result = run_workload("tcp-rr", &out, &[&["--in", all], &SHORT[..]].concat());
    assert_eq!(before, Traces::now());
    assert_eq!(result.configurations.len(), 12);
    for configuration in &result.configurations {
        check(configuration);
        // The probes are the same in all of them, and what one left behind must not show in the next.
        let of_server = |name: &&str| {
            let calls = configuration.syscalls.iter().filter(|call| call.role == Role::Server && call.name == **name);
            calls.map(|call| call.count_per_op).sum::<f64>()
        };
        let reads: f64 = ["read", "recvfrom"].iter().map(of_server).sum();
        assert!((reads - 1.0).abs() < 0.05, "{}: {:?}", configuration.name, configuration.syscalls);
    }
    let plain = of(&result, "native");
    assert_eq!(setting(plain, "namespaces"), "");
    let with = |name: &str| of(&result, name);
    assert!(setting(with("ns:net=host"), "cgroup_of").starts_with("version "));
    assert_eq!(setting(with("ns:net=host,pid=on,user=on"), "namespaces"), "pid,user");
    let filtered = with("ns:net=host,seccomp=docker");
    assert_eq!((setting(filtered, "seccomp"), setting(filtered, "seccomp_filters")), ("filter", "1"));
    assert_eq!(setting(with("ns:net=host,fs=bind"), "namespaces"), "mnt");
    let layered = with("ns:net=host,fs=overlay,pid=on");
    assert_eq!((setting(layered, "root"), setting(layered, "namespaces")), ("overlay", "mnt,pid"));
    assert_eq!(setting(with("ns:net=own"), "namespaces"), "net");
    assert_eq!(setting(with("ns:net=bridge"), "rules_by"), "");
    assert!(["nft", "iptables"].contains(&setting(with("ns:net=nat"), "rules_by")));
    let has_stage = |name: &str, id: &str| with(name).stages.iter().any(|stage| stage.id == id);
    assert!(has_stage("ns:net=veth", "request/receive(wire@host)→xmit(veth@host)"));
    assert!(has_stage("ns:net=bridge", "request/receive(wire@host)→xmit(bridge@host)"));
    assert!(!has_stage("ns:net=own", "request/receive(wire@host)→xmit(bridge@host)"));
}

/// A path on which only these programs are.
fn path_with(folder: &Path, programs: &[&str]) -> std::ffi::OsString {
    for name in programs {
        let found = profiler::pack::find_program(name, name).unwrap();
        symlink(found, folder.join(name)).unwrap();
    }
    folder.as_os_str().to_owned()
}

pub fn either_program_for_rules_will_do_and_none_is_named() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    for (programs, expected) in [(&["iptables-restore"][..], "iptables"), (&["nft"], "nft")] {
        let (folder, out) = (tempfile::tempdir().unwrap(), Out::new());
        let mut command = virtax();
        command.env("PATH", path_with(folder.path(), programs));
        command.args(["run", "tcp-rr", "--json", "--in", "ns:net=nat", "--out"]).arg(out.path()).args(SHORT);
        let output = succeed(command);
        let result: profiler::result::RunResult = serde_json::from_slice(&output.stdout).unwrap();
        check(&result.configurations[0]);
        assert_eq!(setting(&result.configurations[0], "rules_by"), expected);
    }
    let (folder, out) = (tempfile::tempdir().unwrap(), Out::new());
    let mut command = virtax();
    command.env("PATH", folder.path()).args(["run", "tcp-rr", "--in", "ns:net=nat", "--out"]).arg(out.path());
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("`ns:net=nat`: no program for firewall rules") && said.contains("nftables"), "{said}");
    assert_eq!(before, Traces::now());
}

/// Every hop of a request through a userland proxy and back, once per operation.
pub fn a_proxy_is_followed_through_both_its_sockets() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    for (connections, samples) in [("1", "997"), ("16", "0")] {
        let out = Out::new();
        let set = format!("connections={connections}");
        let arguments = ["--in", "ns:net=bridge,proxy=on", "--set", &set, "--sample-rate", samples];
        let result = run_workload("tcp-rr", &out, &[&arguments, &SHORT[..]].concat());
        let found = &result.configurations[0];
        check(found);
        let mut hops = BTreeMap::<(Role, &str), f64>::new();
        for stage in &found.stages {
            *hops.entry((stage.role, stage.to.point.name())).or_default() += stage.count_per_op;
        }
        for role in [Role::ProxyIn, Role::ProxyOut] {
            for point in ["ready", "received", "send"] {
                let count = hops.get(&(role, point)).copied().unwrap_or(0.0);
                assert!((count - 1.0).abs() < 0.05, "{connections}: {role:?} {point} {count}");
            }
        }
        if samples != "0" {
            assert!(found.cpu_times.iter().any(|time| time.role == "proxy"), "{:?}", found.cpu_times);
        }
    }
    assert_eq!(before, Traces::now());
}

fn ladder(out: &Out, command: &mut Command, arguments: &[&str]) -> Ladder {
    command.args(["ladder", "--out"]).arg(out.path()).args(arguments).args(SHORT);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("what each mechanism of the") && shown.contains("ladder.svg"), "{shown}");
    let svg = fs::read_to_string(out.path().join("ladder.svg")).unwrap();
    assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"));
    serde_json::from_slice(&fs::read(out.path().join("ladder.json")).unwrap()).unwrap()
}

pub fn a_ladder_goes_on_without_the_rungs_that_are_missing() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let check_rungs = |ladder: &Ladder, count: usize| {
        assert_eq!(ladder.rungs.iter().filter(|rung| rung.says == Says::TooFewRounds).count(), count, "{ladder:?}");
        assert_eq!(ladder.rungs[0].says, Says::Ground);
        for rung in ladder.rungs[1..].iter().filter(|rung| rung.says != Says::Missing) {
            // What is attributed is what is measured, as well as one round can tell: both of its passes are at a
            // speed of their own.
            assert!(rung.on.is_some() && rung.gap_ns.abs() < rung.latency_ns, "{rung:?}");
        }
    };
    if full() {
        check_rungs(&ladder(&Out::new(), &mut virtax(), &["network", "tcp-rr"]), 11);
    }

    // No daemon, and no program for rules: those rungs are missing by name, and others are measured on top of what is
    // there.
    let (out, folder) = (Out::new(), tempfile::tempdir().unwrap());
    let mut command = virtax();
    command.env("PATH", folder.path()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let part = ladder(&out, &mut command, &["network", "tcp-rr"]);
    check_rungs(&part, 7);
    let missing: Vec<&str> =
        part.rungs.iter().filter(|rung| rung.says == Says::Missing).map(|rung| rung.mechanism.as_str()).collect();
    assert_eq!(missing, ["netfilter hooks", "conntrack", "NAT", "Docker NAT"]);
    let why = |index: usize| part.rungs[index].why.clone().unwrap_or_default();
    assert!(why(7).contains("no program for firewall rules"), "{}", why(7));
    assert!(why(10).contains("cannot reach the Docker daemon"), "{}", why(10));
    assert_eq!(part.rungs[11].on.as_deref(), Some("bridge"));
    assert_eq!(before, Traces::now());
}

pub fn other_ladders_and_budgets() {
    let _alone = alone();
    if !is_wanted_in_full() || !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let no_docker = || {
        let mut command = virtax();
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
    };
    for order in ["isolation", "storage"] {
        let found = ladder(&Out::new(), &mut no_docker(), &[order, "tcp-rr", "--sample-rate", "0"]);
        assert_eq!(found.rungs.iter().filter(|rung| rung.says == Says::Missing).count(), 1, "{found:?}");
    }
    // One round tells nothing: it goes on until the budget ends.
    let arguments = ["storage", "tcp-rr", "--until-precision", "2%", "--budget", "12", "--sample-rate", "0"];
    let found = ladder(&Out::new(), &mut no_docker(), &arguments);
    assert!(found.rounds > 1, "{found:?}");
    assert_eq!(before, Traces::now());
}

/// One of the longer tests: `cargo xtask truth` finds the same cost.
pub fn a_known_cost_is_found_and_a_missing_mechanism_is_named() {
    let _alone = alone();
    if !is_wanted_in_full() || !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let mut command = virtax();
    command.args(["truth", "--case", "server-spins", "--rounds", "8", "--duration", "0.4", "--out"]).arg(out.path());
    let output = succeed(command);
    assert!(text(&output.stdout).contains("server-spins: found"), "{}", text(&output.stdout));
    let truth: Truth = serde_json::from_slice(&fs::read(out.path().join("truth.json")).unwrap()).unwrap();
    assert_eq!((truth.cases.len(), truth.missing.len()), (1, 0));
    assert!(truth.cases[0].sizes.iter().all(|size| size.injected_ns > 4000.0), "{truth:?}");

    let (out, folder) = (Out::new(), tempfile::tempdir().unwrap());
    let mut command = virtax();
    command
        .env("PATH", folder.path())
        .args(["truth", "--case", "forward-rules", "--rounds", "8", "--out"])
        .arg(out.path());
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    // Nothing was shown: that is no success.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("missing: forward-rules") && said.contains("no program for firewall rules"), "{said}");
    assert_eq!(before, Traces::now());
}

pub fn a_configuration_is_compared_with_itself() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let result = run_workload("tcp-rr", &out, &[&["--in", "native,native", "--sample-rate", "0"], &SHORT[..]].concat());
    assert_eq!(result.configurations[1].name, "native+copy=2");
    assert_eq!(result.comparisons.len(), 2);
    let mut command = virtax();
    let out = Out::new();
    command.args(["truth", "--aa", "1", "--rounds", "8", "--duration", "0.3", "--out"]).arg(out.path());
    let output = command.output().unwrap();
    assert!(text(&output.stdout).contains("1 comparisons of a configuration with itself"), "{}", text(&output.stdout));
}
