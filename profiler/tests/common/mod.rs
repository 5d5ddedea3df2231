//! What the tests of whole runs share.

#![allow(dead_code, reason = "every test file uses its own share")]

pub mod harness;
mod running;
mod traces;

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

#[allow(unused_imports, reason = "every test file uses its own share")]
pub use running::Running;
#[allow(unused_imports, reason = "every test file uses its own share")]
pub use traces::{Traces, files_below};

use nix::sys::signal::{SigHandler, Signal, signal};
use profiler::{
    counts::Point,
    engine::docker,
    pack, probes,
    result::{ConfigurationResult, RunResult},
};

/// A `virtax` command. Signals reach it, even where whoever started the tests ignores them: a shell for what it
/// starts in the background, `nohup`.
pub fn virtax() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtax"));
    let reset = || {
        for caught in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the default action is no handler of ours.
            unsafe { signal(caught, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: all that it does is a system call, which is allowed between fork and exec.
    unsafe { command.pre_exec(reset) };
    command
}

/// One test that measures at a time: they share CPUs.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something a test needs of the host.
#[derive(Clone, Copy)]
pub enum Feature {
    /// The probes load.
    Probes,
    /// A Docker daemon answers.
    Docker,
    /// Redis is installed.
    Redis,
    /// A cgroup with a CPU quota can be made.
    CpuQuota,
    /// fio is installed.
    Fio,
    /// strace is installed.
    Strace,
    /// bpftrace is installed.
    Bpftrace,
    /// QEMU is installed, and a kernel for its guest is there.
    Vm,
    /// libvirt's driver for QEMU is installed, and virtax was built with a way to it.
    Libvirt,
}

/// A cgroup with half a CPU of this host's, gone with it; `None` where the kernel has no quotas.
pub struct Quota(PathBuf);

impl Quota {
    pub fn new() -> Option<Self> {
        let (second, first) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/cpu"));
        let is_second = second.join("cgroup.controllers").exists();
        let parent = if is_second { second } else { first };
        if is_second {
            // Where it is on already, this changes nothing.
            std::fs::write(parent.join("cgroup.subtree_control"), "+cpu").ok()?;
        }
        let path = parent.join(format!("virtax-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let quota = Self(path);
        // Short periods: a phase of a tenth of a second meets several.
        let files: &[(&str, &str)] = if is_second {
            &[("cpu.max", "5000 10000")]
        } else {
            &[("cpu.cfs_period_us", "10000"), ("cpu.cfs_quota_us", "5000")]
        };
        for (file, value) in files {
            std::fs::write(quota.0.join(file), value).ok()?;
        }
        Some(quota)
    }
    pub fn add(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process joins the group");
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Its processes have ended with the run; the group is busy until the kernel has noticed.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Whether the probes load here: asked once, as an answer takes seconds of the kernel's verifier.
fn probes_load() -> profiler::error::Result<()> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    match ANSWER.get_or_init(|| probes::support().err().map(|error| error.to_string())) {
        None => Ok(()),
        Some(why) => Err(profiler::error::Error::unsupported("no probes", why, "`virtax doctor` says what is missing")),
    }
}

/// True if the host has it. Otherwise the test is to return, and is reported as skipped.
pub fn has(feature: Feature) -> bool {
    lack(feature).inspect(|what| harness::skip(what)).is_none()
}

/// Whether the host has a feature, where the test goes on without it.
pub fn is_there(feature: Feature) -> bool {
    lack(feature).is_none()
}

/// What it lacks of a feature, by name; `None`: it is there.
fn lack(feature: Feature) -> Option<String> {
    let (name, found) = match feature {
        Feature::Probes => ("loading BPF programs", probes_load()),
        Feature::Docker => ("a Docker daemon", docker::Client::connect().map(drop)),
        Feature::Redis => ("redis-server", pack::find_program("redis-server", "redis-server").map(drop)),
        Feature::Fio => ("fio", pack::find_program("fio", "fio").map(drop)),
        Feature::Strace => ("strace", pack::find_program("strace", "strace").map(drop)),
        Feature::Vm => ("QEMU and a kernel for its guest", {
            let qemu = pack::find_program("qemu-system-x86_64", "qemu-system-x86");
            qemu.and_then(|_| profiler::guest::Kernel::find()).map(drop)
        }),
        Feature::Libvirt => ("libvirt's driver for QEMU", {
            let missing =
                || profiler::error::Error::unsupported("no libvirt", "no driver", profiler::engine::vm::PACKAGES);
            profiler::engine::vm::has_libvirt().then_some(()).ok_or_else(missing)
        }),
        Feature::Bpftrace => ("bpftrace", pack::find_program("bpftrace", "bpftrace").map(drop)),
        Feature::CpuQuota => {
            let missing =
                || profiler::error::Error::unsupported("no CPU quotas", "no such cgroup", "CONFIG_CFS_BANDWIDTH");
            ("a cgroup with a CPU quota", Quota::new().map(drop).ok_or_else(missing))
        }
    };
    found.err().map(|error| format!("{name} ({error})"))
}

/// Whether the longer suites run as well: `cargo xtask test --full`.
pub fn full() -> bool {
    std::env::var_os("VIRTAX_FULL").is_some()
}

/// Whether a test runs that is one of `--full`; without, it is reported as skipped, and has to return at once.
pub fn is_wanted_in_full() -> bool {
    if !full() {
        harness::skip_anyway("--full, which executes the longer tests");
    }
    full()
}

/// A script of bpftrace's at work, which says so in its `BEGIN`: with tracefs in a mount namespace of its own,
/// because many hosts have it not mounted. Retried, because bpftrace sometimes gives up at its start.
pub fn bpftrace(script: &Path) -> std::process::Child {
    const MOUNTED: &str = "for kind in tracefs:tracing debugfs:debug; do place=/sys/kernel/${kind#*:}; \
                           mountpoint -q $place || mount -t ${kind%:*} none $place || exit 1; done; \
                           exec bpftrace -B line \"$0\"";
    for _ in 0..5 {
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", MOUNTED])
            .arg(script)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("unshare");
        if says(child.stdout.as_mut().expect("a pipe"), BPFTRACE_WORKS) {
            return child;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("bpftrace does not run {}", script.display());
}

/// What a script is to print in its `BEGIN`, which bpftrace executes once everything is attached.
pub const BPFTRACE_WORKS: &str = "at work";

/// Whether a program says this within half a minute. Nothing is read beyond that line.
fn says(output: &mut std::process::ChildStdout, words: &str) -> bool {
    use std::{io::Read, os::fd::AsFd};
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut said = Vec::new();
    while !text(&said).contains(words) {
        let left = deadline.saturating_duration_since(std::time::Instant::now()).as_millis();
        let mut watched = [nix::poll::PollFd::new(output.as_fd(), nix::poll::PollFlags::POLLIN)];
        let waited = nix::poll::poll(&mut watched, u16::try_from(left).unwrap_or(u16::MAX));
        let mut byte = [0];
        if !waited.is_ok_and(|ready| ready > 0) || !matches!(output.read(&mut byte), Ok(1)) {
            return false;
        }
        said.push(byte[0]);
    }
    true
}

/// What a command printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it, and fails with what it printed if it does.
pub fn succeed(mut command: Command) -> Output {
    let output = command.output().expect("virtax can be executed");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    output
}

/// A folder for results that goes with the test.
pub struct Out(tempfile::TempDir);

impl Out {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }
    pub fn path(&self) -> PathBuf {
        self.0.path().join("run")
    }
}

/// `virtax run tcp-rr` with these arguments; its result.
pub fn run_tcp_rr(arguments: &[&str]) -> RunResult {
    run_workload("tcp-rr", &Out::new(), arguments)
}

/// `virtax run` into a folder; its result.
pub fn run_workload(workload: &str, out: &Out, arguments: &[&str]) -> RunResult {
    let mut command = virtax();
    command.args(["run", workload, "--json", "--out"]).arg(out.path()).args(arguments);
    let output = succeed(command);
    serde_json::from_slice(&output.stdout).expect("--json prints the result")
}

/// The children of a run whose command line holds a word.
pub fn child_with(run: u32, word: &str) -> Option<u32> {
    profiler::process::family(run)
        .into_iter()
        .skip(1)
        .find(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains(word)))
}

/// Waits until something holds, a minute at most.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Repetitions that a run has saved so far.
pub fn repetitions(out: &Out) -> usize {
    std::fs::read_to_string(out.path().join("repetitions.jsonl")).map_or(0, |text| text.lines().count())
}

/// What every result must hold, at any speed of the host.
pub fn check(configuration: &ConfigurationResult) {
    let name = &configuration.name;
    // An emulated processor is slow: few requests, few samples; and under load it was seen to miss receipts.
    let emulated = std::env::var_os("VIRTAX_LAB").is_some();
    let excused = |reason: &&String| emulated && reason.contains("(pipelining)");
    let incomplete: Vec<&String> = configuration.incomplete.iter().filter(|reason| !excused(reason)).collect();
    assert_eq!(incomplete, Vec::<&String>::new(), "{name}");
    assert!(configuration.conservation_percent.abs() <= 0.5, "{name}: {}", configuration.conservation_percent);
    let residual = configuration.residual_ns_per_op / configuration.traced_latency.mean_ns;
    // The method's limits. A VM's requests are few and long: one that crosses the end of a phase weighs
    // much.
    let limit = if configuration.settings.contains_key("accelerator") { 0.07 } else { 0.05 };
    assert!(residual.abs() <= limit, "{name}: residual {residual}");
    let losses = &configuration.losses;
    assert!(losses.followed > if emulated { 20 } else { 100 }, "{name}: {losses:?}");
    assert!(losses.lost_share() <= 0.001, "{name}: {losses:?}");
    assert_eq!(
        losses.followed,
        losses.completed + losses.unfinished + losses.lost.values().sum::<u64>(),
        "{name}: {losses:?}"
    );
    let records = configuration.records;
    assert_eq!(records.started, records.committed + records.lost + records.unfinished, "{name}: {records:?}");
    assert_eq!(records.illegal_transitions, 0, "{name}");
    // A twentieth of a core is the aim at the usual length. These phases are short, and their beginnings and ends
    // take some 50 ms.
    assert!(emulated || configuration.virtax_cpu_share <= 0.2, "{name}: {}", configuration.virtax_cpu_share);
    check_hops(configuration);
    for stage in &configuration.stages {
        let parts: f64 = stage.parts.iter().map(|part| part.share).sum();
        assert!(stage.parts.is_empty() || (parts - 1.0).abs() < 1e-9, "{name}: {} parts {parts}", stage.id);
        let layers: f64 = stage.layers.iter().map(|layer| layer.share).sum();
        assert!(stage.layers.is_empty() || (layers - 1.0).abs() < 1e-6, "{name}: {} layers {layers}", stage.id);
    }
    let samples = &configuration.samples;
    assert_eq!(samples.lost, 0, "{name}: {samples:?}");
    // One twentieth, and three samples: of few, that may be more.
    let few = 3.0 / samples.all.max(1) as f64;
    assert!(samples.unmatched_share <= few + if emulated { 0.25 } else { 0.05 }, "{name}: {samples:?}");
}

const HOPS: &[&str] = &["send", "xmit", "receive", "delivered", "ready", "received"];

/// Every hop of the path once per operation, but for the requests that cross the ends of phases; alternatives
/// (softirq or backlog) count together.
fn check_hops(configuration: &ConfigurationResult) {
    let mut by_end = std::collections::BTreeMap::<String, f64>::new();
    for stage in &configuration.stages {
        if HOPS.contains(&stage.to.point.name()) || stage.to.point == Point::Backlog {
            let end = stage.to.to_string().replace("backlog", "delivered");
            *by_end.entry(format!("{}/{}/{end}", stage.direction, stage.role.name())).or_default() +=
                stage.count_per_op;
        }
    }
    let crossing = configuration.losses.unfinished as f64 / configuration.losses.followed.max(1) as f64;
    for (hop, count) in by_end {
        assert!((count - 1.0).abs() <= 0.01 + crossing, "{}: {hop} occurs {count} times", configuration.name);
    }
}

/// A configuration of a result.
pub fn of<'a>(result: &'a RunResult, name: &str) -> &'a ConfigurationResult {
    result.configuration(name).unwrap_or_else(|| panic!("{name} was measured"))
}

/// A signal to a process that this test, or a run of it, has started.
pub fn send(pid: u32, signal: libc::c_int) {
    // SAFETY: no pointers; the process is ours, and still in the table of processes.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}
