//! What the reader of a socket did while a message waited in it or its answer was made.

use super::kinds::{Point, ReaderRow};

/// The rows, in the order in which a stage's parts are shown.
pub const READER: &[ReaderRow] = &[
    ReaderRow {
        point: Point::ReaderBlocked,
        meaning: "asleep, and nobody had begun to wake it",
        is_own_work: false,
        is_queueing: false,
    },
    ReaderRow {
        point: Point::ReaderWaking,
        meaning: "being woken, on no run queue yet",
        is_own_work: false,
        is_queueing: false,
    },
    ReaderRow { point: Point::ReaderRunnable, meaning: "waiting for a CPU", is_own_work: false, is_queueing: true },
    ReaderRow {
        point: Point::ReaderIdleExit,
        meaning: "waiting for an idle CPU to come to it",
        is_own_work: false,
        is_queueing: false,
    },
    ReaderRow {
        point: Point::ReaderThrottled,
        meaning: "kept from running by the CPU quota of its group",
        is_own_work: false,
        is_queueing: false,
    },
    ReaderRow {
        point: Point::ReaderElsewhere,
        meaning: "working on other requests",
        is_own_work: false,
        is_queueing: true,
    },
    ReaderRow {
        point: Point::ReaderHere,
        meaning: "working on this request, or turning to it",
        is_own_work: true,
        is_queueing: false,
    },
    ReaderRow {
        point: Point::ReaderInCall,
        meaning: "in the system call that ends the stage",
        is_own_work: true,
        is_queueing: false,
    },
];
