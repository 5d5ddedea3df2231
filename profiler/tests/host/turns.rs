//! Configurations that are alive at once and asked in turns.

use crate::common::{
    Feature, Out, Quota, Running, alone, has, repetitions, run_workload, send, succeed, virtax, wait_until,
};
use profiler::{
    cgroup,
    counts::{Phase, PhaseKind, Repetition},
    experiment::store,
    process,
    result::RunResult,
};
use profiler_common::Counter;

fn saved(out: &Out) -> Vec<Repetition> {
    store::load(&out.path()).unwrap().1
}

/// A window of a phase: whose, in which block, and when it counted.
type Seen<'a> = (&'a str, u32, u64, u64);

/// Windows of the phases with this number in the repetitions of a round, in order of time.
fn windows<'a>(of_round: &[&'a Repetition], phase: usize) -> Vec<Seen<'a>> {
    let of = |found: &'a Repetition| {
        let Phase { open_ns, windows, .. } = &found.phases[phase];
        windows.iter().map(move |window| {
            let open_ns = open_ns + window.at_ns;
            (found.configuration.as_str(), window.block, open_ns, open_ns + window.length_ns)
        })
    };
    let mut seen: Vec<Seen<'_>> = of_round.iter().copied().flat_map(of).collect();
    seen.sort_by_key(|(.., open_ns, _)| *open_ns);
    seen
}

/// In every block, all are asked, and back again; no window overlaps another, and those of a block follow each other
/// within milliseconds.
fn check_order(seen: &[Seen<'_>], members: usize) {
    assert!(seen.windows(2).all(|pair| pair[0].3 < pair[1].2 && pair[1].2 - pair[0].3 < 60_000_000), "{seen:?}");
    for block in seen.chunk_by(|a, b| a.1 == b.1) {
        let names: Vec<&str> = block.iter().map(|(name, ..)| *name).collect();
        assert!(names.len() == 2 * members && names.iter().eq(names.iter().rev()), "{names:?}");
        let mut once = names[..members].to_vec();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), members, "{names:?}");
    }
}

/// What the client counted in its windows, the probes counted as this configuration's, and nothing else: but for
/// requests at a window's edges, where two clocks are read one after the other.
fn check_counts(phase: &Phase) {
    let (operations, latency_ns) =
        phase.windows.iter().fold((0, 0), |sum, window| (sum.0 + window.operations, sum.1 + window.latency_sum_ns));
    assert_eq!((operations, latency_ns), (phase.client.operations, phase.client.latency_sum_ns));
    assert_eq!(phase.length_ns, phase.windows.iter().map(|window| window.length_ns).sum::<u64>());
    assert!(phase.windows.iter().all(|window| window.operations > 0), "{:?}", phase.windows);
    // Before each, the same work was timed; after the last, it may be so yet.
    assert!(phase.windows.iter().all(|window| window.work_ns[0] > 500), "{:?}", phase.windows);
    let Some(probes) = &phase.probes else { return };
    let edges = 2 * phase.windows.len() as u64;
    let followed = probes.counter(Counter::Followed);
    assert!(followed.abs_diff(operations) <= edges, "{followed} of {operations}");
    assert_eq!(probes.counter(Counter::Completed) + probes.unfinished, followed, "{:?}", probes.counters);
    assert_eq!(Counter::losses().map(|cause| probes.counter(cause)).sum::<u64>(), 0, "{:?}", probes.counters);
}

pub fn configurations_take_turns_and_each_is_counted_for_itself() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let arguments = ["--in", "native,ns:net=nat,ns:proxy=on", "--rounds", "2", "--duration", "0.6"];
    let result = run_workload("tcp-rr", &out, &arguments);
    let repetitions = saved(&out);
    for round in 0..2 {
        let of_round: Vec<&Repetition> = repetitions.iter().filter(|found| found.round == round).collect();
        assert_eq!(of_round.len(), 3);
        for phase in 0..of_round[0].phases.len() {
            check_order(&windows(&of_round, phase), 3);
        }
        of_round.iter().flat_map(|found| &found.phases).for_each(check_counts);
    }
    for found in &result.configurations {
        assert!(found.residual_ns_per_op.abs() < 0.05 * found.traced_latency.mean_ns, "{}", found.residual_ns_per_op);
        let is_behind = |label: &str| found.devices.iter().any(|device| device.label == label);
        assert_eq!(is_behind("bridge@host"), found.name != "native", "{:?}", found.devices);
        let is_proxied = found.stages.iter().any(|stage| stage.id.contains("proxy/"));
        assert_eq!(is_proxied, found.name.contains("proxy"), "{}", found.name);
    }
}

/// What is told apart by the holder shows in what only one of them has: connection tracking, and fifty connections.
pub fn many_connections_rest_and_go_on() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Redis) {
        return;
    }
    let out = Out::new();
    let arguments = ["--in", "native,ns:net=nat", "--rounds", "2", "--duration", "0.6"];
    run_workload("redis-set", &out, &arguments);
    let repetitions = saved(&out);
    for phase in repetitions.iter().flat_map(|found| &found.phases).filter(|phase| !phase.windows.is_empty()) {
        assert_eq!(phase.client.unfinished, 0);
        let Some(probes) = &phase.probes else { continue };
        let followed = probes.counter(Counter::Followed);
        let edges = 2 * 50 * phase.windows.len() as u64;
        assert!(followed.abs_diff(phase.client.operations) <= edges, "{followed} of {}", phase.client.operations);
        assert_eq!(probes.counter(Counter::Completed) + probes.unfinished, followed, "{:?}", probes.counters);
    }
    // A server of Redis's may have something to do by itself at times; then its configuration is measured alone.
    assert!(repetitions.iter().flat_map(|found| &found.phases).any(|phase| !phase.windows.is_empty()));
}

