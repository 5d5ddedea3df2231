//! What the probes cost: the kernel's run-time statistics for the time inside, and a loop of our own for the way in and
//! out, which the statistics do not see.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use super::object::Loaded;
use crate::error::{Error, Result};

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
pub fn ns_per_run(before: &RunTimes, after: &RunTimes) -> BTreeMap<&'static str, (u64, f64)> {
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

/// Measures what a probe costs that returns at once: a receiving call on a local socket, with and without a program at
/// its tracepoint, in turns.
pub struct Dispatch {
    socket: UnixStream,
    _peer: UnixStream,
}

const CALLS: u32 = 2000;
const TURNS: usize = 15;

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
        self.loop_ns();
        for _ in 0..TURNS {
            let without = self.loop_ns();
            let attached = probes.attach_probe("received")?;
            let with = self.loop_ns();
            drop(attached);
            differences.push(with - without);
        }
        differences.sort_by(f64::total_cmp);
        Ok(differences[TURNS / 2].max(0.0))
    }
}
