//! What the host did while blocks were measured, by accounts of its own: never by what they show of the configurations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use workloads::{clock::now_ns, protocol::PhaseReport};

use super::windows::Asked;
use crate::{counts::Disturbance, placement::Cpus, process};

/// Time of a fixed piece of work, as a multiple of its fastest tenth in the run, above which something shares the core.
const SLOWER: f64 = 1.1;
/// Ticks of a CPU's time that a hypervisor gave to others in a block: the smallest that the kernel tells.
const STOLEN_TICKS: u64 = 1;
/// Share of a CPU that others used in a block.
const FOREIGN: f64 = 0.05;
/// CPU time of each CPU by control groups of version 1, ns; those of version 2 tell none.
const USAGE: &str = "/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu";

/// Accounts of the CPUs of client and server at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    at_ns: u64,
    stolen_ticks: u64,
    /// CPU time there of others than the run's processes, since some beginning; `None`: nobody tells.
    foreign_ns: Option<u64>,
}

impl Moment {
    /// What happened until a later one.
    fn until(&self, later: &Self) -> Option<Disturbance> {
        let length_ns = later.at_ns.saturating_sub(self.at_ns).max(1) as f64;
        let foreign_ns =
            later.foreign_ns.zip(self.foreign_ns).map_or(0, |(later, before)| later.saturating_sub(before));
        if later.stolen_ticks.saturating_sub(self.stolen_ticks) >= STOLEN_TICKS {
            Some(Disturbance::Stolen)
        } else if foreign_ns as f64 > FOREIGN * length_ns {
            Some(Disturbance::Foreign)
        } else {
            None
        }
    }
}

/// Who reads the accounts.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// CPUs of client and server; empty: they run anywhere, and nothing is told apart.
    cpus: BTreeSet<usize>,
    /// The run's processes there.
    own: Vec<u32>,
}

impl Accounts {
    /// For these processes, and virtax's own where it shares a CPU with them.
    pub fn new(cpus: &Cpus, processes: impl Iterator<Item = u32>) -> Self {
        let measured: BTreeSet<usize> = cpus.client.iter().chain(&cpus.server).copied().collect();
        let shares = cpus.virtax.iter().any(|cpu| measured.contains(cpu));
        Self { own: processes.chain(shares.then(std::process::id)).collect(), cpus: measured }
    }

    /// Reads them.
    pub fn now(&self) -> Moment {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let usage = fs::read_to_string(USAGE).ok().and_then(|text| usage_ns(&text, &self.cpus));
        let own_ns: u64 = self.own.iter().map(|pid| process::cpu_ns(*pid)).sum();
        Moment {
            at_ns: now_ns(),
            stolen_ticks: stolen_ticks(&stat, &self.cpus),
            foreign_ns: usage.map(|usage_ns| usage_ns.saturating_sub(own_ns)),
        }
    }
}

/// Stolen time of some CPUs, in ticks: `cpuN user nice system idle iowait irq softirq steal …` (proc_stat(5)).
fn stolen_ticks(stat: &str, cpus: &BTreeSet<usize>) -> u64 {
    let of_line = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        let cpu: usize = words.next()?.parse().ok()?;
        cpus.contains(&cpu).then(|| words.nth(7)?.parse::<u64>().ok()).flatten()
    };
    stat.lines().filter_map(of_line).sum()
}

/// CPU time on some CPUs, ns: one number a CPU.
fn usage_ns(text: &str, cpus: &BTreeSet<usize>) -> Option<u64> {
    let all: Vec<u64> = text.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    cpus.iter().map(|cpu| all.get(*cpu).copied()).sum()
}

/// How long the same work took in a run so far.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// Times, ns, sorted.
    seen: Vec<u64>,
}

/// What the host did in each of a phase's windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disturbed {
    windows: Vec<Option<Disturbance>>,
    /// Blocks in which somebody has no window that the host left alone.
    pub blocks: Vec<u32>,
}

impl Disturbed {
    /// What the host did in windows of one member, in order.
    pub fn of(&self, windows: &[Asked], member: usize) -> Vec<Option<Disturbance>> {
        let of_all = windows.iter().zip(&self.windows);
        of_all.filter(|(asked, _)| asked.place.member == member).map(|(_, what)| *what).collect()
    }
}

