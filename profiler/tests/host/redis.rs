//! The real `redis-server` under many clients, what stacks say about it, and what can go wrong with it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use crate::common::{
    Feature, Out, Quota, Traces, alone, check, child_with, full, has, of, repetitions, run_workload, text, virtax,
    wait_until,
};
use profiler::{
    counts::{Point, Role},
    experiment::profiles,
    profile::{Profile, Space},
    result::{ConfigurationResult, LayerResult, RunResult, StageResult},
    run_folder,
};

fn ready() -> bool {
    has(Feature::Probes) && has(Feature::Docker) && has(Feature::Redis)
}

fn stage<'a>(configuration: &'a ConfigurationResult, id: &str) -> &'a StageResult {
    configuration
        .stages
        .iter()
        .find(|stage| stage.id == id)
        .unwrap_or_else(|| panic!("{} has {id}", configuration.name))
}

/// ns per operation of a layer, from device to device: a sample that is there by chance in a stage that mostly waits
/// would outweigh them all.
fn layer_ns(configuration: &ConfigurationResult, layer: &str) -> f64 {
    let of_stage = |stage: &StageResult| {
        let share = stage.layers.iter().find(|found| found.layer == layer).map_or(0.0, |found| found.share);
        stage.ns_per_op * share
    };
    let on_the_way = configuration.stages.iter().filter(|stage| stage.from.device.is_some());
    on_the_way.map(of_stage).sum()
}

/// CPU time by the scheduler's points against the scheduler's own account: of both roles together, and, more loosely,
/// of each: which of two threads a switch is charged to is a matter of taste. And against the samples alone, as well
/// as so many can tell where no CPU idles and stops its timer.
fn check_cpu_time(configuration: &ConfigurationResult, samples_tell: bool) {
    let (mut points, mut account) = (0.0, 0.0);
    for time in &configuration.cpu_times {
        let Some(schedstat) = time.schedstat_ns_per_op else { continue };
        let off = time.running_ns_per_op / schedstat - 1.0;
        assert!(off.abs() <= 0.2, "{}: {time:?}", configuration.name);
        let sampled = time.sampled_ns_per_op / time.running_ns_per_op - 1.0;
        assert!(!samples_tell || sampled.abs() <= 0.15, "{}: {time:?}", configuration.name);
        points += time.running_ns_per_op;
        account += schedstat;
    }
    // The account is read a little after the phase's ends, by a thread that others may keep waiting: phases are short
    // here.
    assert!((points / account - 1.0).abs() <= 0.15, "{}: {:?}", configuration.name, configuration.cpu_times);
}

pub fn fifty_clients_on_one_thread() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    // More samples a second than by default: few rounds have to show every layer.
    let arguments = ["--in", "native,docker:net=host,docker:net=nat", "--rounds", "2", "--duration", "1.2"];
    let result = run_workload("redis-set", &out, &[&arguments[..], &["--sample-rate", "4999"]].concat());
    assert_eq!(before, Traces::now());
    for configuration in &result.configurations {
        check(configuration);
        check_cpu_time(configuration, true);
        // One thread serves fifty: most of the wait is for the others.
        let wait = stage(configuration, "request/ready→received");
        let part =
            |name: &str| wait.parts.iter().find(|part| part.to.point.name() == name).map_or(0.0, |part| part.share);
        assert!(part("other-requests") + part("run-queue") > 0.5, "{:?}", wait.parts);
        assert!(part("other-requests") > 0.05 && part("own-call") > 0.0, "{:?}", wait.parts);
        assert_eq!(part("throttled"), 0.0, "{:?}", wait.parts);
        check_system_calls(configuration);
    }
    check_layers(&result);
    check_files(&out);
}

/// A read and a write an operation in the server, a send and a receipt in the client.
fn check_system_calls(configuration: &ConfigurationResult) {
    for (role, name) in
        [(Role::Server, "read"), (Role::Server, "write"), (Role::Client, "sendto"), (Role::Client, "recvfrom")]
    {
        let call = configuration.syscalls.iter().find(|call| call.role == role && call.name == name);
        let call = call.unwrap_or_else(|| panic!("{} calls {name}: {:?}", role.name(), configuration.syscalls));
        assert!((call.count_per_op - 1.0).abs() < 0.05, "{call:?}");
        assert!(call.ns_per_op > 0.0 && call.p50_ns <= call.p99_ns, "{call:?}");
    }
}

