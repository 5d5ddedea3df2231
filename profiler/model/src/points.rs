//! The table of points: where a request is seen, what that does to its holder, what may come next, what happens until
//! then, and by which of the kernel's hooks it is seen, best first.
//!
//! Probes are rows of it; nothing else knows how one is attached, where its points lie on a path, or what they mean. A
//! row has no field that may be left out, and [`Point`] no value without a row: what is forgotten does not compile.

/// The alternatives of a probe, by its programs' common name; with `plain`, each has its plain program as well.
macro_rules! hooks {
    ($name:literal, plain, $tracepoint:literal $(, $program:literal $hook:expr)*) => {
        hooks!(@ concat!($name, "_typed"), Some(concat!($name, "_plain_typed")),
            concat!($name, "_raw"), Some(concat!($name, "_plain_raw")), $tracepoint $(, $program $hook)*)
    };
    ($name:literal, $tracepoint:literal $(, $program:literal $hook:expr)*) => {
        hooks!(@ concat!($name, "_typed"), None, concat!($name, "_raw"), None, $tracepoint $(, $program $hook)*)
    };
    (@ $typed:expr, $plain_typed:expr, $raw:expr, $plain_raw:expr, $tracepoint:literal $(, $program:literal $hook:expr)*) => {
        &[
            Alternative { program: $typed, plain: $plain_typed, hook: Hook::TypedTracepoint($tracepoint) },
            Alternative { program: $raw, plain: $plain_raw, hook: Hook::RawTracepoint($tracepoint) },
            $(Alternative { program: $program, plain: None, hook: $hook },)*
        ]
    };
}

/// A hook at a tracepoint's record.
macro_rules! record {
    ($event:literal $(, $symbol:literal: $field:literal[$size:literal])*) => {
        Hook::Tracepoint { event: $event, fields: &[$(($symbol, $field, $size)),*] }
    };
}

mod files;
mod kinds;
mod lookup;
mod name;
mod network;
mod reader;
mod threads;
mod vm;
mod words;

pub use self::{
    kinds::{Alternative, At, Edge, Field, Holder, Hook, Leg, Next, Passes, Point, Probe, ReaderRow, Row, Set, Splits},
    lookup::{
        all, at, is_ended, is_legal, is_lost, is_of_files, is_own_work, is_part, is_turnaround, next, probe_of, reader,
        row,
    },
    name::ProbeName,
    reader::READER,
    words::{Wait, Words},
};

/// The table.
pub const PROBES: &[Probe] = &TABLE;

const SUBJECTS: [&[Probe]; 4] = [network::PROBES, threads::PROBES, vm::PROBES, files::PROBES];

const TABLE: [Probe; count()] = {
    let mut table = [SUBJECTS[0][0]; count()];
    let (mut index, mut subject) = (0, 0);
    while subject < SUBJECTS.len() {
        let mut row = 0;
        while row < SUBJECTS[subject].len() {
            table[index] = SUBJECTS[subject][row];
            index += 1;
            row += 1;
        }
        subject += 1;
    }
    table
};

const fn count() -> usize {
    let (mut count, mut subject) = (0, 0);
    while subject < SUBJECTS.len() {
        count += SUBJECTS[subject].len();
        subject += 1;
    }
    count
}

#[cfg(test)]
mod tests;