impl Work {
    /// What the host did in windows that are over. `moments`: the accounts before and after each block, where they were
    /// read.
    pub fn disturbed(
        &mut self,
        windows: &[Asked],
        reports: &[PhaseReport],
        moments: &BTreeMap<u32, [Moment; 2]>,
    ) -> Disturbed {
        let mut seen: Vec<_> = reports.iter().map(|report| report.windows.iter()).collect();
        let mut time_of = |asked: &Asked| seen[asked.place.member].next()?.work_ns.into_iter().max();
        let times: Vec<u64> = windows.iter().map(|asked| time_of(asked).unwrap_or(0)).collect();
        self.seen.extend(times.iter().copied().filter(|work_ns| *work_ns > 0));
        self.seen.sort_unstable();
        let usual_ns = self.seen.get(self.seen.len() / 10).copied().unwrap_or(u64::MAX) as f64;
        let of_block = |block: u32| moments.get(&block).and_then(|[before, after]| before.until(after));
        let of_window = |(asked, work_ns): (&Asked, &u64)| {
            let is_slow = *work_ns as f64 > SLOWER * usual_ns;
            of_block(asked.place.block).or(is_slow.then_some(Disturbance::Slow))
        };
        let found: Vec<Option<Disturbance>> = windows.iter().zip(&times).map(of_window).collect();
        let mut quiet: BTreeMap<(u32, usize), bool> = BTreeMap::new();
        for (asked, what) in windows.iter().zip(&found) {
            *quiet.entry((asked.place.block, asked.place.member)).or_default() |= what.is_none();
        }
        let mut blocks: Vec<u32> = quiet.into_iter().filter(|(_, quiet)| !quiet).map(|((block, _), _)| block).collect();
        blocks.dedup();
        Disturbed { windows: found, blocks }
    }
}

#[cfg(test)]
mod tests {
    use workloads::protocol::{Window, WindowSeen};

    use super::*;
    use crate::experiment::windows::Place;

    #[test]
    fn accounts_are_of_the_cpus_that_are_asked_for() {
        let stat = "cpu  9 9 9 9 9 9 9 99 9 9\ncpu0 1 0 2 3 4 5 6 70 0 0\ncpu1 1 0 2 3 4 5 6 8 0 0\nintr 5\n";
        assert_eq!(stolen_ticks(stat, &BTreeSet::from([1])), 8);
        assert_eq!(stolen_ticks(stat, &BTreeSet::from([0, 1])), 78);
        assert_eq!(stolen_ticks("nonsense", &BTreeSet::from([0])), 0);
        assert_eq!(usage_ns("500 600 \n", &BTreeSet::from([1])), Some(600));
        assert_eq!(usage_ns("500\n", &BTreeSet::from([1])), None);
        assert_eq!(usage_ns("x\n", &BTreeSet::from([0])), None);
    }

    #[test]
    fn steal_and_others_work_are_told() {
        let at = |at_ns, stolen_ticks, foreign_ns| Moment { at_ns, stolen_ticks, foreign_ns };
        let before = at(0, 5, Some(1_000));
        assert_eq!(before.until(&at(90_000_000, 5, Some(4_000_000))), None);
        assert_eq!(before.until(&at(90_000_000, 5, Some(5_000_000))), Some(Disturbance::Foreign));
        assert_eq!(before.until(&at(90_000_000, 6, Some(1_000))), Some(Disturbance::Stolen));
        assert_eq!(before.until(&at(90_000_000, 5, None)), None);
    }

    fn asked(member: usize, block: u32) -> Asked {
        let place = Place { member, block, group: 0 };
        Asked { place, window: Window { open_ns: 0, from_ns: 0, close_ns: 1 } }
    }

    /// What a client saw in windows before and after which the same work took so long.
    fn report(times: &[[u64; 2]]) -> PhaseReport {
        let windows = times.iter().map(|work_ns| WindowSeen { work_ns: *work_ns, ..WindowSeen::default() });
        PhaseReport { windows: windows.collect(), ..PhaseReport::default() }
    }

    #[test]
    fn a_window_in_which_the_cpu_is_slower_is_disturbed() {
        let windows: Vec<Asked> = [0, 1, 1, 0].iter().map(|member| asked(*member, 0)).chain([asked(0, 1)]).collect();
        let mut work = Work::default();
        let usual = [report(&[[3_500, 3_520], [3_510, 3_500], [3_500, 3_700]]), report(&[[3_500; 2], [3_600; 2]])];
        let found = work.disturbed(&windows, &usual, &BTreeMap::new());
        assert_eq!(found, Disturbed { windows: vec![None; 5], blocks: Vec::new() });
        // One of two of the first member's windows, and its only one in the second block.
        let slow = [report(&[[3_500; 2], [3_500, 4_900], [4_900, 3_500]]), report(&[[3_500; 2]; 2])];
        let found = work.disturbed(&windows, &slow, &BTreeMap::new());
        let what = Some(Disturbance::Slow);
        assert_eq!((found.of(&windows, 0), found.of(&windows, 1)), (vec![None, what, what], vec![None; 2]));
        assert_eq!(found.blocks, [1]);
        // A client that times nothing says nothing, and an account speaks for its whole block.
        let none = [report(&[[0; 2]; 3]), report(&[[0; 2]; 2])];
        let moment = |stolen_ticks| Moment { at_ns: 0, stolen_ticks, foreign_ns: None };
        let moments = BTreeMap::from([(0, [moment(0), moment(2)])]);
        let found = work.disturbed(&windows, &none, &moments);
        let what = Some(Disturbance::Stolen);
        assert_eq!((found.of(&windows, 0), found.of(&windows, 1)), (vec![what, what, None], vec![what; 2]));
        assert_eq!(found.blocks, [0]);
    }
}
