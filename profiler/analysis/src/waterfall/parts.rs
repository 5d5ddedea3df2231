//! Parts of stages: shares measured in detailed phases (or, where those have none, in traced ones), applied to the
//! stage's time in traced phases.

use std::collections::{BTreeMap, HashMap};

use super::{
    Part, Row, Sums,
    inside::{Inside, is_between},
    key_of,
};
use crate::{
    path::{StageKey, is_boundary, is_disk_of_guest},
    statistics::{Estimate, estimate_one},
};
use virtax_model::{
    counts::{Phase, Place, Point, Role},
    points::{self, Splits},
};

/// What a place splits; a reader's state splits the stage in which it reads.
fn splits(place: &Place) -> Splits {
    points::row(place.point).map_or(Splits::Nothing, |row| row.splits)
}

/// Whether it is a part of the time that a VM holds a request, by what happens to its processor.
pub(super) fn is_of_vm(part: &StageKey) -> bool {
    [&part.from, &part.to].into_iter().any(|place| splits(place) == Splits::Vm)
}

/// Takes the guest's residence out of these parts, which lies between entering the guest and leaving it to notify the
/// VM. Only as much of it as there are parts: of requests that were held along with others there are none.
pub(super) fn take_residence(parts: &mut HashMap<StageKey, (u64, u64)>, phase: &Phase, inside: &Inside) {
    let all = || phase.probes.iter().flat_map(|probes| &probes.stages);
    let parted_ns: u64 = all().filter(|stage| stage.part && is_of_vm(&key_of(stage))).map(|stage| stage.total_ns).sum();
    let whole_ns: u64 =
        all().filter(|stage| !stage.part && Some(key_of(stage)) == inside.boundary).map(|stage| stage.total_ns).sum();
    let residence_ns = inside.residence_ns as f64 * (parted_ns as f64 / whole_ns.max(1) as f64).min(1.0);
    // In these the guest has the request; where neither entry nor notification was seen, in the longest.
    let has_guest = |key: &StageKey| key.from.point == Point::Entered || key.to.point == Point::Notified;
    let longest = parts.iter().filter(|(key, _)| is_of_vm(key)).max_by_key(|(_, (_, ns))| *ns);
    let longest = longest.map(|(key, _)| key.clone());
    let requests: u64 = parts.iter().filter(|(key, _)| has_guest(key)).map(|(_, (count, _))| count).sum();
    for (key, (count, ns)) in parts.iter_mut() {
        let share = match requests {
            0 => f64::from(u8::from(Some(key) == longest.as_ref())),
            _ if has_guest(key) => *count as f64 / requests as f64,
            _ => 0.0,
        };
        *ns = ns.saturating_sub((residence_ns * share) as u64);
    }
}

/// Whether a thread passes the point when it is woken.
fn is_woken(place: &Place) -> bool {
    matches!(place.point, Point::Waking | Point::Wakeup | Point::SwitchIn | Point::IdleSwitchIn)
}

/// Among the rows in which a file operation returns, the one in which threads were woken most; parts that begin with
/// the waking do not say of which they are. `None`: these are no file operations, or nobody waited.
fn row_of_waits(role: Role, rows: &[Row], totals: &BTreeMap<&StageKey, (u64, u64)>) -> Option<usize> {
    let woken = |row: &Row| -> u64 {
        let begin =
            totals.iter().filter(|(key, _)| (key.role, &key.from) == (role, &row.key.from) && is_woken(&key.to));
        begin.map(|(_, (count, _))| count).sum()
    };
    let ending = rows.iter().enumerate().filter(|(_, row)| row.key.to.point == Point::Exit && row.key.role == role);
    ending.map(|(index, row)| (woken(row), index)).filter(|(count, _)| *count > 0).max().map(|(_, index)| index)
}

