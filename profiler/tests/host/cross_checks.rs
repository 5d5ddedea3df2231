//! Counts and times against instruments that are not virtax: strace, /proc, bpftrace, and the client's own histogram.

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::common::{Feature, Out, Running, alone, has, of, run_workload, send, text, virtax};
use profiler::{
    counts::{Point, Role, ThreadState},
    experiment::store,
    records,
    result::{ConfigurationResult, RunResult},
    run_folder,
};

fn start(out: &Out, arguments: &[&str]) -> Running {
    Running::of(out, &[&["--in", "native", "--rounds", "1"], arguments].concat())
}

fn interrupt(child: &Child) {
    send(child.id(), libc::SIGINT);
}

/// Calls of one system call in `strace -c`'s table: `% time  seconds  usecs/call  calls  [errors]  syscall`.
fn counted(table: &str, call: &str) -> f64 {
    let line = table.lines().find(|line| line.split_whitespace().last() == Some(call));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(0.0)
}

fn per_op(configuration: &ConfigurationResult, role: Role, call: &str) -> f64 {
    let calls = configuration.syscalls.iter().filter(|found| found.role == role && found.name == call);
    calls.map(|found| found.count_per_op).sum()
}

pub fn system_calls_are_those_that_strace_counts() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Strace) {
        return;
    }
    let out = Out::new();
    let mut run = start(&out, &["--duration", "2", "--sample-rate", "0"]);
    run.wait_for("step: warm-up");
    let server = run.party("tcp-rr-server");
    let table = out.path().with_extension("strace");
    let mut strace = Command::new("strace")
        .args(["-c", "-f", "-p", &server.to_string(), "-o"])
        .arg(&table)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    run.wait_for("step: saving");
    interrupt(&strace);
    strace.wait().unwrap();
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    let table = fs::read_to_string(&table).unwrap();
    let result = RunResult::load(&out.path()).unwrap();
    let found = of(&result, "native");
    // An answer is a write: by both, for each of them.
    let writes = counted(&table, "write") + counted(&table, "sendto");
    assert!(writes > 100.0, "{table}");
    let own_writes = per_op(found, Role::Server, "write") + per_op(found, Role::Server, "sendto");
    for calls in [&["read", "recvfrom"][..], &["epoll_wait", "epoll_pwait"]] {
        let by_strace: f64 = calls.iter().map(|call| counted(&table, call)).sum::<f64>() / writes;
        let by_virtax: f64 = calls.iter().map(|call| per_op(found, Role::Server, call)).sum::<f64>() / own_writes;
        assert!((by_virtax / by_strace - 1.0).abs() < 0.02, "{calls:?}: {by_virtax} {by_strace}\n{table}");
    }
    assert!((own_writes - 1.0).abs() < 0.02, "{own_writes}");
}

/// NET_RX softirqs of all CPUs so far.
fn softirqs() -> f64 {
    let text = fs::read_to_string("/proc/softirqs").unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with("NET_RX:")).unwrap();
    line.split_whitespace().skip(1).filter_map(|word| word.parse::<f64>().ok()).sum()
}

