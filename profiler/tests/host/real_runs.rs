//! Real requests: natively and through Docker, with everything that the waterfall promises.

use crate::common::{Feature, Traces, alone, check, has, of, run_tcp_rr};
use profiler::{
    analysis::comparison::Verdict,
    points::{Hook, PROBES, Probe},
    probes,
    result::{ConfigurationResult, RunResult},
};
use profiler_common::Counter;

fn stage_ids(configuration: &ConfigurationResult) -> Vec<&str> {
    configuration.stages.iter().filter(|stage| stage.count_per_op > 0.5).map(|stage| stage.id.as_str()).collect()
}

pub fn the_spine() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let all = "native,docker:net=host,docker:net=nat,docker:net=bridge";
    let result = run_tcp_rr(&["--in", all, "--baseline", "docker:net=host", "--rounds", "8", "--duration", "0.5"]);
    assert_eq!(before, Traces::now());
    assert_eq!(result.configurations.len(), 4);
    result.configurations.iter().for_each(check);

    // The rows that make the difference between a host's network and a bridge exist in one and not in the other.
    const DNAT: &str = "request/receive(wire@host)→xmit(bridge@host)";
    let (native, nat) = (of(&result, "native"), of(&result, "docker:net=nat"));
    assert!(stage_ids(nat).contains(&DNAT));
    assert!(stage_ids(of(&result, "docker:net=bridge")).contains(&DNAT));
    assert!(!native.stages.iter().any(|stage| stage.id == DNAT));
    insta::assert_snapshot!("stages-native", stage_ids(native).join("\n"));
    insta::assert_snapshot!("stages-nat", stage_ids(nat).join("\n"));
    assert_eq!(stage_ids(native), stage_ids(of(&result, "docker:net=host")));
    assert_eq!(stage_ids(nat), stage_ids(of(&result, "docker:net=bridge")));

    // What the server ran in, from inside.
    assert_eq!(native.settings["network_namespace"], "host");
    assert_eq!(of(&result, "docker:net=host").settings["network_namespace"], "host");
    assert_eq!(nat.settings["network_namespace"], "own");
    assert_eq!((native.settings["seccomp"].as_str(), nat.settings["seccomp"].as_str()), ("off", "filter"));
    assert_eq!(native.settings["cpus_allowed"], nat.settings["cpus_allowed"]);
    assert!(result.warnings.iter().any(|warning| warning.name == "native-path-has-netfilter"));
    check_comparison(&result);
    check_verdict(result);
}

/// NAT costs something, and never nothing, and by conntrack. In a bad minute of a shared host, eight rounds cannot
/// tell the one, and some hundred samples not the other.
fn check_verdict(mut result: RunResult) {
    for _ in 0..3 {
        let mut comparisons = result.comparisons.iter();
        let nat = comparisons.find(|found| found.baseline == "docker:net=host" && found.candidate == "docker:net=nat");
        let nat = nat.unwrap();
        if nat.verdict != Verdict::NotTold {
            assert_eq!(nat.verdict, Verdict::Slower, "{}", nat.sentence);
            assert!(nat.sentence.starts_with("NAT adds "), "{}", nat.sentence);
            if nat.sentence.contains("conntrack") {
                return;
            }
        }
        let both = "docker:net=host,docker:net=nat";
        result = run_tcp_rr(&["--in", both, "--baseline", "docker:net=host", "--rounds", "16", "--duration", "1"]);
    }
    panic!("that NAT costs something could not be told from host networking, or not by what, three times");
}

/// Deltas add up.
fn check_comparison(result: &RunResult) {
    let pairs = result.configurations.len() * (result.configurations.len() - 1);
    assert_eq!(result.comparisons.len(), pairs);
    for comparison in &result.comparisons {
        let stages: f64 = comparison.stages.iter().map(|stage| stage.delta_ns).sum();
        let candidate = of(result, &comparison.candidate).traced_latency.mean_ns;
        let off = stages + comparison.residual_delta_ns - comparison.traced_delta_ns;
        assert!(off.abs() < 1.0, "{comparison:?}");
        assert!((stages - comparison.traced_delta_ns).abs() <= 0.03 * candidate, "{comparison:?}");
        let effect = comparison.traced_delta_ns - comparison.latency_delta_ns;
        assert!((effect - comparison.probe_effect_difference_ns).abs() < 1.0, "{comparison:?}");
        assert!(comparison.stages.windows(2).all(|pair| pair[0].delta_ns.abs() >= pair[1].delta_ns.abs()));
    }
}