/// The point that ends the stage in which a part lies.
fn stage_end(part: &StageKey, rows: &[Row]) -> Option<Place> {
    if points::reader(part.to.point).is_some() {
        let is_answered = part.from.point == Point::Received;
        return Some(Place::fixed(if is_answered { Point::Send } else { Point::Received }));
    }
    let minor = [&part.from, &part.to].into_iter().find(|place| points::is_part(place.point))?;
    let at = |point: Point| Place { point, device: minor.device.clone() };
    let is_of_files = || rows.iter().any(|row| row.key.to.point == Point::Exit);
    match splits(minor) {
        Splits::StageThatEndsAt(point) => Some(at(point)),
        // A worker of io_uring's.
        Splits::GuestsDiskOrWorker if part.to.point == Point::Bio => Some(part.to.clone()),
        Splits::GuestsDiskOrWorker => {
            let is_made = |row: &&Row| {
                row.key.role == part.role && row.key.from.point == Point::Enter && row.key.to.point == Point::Bio
            };
            let most = rows.iter().filter(is_made).max_by(|a, b| a.count_per_op.total_cmp(&b.count_per_op));
            most.map(|row| row.key.to.clone())
        }
        // A thread that waits for its file operation, or the reader of a socket.
        Splits::Waiting => Some(at(if is_of_files() { Point::Exit } else { Point::Received })),
        // Found by what the stage is, not by its end.
        Splits::Retransmission | Splits::Vm | Splits::GuestsDisk | Splits::Nothing => None,
    }
}

/// The row in which a part lies: with its end and, if the part begins where stages begin, its beginning; else the most
/// frequent one.
fn row_of(part: &StageKey, rows: &[Row]) -> Option<usize> {
    if is_between(part) {
        // Of the guest's waits, most are of the most frequent.
        let waits = rows.iter().enumerate().filter(|(_, row)| is_disk_of_guest(&row.key));
        return waits.max_by(|(_, a), (_, b)| a.count_per_op.total_cmp(&b.count_per_op)).map(|(index, _)| index);
    }
    if is_of_vm(part) {
        return rows.iter().position(|row| row.key.from.point == Point::Taken && is_boundary(&row.key));
    }
    if points::is_lost(part.from.point) {
        // Until its segment is sent again, by whatever device.
        let again = rows.iter().enumerate().filter(|(_, row)| {
            row.key.role == part.role && row.key.from == part.from && row.key.to.point == Point::Xmit
        });
        return again.max_by(|(_, a), (_, b)| a.count_per_op.total_cmp(&b.count_per_op)).map(|(index, _)| index);
    }
    let end = stage_end(part, rows)?;
    let begins_a_stage =
        rows.iter().any(|row| row.key.role == part.role && row.key.from == part.from && row.key.to == end);
    rows.iter()
        .enumerate()
        .filter(|(_, row)| row.key.role == part.role && row.key.to == end && row.key.from.point != Point::Dropped)
        // The rest of a message in parts: nobody was woken for it.
        .filter(|(_, row)| row.key.from.point != Point::Received || end.point != Point::Received)
        .filter(|(_, row)| !begins_a_stage || row.key.from == part.from)
        .max_by(|(_, a), (_, b)| a.count_per_op.total_cmp(&b.count_per_op))
        .map(|(index, _)| index)
}

/// Adds to every row its parts, in the order of their points.
pub(super) fn attach(rows: &mut [Row], traced: &[Sums], detailed: &[Sums]) {
    let (of_detailed, of_traced) = ((collect(rows, detailed), detailed), (collect(rows, traced), traced));
    for (index, row) in rows.iter_mut().enumerate() {
        // Why something was sent again is seen in all phases, and rare: its own say most.
        let order =
            if points::is_lost(row.key.from.point) { [&of_traced, &of_detailed] } else { [&of_detailed, &of_traced] };
        let Some((parts, sums)) = order.into_iter().find_map(|(by_row, sums)| Some((by_row.get(&index)?, *sums)))
        else {
            continue;
        };
        let whole: f64 = parts.iter().map(|(_, _, ns)| ns).sum();
        if whole <= 0.0 {
            continue;
        }
        row.parts = parts
            .iter()
            .map(|(key, count_per_op, ns)| {
                let rounds_share = shares(sums, parts, key);
                let seen: Vec<f64> = rounds_share.iter().flatten().copied().collect();
                Part {
                    from: key.from.clone(),
                    to: key.to.clone(),
                    share: ns / whole,
                    ci95: around(ns / whole, estimate_one(seen)),
                    rounds_share,
                    count_per_op: *count_per_op,
                }
            })
            .collect();
        row.parts.sort_by_key(|part| (rank(&part.from, &row.key), rank(&part.to, &row.key)));
    }
}