/// Context switches of a process so far.
fn switches(pid: u32) -> f64 {
    let value = |tid: u32, field: &str| -> f64 {
        profiler::process::status_field(tid, field).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    threads
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .map(|tid: u32| value(tid, "voluntary_ctxt_switches") + value(tid, "nonvoluntary_ctxt_switches"))
        .sum()
}

/// Packets that the run's wire has received from the client so far: one a request, and acknowledgements with them.
fn requests() -> f64 {
    let links = profiler::net::links_here().unwrap();
    let wire = links.iter().find(|name| name.starts_with("vx") && name.ends_with("w0")).unwrap();
    let path = format!("/sys/class/net/{wire}/statistics/rx_packets");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

pub fn softirqs_and_switches_are_those_of_proc() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let mut run = start(&out, &["--duration", "2", "--sample-rate", "0"]);
    run.wait_for("step: detached phase");
    let server = run.party("tcp-rr-server");
    let now = || (softirqs(), switches(server), requests());
    let before = now();
    // The last phase begins.
    run.wait_for("step: detached phase");
    let after = now();
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    let operations = after.2 - before.2;
    assert!(operations > 5000.0, "{operations}");
    let result = RunResult::load(&out.path()).unwrap();
    let found = of(&result, "native");
    // Each way the request and the response cross the wire, one softirq receives.
    let parts = found.stages.iter().flat_map(|stage| &stage.parts);
    let own: f64 = parts.filter(|part| part.to.point == Point::Softirq).map(|part| part.count_per_op).sum();
    let by_proc = (after.0 - before.0) / operations;
    assert!((own / by_proc - 1.0).abs() < 0.05, "softirqs: {own} {by_proc}");
    let (_, repetitions) = store::load(&out.path()).unwrap();
    let detailed =
        repetitions.iter().flat_map(|repetition| &repetition.phases).filter_map(|phase| phase.probes.as_ref());
    let (mut ran, mut operations_there) = (0, 0);
    for probes in detailed.filter(|probes| !probes.states.is_empty()) {
        let states =
            probes.states.iter().filter(|state| state.role == Role::Server && state.state == ThreadState::Running);
        ran += states.map(|state| state.count).sum::<u64>();
        operations_there += probes.counter(profiler_common::Counter::Operations);
    }
    let (own, by_proc) = (ran as f64 / operations_there as f64, (after.1 - before.1) / operations);
    assert!((own / by_proc - 1.0).abs() < 0.05, "switches: {own} {by_proc}");
}

/// Stages as bpftrace sees them: from the server's receipt to its answer's way out, the wire, and the waits for
/// client and server.
const SCRIPT: &str = r#"
BEGIN { printf("at work\n"); }
tracepoint:net:net_dev_start_xmit /comm == "virtax-workload"/ {
  @sent[args->skbaddr] = nsecs;
  if (@got[tid]) { @own_ns = sum(nsecs - @got[tid]); @own_n = count(); delete(@got[tid]); }
}
tracepoint:net:netif_receive_skb /@sent[args->skbaddr]/ {
  @wire_ns = sum(nsecs - @sent[args->skbaddr]); @wire_n = count(); delete(@sent[args->skbaddr]);
}
tracepoint:sock:sk_data_ready { @ready[args->skaddr] = nsecs; }
tracepoint:sock:sock_recv_length /args->ret > 0 && comm == "virtax-workload"/ {
  if (@ready[args->sk]) { @wait_ns = sum(nsecs - @ready[args->sk]); @wait_n = count(); delete(@ready[args->sk]); }
  if (pid == SERVER) { @got[tid] = nsecs; }
}
END { clear(@sent); clear(@ready); clear(@got); }
"#;

/// The mean that a script's two maps make.
fn mean(output: &str, name: &str) -> f64 {
    let value = |map: &str| -> f64 {
        let line = output
            .lines()
            .find(|line| line.starts_with(&format!("@{map}:")))
            .unwrap_or_else(|| panic!("{map}: {output}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    value(&format!("{name}_ns")) / value(&format!("{name}_n"))
}

pub fn three_stages_are_those_that_bpftrace_measures() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Bpftrace) {
        return;
    }
    let out = Out::new();
    let mut command = virtax();
    // A server that computes for a while: a stage that is large against what both tools cost.
    command.args(["run", "tcp-rr", "--verbose", "--in", "native+spin-us=50", "--rounds", "1", "--duration", "20"]);
    command.args(["--sample-rate", "0", "--out"]).arg(out.path());
    let mut run = Running::start(command);
    run.wait_for("step: detached phase");
    let server = run.party("tcp-rr-server");
    let script = out.path().with_extension("bt");
    fs::File::create(&script).unwrap().write_all(SCRIPT.replace("SERVER", &server.to_string()).as_bytes()).unwrap();
    let bpftrace = crate::common::bpftrace(&script);
    sleep(Duration::from_secs(10));
    interrupt(&bpftrace);
    let output = bpftrace.wait_with_output().unwrap();
    let shown = text(&output.stdout);
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    let result = RunResult::load(&out.path()).unwrap();
    let found = of(&result, "native+spin-us=50");
    let stage = |id: &str| found.stages.iter().find(|stage| stage.id == id).unwrap_or_else(|| panic!("{id}")).ns_per_op;
    let own = stage("request/received→send") + stage("response/send→xmit(wire@host)");
    let wire = (stage("request/xmit(wire@client)→receive(wire@host)")
        + stage("response/xmit(wire@host)→receive(wire@client)"))
        / 2.0;
    let wait = (stage("request/ready→received") + stage("response/ready→received")) / 2.0;
    // Both stand at the same points, one before the other: a stage differs by a few programs' time, of either.
    let programs = 3000.0;
    for (name, ours) in [("own", own), ("wire", wire), ("wait", wait)] {
        let theirs = mean(&shown, name);
        assert!((ours - theirs).abs() < 0.05 * theirs + programs, "{name}: {ours} {theirs}\n{shown}");
    }
    assert!((own / mean(&shown, "own") - 1.0).abs() < 0.1, "{own} {shown}");
}

pub fn records_are_as_long_as_the_clients_histogram_says() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let arguments = ["--in", "native", "--rounds", "2", "--duration", "2", "--sample-rate", "0", "--records", "5000"];
    let result = run_workload("tcp-rr", &out, &arguments);
    let found = of(&result, "native");
    let mut lengths: Vec<f64> = records::read(&run_folder::records_path(&out.path(), "native"))
        .unwrap()
        .iter()
        .filter(|record| record.kind == profiler::counts::PhaseKind::Traced)
        .filter_map(|record| Some(record.latency_ns()? as f64))
        .collect();
    lengths.sort_by(f64::total_cmp);
    assert!(lengths.len() > 500, "{}", lengths.len());
    let median = lengths[lengths.len() / 2];
    // The records begin at the send, after the call: half a microsecond later than the client's clock.
    let ratio = median / found.traced_latency.p50_ns;
    assert!((0.85..=1.05).contains(&ratio), "{median} {}", found.traced_latency.p50_ns);
    let tail = lengths[lengths.len() * 99 / 100];
    assert!((0.6..=1.5).contains(&(tail / found.traced_latency.p99_ns)), "{tail} {}", found.traced_latency.p99_ns);
}
