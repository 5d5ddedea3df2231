//! Costs and faults that are put in from outside, by other means than virtax's own: what it says of them, and that it
//! says nothing else.

use std::{fs, process::Command};

use crate::common::{
    Feature, Out, Running, Traces, alone, check, harness, has, of, run_workload, text, virtax, wait_until,
};
use profiler::{
    counts::Point,
    result::{ConfigurationResult, RunResult, StageResult},
};
use profiler_common::Counter;

/// A command that must work.
fn execute(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
}

/// A rule of the host's that is gone with this.
struct Rule(Vec<&'static str>);

impl Rule {
    fn add(rule: &[&'static str]) -> Self {
        let this = Self(rule.to_vec());
        this.change("-I");
        this
    }
    fn change(&self, how: &'static str) {
        let [table, chain, rest @ ..] = self.0.as_slice() else { panic!("a rule has a table and a chain") };
        execute("iptables", &[&["-w", "-t", table, how, chain], rest].concat());
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.change("-D");
    }
}

/// The server's process of a run whose server has a network namespace of its own.
fn server_of(run: &Running) -> u32 {
    let net = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let mut found = None;
    wait_until("a server", || {
        let is_one = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            text(&line).contains("tcp-rr-server") && net(*pid).is_some_and(|of| Some(of) != net(std::process::id()))
        };
        found = profiler::process::family(run.child.id()).into_iter().skip(1).find(is_one);
        found.is_some()
    });
    found.unwrap()
}

/// Something done in a process's network namespace.
fn in_namespace(pid: u32, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    execute("nsenter", &[&["-t", &pid.to_string(), "-n"], &words[..]].concat());
}

/// A run of tcp-rr of one round, to whose server's namespace these commands are done before a client connects.
fn run_with(commands: &[&str], arguments: &[&str]) -> RunResult {
    let out = Out::new();
    let mut run = Running::of(&out, &[&["--rounds", "1", "--sample-rate", "0"], arguments].concat());
    // Before the client has connected: it waits for the costs of the probes, and longer.
    run.wait_for("step: client");
    let pid = server_of(&run);
    commands.iter().for_each(|command| in_namespace(pid, command));
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    RunResult::load(&out.path()).unwrap()
}

/// ns per operation that end at this point, in all stages.
fn part(configuration: &ConfigurationResult, point: &str) -> f64 {
    let parts = configuration.stages.iter().flat_map(|stage| &stage.parts);
    parts.filter(|part| part.to.point.name() == point).map(|part| part.ns_per_op).sum()
}

const CAUSES: [&str; 5] = ["rto", "loss-probe", "fast-retransmit", "probe-timer", "other-retransmission"];

/// What a lost segment waits for has the name of its cause, and is accounted for.
fn check_cause(found: &ConfigurationResult, wanted: &str) {
    let parts: Vec<(&str, f64)> = CAUSES.iter().map(|cause| (*cause, part(found, cause))).collect();
    let all: f64 = parts.iter().map(|(_, ns)| ns).sum();
    let of_cause = part(found, wanted);
    assert!(
        of_cause > 0.7 * all && of_cause > 0.5 * found.traced_latency.mean_ns,
        "{wanted}: {parts:?} {}",
        found.name
    );
    assert!(found.latency.mean_ns > 0.0 && found.conservation_percent.abs() <= 0.5);
    // Each of the few waits is thousands of requests long: one that is lost is said, and is much.
    let residual = found.residual_ns_per_op / found.traced_latency.mean_ns;
    assert!(residual.abs() < 0.05 || !found.incomplete.is_empty(), "{wanted}: residual {residual}");
}

/// Rules that drop requests to a native server: in the host's own namespace, and so on the way.
const DROP_ON_THE_WAY: [&str; 16] = [
    "raw",
    "PREROUTING",
    "-d",
    "198.18.0.0/15",
    "-p",
    "tcp",
    "--dport",
    "7000",
    "-m",
    "statistic",
    "--mode",
    "random",
    "--probability",
    "0.005",
    "-j",
    "DROP",
];
const DROP_BEFORE_IT_LEAVES: &str =
    "iptables -w -A OUTPUT -p tcp --sport 7000 -m statistic --mode random --probability 0.005 -j DROP";

pub fn a_lost_segments_wait_has_the_name_of_its_cause() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let refused = run_with(&[DROP_BEFORE_IT_LEAVES], &["--in", "ns:net=veth", "--duration", "2"]);
    check_cause(&refused.configurations[0], "probe-timer");
    for (without_probe, cause) in [(false, "loss-probe"), (true, "rto")] {
        let out = Out::new();
        let arguments = ["--in", "native", "--duration", "2", "--rounds", "1", "--sample-rate", "0"];
        let mut run = Running::of(&out, &arguments);
        run.wait_for("step: warm-up");
        if without_probe {
            in_namespace(run.party("tcp-rr-client"), "sysctl -q -w net.ipv4.tcp_early_retrans=0");
        }
        let rule = Rule::add(&DROP_ON_THE_WAY);
        let (code, said) = run.end();
        drop(rule);
        assert_eq!(code, Some(0), "{said}");
        let lost = RunResult::load(&out.path()).unwrap();
        check_cause(&lost.configurations[0], cause);
        assert!(lost.configurations[0].counters.of(Counter::Resent) > 0);
    }
    assert_eq!(before, Traces::now());
}

