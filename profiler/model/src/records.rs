//! Records of single requests: `records.<configuration>.jsonl.gz`, one gzip member a repetition, so that what an
//! interrupted run wrote can be read.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use profiler_common::RECORD_POINTS;
use serde::{Deserialize, Serialize};

use crate::{
    counts::{PhaseKind, Place, Role},
    error::{Error, Result},
    input::{self, Lines},
    points::{self, Edge},
};

/// A point that a request passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Where.
    pub place: Place,
    /// Who held the request from then on.
    pub role: Role,
    /// When, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// On which CPU.
    pub cpu: u16,
    /// Thread in whose context it was seen.
    pub tid: u32,
}

/// One request with all its points, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Round, from 0.
    pub round: u32,
    /// Kind of its phase.
    pub kind: PhaseKind,
    /// Points of the record.
    pub passes: Vec<Pass>,
}

impl Record {
    /// From the client's send to its last receipt, or from a file operation's call to its return, ns; `None` if it
    /// has neither.
    #[must_use]
    pub fn latency_ns(&self) -> Option<u64> {
        let edge = |pass: &Pass| points::row(pass.place.point).map_or(Edge::Within, |row| row.edge);
        let is_start = |pass: &&Pass| edge(pass) == Edge::Begins;
        let is_end = |pass: &&Pass| edge(pass) == Edge::Ends && pass.role == Role::Client;
        let first = self.passes.iter().find(is_start)?;
        let last = self.passes.iter().rfind(is_end)?;
        last.at_ns.checked_sub(first.at_ns)
    }
}

/// The first line of a member.
#[derive(Serialize, Deserialize)]
struct Header {
    round: u32,
    places: Vec<Place>,
}

/// The others: kind, time of the first point, then per point: place, role, ns since the point before, CPU, thread.
#[derive(Serialize, Deserialize)]
struct Line(PhaseKind, u64, Vec<(u16, Role, u64, u16, u32)>);

/// Appends a repetition's records.
///
/// # Errors
/// If the file cannot be written.
pub fn append(path: &Path, round: u32, records: &[Record]) -> Result<()> {
    let fail = |error: std::io::Error| Error::file("write", path, error);
    let mut places: Vec<Place> = Vec::new();
    let mut lines = Vec::with_capacity(records.len());
    for record in records {
        let start_ns = record.passes.first().map_or(0, |pass| pass.at_ns);
        let mut before = start_ns;
        let passes = record
            .passes
            .iter()
            .map(|pass| {
                let place = places.iter().position(|place| *place == pass.place).unwrap_or_else(|| {
                    places.push(pass.place.clone());
                    places.len() - 1
                });
                let since = pass.at_ns.saturating_sub(before);
                before = pass.at_ns;
                (place as u16, pass.role, since, pass.cpu, pass.tid)
            })
            .collect();
        lines.push(Line(record.kind, start_ns, passes));
    }
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
    let mut out = GzEncoder::new(file, Compression::fast());
    let mut text = serde_json::to_vec(&Header { round, places }).map_err(|error| fail(error.into()))?;
    text.push(b'\n');
    for line in &lines {
        serde_json::to_writer(&mut text, line).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
    }
    out.write_all(&text).map_err(fail)?;
    out.finish().and_then(|file| file.sync_data()).map_err(fail)
}

/// Reads all records; a member that was cut off gives what it holds. A file that does not exist has none.
///
/// # Errors
/// If the file cannot be opened, or holds something else.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", path, error)),
    };
    let mut lines = Lines::new(path, MultiGzDecoder::new(file));
    let mut records = Vec::new();
    let mut header = Header { round: 0, places: Vec::new() };
    while let Some((number, line, ended)) = lines.next_line()? {
        let read = if line.first() == Some(&b'{') {
            input::parse(line).map(|found| header = found)
        } else {
            serde_json::from_slice(line)
                .map_err(|error| error.to_string())
                .and_then(|found| record(&header, found))
                .map(|found| records.push(found))
        };
        if records.len() > MOST_RECORDS {
            return Err(Error::file("read", path, format!("it holds more than {MOST_RECORDS} records")));
        }
        match read {
            Err(why) if ended => return Err(Error::file("understand", path, format!("line {number}: {why}"))),
            _ => {}
        }
    }
    Ok(records)
}

/// Longest name of a place, bytes: names of devices have 15 at most.
const LONGEST_NAME: usize = 128;
/// Most records of one file: an hour at the highest rate that is sensible.
const MOST_RECORDS: usize = 10_000_000;

fn record(header: &Header, Line(kind, start_ns, raw): Line) -> std::result::Result<Record, String> {
    if raw.len() > RECORD_POINTS {
        return Err(format!("{} points; a record has {RECORD_POINTS} at most", raw.len()));
    }
    let mut at_ns = start_ns;
    if header.places.iter().any(|place| place.to_string().len() > LONGEST_NAME) {
        return Err(format!("a place whose name is longer than {LONGEST_NAME} bytes"));
    }
    let passes = raw
        .into_iter()
        .map(|(place, role, since, cpu, tid)| {
            at_ns = at_ns.saturating_add(since);
            if at_ns as f64 > input::LARGEST_NUMBER {
                return Err(format!("{at_ns} ns is no possible time"));
            }
            let place = header.places.get(usize::from(place)).ok_or("it names a place that its header lacks")?.clone();
            Ok(Pass { place, role, at_ns, cpu, tid })
        })
        .collect::<std::result::Result<_, String>>()?;
    Ok(Record { round: header.round, kind, passes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Point;

    fn example(round: u32, start: u64) -> Record {
        let pass = |point: Point, role, at_ns| Pass { place: Place::fixed(point), role, at_ns, cpu: 1, tid: 7 };
        Record {
            round,
            kind: PhaseKind::Traced,
            passes: vec![
                pass(Point::Send, Role::Client, start),
                Pass { place: Place::at(Point::Xmit, "wire@client"), ..pass(Point::Xmit, Role::Client, start + 900) },
                pass(Point::Received, Role::Server, start + 5_000),
                pass(Point::Received, Role::Client, start + 19_000),
            ],
        }
    }

    #[test]
    fn records_survive_the_file_and_members_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.native.jsonl.gz");
        append(&path, 0, &[example(0, 1_000), example(0, 50_000)]).unwrap();
        append(&path, 1, &[example(1, 90_000)]).unwrap();
        assert_eq!(read(&path).unwrap(), [example(0, 1_000), example(0, 50_000), example(1, 90_000)]);
        assert_eq!(example(0, 1_000).latency_ns(), Some(19_000));
    }

    #[test]
    fn a_cut_off_member_gives_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        append(&path, 0, &[example(0, 1_000)]).unwrap();
        append(&path, 1, &vec![example(1, 5); 500]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        // The cut may fall inside a line: then that line is the error, never a panic.
        match read(&path) {
            Ok(records) => assert!(!records.is_empty()),
            Err(error) => assert_eq!(error.exit_code(), 6),
        }
    }

    #[test]
    fn no_file_no_records_and_garbage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("none")).unwrap().is_empty());
        let path = folder.path().join("garbage");
        std::fs::write(&path, b"not gzip at all").unwrap();
        assert_eq!(read(&path).unwrap_err().exit_code(), 6);
        let _ = append(&path, 0, &[]);
    }
}