/// A part's share in each round, of all parts of its row.
fn shares(sums: &[Sums], parts: &[(StageKey, f64, f64)], key: &StageKey) -> Vec<Option<f64>> {
    let ns = |sums: &Sums, key: &StageKey| sums.parts.get(key).map_or(0.0, |sum| sum.1 as f64);
    sums.iter()
        .map(|sums| {
            let whole: f64 = parts.iter().map(|(other, ..)| ns(sums, other)).sum();
            (whole > 0.0).then(|| ns(sums, key) / whole)
        })
        .collect()
}

/// The interval of the rounds' mean share, moved to the share of all rounds together, within 0 and 1.
fn around(share: f64, estimate: Estimate) -> Option<[f64; 2]> {
    let [low, high] = estimate.ci95?;
    Some([low, high].map(|end| (end + share - estimate.mean).clamp(0.0, 1.0)))
}

/// Order of the points within a stage: its beginning, what splits it, its end.
fn rank(place: &Place, stage: &StageKey) -> usize {
    if let Some(position) = points::READER.iter().position(|row| row.point == place.point) {
        return 1 + position;
    }
    let rank = usize::from(points::row(place.point).map_or(0, |row| row.rank));
    match place {
        // The notification by which a guest asks for something of its disk is the first step; elsewhere it is the last.
        place if is_disk_of_guest(stage) && place.point == Point::Notified => 0,
        place if is_disk_of_guest(stage) => {
            if place == &stage.to {
                usize::MAX
            } else {
                rank
            }
        }
        place if *place == stage.from => 0,
        place if *place == stage.to => usize::MAX,
        _ => rank,
    }
}

