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
    counts::{Costs, PhaseKind},
    error::{Error, Result},
    interrupt,
    ledger::Ledger,
};

/// Length of a measurement.
const LENGTH: Duration = Duration::from_millis(300);
/// How long the script's programs may take to be loaded.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The core probes, with records.
    Traced,
    /// The core probes, without records.
    TracedNoRecords,
    /// All probes, with records.
    Detailed,
    /// The script.
    Script,
}

impl Variant {
    /// As shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traced => "core probes, totals and records",
            Self::TracedNoRecords => "core probes, totals only",
            Self::Detailed => "all probes, totals and records",
            Self::Script => "the bpftrace script",
        }
    }
}

/// One round: mean latency with nothing attached before and after, and with each variant, ns.
#[derive(Debug, Clone)]
pub struct BenchRound {
    /// Nothing attached.
    pub detached_ns: f64,
    /// Each variant.
    pub variants: Vec<(Variant, f64)>,
}

/// What a benchmark brought.
#[derive(Debug, Clone)]
pub struct Benchmark {
    /// Round by round.
    pub rounds: Vec<BenchRound>,
    /// ns per hit.
    pub costs: Costs,
}

impl Benchmark {
    /// Effects of a variant, ns, sorted.
    #[must_use]
    pub fn effects_ns(&self, variant: Variant) -> Vec<f64> {
        let mut effects: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| {
                let (_, ns) = round.variants.iter().find(|(of, _)| *of == variant)?;
                Some(ns - round.detached_ns)
            })
            .collect();
        effects.sort_by(f64::total_cmp);
        effects
    }
}

/// Another tool's script, running.
struct Script {
    child: Child,
    _lease: child::ChildLease,
}

/// For a child about to execute: tracefs in a mount namespace of its own, because many machines have it not mounted.
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
        let programs = || aya::programs::loaded_programs().filter(std::result::Result::is_ok).count();
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

fn mean_ns(measurement: &mut Measurement<'_>, variant: Variant) -> Result<f64> {
    let client = match variant {
        Variant::Script => measurement.detached(LENGTH)?.client,
        Variant::Detailed => measurement.probed(PhaseKind::Detailed, LENGTH)?.client(),
        Variant::Traced | Variant::TracedNoRecords => measurement.probed(PhaseKind::Traced, LENGTH)?.client(),
    };
    Ok(client.latency_sum_ns as f64 / client.operations.max(1) as f64)
}

/// Runs the first configuration of the lab's plan; `script`: bpftrace, with the workload's processes named.
///
/// # Errors
/// If client, server, probes or script fail.
pub fn run(lab: &mut Lab<'_>, rounds: u32, script: Option<&str>) -> Result<Benchmark> {
    let ledger = lab.ledger();
    lab.with_measurement(|measurement, dispatch_ns| {
        let costs = measurement.costs(dispatch_ns)?;
        let mut done = Vec::new();
        for number in 0..rounds {
            let mut round = BenchRound { detached_ns: 0.0, variants: Vec::new() };
            let mut detached = Vec::new();
            let mut own = vec![Variant::Traced, Variant::TracedNoRecords, Variant::Detailed];
            own.rotate_left(number as usize % 3);
            for variant in own {
                detached.push(mean_ns_detached(measurement)?);
                let rate = if variant == Variant::TracedNoRecords { 0.0 } else { 2000.0 };
                measurement.aim_at(rate, 1e9 / detached[0]);
                round.variants.push((variant, mean_ns(measurement, variant)?));
            }
            detached.push(mean_ns_detached(measurement)?);
            if let Some(text) = script {
                let running = Script::start(&ledger, text)?;
                round.variants.push((Variant::Script, mean_ns(measurement, Variant::Script)?));
                drop(running);
                detached.push(mean_ns_detached(measurement)?);
            }
            round.detached_ns = detached.iter().sum::<f64>() / detached.len() as f64;
            done.push(round);
        }
        Ok(Benchmark { rounds: done, costs })
    })
}

fn mean_ns_detached(measurement: &mut Measurement<'_>) -> Result<f64> {
    let client = measurement.detached(LENGTH)?.client;
    Ok(client.latency_sum_ns as f64 / client.operations.max(1) as f64)
}
