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
mod machine;
mod network;
mod reader;
mod threads;
mod words;

pub use self::{
    kinds::{Alternative, At, Edge, Field, Holder, Hook, Leg, Next, Passes, Point, Probe, ReaderRow, Row, Set, Splits},
    lookup::{
        all, at, is_ended, is_legal, is_lost, is_of_files, is_own_work, is_part, is_turnaround, next, probe_of, reader,
        row,
    },
    reader::READER,
    words::{Wait, Words},
};

/// The table.
pub const PROBES: &[Probe] = &[
    network::SEND,
    network::XMIT,
    network::RECEIVE,
    network::DELIVERED,
    network::READY,
    network::RECEIVED,
    threads::WAKING,
    threads::WAKEUP,
    threads::SWITCH,
    network::DROPPED,
    network::FREED,
    network::STATE,
    threads::FORK,
    threads::EXIT,
    threads::CALL,
    threads::RETURN,
    threads::SOFTIRQ,
    threads::SOFTIRQ_END,
    network::QUEUE,
    machine::VM_ENTRY,
    machine::VM_INTERRUPT,
    machine::VM_EXIT,
    machine::VM_USER_EXIT,
    machine::VM_HALT,
    machine::VM_PORT,
    machine::VM_MEMORY,
    network::SENT,
    files::FILE_CALL,
    files::SUBMIT,
    files::RING_SUBMIT,
    files::RING_WAIT,
    files::RING_WORKER,
    files::RING_COMPLETE,
    files::BIO,
    files::REMAP,
    files::SPLIT,
    files::INSERT,
    files::ISSUE,
    files::REQUEUE,
    files::COMPLETE,
    files::DIRTY,
    files::WRITE_BACK,
    files::WRITE_BACK_END,
    files::BIO_COMPLETE,
    files::FILE_RETURN,
];

#[cfg(test)]
mod tests;
