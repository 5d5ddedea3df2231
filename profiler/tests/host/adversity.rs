//! What a run meets in the world: daemons that stop, servers that hang, disks that fill up, links that vanish, other
//! work.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::common::{Feature, Out, Running, Traces, alone, has, repetitions, send, text, virtax, wait_until};
use profiler::result::RunResult;

fn run(out: &Out, arguments: &[&str]) -> Running {
    Running::of(out, &[&["--duration", "0.4"], arguments].concat())
}

pub fn a_server_that_hangs_is_named_and_what_was_measured_is_kept() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    for (word, named) in [("tcp-rr-server", "the server is stopped"), ("tcp-rr-client", "the client hangs")] {
        let out = Out::new();
        let mut run = run(&out, &["--in", "native", "--rounds", "50"]);
        run.wait_for("step: saving");
        run.wait_for("step: detached phase");
        send(run.party(word), libc::SIGSTOP);
        let (code, said) = run.end();
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains(named), "{said}");
        assert_eq!(RunResult::load(&out.path()).unwrap().configurations[0].rounds, 1);
        assert_eq!(before, Traces::now());
    }
}

/// The first child of a run, as soon as it is there: a server answers within a millisecond. So only numbers that a
/// child most likely has are looked at, those after the run's own, and without a pause.
fn first_child(run: u32) -> u32 {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: state and parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(pid) = (run + 1..run + 256).find(|pid| parent(*pid) == Some(run)) {
            return pid;
        }
        assert!(std::time::Instant::now() < deadline, "no server was started");
    }
}

/// Stops the server between its start and its first answer for three seconds. How long the client waited for it:
/// seconds; `None` where the server had answered before we stopped it.
fn start_slowly() -> Option<f64> {
    let out = Out::new();
    let mut run = run(&out, &["--in", "native", "--rounds", "1"]);
    run.wait_for("step: server");
    let server = first_child(run.child.id());
    send(server, libc::SIGSTOP);
    let stopped = std::time::Instant::now();
    let waker = std::thread::spawn(move || {
        sleep(Duration::from_secs(3));
        send(server, libc::SIGCONT);
    });
    run.wait_for("step: warm-up");
    let seconds = stopped.elapsed().as_secs_f64();
    waker.join().unwrap();
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(RunResult::load(&out.path()).unwrap().configurations.len(), 1);
    (seconds > 0.5).then_some(seconds)
}

pub fn a_server_that_is_slow_to_start_is_waited_for() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    // A server is ready within a millisecond, and on a busy host we come too late: again, then.
    let waited = (0..20).find_map(|_| start_slowly()).expect("one server of twenty is stopped in time");
    assert!(waited >= 3.0, "the client worked after {waited} s");
}

pub fn a_link_that_vanishes_is_named() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let mut run = run(&out, &["--in", "native", "--rounds", "50"]);
    run.wait_for("step: saving");
    run.wait_for("step: detached phase");
    let links = profiler::net::links_here().unwrap();
    let wire = links.iter().find(|name| name.starts_with("vx") && name.ends_with("w0")).unwrap();
    profiler::net::delete_link(wire).unwrap();
    let gone = std::time::Instant::now();
    let (code, said) = run.end();
    // No client's or server's patience: those are 10 s.
    assert!(gone.elapsed().as_secs_f64() < 9.0, "{said}");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("the link {wire} to the client's namespace has vanished")), "{said}");
    assert_eq!(repetitions(&out), 1);
    assert_eq!(before, Traces::now());
}

/// A file system of a few pages, for as long as it lives.
struct SmallDisk(PathBuf, #[expect(dead_code, reason = "held for its drop")] tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={bytes}");
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), none, Some(options.as_str())).unwrap();
        Self(path, folder)
    }
}
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0);
    }
}

pub fn a_full_disk_ends_the_run_and_leaves_whole_repetitions() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let before = Traces::now();
    let disk = SmallDisk::new(160 << 10);
    let folder = disk.0.join("run");
    let mut command = virtax();
    command.args(["run", "tcp-rr", "--in", "native", "--rounds", "50", "--duration", "0.4", "--out"]).arg(&folder);
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    // What was saved whole can be reported, once there is room.
    let copy = Out::new();
    std::fs::create_dir(copy.path()).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let mut report = virtax();
    report.arg("report").arg(copy.path());
    crate::common::succeed(report);
    assert!(RunResult::load(&copy.path()).unwrap().configurations[0].rounds >= 1);
    drop(disk);
    assert_eq!(before, Traces::now());
}

pub fn a_read_only_or_impossible_folder_is_refused_before_anything_starts() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    std::fs::write(out.path(), "a file").unwrap();
    let below = out.path().join("below");
    for folder in [out.path().as_path(), &below, Path::new("/proc/virtax-results")] {
        let mut command = virtax();
        command.args(["run", "tcp-rr", "--verbose", "--in", "native", "--rounds", "1", "--out"]).arg(folder);
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{said}");
        assert!(!said.contains("step:"), "{said}");
    }
}

