//! What the reader of a socket did while a message waited in it or its answer was made.

use profiler_common::point as number;

use super::kinds::{Point, ReaderRow};

/// The rows, in the order in which a stage's parts are shown.
pub const READER: &[ReaderRow] = &[
    ReaderRow {
        point: Point::ReaderBlocked,
        number: number::READER_BLOCKED,
        meaning: "asleep, and nobody had begun to wake it",
        is_own_work: false,
    },
    ReaderRow {
        point: Point::ReaderWaking,
        number: number::READER_WAKING,
        meaning: "being woken, on no run queue yet",
        is_own_work: false,
    },
    ReaderRow {
        point: Point::ReaderRunnable,
        number: number::READER_RUNNABLE,
        meaning: "waiting for a CPU",
        is_own_work: false,
    },
    ReaderRow {
        point: Point::ReaderIdleExit,
        number: number::READER_IDLE_EXIT,
        meaning: "waiting for an idle CPU to come to it",
        is_own_work: false,
    },
    ReaderRow {
        point: Point::ReaderThrottled,
        number: number::READER_THROTTLED,
        meaning: "kept from running by the CPU quota of its group",
        is_own_work: false,
    },
    ReaderRow {
        point: Point::ReaderElsewhere,
        number: number::READER_ELSEWHERE,
        meaning: "working on other requests",
        is_own_work: false,
    },
    ReaderRow {
        point: Point::ReaderHere,
        number: number::READER_HERE,
        meaning: "working on this request, or turning to it",
        is_own_work: true,
    },
    ReaderRow {
        point: Point::ReaderInCall,
        number: number::READER_IN_CALL,
        meaning: "in the system call that ends the stage",
        is_own_work: true,
    },
];