/// Whose later segments arrive although its first one is lost: the receiver says so at once, and no timer has to
/// expire.
pub fn a_hole_in_a_long_message_is_filled_by_a_fast_retransmission() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let arguments = ["--in", "ns:net=veth", "--duration", "3", "--set", "response=1400"];
    let mut run = Running::of(&out, &[&["--rounds", "1", "--sample-rate", "0"], &arguments[..]].concat());
    run.wait_for("step: client");
    let server = server_of(&run);
    ["ip link set eth0 mtu 200", "ip link set eth0 gso_max_segs 1"]
        .iter()
        .for_each(|small| in_namespace(server, small));
    run.wait_for("step: warm-up");
    // Never a message's last segment, which is pushed: without it, nothing shows that there is a hole.
    let lose = "iptables -w -t raw -A PREROUTING -p tcp --sport 7000 --tcp-flags PSH NONE \
                -m statistic --mode random --probability 0.03 -j DROP";
    in_namespace(run.party("tcp-rr-client"), lose);
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    let result = RunResult::load(&out.path()).unwrap();
    let found = &result.configurations[0];
    let parts: Vec<(&str, f64, f64)> = CAUSES
        .iter()
        .map(|cause| {
            let parts =
                found.stages.iter().flat_map(|stage| &stage.parts).filter(|part| part.to.point.name() == *cause);
            let (count, ns) =
                parts.fold((0.0, 0.0), |(count, ns), part| (count + part.count_per_op, ns + part.ns_per_op));
            (*cause, count, ns)
        })
        .collect();
    let [rto, probe, fast, ..] = parts.as_slice() else { unreachable!("there are five") };
    // Three messages in a hundred lose their first segment. Where its retransmission is lost as well, a timer expires.
    assert!((0.015..0.06).contains(&fast.1) && fast.1 > 4.0 * (rto.1 + probe.1), "{parts:?}");
    // A round trip, and not a timer's 200 ms.
    assert!(fast.2 / fast.1 < 5e6, "{parts:?}");
    assert!(found.incomplete.iter().any(|reason| reason.contains("segments")), "{:?}", found.incomplete);
    assert_eq!(before, Traces::now());
}

/// Where nothing comes through from the middle of a phase on, there is no latency, and it is not 0.
pub fn what_still_waits_is_counted_and_no_latency_is_none() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let mut run = Running::of(&out, &["--in", "ns:net=veth", "--rounds", "3", "--duration", "0.5"]);
    run.wait_for("step: saving");
    run.wait_for("step: warm-up");
    in_namespace(server_of(&run), "iptables -w -A OUTPUT -p tcp --sport 7000 -j DROP");
    let (code, said) = run.end();
    assert_eq!(code, Some(5), "{said}");
    let kept = RunResult::load(&out.path()).unwrap();
    assert_eq!(kept.configurations[0].rounds, 1);
    assert!(kept.configurations[0].latency.mean_ns > 0.0);
    assert_eq!(before, Traces::now());
}

pub fn messages_of_several_segments_are_not_complete() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let small = ["ip link set eth0 mtu 576", "ip link set eth0 gso_max_segs 1"];
    let found = run_with(&small, &["--in", "ns:net=veth", "--duration", "0.5", "--set", "response=1400"]);
    let found = &found.configurations[0];
    assert!(found.incomplete.iter().any(|reason| reason.contains("segments")), "{:?}", found.incomplete);
}