pub fn many_connections_on_two_cpus() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let result = run_tcp_rr(&[
        "--in",
        "native,docker:net=nat",
        "--rounds",
        "2",
        "--duration",
        "0.5",
        "--placement",
        "split",
        "--set",
        "connections=16",
    ]);
    result.configurations.iter().for_each(check);
    assert!(result.warnings.iter().any(|warning| warning.name == "few-rounds"));
    assert!(result.comparisons.iter().all(|comparison| comparison.verdict == Verdict::TooFewRounds));
    assert!(result.comparisons.iter().all(|comparison| comparison.ci95_ns.is_none()));
}

/// A thread per connection, one CPU: the server's threads start after the processes were followed.
pub fn a_server_with_a_thread_per_connection() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = run_tcp_rr(&[
        "--in",
        "native",
        "--rounds",
        "1",
        "--duration",
        "0.5",
        "--set",
        "server=threads",
        "--set",
        "connections=4",
    ]);
    check(of(&result, "native"));
}

/// Every alternative that this kernel takes is forced, kind by kind, and sees the same path with the same counts.
pub fn every_alternative_that_loads_sees_the_same() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let supported = probes::support().unwrap();
    let loads = |kind: &str| -> Vec<&str> {
        let of_kind = |support: &&probes::Support| {
            support.tried.iter().any(|(alternative, tried)| alternative.hook.kind() == kind && tried.is_ok())
        };
        supported.iter().filter(of_kind).map(|support| support.probe.name).collect()
    };
    let best = run_tcp_rr(&["--in", "native", "--rounds", "1", "--duration", "0.6"]);
    let mut forced = 0;
    for kind in probes::KINDS {
        let names = loads(kind);
        if names.is_empty() {
            eprintln!("this kernel takes no {kind} program of ours");
            continue;
        }
        forced += 1;
        let result = run_tcp_rr(&["--in", "native", "--rounds", "1", "--duration", "0.6", "--probes", kind]);
        let native = of(&result, "native");
        check(native);
        assert_eq!(stage_ids(of(&best, "native")), stage_ids(native), "{kind}");
        // Every probe has these two, but those of tracepoints whose arguments change places.
        let is_typed = |probe: &&Probe| matches!(probe.alternatives[0].hook, Hook::TypedTracepoint(_));
        let wanted = PROBES.iter().filter(is_typed).count();
        assert!(!["tp_btf", "raw_tp"].contains(&kind) || names.len() == wanted, "{kind}: {names:?}");
    }
    assert!(forced >= 3, "typed, raw and recorded tracepoints load wherever the probes do");
}

/// Slow requests: acknowledgements go out alone, and must not move a token; latency counts from the intended time.
pub fn an_open_loop_and_pure_acknowledgements() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = run_tcp_rr(&[
        "--in",
        "native",
        "--rounds",
        "1",
        "--duration",
        "2.5",
        "--set",
        "rate=400",
        "--set",
        "connections=20",
    ]);
    let native = of(&result, "native");
    check(native);
    let rate = native.throughput_per_s;
    assert!((rate - 400.0).abs() < 40.0, "{rate}");
    assert!(native.lateness_ns_per_op > 0.0);
    assert!(native.turnaround_ns_per_op > native.traced_latency.mean_ns);
}

/// A response read in two calls: one operation, with its second half counted as a part.
pub fn a_message_received_in_parts() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = run_tcp_rr(&["--in", "native", "--rounds", "1", "--duration", "0.5", "--set", "chunk=100"]);
    let native = of(&result, "native");
    assert_eq!(native.incomplete, Vec::<String>::new());
    let parts = native.counters.of(Counter::Parts) as f64;
    let followed = native.losses.followed as f64;
    assert!((parts / followed - 1.0).abs() < 0.01, "{parts} parts of {followed} requests");
    let row = native.stages.iter().find(|stage| stage.id == "response/received→received").unwrap();
    assert!((row.count_per_op - 1.0).abs() < 0.01);
    assert_eq!(native.records.illegal_transitions, 0);
}
