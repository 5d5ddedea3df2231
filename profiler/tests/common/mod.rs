//! What the tests of whole runs share.

#![allow(dead_code, reason = "every test file uses its own share")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

use profiler::{engine::docker, probes, result::RunResult};

/// A `virtax` command.
pub fn virtax() -> Command {
    Command::new(env!("CARGO_BIN_EXE_virtax"))
}

/// One test that measures at a time: they share CPUs.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something a test needs of the machine.
#[derive(Clone, Copy)]
pub enum Feature {
    /// The probes load.
    Probes,
    /// A Docker daemon answers.
    Docker,
}

/// True if the machine has it. Otherwise the test is skipped by name, unless `VIRTAX_NO_SKIP` says that everything was
/// set up: then it fails.
pub fn has(feature: Feature) -> bool {
    let (name, found) = match feature {
        Feature::Probes => ("loading BPF programs", probes::support().map(drop)),
        Feature::Docker => ("a Docker daemon", docker::Client::connect().map(drop)),
    };
    match found {
        Ok(()) => true,
        Err(error) => {
            assert!(std::env::var_os("VIRTAX_NO_SKIP").is_none(), "{name} is missing: {error}");
            eprintln!("skipped: needs {name}: {error}");
            false
        }
    }
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
    let out = Out::new();
    let mut command = virtax();
    command.args(["run", "tcp-rr", "--json", "--out"]).arg(out.path()).args(arguments);
    let output = succeed(command);
    serde_json::from_slice(&output.stdout).expect("--json prints the result")
}

/// Everything on this machine that could have been left behind by a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    links: Vec<String>,
    namespaces: Vec<String>,
    containers: String,
    networks: String,
    images: String,
    rules: String,
    forwarding: String,
    runs: bool,
    namespace_folder: bool,
    processes: Vec<String>,
    programs: usize,
}

impl Traces {
    pub fn now() -> Self {
        let docker = |arguments: &[&str]| {
            let output = Command::new("docker").args(arguments).output().expect("docker's client");
            text(&output.stdout)
        };
        let rules = Command::new("iptables-save").output().expect("iptables-save");
        // Counters and dates differ from one moment to the next.
        let rules =
            text(&rules.stdout).lines().filter(|line| line.starts_with('-')).map(|line| format!("{line}\n")).collect();
        let mut links = profiler::net::links_here().expect("links");
        links.sort();
        Self {
            links,
            namespaces: profiler::net::namespaces_named("virtax-"),
            containers: docker(&["ps", "--all", "--quiet"]),
            networks: docker(&["network", "ls", "--quiet"]),
            images: docker(&["images", "--all", "--quiet"]),
            rules,
            forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("ip_forward"),
            runs: Path::new("/run/virtax").exists(),
            namespace_folder: Path::new("/run/netns").exists(),
            processes: workload_processes(),
            programs: settled_programs(),
        }
    }
}

/// Command lines of living workload processes.
fn workload_processes() -> Vec<String> {
    procfs::process::all_processes()
        .expect("/proc")
        .filter_map(|process| {
            let process = process.ok()?;
            let stat = process.stat().ok()?;
            // A dead one waits for its parent, which may be this machine's first process.
            (stat.comm == "virtax-workload" && stat.state != 'Z')
                .then(|| process.cmdline().unwrap_or_default().join(" "))
        })
        .collect()
}

/// BPF programs, once the kernel has freed what nobody holds any more.
fn settled_programs() -> usize {
    let count = || aya::programs::loaded_programs().count();
    let mut last = count();
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = count();
        if now == last {
            return now;
        }
        last = now;
    }
    last
}