/// Connection tracking and NAT under the stage that does them; and less of either where only Docker's hooks stand.
fn check_layers(result: &RunResult) {
    let (native, nat) = (of(result, "native"), of(result, "docker:net=nat"));
    let dnat = stage(nat, "request/receive(wire@host)→xmit(bridge@host)");
    // Each may be missing by chance among the few dozen samples of one stage: both ways have them, and this one some
    // of them.
    for layer in ["conntrack", "NAT"] {
        assert!(layer_ns(native, layer) < layer_ns(nat, layer), "{layer}: {:?}", nat.stages);
    }
    let of_netfilter = |found: &&LayerResult| ["iptables/nftables", "conntrack", "NAT"].contains(&found.layer.as_str());
    let shares: Vec<_> = dnat.layers.iter().filter(of_netfilter).collect();
    for share in &shares {
        let [low, high] = share.ci95.unwrap();
        assert!(share.samples > 0 && low <= share.share && share.share <= high, "{share:?}");
    }
    assert!(shares.iter().map(|share| share.share).sum::<f64>() > 0.1, "{dnat:?}");
    if layer_ns(native, "conntrack") > 0.0 {
        assert!(result.warnings.iter().any(|warning| warning.name == "native-path-has-netfilter"));
    }
    assert!(layer_ns(nat, "bridge") > 0.0 && layer_ns(native, "bridge") == 0.0);
    let comparison =
        result.comparisons.iter().find(|found| found.candidate == nat.name && found.baseline == native.name);
    let comparison = comparison.unwrap();
    let layers: f64 = comparison.layers.iter().map(|layer| layer.delta_ns).sum();
    assert!((layers + comparison.residual_delta_ns - comparison.traced_delta_ns).abs() < 1.0, "{comparison:?}");
}

/// All three kinds of pictures, and the differences in both directions.
fn check_files(out: &Out) {
    for kind in ["latency", "cpu", "off-cpu"] {
        for name in ["native", "docker-net-nat", "docker-net-nat.minus.native", "native.minus.docker-net-nat"] {
            let path = out.path().join(format!("{kind}.{name}.svg"));
            let svg = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(svg.contains("ns per operation") && svg.contains("id=\"legend\""), "{}", path.display());
        }
    }
}

/// A server with threads of its own and libraries, under everything that engine `ns` has, and through a proxy.
pub fn bare_mechanisms_hold_a_real_server() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Redis) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let all = "ns:net=nat,fs=overlay,pid=on,user=on,cgroup=on,seccomp=docker,ns:net=bridge,fs=bind,proxy=on";
    let arguments = ["--in", all, "--rounds", "1", "--duration", "1", "--set", "clients=10"];
    let result = run_workload("redis-set", &out, &arguments);
    assert_eq!(before, Traces::now());
    assert_eq!(result.configurations.len(), 2);
    result.configurations.iter().for_each(check);
}

pub fn few_and_many_clients_in_both_placements() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let all = "native,docker:net=host,docker:net=nat";
    let cells: &[(&str, &str, &str, &str)] = if full() {
        &[
            ("redis-set", all, "same", "1"),
            ("redis-set", all, "same", "10"),
            ("redis-set", all, "same", "50"),
            ("redis-set", all, "split", "1"),
            ("redis-set", all, "split", "10"),
            ("redis-set", all, "split", "50"),
            ("redis-get", all, "same", "10"),
        ]
    } else {
        &[
            ("redis-get", "native,docker:net=nat", "same", "1"),
            ("redis-set", "native,docker:net=nat", "split", "1"),
            ("redis-set", "docker:net=host,docker:net=nat", "split", "50"),
        ]
    };
    for (workload, configurations, placement, clients) in cells {
        let clients = format!("clients={clients}");
        let arguments = ["--rounds", "1", "--duration", "1.2", "--placement", placement, "--set", &clients];
        let result = run_workload(workload, &Out::new(), &[&["--in", configurations], &arguments[..]].concat());
        for configuration in &result.configurations {
            check(configuration);
            check_cpu_time(configuration, false);
        }
    }
}

