//! What the probes cost: the kernel's run-time statistics for the time inside, and a loop of our own for the way in and
//! out, which the statistics do not see.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use super::object::Loaded;
use crate::interrupt;
use virtax_model::{
    counts::{PhaseKind, ProbeCost},
    error::{Error, Result},
    points::ProbeName,
};

/// Runs and time of each probe.
pub type RunTimes = BTreeMap<&'static str, (u64, Duration)>;

impl Loaded {
    /// While the returned descriptor is open, the kernel keeps run-time statistics of all BPF programs.
    ///
    /// # Errors
    /// If it refuses.
    pub fn keep_run_times() -> Result<OwnedFd> {
        aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|error| {
            Error::unsupported("no run-time statistics of BPF programs", error, "run with CAP_SYS_ADMIN")
        })
    }
}

/// Time per run of each probe between two readings, ns.
fn ns_per_run(before: &RunTimes, after: &RunTimes) -> BTreeMap<&'static str, (u64, f64)> {
    after
        .iter()
        .map(|(probe, (runs, time))| {
            let (runs_before, time_before) = before.get(probe).copied().unwrap_or_default();
            let runs = runs - runs_before;
            let ns = (*time).saturating_sub(time_before).as_nanos() as f64;
            (*probe, (runs, if runs == 0 { 0.0 } else { ns / runs as f64 }))
        })
        .collect()
}

/// Runs that are enough for what the statistics themselves cost.
const FLOOR_RUNS: u64 = 100;

/// What the statistics themselves cost, ns per run: all runs between two readings while the probes were told to do
/// nothing. With how many there were.
fn floor(before: &RunTimes, after: &RunTimes) -> (u64, f64) {
    let runs = ns_per_run(before, after);
    let hits: u64 = runs.values().map(|(runs, _)| runs).sum();
    let time_ns: f64 = runs.values().map(|(runs, ns)| *runs as f64 * ns).sum();
    (hits, time_ns / hits.max(1) as f64)
}

impl Loaded {
    /// What the statistics themselves cost, ns per run, and the runs that say so: those of the probes of a kind of
    /// phase, attached and told to do nothing, in as many of `most` windows as it takes.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn statistics_floor(&self, kind: PhaseKind, window: Duration, most: u32) -> Result<(u64, f64)> {
        let start = self.run_times(kind);
        let mut found = (0, 0.0);
        for _ in 0..most {
            interrupt::sleep(window)?;
            found = floor(&start, &self.run_times(kind));
            if found.0 >= FLOOR_RUNS {
                break;
            }
        }
        Ok(found)
    }

    /// What each probe of a kind of phase cost in these windows, of which the readings at the beginning and at the end
    /// are given, and in which so many operations ended: of the times per hit, the median.
    #[must_use]
    pub fn costs(&self, kind: PhaseKind, readings: &[[RunTimes; 2]], operations: u64, floor_ns: f64) -> Vec<ProbeCost> {
        let windows: Vec<_> = readings.iter().map(|[before, after]| ns_per_run(before, after)).collect();
        let attached = self.chosen().filter(|(probe, _)| probe.set.is_attached_in(kind));
        attached
            .map(|(probe, _)| {
                let found = || windows.iter().filter_map(|window| window.get(probe.name)).filter(|(runs, _)| *runs > 0);
                let runs: u64 = found().map(|(runs, _)| runs).sum();
                let mut ns: Vec<f64> = found().map(|(_, ns)| *ns).collect();
                ns.sort_by(f64::total_cmp);
                ProbeCost {
                    probe: ProbeName::of(probe),
                    hits_per_op: runs as f64 / operations.max(1) as f64,
                    ns_per_hit: ns.get(ns.len() / 2).map_or(0.0, |median| (median - floor_ns).max(0.0)),
                }
            })
            .collect()
    }
}

/// Measures what a probe costs that returns at once: a receiving call on a local socket, with and without a program at
/// its tracepoint, in turns.
pub struct Dispatch {
    socket: UnixStream,
    _peer: UnixStream,
}

const CALLS: u32 = 2000;
const TURNS: usize = 7;

impl Dispatch {
    /// # Errors
    /// If there is no pair of sockets.
    pub fn new() -> Result<Self> {
        let fail = |error| Error::unsupported("cannot measure the probes' cost", error, "report this");
        let (socket, mut peer) = UnixStream::pair().map_err(fail)?;
        std::io::Write::write_all(&mut peer, b"x").map_err(fail)?;
        Ok(Self { socket, _peer: peer })
    }

    /// ns per call, over many calls that look at a byte and leave it there.
    fn loop_ns(&self) -> f64 {
        let mut byte = 0u8;
        let start = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: one byte of room for one byte.
            unsafe {
                libc::recv(std::os::fd::AsRawFd::as_raw_fd(&self.socket), (&raw mut byte).cast(), 1, libc::MSG_PEEK)
            };
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    }

    /// ns per hit of a probe that has nothing to do: median of interleaved pairs, at least 0.
    ///
    /// # Errors
    /// If the probe cannot be attached.
    pub fn measure(&self, probes: &mut Loaded) -> Result<f64> {
        let mut differences = Vec::with_capacity(TURNS);
        // With any program at calls, all calls take a longer way: that is there already when one more is attached.
        let _longer_way = if probes.of_files { Some(probes.attach_probe("file-return")?) } else { None };
        self.loop_ns();
        for _ in 0..TURNS {
            let without = self.loop_ns();
            let attached = probes.attach_probe(if probes.of_files { "file-call" } else { "received" })?;
            let with = self.loop_ns();
            drop(attached);
            differences.push(with - without);
        }
        differences.sort_by(f64::total_cmp);
        Ok(differences[TURNS / 2].max(0.0))
    }
}
