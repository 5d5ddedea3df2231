//! What else the host did during a repetition.

use std::{collections::BTreeSet, fs};

use procfs::process::Process;

use virtax_model::placement::Cpus;

/// Share of a CPU's time above which stolen time or foreign work marks a repetition.
const STEAL_LIMIT: f64 = 0.01;
const FOREIGN_LIMIT: f64 = 0.10;

/// Whose time is the run's own.
pub struct Watched {
    /// Processes of client and server.
    pub families: BTreeSet<u32>,
    /// Where they run.
    pub cpus: Cpus,
}

/// CPU times at one instant, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// All time of all CPUs.
    total: u64,
    /// Time in which something ran.
    busy: u64,
    /// Time that a hypervisor gave to others.
    steal: u64,
    /// Time of the run's own processes.
    own: u64,
    cpus: u64,
}

/// CPU time of virtax's own children that have ended and were waited for, ticks: clients that run once for each phase.
fn ended_children() -> u64 {
    let own = Process::myself().and_then(|process| process.stat());
    own.map_or(0, |stat| (stat.cutime + stat.cstime).max(0) as u64)
}

impl Load {
    /// Reads it.
    #[must_use]
    pub fn now(watched: &Watched) -> Self {
        let own = watched
            .families
            .iter()
            .chain(std::iter::once(&std::process::id()))
            .filter_map(|pid| Process::new(*pid as i32).ok()?.stat().ok())
            .map(|stat| stat.utime + stat.stime)
            .sum::<u64>()
            + ended_children();
        Self { own, ..Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default()) }
    }

    /// `cpu user nice system idle iowait irq softirq steal …` (proc_stat(5)).
    fn parse(stat: &str) -> Self {
        let mut load = Self::default();
        for line in stat.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("cpu") => {
                    let times: Vec<u64> = words.filter_map(|word| word.parse().ok()).take(8).collect();
                    load.total = times.iter().sum();
                    let idle: u64 = times.iter().skip(3).take(2).sum();
                    load.steal = times.get(7).copied().unwrap_or(0);
                    load.busy = load.total - idle - load.steal;
                }
                Some(name) if name.starts_with("cpu") => load.cpus += 1,
                _ => {}
            }
        }
        load
    }

    /// What disturbed the interval, for a person.
    #[must_use]
    pub fn disturbances_since(&self, before: &Self) -> Vec<String> {
        let per_cpu = (self.total.saturating_sub(before.total) as f64 / self.cpus.max(1) as f64).max(1.0);
        let steal = self.steal.saturating_sub(before.steal) as f64 / per_cpu;
        // Softirqs of the run's own packets count as busy without a process: the two on its CPUs look foreign only
        // where they exceed a tenth of one CPU more than the processes themselves used.
        let busy = self.busy.saturating_sub(before.busy) as f64;
        let own = self.own.saturating_sub(before.own) as f64;
        let foreign = ((busy - own) / per_cpu).max(0.0);
        let mut found = Vec::new();
        if steal > STEAL_LIMIT {
            found.push(format!("{:.0} % of a CPU was stolen by the hypervisor", 100.0 * steal));
        }
        if foreign > FOREIGN_LIMIT {
            found.push(format!("{:.0} % of a CPU was used by other work", 100.0 * foreign));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(user: u64, idle: u64, steal: u64) -> String {
        format!("cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1\ncpu1 1\nintr 5\n")
    }

    #[test]
    fn a_quiet_interval_has_no_disturbance() {
        let before = Load { own: 100, ..Load::parse(&stat(500, 1000, 3)) };
        let after = Load { own: 195, ..Load::parse(&stat(600, 1100, 3)) };
        assert_eq!(after.disturbances_since(&before), Vec::<String>::new());
    }

    #[test]
    fn steal_and_foreign_work_are_named() {
        let before = Load { own: 100, ..Load::parse(&stat(500, 1000, 0)) };
        let after = Load { own: 100, ..Load::parse(&stat(540, 1140, 20)) };
        assert_eq!(
            after.disturbances_since(&before),
            ["20 % of a CPU was stolen by the hypervisor", "40 % of a CPU was used by other work"]
        );
    }
}
