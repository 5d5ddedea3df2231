//! Runs that end badly: what they leave behind (nothing), and what they keep (every finished repetition).

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::common::{
    Feature, Out, Running, Traces, alone, child_with, full, has, repetitions, text, virtax, wait_until,
};
use profiler::result::RunResult;
use profiler_common::Counter;
use rand::{RngExt, SeedableRng};

const BOTH: &str = "native,docker:net=nat";

fn start(out: &Out, arguments: &[&str]) -> Child {
    let mut command = virtax();
    command.args(["run", "tcp-rr", "--duration", "0.5", "--out"]).arg(out.path()).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: a signal to our own child, which is not reaped yet.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

pub fn ctrl_c_keeps_what_was_measured_and_leaves_nothing() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let run = start(&out, &["--in", BOTH, "--rounds", "50"]);
    wait_until("the third repetition", || repetitions(&out) >= 3);
    signal(&run, libc::SIGINT);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(before, Traces::now());
    let result = RunResult::load(&out.path()).unwrap();
    assert_eq!(result.configurations.len(), 2);
    assert!(result.configurations.iter().all(|configuration| configuration.rounds >= 1));
    assert!(result.warnings.iter().any(|warning| warning.name == "rounds-missing"));
}

/// Every step of a run, from the first to the last.
const STEPS: &[&str] = &[
    "step: set-up",
    "step: engine native",
    "step: engine docker",
    "step: probes",
    "step: server",
    "step: client",
    "step: warm-up",
    "step: costs",
    "step: detached phase",
    "step: traced phase",
    "step: detailed phase",
    "step: sampled phase",
    "step: saving",
    "step: removal",
    "step: report",
    "step: pictures",
];

pub fn signals_at_every_step_leave_nothing() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    // What is saved stays.
    let saving = STEPS.iter().position(|step| *step == "step: saving").unwrap();
    for (number, step) in STEPS.iter().enumerate() {
        let out = Out::new();
        let mut command = virtax();
        command.args(["run", "tcp-rr", "--verbose", "--in", BOTH, "--rounds", "1", "--duration", "0.4", "--out"]);
        command.arg(out.path());
        let mut run = Running::start(command);
        run.wait_for(step);
        run.signal([libc::SIGINT, libc::SIGTERM, libc::SIGHUP][number % 3]);
        let (code, said) = run.end();
        assert_eq!(before, Traces::now(), "after `{step}`");
        // Once all is measured, a signal is too late to stop anything but the pictures; the last may be drawn before
        // it comes. Both configurations were measured in turns, and are saved together.
        let too_late = ["step: saving", "step: removal", "step: pictures"].contains(step) && code == Some(0);
        assert!(code == Some(130) || too_late, "after `{step}`: {code:?}\n{said}");
        assert!(!said.contains("left behind"), "{said}");
        if number > saving {
            assert_eq!(repetitions(&out), 2, "after `{step}`");
        }
    }
}

/// Kills runs at random moments of their lives, and cleans up after each.
pub fn clean_removes_what_a_killed_run_left_and_nothing_else() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let (times, seed) = (if full() { 100 } else { 6 }, rand::random::<u64>());
    let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
    let before = Traces::now();
    for number in 0..times {
        let milliseconds = random.random_range(1..5000);
        let out = Out::new();
        let all = "native,docker:net=nat,docker:net=bridge,ns:net=nat,cgroup=on,pid=on,user=on,fs=overlay,ns:net=veth,proxy=on";
        let mut run = start(&out, &["--in", all, "--rounds", "50"]);
        sleep(Duration::from_millis(milliseconds));
        signal(&run, libc::SIGKILL);
        run.wait().unwrap();
        let cleaned = crate::common::succeed({
            let mut command = virtax();
            command.arg("clean");
            command
        });
        let moment = format!("kill {number} (seed {seed}) after {milliseconds} ms");
        assert_eq!(before, Traces::now(), "{moment}: {}", text(&cleaned.stdout));
    }
    let again = virtax().arg("clean").output().unwrap();
    assert_eq!(text(&again.stdout), "nothing to remove\n");
}

/// Kills runs while the daemon makes an image, a network or a container for them: it goes on, and there is something
/// new after its asker's end.
pub fn clean_waits_for_what_a_daemon_is_still_making() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let times = if full() { 40 } else { 6 };
    let before = Traces::now();
    for number in 0..times {
        let out = Out::new();
        let mut command = virtax();
        command.args(["run", "tcp-rr", "--verbose", "--in", "docker:net=nat", "--rounds", "1", "--out"]);
        command.arg(out.path());
        let mut run = Running::start(command);
        run.wait_for(if number % 3 == 2 { "step: server" } else { "step: engine docker" });
        let milliseconds = rand::random_range(0..250);
        sleep(Duration::from_millis(milliseconds));
        run.signal(libc::SIGKILL);
        run.end();
        let cleaned = virtax().arg("clean").output().unwrap();
        let moment = format!("kill {number} after {milliseconds} ms: {}", text(&cleaned.stdout));
        assert_eq!(before, Traces::now(), "{moment}");
    }
}

