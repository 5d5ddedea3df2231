//! When configurations that are alive at once are asked: in windows, one after another.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand_pcg::Pcg64;
use workloads::protocol::{PhaseReport, Window};

/// Most configurations of a block: within one, no connection rests for longer than it takes for TCP to notice.
pub const MOST_IN_A_BLOCK: usize = 4;

/// Operations that a window is to have.
const OPERATIONS: f64 = 200.0;
/// Operations of each connection that are skipped at a window's beginning: its caches are another's, and so is the
/// state of TCP.
const SKIPPED: f64 = 20.0;
/// Longest time of skipping, but for two operations of each of many connections.
const LONGEST_SKIP: Duration = Duration::from_millis(20);
const SKIPPED_AT_LEAST: f64 = 2.0;
/// Shortest time between two windows, and shortest time of skipping: in both together, the probes are told of the next.
const SHORTEST_GAP: Duration = Duration::from_micros(1500);
/// Shortest time in which every connection is seen before a block's first window.
const SHORTEST_LEAD: Duration = Duration::from_millis(20);

/// How long a configuration's operations take, by a phase of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// From an operation to the next one on the same connection, ns.
    cycle_ns: f64,
    /// From an operation to the next one on any, ns.
    interval_ns: f64,
}

impl Speed {
    /// That of what a client reported of a time with so many connections at work; `None`: nothing ended in it.
    pub fn of(report: &PhaseReport, length: Duration, connections: u32) -> Option<Self> {
        let interval_ns = length.as_nanos() as f64 / report.operations as f64;
        (report.operations > 0).then(|| Self { cycle_ns: interval_ns * f64::from(connections), interval_ns })
    }
}

/// Lengths of windows and of what is between them, alike for all configurations of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time at a window's beginning in which nothing counts.
    pub skip: Duration,
    /// Time of a window that counts, at least.
    pub counted: Duration,
    /// Time between two windows, in which what is under way ends.
    pub gap: Duration,
    /// Time in which a configuration is asked before a block's first window, so that the probes have seen all of its
    /// connections.
    pub lead: Duration,
}

impl Pace {
    /// The pace for these configurations: that of the slowest, with windows that count for `shortest` at least.
    pub fn of(speeds: impl Iterator<Item = Speed> + Clone, shortest: Duration) -> Self {
        let slowest = |of: fn(Speed) -> f64| speeds.clone().map(of).fold(0.0, f64::max);
        let ns = |ns: f64| Duration::from_nanos(ns as u64);
        let (cycle_ns, interval_ns) = (slowest(|speed| speed.cycle_ns), slowest(|speed| speed.interval_ns));
        let cycles = |count: f64| ns(cycle_ns * count);
        let skip = cycles(SKIPPED).min(LONGEST_SKIP.max(cycles(SKIPPED_AT_LEAST)));
        Self {
            skip: skip.max(SHORTEST_GAP),
            // The mean stands for the median: of what has a long tail, windows are longer.
            counted: shortest.max(ns(OPERATIONS * interval_ns)).max(cycles(10.0)),
            gap: SHORTEST_GAP.max(cycles(2.0)),
            lead: SHORTEST_LEAD.max(cycles(3.0)),
        }
    }

    /// Makes windows longer, where too little ended in one.
    pub fn stretch(&mut self) {
        (self.counted, self.lead) = (self.counted * 2, self.lead * 2);
    }

    /// Blocks of a phase in which each configuration is to have so much counted time, and the counted time of a window
    /// then: every configuration has two windows a block.
    pub fn divide(&self, length: Duration) -> (u32, Duration) {
        let blocks = (length.as_secs_f64() / (2.0 * self.counted.as_secs_f64())).round().max(1.0) as u32;
        (blocks, self.counted.max(length / (2 * blocks)))
    }
}

/// A window of one configuration, by its place among those that are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Whose it is.
    pub member: usize,
    /// The block that it is part of, in its phase.
    pub block: u32,
    /// When.
    pub window: Window,
}

impl Asked {
    /// Length of what counts, ns.
    pub const fn length_ns(&self) -> u64 {
        self.window.close_ns - self.window.from_ns
    }
}

/// Members that are asked in the same blocks: all that fit, with the baseline in each.
pub fn groups(members: usize, baseline: usize) -> Vec<Vec<usize>> {
    if members <= MOST_IN_A_BLOCK {
        return vec![(0..members).collect()];
    }
    let others: Vec<usize> = (0..members).filter(|member| *member != baseline).collect();
    let with_baseline = |some: &[usize]| std::iter::once(baseline).chain(some.iter().copied()).collect();
    others.chunks(MOST_IN_A_BLOCK - 1).map(with_baseline).collect()
}

/// Members in the order in which they are asked, with the number of their block: in every block all of a group in
/// random order, and back again, so that a drift within it meets all alike. The groups take turns.
pub fn order(groups: &[Vec<usize>], blocks: u32, random: &mut Pcg64) -> Vec<(usize, u32)> {
    let mut asked = Vec::new();
    let mut number = 0;
    for _ in 0..blocks {
        for group in groups {
            let mut order = group.clone();
            order.shuffle(random);
            asked.extend(order.iter().chain(order.iter().rev()).map(|member| (*member, number)));
            number += 1;
        }
    }
    asked
}