/// The well-known client: every phase is a run of it, those with nothing attached are the control.
pub fn redis_benchmark_as_the_client() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let arguments = ["--in", "native", "--rounds", "1", "--duration", "0.6", "--set", "client=redis-benchmark"];
    let run = || run_workload("redis-set", &Out::new(), &[&arguments[..], &["--set", "clients=10"]].concat());
    let is_disturbed = |result: &RunResult| {
        let found = result.warnings.iter().find(|warning| warning.name == "disturbed-rounds");
        found.is_some_and(|warning| warning.text.contains("by other work"))
    };
    // Its own processes are not taken for other work: not in each of three runs.
    let result = (0..2).fold(run(), |result, _| if is_disturbed(&result) { run() } else { result });
    assert!(!is_disturbed(&result), "{:?}", result.warnings);
    let native = of(&result, "native");
    assert_eq!(native.incomplete, Vec::<String>::new());
    assert!(native.conservation_percent.abs() <= 0.5);
    assert!(native.latency.mean_ns > 0.0 && native.traced_latency.mean_ns > 0.0 && native.latency.p50_ns > 0.0);
    assert!(native.probe_effect_percent.is_finite());
    assert!(native.turnaround_ns_per_op > 0.0);
    assert!(native.stages.iter().all(|stage| stage.id != "request/call→send"));
    let warned = |name: &str| result.warnings.iter().find(|warning| warning.name == name);
    assert!(warned("client-without-phases").is_some());
}

/// A function that can run in one stage only, as the innermost frame of a sample on the path, and where that stage
/// begins.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("ip_rcv_core", &["receive(wire@host)", "receive(eth0@server)", "receive(bridge@host)", "receive(wire@client)"]),
    (
        "fib_table_lookup",
        &["receive(wire@host)", "receive(eth0@server)", "receive(bridge@host)", "receive(wire@client)"],
    ),
    ("ip_forward", &["receive(wire@host)", "receive(bridge@host)"]),
    ("br_dev_xmit", &["xmit(bridge@host)"]),
    ("br_forward", &["xmit(bridge@host)"]),
    ("br_handle_frame", &["receive(veth@host)"]),
    ("br_nf_pre_routing", &["receive(veth@host)"]),
    ("tcp_write_xmit", &["send"]),
    ("__tcp_transmit_skb", &["send"]),
    ("__ip_queue_xmit", &["send"]),
    ("tcp_ack", &["delivered"]),
    ("tcp_stream_alloc_skb", &["received", "send"]),
];

pub fn stacks_are_tagged_with_the_stage_that_runs() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let out = Out::new();
    let arguments = ["--in", "docker:net=nat", "--rounds", "2", "--duration", "3", "--sample-rate", "4999"];
    let result = run_workload("tcp-rr", &out, &arguments);
    check(&result.configurations[0]);
    let found = profiles::read(&run_folder::stacks_path(&out.path(), "docker:net=nat")).unwrap();
    let (mut right, mut off_path, mut wrong) = (0, 0, Vec::new());
    for (profile, sample) in
        found.iter().flat_map(|profile| profile.samples.iter().map(move |sample| (profile, sample)))
    {
        let Some(leaf) = sample.stack.last().map(|index| &profile.frames[*index as usize].1) else { continue };
        let Some((_, stages)) = ONLY_IN.iter().find(|(function, _)| function == leaf) else { continue };
        let Some((_, from)) = &sample.stage else {
            off_path += sample.count;
            continue;
        };
        if stages.contains(&from.to_string().as_str()) {
            right += sample.count;
        } else {
            wrong.push(format!("{leaf} at {from}: {}", sample.count));
        }
    }
    assert!(right > 50, "{right} right, {wrong:?} wrong");
    // A fifth or so are acknowledgements on their own, which are nobody's request. (Softirqs that leave no tag: three
    // of four.)
    assert!(off_path * 2 <= right, "{right} right, {off_path} of no request");
    // What follows a hand-over in the same softirq can be an acknowledgement on its own: it is nobody's request. Of
    // few samples, some more may be by chance.
    assert!((wrong.len() as u64).saturating_sub(3) * 20 <= right, "{right} right, {wrong:?} wrong");
    check_names(&found);
}

/// Functions of the kernel, of virtax's probes in it, and of the container's process have names.
fn check_names(profiles: &[Profile]) {
    let has = |space: Space, name: &str| {
        profiles.iter().flat_map(|profile| &profile.frames).any(|frame| frame.0 == space && frame.1.contains(name))
    };
    assert!(has(Space::Kernel, "tcp_sendmsg"));
    assert!(has(Space::Kernel, "bpf_prog_"));
    assert!(has(Space::User, "workloads::tcp_rr::"));
    let waits: u64 = profiles.iter().flat_map(|profile| &profile.waits).map(|wait| wait.count).sum();
    let woken: u64 = profiles
        .iter()
        .flat_map(|profile| &profile.waits)
        .filter(|wait| !wait.waker.is_empty())
        .map(|wait| wait.count)
        .sum();
    assert!(waits > 20 && woken > 5, "{waits} waits, {woken} woken");
}

