//! Points by their place in the table, and what may follow what.

use super::{At, Edge, Leg, Next, PROBES, Point, Probe, READER, ReaderRow, Row, Set, Splits};

/// For each point, by its index: its probe and its row, or its row among those of readers.
const PLACES: [Place; Point::ALL.len()] = places();

#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    Probe(usize, usize),
    Reader(usize),
}

/// Does not compile if a point has no row, or two.
const fn places() -> [Place; Point::ALL.len()] {
    let mut places = [Place::Nowhere; Point::ALL.len()];
    let mut probe = 0;
    while probe < PROBES.len() {
        let mut row = 0;
        while row < PROBES[probe].points.len() {
            let index = PROBES[probe].points[row].point as usize;
            assert!(matches!(places[index], Place::Nowhere), "a point has two rows");
            places[index] = Place::Probe(probe, row);
            row += 1;
        }
        probe += 1;
    }
    let mut row = 0;
    while row < READER.len() {
        let index = READER[row].point as usize;
        assert!(matches!(places[index], Place::Nowhere), "a point has two rows");
        places[index] = Place::Reader(row);
        row += 1;
    }
    let mut index = 0;
    while index < places.len() {
        assert!(!matches!(places[index], Place::Nowhere), "a point has no row");
        index += 1;
    }
    places
}

/// The row of a point; `None`: it is what a reader did, see [`reader`].
#[must_use]
pub fn row(point: Point) -> Option<&'static Row> {
    match PLACES[point as usize] {
        Place::Probe(probe, row) => Some(&PROBES[probe].points[row]),
        Place::Reader(_) | Place::Nowhere => None,
    }
}

/// The probe that sees a point.
#[must_use]
pub fn probe_of(point: Point) -> Option<&'static Probe> {
    match PLACES[point as usize] {
        Place::Probe(probe, _) => Some(&PROBES[probe]),
        Place::Reader(_) | Place::Nowhere => None,
    }
}

/// What the reader of a socket did in a part that ends so; `None`: the part ends at a point.
#[must_use]
pub fn reader(point: Point) -> Option<&'static ReaderRow> {
    match PLACES[point as usize] {
        Place::Reader(row) => Some(&READER[row]),
        Place::Probe(..) | Place::Nowhere => None,
    }
}

/// Whether the reader of a socket worked for the request itself in a part that ends so.
#[must_use]
pub fn is_own_work(point: Point) -> bool {
    reader(point).is_some_and(|row| row.is_own_work)
}

/// All rows of points.
pub fn all() -> impl Iterator<Item = &'static Row> {
    PROBES.iter().flat_map(|probe| probe.points)
}

/// At what a request is seen at a point.
#[must_use]
pub fn at(point: Point) -> At {
    row(point).map_or(At::NoDevice, |row| row.at)
}

/// Whether a point only splits the stage in which it lies.
#[must_use]
pub fn is_part(point: Point) -> bool {
    row(point).is_none_or(|row| row.splits != Splits::Nothing)
}

/// Whether a request waits from here on for a segment to be sent again.
#[must_use]
pub fn is_lost(point: Point) -> bool {
    row(point).is_some_and(|row| row.leg == Leg::Lost)
}

/// Whether a point is one of file operations, which have no client and no server.
#[must_use]
pub fn is_of_files(point: Point) -> bool {
    probe_of(point).is_some_and(|probe| matches!(probe.set, Set::File | Set::FileDetail))
}

/// Whether this is the time between the end of a request and the beginning of the next.
#[must_use]
pub fn is_turnaround(from: Point, to: Point) -> bool {
    let edge = |point: Point| row(point).map_or(Edge::Within, |row| row.edge);
    edge(from) == Edge::Ends && edge(to) == Edge::Begins && is_of_files(from) == is_of_files(to)
}

/// Whether a request ends at a point: what follows is the client's own time.
#[must_use]
pub fn is_ended(point: Point) -> bool {
    row(point).is_some_and(|row| row.edge == Edge::Ends)
}

/// What the table says of the way from one point to the other; `None`: a request may not pass so.
#[must_use]
pub fn next(from: Point, to: Point) -> Option<&'static Next> {
    row(from)?.next.iter().find(|next| next.to == to)
}

/// Whether a request may pass from one point to the other.
#[must_use]
pub fn is_legal(from: Point, to: Point) -> bool {
    next(from, to).is_some()
}