/// The windows of a phase that begins at `start_ns`: those of the lead-in, if there is one, in which nothing counts,
/// and those that count.
pub fn timeline(
    pace: Pace,
    start_ns: u64,
    has_lead: bool,
    counted: Duration,
    order: &[(usize, u32)],
) -> (Vec<Asked>, Vec<Asked>) {
    let ns = |time: Duration| time.as_nanos() as u64;
    let mut at_ns = start_ns;
    let mut next = |member, block, skip: Duration, counted: Duration| {
        let (open_ns, from_ns) = (at_ns, at_ns + ns(skip));
        let window = Window { open_ns, from_ns, close_ns: from_ns + ns(counted) };
        at_ns = window.close_ns + ns(pace.gap);
        Asked { member, block, window }
    };
    let mut members: Vec<usize> = if has_lead { order.iter().map(|(member, _)| *member).collect() } else { Vec::new() };
    members.sort_unstable();
    members.dedup();
    let lead = members.into_iter().map(|member| next(member, 0, pace.lead, Duration::ZERO)).collect();
    (lead, order.iter().map(|(member, block)| next(*member, *block, pace.skip, counted)).collect())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn speed(connections: u32, operations: u64) -> Speed {
        let report = PhaseReport { operations, ..PhaseReport::default() };
        Speed::of(&report, Duration::from_secs(1), connections).unwrap()
    }

    fn ms(milliseconds: f64) -> Duration {
        Duration::from_secs_f64(milliseconds / 1e3)
    }

    fn pace(speeds: &[Speed]) -> Pace {
        Pace::of(speeds.iter().copied(), ms(20.0))
    }

    #[test]
    fn the_slowest_sets_the_pace() {
        // 16 µs and 25 µs an operation: the shortest of everything.
        let fast = pace(&[speed(1, 62_500), speed(1, 40_000)]);
        assert_eq!(fast, Pace { skip: ms(1.5), counted: ms(20.0), gap: ms(1.5), lead: ms(20.0) });
        // Fifty connections of 400 µs each: twenty answers each take 8 ms.
        let many = pace(&[speed(50, 125_000)]);
        assert_eq!((many.skip, many.counted, many.gap), (ms(8.0), ms(20.0), ms(1.5)));
        // A thousand of 16 ms: two answers each.
        let most = pace(&[speed(1000, 62_500)]);
        assert_eq!((most.skip, most.counted, most.lead), (ms(32.0), ms(160.0), ms(48.0)));
        // One of 3 ms beside a fast one: 200 operations.
        let slow = pace(&[speed(1, 62_500), speed(1, 333)]);
        assert!(slow.counted.abs_diff(ms(600.6)) < ms(0.1), "{slow:?}");
        assert_eq!(Speed::of(&PhaseReport::default(), ms(1.0), 1), None);
    }

    #[test]
    fn a_phase_is_divided_into_blocks_of_two_windows_each() {
        let pace = pace(&[speed(1, 62_500)]);
        assert_eq!(pace.divide(ms(333.0)), (8, ms(333.0) / 16));
        assert_eq!(pace.divide(ms(50.0)), (1, ms(25.0)));
        // Rounded up, windows do not shrink below what they are to be.
        assert_eq!(pace.divide(ms(10.0)), (1, ms(20.0)));
        assert_eq!(pace.divide(ms(70.0)), (2, ms(20.0)));
    }

    #[test]
    fn the_baseline_is_in_every_block_and_all_are_asked_alike() {
        assert_eq!(groups(4, 1), [vec![0, 1, 2, 3]]);
        assert_eq!(groups(6, 2), [vec![2, 0, 1, 3], vec![2, 4, 5]]);
        let asked = order(&groups(6, 2), 10, &mut Pcg64::seed_from_u64(1));
        let times = |member| asked.iter().filter(|(found, _)| *found == member).count();
        assert_eq!([0, 1, 2, 3, 4, 5].map(times), [20, 20, 40, 20, 20, 20]);
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..20 {
            let block: Vec<usize> = asked.iter().filter(|(_, block)| *block == number).map(|(one, _)| *one).collect();
            assert!(block.iter().eq(block.iter().rev()) && block.contains(&2), "{block:?}");
            firsts.insert(block[0]);
        }
        assert!(firsts.len() > 3, "{firsts:?}");
    }

    #[test]
    fn windows_follow_each_other_with_gaps() {
        let pace = Pace { skip: ms(2.0), counted: ms(20.0), gap: ms(1.0), lead: ms(5.0) };
        let (lead, windows) = timeline(pace, 1_000_000, true, ms(20.0), &[(1, 0), (0, 0), (0, 0), (1, 0)]);
        let at = |asked: &Asked| {
            let Window { open_ns, from_ns, close_ns } = asked.window;
            (asked.member, [open_ns, from_ns, close_ns].map(|ns| ns / 1_000_000))
        };
        assert_eq!(lead.iter().map(at).collect::<Vec<_>>(), [(0, [1, 6, 6]), (1, [7, 12, 12])]);
        let expected = [(1, [13, 15, 35]), (0, [36, 38, 58]), (0, [59, 61, 81]), (1, [82, 84, 104])];
        assert_eq!(windows.iter().map(at).collect::<Vec<_>>(), expected);
        assert!(windows.iter().all(|asked| asked.length_ns() == 20_000_000));
        assert_eq!(timeline(pace, 0, false, ms(20.0), &[(0, 0)]).0, []);
    }
}