/// Parts by row: key, count per operation, ns in all.
fn collect(rows: &[Row], sums: &[Sums]) -> BTreeMap<usize, Vec<(StageKey, f64, f64)>> {
    let operations: u64 = sums.iter().map(|sums| sums.operations).sum();
    let mut totals: BTreeMap<&StageKey, (u64, u64)> = BTreeMap::new();
    for (key, (count, ns)) in sums.iter().flat_map(|sums| &sums.parts) {
        let total = totals.entry(key).or_default();
        total.0 += count;
        total.1 += ns;
    }
    // A guest's operations, and its VM's.
    let waits_in = [Role::Client, Role::Vmm].map(|role| (role, row_of_waits(role, rows, &totals)));
    let mut by_row: BTreeMap<usize, Vec<(StageKey, f64, f64)>> = BTreeMap::new();
    for (key, (count, ns)) in totals {
        let of_role = waits_in.iter().find(|(role, _)| *role == key.role).and_then(|(_, index)| *index);
        let of_wait = of_role.filter(|_| is_woken(&key.from));
        if let Some(index) = of_wait.or_else(|| row_of(key, rows)) {
            let count_per_op = count as f64 / operations.max(1) as f64;
            by_row.entry(index).or_default().push((key.clone(), count_per_op, ns as f64));
        }
    }
    by_row
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtax_model::{
        counts::{PhaseKind, Role, StageTotal},
        testing,
    };

    fn total(part: bool, from: Point, to: Place, total_ns: u64) -> StageTotal {
        let from = Place::fixed(from);
        let stage = testing::stage(Role::Client, from, to, 10, total_ns);
        if part { stage.as_part() } else { stage }
    }

    fn row(role: Role, from: Place, to: Place, count_per_op: f64) -> Row {
        Row {
            key: StageKey { role, from, to },
            rounds_ns: vec![1000.0],
            probes_ns: Vec::new(),
            sampled_ns: Vec::new(),
            rounds_count: vec![count_per_op],
            count_per_op,
            histogram: virtax_model::histogram::Histogram::default(),
            side: virtax_model::counts::Side::Host,
            is_limited: false,
            parts: Vec::new(),
        }
    }

    /// Both are called `waking`, and were taken for the same: then the time from a completion until somebody was being
    /// woken was in no row, and the others had too large shares.
    #[test]
    fn a_threads_wakeup_and_a_readers_state_are_different_ends() {
        let (fixed, at) = (Place::fixed, Place::at);
        let files = [
            row(Role::Client, fixed(Point::Enter), at(Point::Bio, "vda"), 1.0),
            row(Role::Client, at(Point::Complete, "vda"), fixed(Point::Exit), 1.0),
        ];
        let sockets = [
            row(Role::Client, fixed(Point::Ready), fixed(Point::Received), 1.0),
            row(Role::Client, fixed(Point::Received), fixed(Point::Send), 1.0),
        ];
        let part = |from: Place, to: Point| StageKey { role: Role::Client, from, to: fixed(to) };
        assert_eq!(row_of(&part(at(Point::Complete, "vda"), Point::Waking), &files), Some(1));
        assert_eq!(row_of(&part(fixed(Point::Ready), Point::ReaderWaking), &sockets), Some(0));
        assert_eq!(row_of(&part(fixed(Point::Received), Point::ReaderElsewhere), &sockets), Some(1));
    }

    /// The guest had the requests between entry and notification; the other steps are the VM's, and stay as they
    /// are.
    #[test]
    fn a_guests_residence_is_taken_out_of_the_guests_step() {
        let out = || Place::at(Point::Receive, "tap@host");
        let whole = total(false, Point::Taken, out(), 1000);
        let mut steps = [
            total(true, Point::Taken, Place::fixed(Point::Injected), 100),
            total(true, Point::Injected, Place::fixed(Point::Entered), 50),
            total(true, Point::Entered, Place::fixed(Point::Notified), 250),
            total(true, Point::Notified, out(), 100),
        ];
        let boundary = key_of(&whole);
        // A part of another stage.
        let other = total(true, Point::Ready, Place::fixed(Point::Received), 300);
        let stages: Vec<StageTotal> = [whole, other].into_iter().chain(steps.clone()).collect();
        let phase = testing::phase(PhaseKind::Detailed, 2000).with_stages(stages);
        let left = |steps: &[StageTotal; 4], residence_ns| {
            let mut parts = steps.iter().map(|step| (key_of(step), (step.count, step.total_ns))).collect();
            let inside = Inside { residence_ns, boundary: Some(boundary.clone()), ..Inside::default() };
            take_residence(&mut parts, &phase, &inside);
            steps.each_ref().map(|step| parts[&key_of(step)].1)
        };
        // Half of the time was divided into steps, the rest was of requests that came together.
        assert_eq!(left(&steps, 400), [100, 50, 50, 100]);
        assert_eq!(left(&steps, 900), [100, 50, 0, 100]);
        assert_eq!(left(&steps, 0), [100, 50, 250, 100]);
        // Where the guest was not entered anew, it has the request until it notifies its VM.
        steps[2].from = Place::fixed(Point::Injected);
        assert_eq!(left(&steps, 400), [100, 50, 50, 100]);
    }

    /// Where neither entry nor notification was seen, the guest had the request in the longest step.
    #[test]
    fn a_guests_residence_is_taken_out_of_the_longest_step_where_none_is_its_own() {
        let out = || Place::at(Point::Receive, "tap@host");
        let whole = total(false, Point::Taken, out(), 1000);
        let steps =
            [total(true, Point::Taken, Place::fixed(Point::Injected), 100), total(true, Point::Injected, out(), 300)];
        let mut parts: HashMap<StageKey, (u64, u64)> =
            steps.iter().map(|step| (key_of(step), (step.count, step.total_ns))).collect();
        let inside = Inside { residence_ns: 200, boundary: Some(key_of(&whole)), ..Inside::default() };
        let stages = [whole].into_iter().chain(steps.clone()).collect();
        take_residence(&mut parts, &testing::phase(PhaseKind::Detailed, 2000).with_stages(stages), &inside);
        // Of the time, 400 of 1000 ns were divided.
        assert_eq!(steps.map(|step| parts[&key_of(&step)].1), [100, 220]);
    }

    #[test]
    fn wake_ups_are_of_the_return_in_which_most_were_woken() {
        let (fixed, at) = (Place::fixed, Place::at);
        let rows = [
            row(Role::Client, fixed(Point::Enter), fixed(Point::Exit), 1.0),
            row(Role::Client, at(Point::Complete, "vda"), fixed(Point::Exit), 1.0),
            row(Role::Vmm, at(Point::Complete, "vda"), fixed(Point::Exit), 1.0),
            row(Role::Client, fixed(Point::Enter), at(Point::Bio, "vda"), 1.0),
        ];
        let key = |role, from, to| StageKey { role, from, to: fixed(to) };
        let keys = [
            (key(Role::Client, fixed(Point::Enter), Point::Waking), (3, 30)),
            (key(Role::Client, at(Point::Complete, "vda"), Point::Waking), (10, 100)),
            (key(Role::Client, fixed(Point::Enter), Point::Exit), (90, 900)),
        ];
        let totals = keys.iter().map(|(key, total)| (key, *total)).collect();
        assert_eq!(row_of_waits(Role::Client, &rows, &totals), Some(1));
        assert_eq!(row_of_waits(Role::Vmm, &rows, &totals), None);
    }

    #[test]
    fn parts_lie_in_the_row_that_has_their_end() {
        let (fixed, at) = (Place::fixed, Place::at);
        let part = |role, from: Place, to: Point| StageKey { role, from, to: fixed(to) };
        // Of a file operation, a thread's wake-up is a part of its return; of a request, of the receipt.
        let cached = [row(Role::Client, fixed(Point::Enter), fixed(Point::Exit), 1.0)];
        assert_eq!(row_of(&part(Role::Client, fixed(Point::Enter), Point::Waking), &cached), Some(0));
        let received = |count| row(Role::Server, fixed(Point::Ready), fixed(Point::Received), count);
        let delivered = |count| row(Role::Server, fixed(Point::Delivered), fixed(Point::Received), count);
        assert_eq!(row_of(&part(Role::Server, fixed(Point::Ready), Point::Wakeup), &[received(1.0)]), Some(0));
        // One that begins where a stage does is of that stage, however rare; others, of the most frequent one.
        let rows = [received(1.0), delivered(5.0)];
        assert_eq!(row_of(&part(Role::Server, fixed(Point::Ready), Point::Wakeup), &rows), Some(0));
        assert_eq!(row_of(&part(Role::Server, fixed(Point::Waking), Point::Wakeup), &rows), Some(1));
        // What was dropped is sent again, not sent.
        let sent = |from, count| row(Role::Client, fixed(from), at(Point::Xmit, "wire@client"), count);
        let rows = [
            sent(Point::Send, 5.0),
            sent(Point::Dropped, 0.1),
            row(Role::Client, fixed(Point::Dropped), fixed(Point::Send), 2.0),
        ];
        assert_eq!(row_of(&part(Role::Client, fixed(Point::Dropped), Point::OtherRetransmission), &rows), Some(1));
    }

    #[test]
    fn an_interval_of_rounds_is_moved_to_the_share_of_all() {
        let estimate = Estimate { mean: 0.4, ci95: Some([0.3, 0.5]), simultaneous: None };
        let [low, high] = around(0.5, estimate).unwrap();
        assert!((low - 0.4).abs() < 1e-12 && (high - 0.6).abs() < 1e-12, "{low} {high}");
        assert_eq!(around(0.05, estimate).unwrap()[0], 0.0);
    }

    #[test]
    fn what_splits_a_stage_lies_between_its_ends() {
        let stage =
            StageKey { role: Role::Server, from: Place::fixed(Point::Ready), to: Place::fixed(Point::Received) };
        let of = |point: Point| rank(&Place::fixed(point), &stage);
        let states: Vec<usize> = points::READER.iter().map(|row| of(row.point)).collect();
        assert_eq!(states, (1..=states.len()).collect::<Vec<_>>());
        assert_eq!((of(Point::Ready), of(Point::Received)), (0, usize::MAX));
        assert!(of(Point::Waking) < of(Point::Wakeup) && of(Point::Wakeup) < of(Point::SwitchIn));
    }
}
