//! Points by name and number, and what may follow what.

use profiler_common::point as number;

use super::{Number, PROBES, Point, Set};

/// What the reader of a socket did while a message waited in it or its answer was made: numbers, names as ends of
/// parts, and what they mean.
pub const READER: &[(u8, &str, &str)] = &[
    (number::READER_BLOCKED, "blocked", "asleep, and nobody had begun to wake it"),
    (number::READER_WAKING, "waking", "being woken, on no run queue yet"),
    (number::READER_RUNNABLE, "run-queue", "waiting for a CPU"),
    (number::READER_IDLE_EXIT, "idle-exit", "waiting for an idle CPU to come to it"),
    (number::READER_THROTTLED, "throttled", "kept from running by the CPU quota of its group"),
    (number::READER_ELSEWHERE, "other-requests", "working on other requests"),
    (number::READER_HERE, "own-work", "working on this request, or turning to it"),
    (number::READER_IN_CALL, "own-call", "in the system call that ends the stage"),
];

/// What the reader of a socket did, by the name of the part that it ends.
#[must_use]
pub fn reader(name: &str) -> Option<&'static str> {
    READER.iter().find(|(_, found, _)| *found == name).map(|(.., meaning)| *meaning)
}

/// Whether the reader of a socket worked for the request itself in this part of a stage.
#[must_use]
pub fn is_own_work(name: &str) -> bool {
    matches!(name, "own-work" | "own-call")
}

/// All points.
pub fn all() -> impl Iterator<Item = &'static Point> {
    PROBES.iter().flat_map(|probe| probe.points)
}

/// The point with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Point> {
    all().find(|point| point.name == name)
}

/// The point with this number in the kernel, and the index of its device if it has one.
#[must_use]
pub fn by_number(number: u8) -> Option<(&'static Point, Option<u8>)> {
    let (wanted, device) = match (number::device_of(number), number::disk_of(number)) {
        (Some((what, device)), _) => (Number::Device(what), Some(device)),
        (None, Some((what, disk))) => (Number::Disk(what), Some(disk)),
        (None, None) => (Number::Fixed(number), None),
    };
    all().find(|point| point.number == wanted).map(|point| (point, device))
}

/// Whether a point is one of file operations, which have no client and no server.
#[must_use]
pub fn is_of_files(name: &str) -> bool {
    let of_files = PROBES.iter().filter(|probe| matches!(probe.set, Set::File | Set::FileDetail));
    of_files.flat_map(|probe| probe.points).any(|point| point.name == name)
}

/// Whether a request may pass from one point to the other.
#[must_use]
pub fn is_legal(from: &str, to: &str) -> bool {
    by_name(from).is_some_and(|point| point.successors.contains(&to))
}