/// Prolonged until the layers are known well enough: more samples than the phases alone would bring.
pub fn sampling_goes_on_until_it_is_enough() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let arguments = ["--in", "native", "--rounds", "1", "--duration", "0.6", "--samples-until", "10%"];
    let result = run_workload("tcp-rr", &Out::new(), &arguments);
    let native = of(&result, "native");
    let on_path: u64 = native.stages.iter().flat_map(|stage| &stage.layers).map(|layer| layer.samples).sum();
    assert!(on_path > 500, "{on_path}");
    let without = run_workload(
        "tcp-rr",
        &Out::new(),
        &["--in", "native", "--rounds", "1", "--duration", "0.5", "--sample-rate", "0"],
    );
    let native = of(&without, "native");
    assert_eq!(native.samples.all, 0);
    assert!(native.cpu_layers.is_empty() && native.stages.iter().all(|stage| stage.layers.is_empty()));
}

pub fn a_used_up_quota_shows_as_throttled() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Redis) || !has(Feature::CpuQuota) {
        return;
    }
    let quota = Quota::new().expect("has() has tried");
    let out = Out::new();
    let run = start(&out, &["--in", "native:cgroup=root", "--rounds", "1", "--duration", "2.4", "--set", "clients=10"]);
    quota.add(run.id());
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let result = RunResult::load(&out.path()).unwrap();
    let parts = result.configurations[0].stages.iter().flat_map(|stage| &stage.parts);
    let throttled: f64 = parts.filter(|part| part.to.point == Point::ReaderThrottled).map(|part| part.ns_per_op).sum();
    assert!(throttled > 0.0);
}

fn start(out: &Out, arguments: &[&str]) -> Child {
    let mut command = virtax();
    command.args(["run", "redis-set", "--out"]).arg(out.path()).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn a_missing_redis_names_its_package_before_anything_is_changed() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let mut command = virtax();
    command.args(["run", "redis-set", "--in", "native", "--out"]).arg(out.path()).env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("there is no redis-server") && said.contains("apt-get install"), "{said}");
    assert!(!out.path().exists());
    assert_eq!(before, Traces::now());
}

pub fn a_taken_port_is_named() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Redis) {
        return;
    }
    let _taken = TcpListener::bind("0.0.0.0:7000").unwrap();
    let out = Out::new();
    let output = start(&out, &["--in", "native", "--rounds", "1"]).wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("the server of `native` failed") && said.contains("Address already in use"), "{said}");
    assert!(said.contains("another program listens on port 7000"), "{said}");
}

pub fn a_server_that_dies_is_named_and_earlier_repetitions_are_kept() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Redis) {
        return;
    }
    let out = Out::new();
    let run = start(&out, &["--in", "native", "--rounds", "50", "--duration", "0.6"]);
    wait_until("the second repetition", || repetitions(&out) >= 2);
    let mut pid = None;
    wait_until("a server", || {
        pid = child_with(run.id(), "redis-server");
        pid.is_some()
    });
    // A moment's grace: the run has to be at work with it.
    std::thread::sleep(Duration::from_millis(700));
    // SAFETY: a signal to a process of the run that this test started; should it have ended, nothing happens.
    unsafe { libc::kill(pid.unwrap() as libc::pid_t, libc::SIGSEGV) };
    let output = run.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("the server of `native` failed"), "{said}");
    assert!(RunResult::load(&out.path()).unwrap().configurations[0].rounds >= 2);
    assert!(!Path::new("/run/virtax").exists());
}

/// The kernel's setting that hides addresses, put back with the test.
struct Hidden(String);
impl Hidden {
    const SETTING: &str = "/proc/sys/kernel/kptr_restrict";
    fn new() -> Self {
        let before = fs::read_to_string(Self::SETTING).unwrap();
        fs::write(Self::SETTING, "2").unwrap();
        Self(before)
    }
}
impl Drop for Hidden {
    fn drop(&mut self) {
        fs::write(Self::SETTING, &self.0).unwrap();
    }
}

pub fn hidden_kernel_symbols_are_refused_with_the_setting() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let _hidden = Hidden::new();
    let out = Out::new();
    let mut command = virtax();
    command.args(["run", "tcp-rr", "--in", "native", "--rounds", "1", "--duration", "0.6", "--out"]).arg(out.path());
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("kptr_restrict") && said.contains("--sample-rate 0"), "{said}");
    assert!(!out.path().exists() && !Path::new("/run/virtax").exists());
    let without = ["--in", "native", "--rounds", "1", "--duration", "0.5", "--sample-rate", "0"];
    check(of(&run_workload("tcp-rr", &Out::new(), &without), "native"));
}