/// A run goes on in its folder, also where it was cut off, and as it was asked for at first.
pub fn rounds_are_added_to_a_run() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let arguments = ["--in", "native,ns:net=nat", "--rounds", "1", "--duration", "0.4", "--set", "request=64"];
    run_workload("tcp-rr", &out, &arguments);
    let path = out.path().join("repetitions.jsonl");
    let mut cut_off = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut cut_off, b"{\"round\": 1, \"config").unwrap();
    let again = |more: &[&str]| {
        let mut command = virtax();
        command.args(["run", "--json", "--again"]).arg(out.path()).args(more);
        command
    };
    let result: RunResult = serde_json::from_slice(&succeed(again(&["--rounds", "2"])).stdout).unwrap();
    let (header, repetitions) = store::load(&out.path()).unwrap();
    // The round after the first may have left records, had it been killed.
    let rounds: Vec<u32> = repetitions.iter().map(|found| found.round).collect();
    assert_eq!(rounds, [0, 0, 2, 2, 3, 3]);
    assert_eq!((header.again.len(), header.again[0].first_round, header.spec.rounds), (1, 2, 4));
    assert_eq!((header.settings["request"].as_str(), header.spec.duration_s), ("64", 0.4));
    assert!(result.configurations.iter().all(|found| found.rounds == 3), "{:?}", result.rounds);
    for refused in [["--in", "native"], ["--duration", "1"], ["--set", "request=1"]] {
        assert_eq!(again(&refused).output().unwrap().status.code(), Some(2), "{refused:?}");
    }
    assert_eq!(store::load(&out.path()).unwrap().1.len(), 6, "what is refused changes nothing");
}

/// A container lives for the run, and its server for a round.
pub fn a_container_outlives_its_servers() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let out = Out::new();
    run_workload("tcp-rr", &out, &["--in", "docker:net=host,docker:net=nat", "--rounds", "2", "--duration", "0.4"]);
    let repetitions = saved(&out);
    for name in ["docker:net=host", "docker:net=nat"] {
        let of_name = repetitions.iter().filter(|found| found.configuration == name);
        let groups: Vec<&String> = of_name.map(|found| &found.settings["cgroup"]).collect();
        assert!(groups.len() == 2 && groups[0] == groups[1], "{groups:?}");
    }
}

/// A quota is restored while its configuration rests: asked in turns, it would never be met.
pub fn who_has_a_limit_is_measured_alone() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::CpuQuota) {
        return;
    }
    let out = Out::new();
    let limited = "ns:net=veth+quota-percent=35";
    let arguments = ["--in", &format!("native,ns:net=veth,{limited}"), "--rounds", "2", "--duration", "0.6"];
    run_workload("tcp-rr", &out, &arguments);
    for found in saved(&out) {
        let in_windows = found.phases.iter().all(|phase| !phase.windows.is_empty());
        assert_eq!(in_windows, found.configuration != limited, "{}", found.configuration);
        let states = found.phases.iter().filter_map(|phase| phase.probes.as_ref()).flat_map(|probes| &probes.states);
        let throttled: u64 = states.filter(|state| state.state.name() == "throttled").map(|state| state.total_ns).sum();
        assert_eq!(throttled > 0, found.configuration == limited, "{}", found.configuration);
    }
    // Whole rounds, if they are asked for.
    let out = Out::new();
    let arguments = ["--in", "native,ns:net=veth", "--rounds", "1", "--duration", "0.4", "--window", "rounds"];
    run_workload("tcp-rr", &out, &arguments);
    assert!(saved(&out).iter().flat_map(|found| &found.phases).all(|phase| phase.windows.is_empty()));
}

/// A limit that somebody else has set is found in the server's control groups.
pub fn limits_of_others_are_found() {
    let _alone = alone();
    if !has(Feature::CpuQuota) {
        return;
    }
    let Some(group) = Quota::new() else { return };
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    assert_eq!(cgroup::limits_restored(sleeper.id()), Vec::<String>::new());
    group.add(sleeper.id());
    let found = cgroup::limits_restored(sleeper.id());
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    assert!(found.len() == 1 && (found[0].contains("cpu.max") || found[0].contains("cpu.cfs_quota_us")), "{found:?}");
}

/// A server that dies while another configuration is asked is named, and the rounds before are kept.
pub fn a_server_that_dies_while_it_rests_is_blamed() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let arguments = ["--in", "native,ns:net=veth", "--rounds", "5", "--duration", "1"];
    let run = Running::of(&out, &arguments);
    wait_until("a round", || repetitions(&out) >= 2);
    wait_until("both servers of the next one", || servers(&run).len() == 2);
    // Well within its phases.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let inside = servers(&run).into_iter().find(|pid| is_contained(*pid)).expect("its server is alive");
    send(inside, libc::SIGKILL);
    let (code, said) = run.end();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("the server of `ns:net=veth`"), "{said}");
    let kept = saved(&out);
    assert!(kept.len() >= 2 && kept.len().is_multiple_of(2), "{}", kept.len());
    assert!(kept.iter().all(|found| found.phases.iter().any(|phase| phase.kind == PhaseKind::Traced)));
}

/// Servers of a run: processes of our own program that are below it.
fn servers(run: &Running) -> Vec<u32> {
    process::family(run.child.id()).into_iter().filter(|pid| words_of(*pid).contains("tcp-rr-server")).collect()
}

fn words_of(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let ours = program.starts_with("virtax-work");
    if ours { String::from_utf8_lossy(&line).replace('\0', " ") } else { String::new() }
}

fn is_contained(pid: u32) -> bool {
    process::network_namespace(pid).ok() != process::network_namespace(std::process::id()).ok()
}
