//! What a run is to do.

use std::time::Duration;

use clap::ValueEnum;
use nix::{sched::sched_getaffinity, unistd::Pid};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};

use crate::{
    configuration::Configuration,
    counts::PhaseKind,
    error::{Error, Result},
    workload::{Settings, Workload},
};

/// Shortest phase.
pub const SHORTEST_PHASE: Duration = Duration::from_millis(50);
/// Phase length that a repetition aims at.
const PHASE: Duration = Duration::from_millis(200);
/// Phases of one block: balanced, so that a drift of the machine meets all kinds alike whose latencies are compared. The
/// sampled one stands apart.
const BLOCK: [PhaseKind; 6] = [
    PhaseKind::Detached,
    PhaseKind::Traced,
    PhaseKind::Detailed,
    PhaseKind::Traced,
    PhaseKind::Detached,
    PhaseKind::Sampled,
];
/// Stages with less than this share of the samples do not prolong a run.
pub const LARGER_STAGE: f64 = 0.05;
/// Fewest rounds for intervals and verdicts.
pub const ROUNDS_FOR_VERDICTS: usize = 8;

/// On which CPUs client and server run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Both on one CPU: small mechanisms resolve.
    Same,
    /// One CPU each: waking the other side counts.
    Split,
    /// Wherever the scheduler puts them.
    Free,
}

/// CPUs of the three parties; empty: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    /// The client's.
    pub client: Vec<usize>,
    /// The server's.
    pub server: Vec<usize>,
    /// virtax's own.
    pub agent: Vec<usize>,
}

impl Placement {
    /// Divides the CPUs that this process may use. The last ones work: the first one has most interrupts.
    ///
    /// # Errors
    /// If there are too few.
    pub fn divide(self, allowed: &[usize]) -> Result<Cpus> {
        let needed = match self {
            Self::Same => 1,
            Self::Split => 2,
            Self::Free => 0,
        };
        if allowed.len() < needed {
            return Err(Error::unsupported(
                "`--placement split` needs two CPUs",
                format!("this process may use {}", allowed.len()),
                "use `--placement same`",
            ));
        }
        let (rest, working) = allowed.split_at(allowed.len() - needed);
        // With no CPU left over, virtax shares the client's, never the server's alone.
        let agent = if rest.is_empty() { working.first().copied().into_iter().collect() } else { rest.to_vec() };
        Ok(match self {
            Self::Same => Cpus { client: working.to_vec(), server: working.to_vec(), agent },
            Self::Split => Cpus { client: vec![working[0]], server: vec![working[1]], agent },
            Self::Free => Cpus { client: Vec::new(), server: Vec::new(), agent: Vec::new() },
        })
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Split => "split",
            Self::Free => "free",
        }
    }
}