/// A rule drops what goes to a container's own address, as Docker 28 protects it: no other says a word of it.
pub fn a_rule_that_drops_what_is_forwarded_is_named_soon() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let rule = Rule::add(&["raw", "PREROUTING", "-s", "198.18.0.0/16", "-d", "198.19.0.0/16", "-j", "DROP"]);
    // Engine `ns` goes through a router of its own: the host's rules are not on its way.
    let there = ["--in", "ns:net=bridge", "--rounds", "1", "--duration", "0.4"];
    check(&run_workload("tcp-rr", &Out::new(), &there).configurations[0]);
    let (start, out) = (std::time::Instant::now(), Out::new());
    let output =
        virtax().args(["run", "tcp-rr", "--in", "docker:net=bridge", "--out"]).arg(out.path()).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("-j DROP") && said.contains("PREROUTING"), "{said}");
    assert!(!said.contains("DOCKER-USER"), "{said}");
    // It waits for three seconds; the rest is what a start needs.
    assert!(start.elapsed().as_secs() < 12, "{:?}", start.elapsed());
    drop(rule);
    assert_eq!(before, Traces::now());
}

/// Rules of nftables count only if they are told to.
pub fn a_rule_without_a_counter_is_named_too() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let rules =
        ["add table ip virtax_test", "add chain ip virtax_test early { type filter hook prerouting priority -300; }"];
    let drops = "add rule ip virtax_test early ip daddr 198.19.0.0/16 tcp dport 7000 drop";
    let nft = |rule: &str| execute("nft", &[rule]);
    let (start, out) = (std::time::Instant::now(), Out::new());
    rules.iter().chain([&drops]).for_each(|rule| nft(rule));
    let output =
        virtax().args(["run", "tcp-rr", "--in", "docker:net=bridge", "--out"]).arg(out.path()).output().unwrap();
    nft("delete table ip virtax_test");
    let said = text(&output.stderr);
    let rule = "tcp dport 7000 drop` of the chain early in nftables' table ip virtax_test";
    assert!(!output.status.success() && said.contains(rule), "{said}");
    assert!(start.elapsed().as_secs() < 12, "{:?}", start.elapsed());
    assert_eq!(before, Traces::now());
}

/// A daemon that says it is of version 28, before the real one: what it is asked for.
struct Daemon28 {
    folder: tempfile::TempDir,
    asked: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Daemon28 {
    const REAL: &str = "/var/run/docker.sock";

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let asked = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let all = asked.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(daemon) = std::os::unix::net::UnixStream::connect(Self::REAL) else { return };
                let (to_daemon, to_client) = (daemon.try_clone().unwrap(), client.try_clone().unwrap());
                let all = all.clone();
                std::thread::spawn(move || {
                    pass_on(client, to_daemon, |bytes| all.lock().unwrap().extend_from_slice(bytes));
                });
                std::thread::spawn(move || pass_on(daemon, to_client, say_28));
            }
        });
        Self { folder, asked }
    }
    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }
}

