//! What watching costs: the same client and server with nothing attached, with virtax's probes, and under a script of
//! another tool, in turns.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{lab::Lab, measure::Measurement};
use crate::{
    child,
    counts::PhaseKind,
    error::{Error, Result},
    interrupt,
    ledger::Ledger,
    result::bench::{BenchRound, Benchmark, Variant},
};

/// Length of a measurement.
const LENGTH: Duration = Duration::from_millis(300);
/// `linux/bpf.h`.
const BPF_PROG_TYPE_TRACEPOINT: u32 = 5;
/// bpftrace sometimes gives up at its start for want of a right to lock memory, which kernels since 5.11 do not ask
/// for.
const STARTS: u32 = 4;
/// How long the script's programs may take to be loaded.
const PATIENCE: Duration = Duration::from_secs(30);

/// Another tool's script, running.
struct Script {
    child: Child,
    _lease: child::ChildLease,
}

/// For a child about to execute: tracefs in a mount namespace of its own, because many hosts have it not mounted.
fn see_tracepoints() -> std::io::Result<()> {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), MsFlags::empty(), none)?;
    mount(Some("debugfs"), "/sys/kernel/debug", Some("debugfs"), MsFlags::empty(), none)?;
    Ok(())
}

impl Script {
    /// Starts it, and waits until its programs are there.
    fn start(ledger: &Ledger, text: &str) -> Result<Self> {
        // Programs of other types come and go with containers.
        let is_tracepoint = |info: &aya::programs::ProgramInfo| info.program_type() as u32 == BPF_PROG_TYPE_TRACEPOINT;
        let programs = || aya::programs::loaded_programs().flatten().filter(is_tracepoint).count();
        let before = programs();
        let wanted = text.matches("tracepoint:").count();
        let path = ledger.folder().join("script.bt");
        fs::write(&path, text).map_err(|error| Error::file("write", &path, error))?;
        let mut command = child::command(Path::new("bpftrace"));
        command.arg(&path).stderr(Stdio::piped());
        // SAFETY: the closure makes async-signal-safe system calls only.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, see_tracepoints) };
        let (child, lease) = child::spawn(ledger, command)?;
        let mut script = Self { child, _lease: lease };
        let deadline = Instant::now() + PATIENCE;
        while programs() < before + wanted {
            let ended = script.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let mut words = String::new();
                child::end(&mut script.child);
                if let Some(stderr) = &mut script.child.stderr {
                    let _ = stderr.read_to_string(&mut words);
                }
                return Err(Error::unsupported(
                    "bpftrace does not run the script",
                    words.trim(),
                    "apt-get install bpftrace",
                ));
            }
            interrupt::sleep(Duration::from_millis(50))?;
        }
        // Loaded is not yet attached.
        interrupt::sleep(Duration::from_millis(500))?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}

/// Mean latency of a phase of a kind, ns.
fn mean_ns(measurement: &mut Measurement<'_>, kind: PhaseKind, length: Duration) -> Result<f64> {
    let client = match kind {
        PhaseKind::Detached => measurement.detached(length)?.client,
        PhaseKind::Traced | PhaseKind::Detailed | PhaseKind::Sampled => measurement.probed(kind, length)?.client(),
    };
    Ok(client.latency_sum_ns as f64 / client.operations.max(1) as f64)
}

/// Mean latency over the phases of a repetition, ns: a phase's own for as long as its probes are attached, with the
/// lead-in; that of the detached phases for the rest of the time.
fn mean_of_run_ns(measurement: &mut Measurement<'_>, plan: &[(PhaseKind, Duration)]) -> Result<f64> {
    let start = Instant::now();
    let (mut detached, mut probed) = (Vec::new(), Vec::new());
    for (kind, length) in plan {
        let before = measurement.attached();
        let mean = mean_ns(measurement, *kind, *length)?;
        if *kind == PhaseKind::Detached {
            detached.push(mean);
        } else {
            probed.push(((measurement.attached() - before).as_secs_f64(), mean));
        }
    }
    let whole = start.elapsed().as_secs_f64();
    let base = detached.iter().sum::<f64>() / detached.len().max(1) as f64;
    let slowed: f64 = probed.iter().map(|(time, mean)| time * (mean - base)).sum();
    Ok(base + slowed / whole)
}

const OWN: [Variant; 6] =
    [Variant::Idle, Variant::Traced, Variant::TracedNoRecords, Variant::Detailed, Variant::Sampled, Variant::Run];

/// Runs the first configuration of the lab's plan; `script`: bpftrace, with the workload's processes named.
///
/// # Errors
/// If client, server, probes or script fail.
pub fn run(lab: &mut Lab<'_>, rounds: u32, script: Option<&str>) -> Result<Benchmark> {
    let ledger = lab.ledger();
    let phases = lab.phases().to_vec();
    lab.with_measurement(|measurement, dispatch_ns| {
        let costs =
            [measurement.costs(PhaseKind::Traced, dispatch_ns)?, measurement.costs(PhaseKind::Detailed, dispatch_ns)?];
        let mut done = Vec::new();
        for number in 0..rounds {
            let mut round = BenchRound { detached_ns: 0.0, variants: Vec::new() };
            let mut detached = Vec::new();
            let mut own = OWN;
            own.rotate_left(number as usize % OWN.len());
            for variant in own {
                detached.push(mean_ns(measurement, PhaseKind::Detached, LENGTH)?);
                let rate = if variant == Variant::TracedNoRecords { 0.0 } else { 2000.0 };
                measurement.aim_at(rate, 1e9 / detached[0]);
                let mean = match variant {
                    Variant::Idle => {
                        let client = measurement.idle(PhaseKind::Traced, LENGTH)?.client;
                        client.latency_sum_ns as f64 / client.operations.max(1) as f64
                    }
                    Variant::Run => mean_of_run_ns(measurement, &phases)?,
                    Variant::Detailed => mean_ns(measurement, PhaseKind::Detailed, LENGTH)?,
                    Variant::Sampled => mean_ns(measurement, PhaseKind::Sampled, LENGTH)?,
                    Variant::Traced | Variant::TracedNoRecords | Variant::Script => {
                        mean_ns(measurement, PhaseKind::Traced, LENGTH)?
                    }
                };
                round.variants.push((variant, mean));
            }
            detached.push(mean_ns(measurement, PhaseKind::Detached, LENGTH)?);
            if let Some(text) = script {
                let mut running = Script::start(&ledger, text);
                for _ in 1..STARTS {
                    if running.is_ok() {
                        break;
                    }
                    running = Script::start(&ledger, text);
                }
                let running = running?;
                round.variants.push((Variant::Script, mean_ns(measurement, PhaseKind::Detached, LENGTH)?));
                drop(running);
                detached.push(mean_ns(measurement, PhaseKind::Detached, LENGTH)?);
            }
            round.detached_ns = detached.iter().sum::<f64>() / detached.len() as f64;
            done.push(round);
        }
        Ok(Benchmark { rounds: done, costs })
    })
}
