//! When configurations that are alive at once are asked: in windows, one after another.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand_pcg::Pcg64;
use workloads::protocol::{PhaseReport, Window, decode_histogram};

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
/// Shortest time between two windows, and shortest time of skipping.
const SHORTEST_GAP: Duration = Duration::from_micros(500);
/// Shortest times with probes: in both together, they are told of the next window.
const SHORTEST_GAP_OF_PROBES: Duration = Duration::from_micros(1500);
/// Shortest time in which every connection is seen before a block's first window.
const SHORTEST_LEAD: Duration = Duration::from_millis(20);

/// How long a configuration's operations take, by a phase of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// From an operation to the next one on the same connection, ns.
    pub cycle_ns: f64,
    /// From an operation to the next one on any, ns.
    interval_ns: f64,
    /// Latency of one in a hundred, ns.
    slow_ns: f64,
}

impl Speed {
    /// That of what a client reported of a time with so many connections at work; `None`: nothing ended in it.
    pub fn of(report: &PhaseReport, length: Duration, connections: u32) -> Option<Self> {
        let interval_ns = length.as_nanos() as f64 / report.operations as f64;
        let slow_ns = decode_histogram(&report.histogram).map_or(0, |latencies| latencies.value_at_quantile(0.99));
        (report.operations > 0).then(|| Self {
            cycle_ns: interval_ns * f64::from(connections),
            interval_ns,
            slow_ns: slow_ns as f64,
        })
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
        let slow_ns = slowest(|speed| speed.slow_ns);
        let cycles = |count: f64| ns(cycle_ns * count);
        let skip = cycles(SKIPPED).min(LONGEST_SKIP.max(cycles(SKIPPED_AT_LEAST)));
        Self {
            skip: skip.max(SHORTEST_GAP),
            // A window ends in a slow operation more often than elsewhere, and the next begins after it: it holds many.
            counted: shortest.max(ns(OPERATIONS * interval_ns)).max(cycles(10.0)).max(ns(10.0 * slow_ns)),
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

/// Members that are asked in the same blocks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Who.
    pub members: Vec<usize>,
    /// How long.
    pub pace: Pace,
}

/// A window that is to be, by its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub member: usize,
    /// The block that it is part of, in its phase.
    pub block: u32,
    /// The group whose block that is.
    pub group: usize,
}

/// A window of one configuration, by its place among those that are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Whose it is, in which block.
    pub place: Place,
    /// When.
    pub window: Window,
}

impl Asked {
    /// Length of what counts, ns.
    pub const fn length_ns(&self) -> u64 {
        self.window.close_ns - self.window.from_ns
    }
}

/// Medians that lie further apart than this share no block: it would take as long as the slower one needs, and be no
/// neighbour in time of anything.
const FURTHEST: f64 = 20.0;

/// Who shares blocks: as few groups as hold all pairs that are compared, each of so many that no connection rests for
/// longer than TCP takes to notice. `cycles_ns`: how long an operation of each member takes.
pub fn groups(cycles_ns: &[f64], pairs: &[[usize; 2]]) -> Vec<Vec<usize>> {
    let is_near = |[one, other]: &&[usize; 2]| {
        let (low, high) = (cycles_ns[*one].min(cycles_ns[*other]), cycles_ns[*one].max(cycles_ns[*other]));
        high <= FURTHEST * low
    };
    let (near, far): (Vec<_>, Vec<_>) = pairs.iter().partition(is_near);
    let mut groups = covering(&near);
    groups.extend(covering(&far));
    // Who is compared with nobody here is still to be asked.
    let grouped = |member: &usize| groups.iter().any(|group| group.contains(member));
    let lonely: Vec<usize> = (0..cycles_ns.len()).filter(|member| !grouped(member)).collect();
    groups.extend(lonely.chunks(MOST_IN_A_BLOCK).map(<[usize]>::to_vec));
    groups
}

/// Groups that hold these pairs, in their order.
fn covering(pairs: &[&[usize; 2]]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for pair in pairs {
        let joined = |group: &Vec<usize>| {
            let mut joined = group.clone();
            joined.extend(pair.iter().filter(|member| !group.contains(member)));
            joined
        };
        match groups.last_mut() {
            Some(last) if joined(last).len() <= MOST_IN_A_BLOCK => *last = joined(last),
            _ => groups.push(pair.to_vec()),
        }
    }
    groups
}