fn pass_on(
    mut from: std::os::unix::net::UnixStream,
    mut to: std::os::unix::net::UnixStream,
    mut seen: impl FnMut(&mut [u8]),
) {
    use std::io::{Read, Write};
    let mut bytes = [0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes) {
        seen(&mut bytes[..count]);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// The daemon's version becomes 28, in as many bytes.
fn say_28(bytes: &mut [u8]) {
    let key = b"\"Version\":\"";
    let places: Vec<usize> =
        bytes.windows(key.len() + 3).enumerate().filter(|(_, at)| at.starts_with(key)).map(|(at, _)| at).collect();
    for at in places {
        let number = &mut bytes[at + key.len()..at + key.len() + 3];
        if number[2] == b'.' {
            number[..2].copy_from_slice(b"28");
        }
    }
}

pub fn a_daemon_of_version_28_is_asked_for_an_unprotected_network() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    for (is_28, arguments) in [(true, "docker:net=bridge"), (true, "docker:net=nat"), (false, "docker:net=bridge")] {
        let (daemon, out) = (Daemon28::start(), Out::new());
        let mut command = virtax();
        if is_28 {
            command.env("DOCKER_HOST", daemon.host());
        }
        command
            .args(["run", "tcp-rr", "--in", arguments, "--rounds", "1", "--duration", "0.4", "--out"])
            .arg(out.path());
        let output = command.output().unwrap();
        let asked = text(&daemon.asked.lock().unwrap());
        assert_eq!(asked.contains("/networks/create"), is_28, "{}", text(&output.stderr));
        let is_unprotected = asked.contains("\"com.docker.network.bridge.gateway_mode_ipv4\":\"nat-unprotected\"");
        assert_eq!(is_unprotected, is_28 && arguments == "docker:net=bridge");
        // The real one behind it knows nothing of that, and works.
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(before, Traces::now());
}

fn share_of(stage: &StageResult, layer: &str) -> (f64, [f64; 2]) {
    let found = stage.layers.iter().find(|found| found.layer == layer);
    found.map_or((0.0, [0.0; 2]), |found| (found.share, found.ci95.unwrap_or([0.0, 1.0])))
}

/// Layers of which somebody was seen at work.
fn worked(stage: &StageResult) -> f64 {
    const NOT_WORK: [&str; 4] = ["queue", "waiting", "unaccounted", "unsampled"];
    stage.layers.iter().filter(|layer| !NOT_WORK.contains(&layer.layer.as_str())).map(|layer| layer.share).sum()
}

/// A queue is not the code in which a sample was taken by chance: at four places, and one from outside.
pub fn time_in_queues_is_no_layers() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let places = ["queue-wire-request-us", "queue-wire-response-us", "queue-veth-request-us", "queue-veth-response-us"];
    let names: Vec<String> = places.iter().map(|place| format!("ns:net=veth+{place}=300")).collect();
    let arguments = ["--in", &names.join(","), "--rounds", "2", "--duration", "1"];
    let result = run_workload("tcp-rr", &Out::new(), &arguments);
    for configuration in &result.configurations {
        let longest = configuration.stages.iter().max_by(|a, b| a.ns_per_op.total_cmp(&b.ns_per_op)).unwrap();
        let stage = configuration
            .stages
            .iter()
            .find(|stage| stage.to.point == Point::Xmit && share_of(stage, "queue").0 > 0.5)
            .unwrap_or_else(|| panic!("{}: {} {:?}", configuration.name, longest.id, longest.layers));
        let (queue, [low, high]) = share_of(stage, "queue");
        assert!(low <= queue && queue <= high && queue > 0.9, "{}: {queue}", configuration.name);
        assert!(worked(stage) < 0.1, "{}: {:?}", configuration.name, stage.layers);
    }
}

/// A stage in which a CPU works from end to end, and what of it is nobody's.
#[derive(Debug)]
struct Unaccounted {
    configuration: String,
    #[expect(dead_code, reason = "shown where a test fails")]
    stage: String,
    ns: f64,
    share: f64,
    /// Lower end of the share's interval.
    low: f64,
}

fn unaccounted_in(configuration: &ConfigurationResult) -> Vec<Unaccounted> {
    let is_hop = |point: Point| matches!(point, Point::Xmit | Point::Receive);
    let works = |stage: &&StageResult| {
        let is_server =
            stage.from.point == Point::Received && stage.to.point == Point::Send && stage.ns_per_op > 50_000.0;
        is_hop(stage.from.point) && is_hop(stage.to.point) || is_server
    };
    let of_stage = |stage: &StageResult| {
        let (share, [low, _]) = share_of(stage, "unaccounted");
        let (configuration, stage, ns) = (configuration.name.clone(), stage.id.clone(), stage.ns_per_op);
        Unaccounted { configuration, stage, ns, share, low }
    };
    configuration.stages.iter().filter(|stage| !stage.layers.is_empty()).filter(works).map(of_stage).collect()
}

/// A run, measured again (at most twice) where the host's own accounts say that other work disturbed it.
fn run_undisturbed(arguments: &[&str]) -> RunResult {
    let run = || run_workload("tcp-rr", &Out::new(), arguments);
    let is_disturbed = |result: &RunResult| result.warnings.iter().any(|warning| warning.name == "disturbed-rounds");
    (0..2).fold(run(), |result, _| if is_disturbed(&result) { run() } else { result })
}

/// Where a CPU works from end to end, samples see it.
pub fn where_a_cpu_works_little_is_unaccounted() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let mut seen = Vec::new();
    for arguments in [
        ["--in", "native+spin-us=100,ns:net=nat+forward-rules=2000", "--rounds", "2", "--samples-until", "3%"]
            .as_slice(),
        &["--in", "ns:net=veth", "--rounds", "2", "--samples-until", "5%"],
    ] {
        let result = run_undisturbed(arguments);
        for configuration in &result.configurations {
            assert!(configuration.incomplete.is_empty(), "{:?}", configuration.incomplete);
            seen.extend(unaccounted_in(configuration));
        }
    }
    let long: Vec<_> = seen.iter().filter(|found| found.ns > 5_000.0).collect();
    assert!(long.len() >= 3, "{seen:#?}");
    assert!(long.iter().all(|found| found.low <= 0.0), "{long:#?}");
    let of_long: f64 = long.iter().map(|found| found.share).sum::<f64>() / long.len() as f64;
    assert!(of_long < 0.05, "{long:#?}");
    // Of hops of a third of a microsecond, the sampler may miss 50 ns each (docs/method.md): all of them together,
    // and by their intervals.
    let hops = || seen.iter().filter(|found| found.configuration == "ns:net=veth");
    let (time, unaccounted) =
        hops().fold((0.0, 0.0), |(time, none), found| (time + found.ns, found.ns.mul_add(found.share, none)));
    let missed = 0.05f64.mul_add(time, 50.0 * hops().count() as f64);
    assert!(unaccounted < missed, "{unaccounted} of {time} ns: {seen:#?}");
    assert!(hops().filter(|found| found.low > 0.0).count() <= 1, "{seen:#?}");
}