/// CPUs that this process may use, in order.
///
/// # Errors
/// If the kernel does not tell.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| Error::unsupported("cannot read the CPU affinity", error, "report this"))?;
    Ok((0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// What a run is to do.
pub struct Plan {
    /// What client and server do.
    pub workload: &'static dyn Workload,
    /// The workload's settings.
    pub settings: Settings,
    /// In the order of `--in`.
    pub configurations: Vec<Configuration>,
    /// Index of the one that others are compared with.
    pub baseline: usize,
    /// How often every configuration is measured.
    pub rounds: u32,
    /// Measured time per configuration and round.
    pub duration: Duration,
    /// Where client and server run.
    pub placement: Placement,
    /// Records per second that the probes aim at.
    pub records_per_s: f64,
    /// Seed of the order within rounds.
    pub seed: u64,
    /// Samples a second on each CPU; 0: no sampled phases.
    pub sample_rate_hz: u32,
    /// Half width of the layers' shares, as a share, until which sampled phases go on; `None`: no longer than the others.
    pub samples_until: Option<f64>,
}

/// Kinds and lengths of a repetition's phases: blocks of six (of five without samples), as long as fits, none below
/// [`SHORTEST_PHASE`].
///
/// # Errors
/// [`Error::Usage`] if the duration is too short or beyond an hour.
pub fn phases(duration: Duration, sampled: bool) -> Result<Vec<(PhaseKind, Duration)>> {
    let block: Vec<PhaseKind> = BLOCK.into_iter().filter(|kind| sampled || *kind != PhaseKind::Sampled).collect();
    let kinds = block.len() as u32;
    if duration < SHORTEST_PHASE * kinds || duration > Duration::from_secs(3600) {
        return Err(Error::Usage(format!(
            "`--duration` must lie between {} s ({kinds} phases of {} ms) and 3600 s",
            (SHORTEST_PHASE * kinds).as_secs_f64(),
            SHORTEST_PHASE.as_millis()
        )));
    }
    let blocks = (duration.as_secs_f64() / (PHASE * kinds).as_secs_f64()).round().max(1.0) as u32;
    let length = duration / (blocks * kinds);
    Ok((0..blocks).flat_map(|_| block.iter().map(|kind| (*kind, length)).collect::<Vec<_>>()).collect())
}

/// The order of `count` configurations in every round: shuffled, reproducibly.
#[must_use]
pub fn orders(count: usize, rounds: u32, seed: u64) -> Vec<Vec<usize>> {
    let mut random = Pcg64::seed_from_u64(seed);
    (0..rounds)
        .map(|_| {
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut random);
            order
        })
        .collect()
}

/// A run's id: five hexadecimal digits, so that link names with it fit into 15 characters.
#[must_use]
pub fn new_run_id() -> String {
    format!("{:05x}", rand::rng().random_range(0..1u32 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_is_one_block() {
        let without = phases(Duration::from_secs(1), false).unwrap();
        assert_eq!(without.len(), 5);
        assert!(without.iter().all(|(_, length)| *length == Duration::from_millis(200)));
        let with = phases(Duration::from_secs(1), true).unwrap();
        assert_eq!((with.len(), with[5].0), (6, PhaseKind::Sampled));
        assert!(with.iter().all(|(_, length)| *length == with[0].1));
    }

    #[test]
    fn phases_shrink_to_fit_and_no_further() {
        assert_eq!(phases(Duration::from_millis(250), false).unwrap()[0].1, SHORTEST_PHASE);
        assert!(phases(Duration::from_millis(249), false).unwrap_err().to_string().contains("0.25 s"));
        assert!(phases(Duration::from_millis(299), true).unwrap_err().to_string().contains("0.3 s (6 phases"));
        let long = phases(Duration::from_secs(7), false).unwrap();
        assert_eq!(long.len(), 35);
        assert_eq!(long.iter().map(|(_, length)| *length).sum::<Duration>(), Duration::from_secs(7));
    }

    #[test]
    fn every_block_is_balanced() {
        let compared = || BLOCK.into_iter().filter(|kind| *kind != PhaseKind::Sampled);
        assert!(compared().eq(compared().collect::<Vec<_>>().into_iter().rev()));
    }

    #[test]
    fn rounds_hold_every_configuration_once_in_changing_order() {
        let orders = orders(3, 40, 7);
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
        }
        let firsts = |which| orders.iter().filter(|order| order[0] == which).count();
        assert!((0..3).all(|which| firsts(which) > 3));
        assert_eq!(orders, super::orders(3, 40, 7));
    }

    #[test]
    fn placements() {
        let same = Placement::Same.divide(&[0, 1]).unwrap();
        assert_eq!((same.client, same.server, same.agent), (vec![1], vec![1], vec![0]));
        let split = Placement::Split.divide(&[0, 1]).unwrap();
        assert_eq!((split.client, split.server, split.agent), (vec![0], vec![1], vec![0]));
        assert_eq!(Placement::Split.divide(&[0, 1, 2, 3]).unwrap().agent, [0, 1]);
        assert!(Placement::Split.divide(&[3]).is_err());
    }
}