/// The groups in the order of their blocks, of which each has so many: they take turns.
pub fn sequence(blocks: &[u32]) -> Vec<usize> {
    let most = blocks.iter().copied().max().unwrap_or(0);
    (0..most).flat_map(|turn| (0..blocks.len()).filter(move |group| turn < blocks[*group])).collect()
}

/// Windows in the order in which they are asked: in every block all of a group in random order, and back again, so that
/// a drift within it meets all alike.
pub fn order(groups: &[Group], sequence: &[usize], random: &mut Pcg64) -> Vec<Place> {
    let mut places = Vec::new();
    for (block, group) in (0u32..).zip(sequence.iter().copied()) {
        let mut members = groups[group].members.clone();
        members.shuffle(random);
        places.extend(members.iter().chain(members.iter().rev()).map(|member| Place { member: *member, block, group }));
    }
    places
}

/// What comes before a phase with probes: every member is asked for a while, in which nothing counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead;

/// The windows of a phase that begins at `start_ns`: those of the lead-in, if there is one, in which nothing counts,
/// and those that count, for so long in each group.
pub fn timeline(
    groups: &[Group],
    start_ns: u64,
    lead: Option<Lead>,
    counted: &[Duration],
    order: &[Place],
) -> (Vec<Asked>, Vec<Asked>) {
    let ns = |time: Duration| time.as_nanos() as u64;
    let shortest = lead.map_or(Duration::ZERO, |Lead| SHORTEST_GAP_OF_PROBES);
    let mut at_ns = start_ns;
    let mut next = |place: Place, skip: Duration, counted: Duration| {
        let (open_ns, from_ns) = (at_ns, at_ns + ns(skip));
        let window = Window { open_ns, from_ns, close_ns: from_ns + ns(counted) };
        at_ns = window.close_ns + ns(groups[place.group].pace.gap.max(shortest));
        Asked { place, window }
    };
    let mut leading: Vec<Place> = lead.map_or_else(Vec::new, |Lead| order.to_vec());
    leading.sort_by_key(|place| (place.member, place.block));
    leading.dedup_by_key(|place| place.member);
    let longest = groups.iter().map(|group| group.pace.lead).max().unwrap_or_default();
    let lead = leading.into_iter().map(|place| next(place, longest, Duration::ZERO)).collect();
    let counted = |place: &Place| next(*place, groups[place.group].pace.skip.max(shortest), counted[place.group]);
    (lead, order.iter().map(counted).collect())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use workloads::protocol::{encode_histogram, new_histogram};

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
        assert_eq!(fast, Pace { skip: ms(0.5), counted: ms(20.0), gap: ms(0.5), lead: ms(20.0) });
        // Fifty connections of 400 µs each: twenty answers each take 8 ms.
        let many = pace(&[speed(50, 125_000)]);
        assert_eq!((many.skip, many.counted, many.gap), (ms(8.0), ms(20.0), ms(0.8)));
        // A thousand of 16 ms: two answers each.
        let most = pace(&[speed(1000, 62_500)]);
        assert_eq!((most.skip, most.counted, most.lead), (ms(32.0), ms(160.0), ms(48.0)));
        // One of 3 ms beside a fast one: 200 operations.
        let slow = pace(&[speed(1, 62_500), speed(1, 333)]);
        assert!(slow.counted.abs_diff(ms(600.6)) < ms(0.1), "{slow:?}");
        assert_eq!(Speed::of(&PhaseReport::default(), ms(1.0), 1), None);
        // One in fifty takes 4 ms.
        let mut latencies = new_histogram();
        (0..50).for_each(|number| latencies.saturating_record(if number == 0 { 4_000_000 } else { 16_000 }));
        let report = PhaseReport { operations: 10_000, histogram: encode_histogram(&latencies), ..Default::default() };
        let counted = pace(&[Speed::of(&report, ms(1_000.0), 1).unwrap()]).counted;
        assert!(counted.abs_diff(ms(40.0)) < ms(0.1), "{counted:?}");
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

    fn group(members: &[usize], pace: Pace) -> Group {
        Group { members: members.to_vec(), pace }
    }

    #[test]
    fn who_is_compared_shares_blocks() {
        let star = |count: usize, baseline: usize| -> Vec<[usize; 2]> {
            (0..count).filter(|member| *member != baseline).map(|member| [baseline, member]).collect()
        };
        let alike = |count| vec![16_000.0; count];
        assert_eq!(groups(&alike(4), &star(4, 1)), [vec![1, 0, 2, 3]]);
        assert_eq!(groups(&alike(6), &star(6, 2)), [vec![2, 0, 1, 3], vec![2, 4, 5]]);
        // A ladder: each is compared with the one before it, but for the last.
        let ladder = [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [2, 6]];
        assert_eq!(groups(&alike(7), &ladder), [vec![0, 1, 2, 3], vec![3, 4, 5], vec![2, 6]]);
        // The third is fifty times as slow: no neighbour of the others.
        assert_eq!(groups(&[16.0, 20.0, 800.0, 16.0], &star(4, 0)), [vec![0, 1, 3], vec![0, 2]]);
        // Compared with somebody who is measured alone.
        assert_eq!(groups(&alike(2), &[]), [vec![0, 1]]);
    }

    #[test]
    fn all_of_a_group_are_asked_alike() {
        let pace = pace(&[speed(1, 62_500)]);
        let groups = [group(&[2, 0, 1, 3], pace), group(&[2, 4, 5], pace)];
        let sequence = sequence(&[10, 10]);
        assert_eq!(sequence[..4], [0, 1, 0, 1]);
        let asked = order(&groups, &sequence, &mut Pcg64::seed_from_u64(1));
        let times = |member| asked.iter().filter(|place| place.member == member).count();
        assert_eq!([0, 1, 2, 3, 4, 5].map(times), [20, 20, 40, 20, 20, 20]);
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..20 {
            let block: Vec<usize> =
                asked.iter().filter(|place| place.block == number).map(|place| place.member).collect();
            assert!(block.iter().eq(block.iter().rev()) && block.contains(&2), "{block:?}");
            firsts.insert(block[0]);
        }
        assert!(firsts.len() > 3, "{firsts:?}");
        assert_eq!(super::sequence(&[3, 1]), [0, 1, 0, 0]);
    }

    #[test]
    fn windows_follow_each_other_with_gaps() {
        let pace = Pace { skip: ms(2.0), counted: ms(20.0), gap: ms(2.0), lead: ms(5.0) };
        let place = |member, block, group| Place { member, block, group };
        let order = [place(1, 0, 0), place(0, 0, 0), place(0, 0, 0), place(1, 0, 0)];
        let one = [group(&[0, 1], pace)];
        let (lead, windows) = timeline(&one, 1_000_000, Some(Lead), &[ms(20.0)], &order);
        let at = |asked: &Asked| {
            let Window { open_ns, from_ns, close_ns } = asked.window;
            (asked.place.member, [open_ns, from_ns, close_ns].map(|ns| ns / 1_000_000))
        };
        assert_eq!(lead.iter().map(at).collect::<Vec<_>>(), [(0, [1, 6, 6]), (1, [8, 13, 13])]);
        let expected = [(1, [15, 17, 37]), (0, [39, 41, 61]), (0, [63, 65, 85]), (1, [87, 89, 109])];
        assert_eq!(windows.iter().map(at).collect::<Vec<_>>(), expected);
        assert!(windows.iter().all(|asked| asked.length_ns() == 20_000_000));
        assert_eq!(timeline(&one, 0, None, &[ms(20.0)], &order[..1]).0, []);
        // Without probes, nobody has to be told in between.
        let brisk = [group(&[0, 1], Pace { skip: ms(0.5), gap: ms(0.5), ..pace })];
        let shortest = |lead| {
            let (_, windows) = timeline(&brisk, 0, lead, &[ms(20.0)], &order[..2]);
            windows[1].window.from_ns - windows[0].window.close_ns
        };
        assert_eq!((shortest(None), shortest(Some(Lead))), (1_000_000, 3_000_000));
        // Each group at its own pace, and one lead-in for all: the longest.
        let slow = Pace { lead: ms(60.0), skip: ms(4.0), gap: ms(3.0), ..pace };
        let two = [group(&[0], pace), group(&[0, 1], slow)];
        let (lead, windows) = timeline(&two, 0, Some(Lead), &[ms(20.0), ms(40.0)], &[place(0, 0, 0), place(1, 1, 1)]);
        assert_eq!(lead.iter().map(at).collect::<Vec<_>>(), [(0, [0, 60, 60]), (1, [62, 122, 122])]);
        assert_eq!(windows.iter().map(at).collect::<Vec<_>>(), [(0, [125, 127, 147]), (1, [149, 153, 193])]);
    }
}