/// The disk on which a folder is, as `major:minor` of the whole disk.
fn disk_of(folder: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(folder).ok()?.dev();
    let name = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let place = fs::canonicalize(format!("/sys/dev/block/{name}")).ok()?;
    let disk = if place.join("partition").exists() { place.parent()?.to_owned() } else { place };
    Some(fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned())
}

/// The run's group for blkio, of version 1.
fn blkio_group_of(run: &Running) -> Option<std::path::PathBuf> {
    let family = profiler::process::family(run.child.id());
    family.into_iter().skip(1).find_map(|pid| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = groups.lines().find_map(|line| line.split_once(":blkio:"))?.1.to_owned();
        let is_server = path.contains("virtax-") && !path.contains("client");
        is_server.then(|| std::path::PathBuf::from(format!("/sys/fs/cgroup/blkio{path}")))
    })
}

pub fn a_bio_that_a_groups_limit_holds_back_is_found() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let Some(disk) = disk_of("/var/tmp").filter(|_| std::path::Path::new("/sys/fs/cgroup/blkio").exists()) else {
        harness::skip_anyway("a blkio controller of version 1, and a disk");
        return;
    };
    for direct in ["on", "off"] {
        let out = Out::new();
        let mut command = virtax();
        let set = format!("direct={direct}");
        command.args(["run", "block", "--verbose", "--in", "ns:net=host", "--rounds", "1", "--duration", "2"]);
        command.args(["--sample-rate", "0", "--set", "kind=write", "--set", &set, "--out"]).arg(out.path());
        let mut run = Running::start(command);
        run.wait_for("step: warm-up");
        let mut group = None;
        wait_until("the group", || {
            group = blkio_group_of(&run);
            group.is_some()
        });
        let limit = group.unwrap().join("blkio.throttle.write_iops_device");
        fs::write(&limit, format!("{disk} 200")).unwrap();
        let (code, said) = run.end();
        assert_eq!(code, Some(0), "{said}");
        let result = RunResult::load(&out.path()).unwrap();
        let found = &result.configurations[0];
        let rows = || found.stages.iter().filter(|stage| stage.from.point == Point::HeldBack);
        let held: f64 = rows().map(|stage| stage.ns_per_op).sum();
        let residual = found.residual_ns_per_op / found.traced_latency.mean_ns;
        if direct == "on" {
            assert!(held > 0.8 * found.traced_latency.mean_ns, "{held} of {:?}", found.traced_latency);
            assert!(rows().all(|stage| stage.label == "held back by the group's limit"), "{:?}", found.stages);
            assert!(residual.abs() < 0.05, "{residual}");
        } else {
            // A limit of version 1 knows nothing of who made a page dirty: these are not held back.
            assert!(held == 0.0 && found.traced_latency.mean_ns < 2e6, "{held} {:?}", found.traced_latency);
        }
    }
}