/// Busy processes, as many as there are CPUs, for a bounded time.
struct Busy(Vec<Child>);

impl Busy {
    fn new() -> Self {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let one = || Command::new("timeout").args(["60", "sh", "-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..cpus).map(|_| one()).collect())
    }
}
impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // `timeout` passes it on to the shell.
            send(child.id(), libc::SIGTERM);
            let _ = child.wait();
        }
    }
}

pub fn foreign_load_marks_the_rounds() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let busy = Busy::new();
    let result = crate::common::run_tcp_rr(&["--in", "native", "--rounds", "2", "--duration", "0.4"]);
    drop(busy);
    let warning = result.warnings.iter().find(|warning| warning.name == "disturbed-rounds").unwrap();
    assert!(warning.text.starts_with("2 of 2 repetitions") && warning.text.contains("other work"), "{warning:?}");
}

/// A Docker daemon of this test's own, that touches neither networks nor rules.
struct Daemon {
    child: Child,
    folder: Option<tempfile::TempDir>,
}

impl Daemon {
    fn start(folder: tempfile::TempDir) -> Self {
        let socket = folder.path().join("docker.sock");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        // Left by one that was killed; where nobody has reaped its containerd yet, a new one takes that for alive,
        // and waits for it.
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(folder.path().join(left));
        }
        let child = Command::new("dockerd")
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .arg("--data-root")
            .arg(folder.path().join("data"))
            .arg("--exec-root")
            .arg(folder.path().join("exec"))
            .arg("--pidfile")
            .arg(folder.path().join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { child, folder: Some(folder) };
        // After a crash it first ends the containers of the one before, each in its own time.
        let deadline = std::time::Instant::now() + Duration::from_secs(180);
        while !daemon.docker(&["version"]).status.success() {
            assert!(std::time::Instant::now() < deadline, "no daemon came: {}", daemon.log());
            sleep(Duration::from_millis(50));
        }
        daemon
    }
    fn log(&self) -> String {
        let folder = self.folder.as_ref().expect("it lives");
        std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
    }
    fn host(&self) -> String {
        let folder = self.folder.as_ref().expect("it lives");
        format!("unix://{}", folder.path().join("docker.sock").display())
    }
    fn docker(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("docker").arg("--host").arg(self.host()).args(arguments).output().unwrap()
    }
    fn objects(&self) -> String {
        ["ps --all --quiet", "images --all --quiet"]
            .map(|words| text(&self.docker(&words.split(' ').collect::<Vec<_>>()).stdout))
            .concat()
    }
    /// Kills it as a crash would, and starts another in its place.
    fn crash(mut self) -> tempfile::TempDir {
        // A new daemon that still finds the old one's containerd, which dies with it a moment later, waits for that
        // for ever.
        let family: Vec<(u32, u64)> = profiler::process::family(self.child.id())
            .into_iter()
            .skip(1)
            .filter_map(|pid| Some((pid, profiler::process::started(pid)?)))
            .collect();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        wait_until("the end of the daemon's children", || {
            family.iter().all(|(pid, started)| profiler::process::started(*pid) != Some(*started))
        });
        self.folder.take().expect("it lived")
    }
}
impl Drop for Daemon {
    fn drop(&mut self) {
        if self.folder.is_some() {
            send(self.child.id(), libc::SIGTERM);
        }
        let _ = self.child.wait();
        // Each daemon mounts its folder once more over itself; one that is killed leaves that.
        if let Some(folder) = &self.folder {
            while nix::mount::umount(&folder.path().join("data")).is_ok() {}
        }
    }
}

pub fn a_daemon_that_dies_ends_the_run_and_clean_removes_the_rest_once_it_is_back() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let daemon = Daemon::start(tempfile::tempdir().unwrap());
    let before = daemon.objects();
    let out = Out::new();
    let mut command = virtax();
    command
        .args(["run", "tcp-rr", "--verbose", "--in", "native,docker:net=host", "--rounds", "50", "--duration", "0.4"])
        .arg("--out")
        .arg(out.path())
        .env("DOCKER_HOST", daemon.host());
    let mut run = Running::start(command);
    for _ in 0..2 {
        run.wait_for("step: saving");
    }
    let folder = daemon.crash();
    let (code, said) = run.end();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("the run ended early") && said.contains("is left behind"), "{said}");
    assert!(RunResult::load(&out.path()).unwrap().configurations.iter().all(|found| found.rounds >= 1));
    let daemon = Daemon::start(folder);
    let mut clean = virtax();
    clean.arg("clean").env("DOCKER_HOST", daemon.host());
    crate::common::succeed(clean);
    assert_eq!(before, daemon.objects());
    assert!(!Path::new("/run/virtax").exists());
}