pub fn clean_leaves_living_runs_alone_and_two_runs_do_not_meet() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let before = Traces::now();
    let outs = [Out::new(), Out::new()];
    let runs: Vec<Child> = outs.iter().map(|out| start(out, &["--in", BOTH, "--rounds", "2"])).collect();
    wait_until("both first repetitions", || outs.iter().all(|out| repetitions(out) >= 1));
    let cleaned = virtax().arg("clean").output().unwrap();
    let said = text(&cleaned.stdout);
    assert_eq!(said.matches("is alive: left alone").count(), 2, "{said}");
    for (run, out) in runs.into_iter().zip(&outs) {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let result = RunResult::load(&out.path()).unwrap();
        for configuration in &result.configurations {
            assert_eq!(configuration.incomplete, Vec::<String>::new(), "{}", configuration.name);
        }
    }
    assert_eq!(before, Traces::now());
}

pub fn without_a_daemon_docker_is_refused_with_a_remedy_and_nothing_starts() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    let mut command = virtax();
    command.args(["run", "tcp-rr", "--in", BOTH, "--out"]).arg(out.path());
    let output = command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("cannot reach the Docker daemon") && said.contains("remedy: start it"), "{said}");
    assert!(output.stdout.is_empty() && !out.path().exists());
    assert!(!Path::new("/run/virtax").exists());
}

pub fn a_server_or_client_that_dies_is_named_and_earlier_repetitions_are_kept() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    for (victim, word) in [("tcp-rr-server", "server"), ("tcp-rr-client", "client")] {
        let out = Out::new();
        let run = start(&out, &["--in", "native", "--rounds", "50"]);
        wait_until("the second repetition", || repetitions(&out) >= 2);
        let mut pid = None;
        wait_until(victim, || {
            pid = child_with(run.id(), victim);
            pid.is_some()
        });
        let pid = pid.unwrap();
        // A moment's grace: the run has to be at work with it.
        sleep(Duration::from_millis(400));
        // SAFETY: a signal to a process of the run that this test started; should it have ended, nothing happens.
        unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        let output = run.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains(word), "{said}");
        let result = RunResult::load(&out.path()).unwrap();
        assert!(result.configurations[0].rounds >= 2);
    }
    assert!(!Path::new("/run/virtax").exists());
}

pub fn a_folder_with_content_is_refused_and_forced_only_where_it_is_ours() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = Out::new();
    std::fs::create_dir(out.path()).unwrap();
    let precious = out.path().join("precious.txt");
    std::fs::write(&precious, "mine").unwrap();
    std::fs::write(out.path().join("result.json"), "old").unwrap();
    let refused = start(&out, &["--in", "native", "--rounds", "1"]).wait_with_output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--force"), "{said}");
    let forced = start(&out, &["--in", "native", "--rounds", "1", "--force"]).wait_with_output().unwrap();
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    assert_eq!(RunResult::load(&out.path()).unwrap().configurations.len(), 1);
}

/// A rule that drops one packet in 2000 on its way to the server, for as long as it lives: at any instant a few of
/// eight connections wait for a retransmission.
struct Dropper;

impl Dropper {
    const RULE: &[&str] = &[
        "INPUT",
        "-d",
        "198.18.0.0/16",
        "-p",
        "tcp",
        "--dport",
        "7000",
        "-m",
        "statistic",
        "--mode",
        "nth",
        "--every",
        "2000",
        "--packet",
        "0",
    ];

    fn iptables(action: &str) {
        let status =
            Command::new("iptables").args(["--wait", action]).args(Self::RULE).args(["-j", "DROP"]).status().unwrap();
        assert!(status.success());
    }
    fn new() -> Self {
        Self::iptables("-I");
        Self
    }
}
impl Drop for Dropper {
    fn drop(&mut self) {
        Self::iptables("-D");
    }
}

/// Dropped segments give their tokens back: the time until the retransmission is a row, and what is dropped is not
/// lost. Of others, one may be: where the host stands still for longer than a retransmission's timer runs, a segment
/// comes twice, and the second one resynchronises.
pub fn dropped_segments_stay_in_the_books() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let _dropper = Dropper::new();
    let result =
        crate::common::run_tcp_rr(&["--in", "native", "--rounds", "1", "--duration", "2", "--set", "connections=8"]);
    let native = &result.configurations[0];
    let lost = &native.losses.lost;
    let (drops, all) = (native.counters.of(Counter::Drops), lost.values().sum::<u64>());
    assert!(drops > 0, "{:?}", native.counters);
    assert!(all == lost["resynchronised"] && 10 * all <= drops, "{drops} drops, {:?}", native.losses);
    assert!(native.conservation_percent.abs() <= 0.5, "{}", native.conservation_percent);
    let has_row = |id: &str| native.stages.iter().any(|stage| stage.id == id && stage.ns_per_op > 0.0);
    assert!(has_row("request/receive(wire@host)→dropped"), "{:#?}", native.stages);
    assert!(has_row("request/dropped→xmit(wire@client)"), "{:#?}", native.stages);
}