/// Accounts of many threads hold, and so do 10,000 connections.
pub fn many_threads_and_many_connections_are_measured() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let many = ["--set", "connections=512", "--set", "model=threads", "--set", "server=threads"];
    let short = ["--in", "native", "--rounds", "1", "--duration", "2"];
    let result = run_workload("tcp-rr", &Out::new(), &[&short[..], &many].concat());
    check(&result.configurations[0]);
    let off = result.warnings.iter().find(|warning| warning.text.contains("own account"));
    assert!(off.is_none(), "{off:?}");
    let result = run_workload("tcp-rr", &Out::new(), &[&short[..], &["--set", "connections=10000"]].concat());
    let found = &result.configurations[0];
    assert!(found.losses.lost_share() <= 0.001 && found.conservation_percent.abs() < 0.5, "{:?}", found.losses);
    assert!((found.residual_ns_per_op / found.traced_latency.mean_ns).abs() < 0.05, "{}", found.residual_ns_per_op);
    assert_eq!(before, Traces::now());
}

/// On a CPU that never idles, what a request costs there is paid by all that are in flight.
pub fn a_saturated_cpus_queue_is_no_stages_own_cost() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Redis) {
        return;
    }
    for clients in ["1", "10", "50"] {
        let set = format!("clients={clients}");
        let arguments = ["--in", "native,ns:net=nat", "--rounds", "6", "--duration", "1"];
        let result = run_workload("redis-set", &Out::new(), &[&arguments[..], &["--set", &set]].concat());
        let (native, nat) = (of(&result, "native"), of(&result, "ns:net=nat"));
        let service = |found: &ConfigurationResult| {
            let of_stages: f64 =
                found.stages.iter().map(|stage| stage.service_ns_per_op.unwrap_or(stage.ns_per_op)).sum();
            of_stages + found.off_path_ns_per_op
        };
        let in_flight: f64 = clients.parse().unwrap();
        let more = nat.traced_latency.mean_ns - native.traced_latency.mean_ns;
        let computed = (service(nat) - service(native)) * in_flight;
        assert!((computed / more - 1.0).abs() < 0.05, "{clients}: {computed} for {more}");
        let saturated = result.comparisons.iter().find_map(|comparison| comparison.saturated.as_ref());
        assert_eq!(saturated.is_some(), clients != "1", "{clients}");
    }
}

/// A CPU that wakes up from idling is not a CPU that somebody else has.
pub fn an_idle_cpus_wake_up_is_no_run_queue() {
    let _alone = alone();
    if !has(Feature::Probes) || std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return;
    }
    let arguments = ["--in", "native", "--rounds", "1", "--duration", "1", "--placement", "split"];
    // Where other work has the CPU, there is a queue: what took the one for the other would do so each time.
    let mut seen = Vec::new();
    let mut is_idle_exit = || {
        let result = run_workload("tcp-rr", &Out::new(), &arguments);
        let found = &result.configurations[0];
        check(found);
        let (idle, queue) = (part(found, "idle-exit"), part(found, "run-queue"));
        seen.push(format!("idle exit {idle}, run queue {queue}"));
        idle > queue && idle > 0.0
    };
    let once = (0..3).any(|_| is_idle_exit());
    assert!(once, "{seen:?}");
}

/// Where a native server is: in a group of its own, as every service, or where virtax is. The client always has one.
pub fn a_native_server_has_a_group_of_its_own() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    for (engine, has_one) in [("native", true), ("native:cgroup=root", false)] {
        let out = Out::new();
        let mut run = Running::of(&out, &["--in", engine, "--rounds", "1", "--duration", "0.5"]);
        run.wait_for("step: detached phase");
        let groups = |word: &str| fs::read_to_string(format!("/proc/{}/cgroup", run.party(word))).unwrap();
        let (server, client) = (groups("tcp-rr-server"), groups("tcp-rr-client"));
        assert_eq!(server.contains("/virtax-"), has_one, "{engine}: {server}");
        assert!(client.contains("/virtax-") && client != server, "{engine}: {client}");
        assert_eq!(run.end().0, Some(0));
    }
    assert_eq!(before, Traces::now());
}

/// What the environment says is what was there while it was measured.
pub fn hooks_on_the_native_path_are_those_that_were_there() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let warned = |result: &RunResult| result.warnings.iter().any(|warning| warning.name == "native-path-has-netfilter");
    let _rule = Rule::add(&["raw", "PREROUTING", "-s", "198.18.255.254", "-j", "ACCEPT"]);
    let result = run_workload("tcp-rr", &Out::new(), &["--in", "native", "--rounds", "1", "--duration", "0.5"]);
    assert!(warned(&result), "{:?}", result.warnings);
}
