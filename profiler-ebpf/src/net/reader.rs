//! What the thread that reads a socket did while a message waited in it, and while its answer was made: one thread
//! serves many sockets, so most of either can be work on other requests.

use profiler_common::{
    CALL_SEND, CLIENT, Control, Counter, Socket, Thread, Token, Wait,
    point::{
        CALL, PlaceId, READER_BLOCKED, READER_ELSEWHERE, READER_HERE, READER_IDLE_EXIT, READER_IN_CALL,
        READER_RUNNABLE, READER_THROTTLED, READER_WAKING, RECEIVED, RETURN, SEND,
    },
    state::{BLOCKED, RUNNABLE, RUNNING, STATES, SWITCHING, THROTTLED, WAKING},
};

use crate::core::{
    maps::{count, current, thread, wait},
    phase::Phase,
    slot::Slot,
    thread::{runs, spent_until},
    token::{Parts, append, is_inside, spend_part, stage_key},
};

/// A message became ready: notes where the socket's reader stands.
#[inline(always)]
pub fn begins(control: &Control, socket: &Socket, at_ns: u64) {
    let Some(mut wait) = wait(socket.slot) else { return };
    wait.tid = 0;
    if let Some(reader) = thread(socket.thread) {
        // What it was seen to do in an earlier phase says nothing.
        if reader.epoch == control.epoch() {
            note(&mut wait, reader.tid, spent_until(&reader, at_ns), at_ns);
        }
    }
}

/// The rest of a message was received: what its answer takes is counted from here.
#[inline(always)]
pub fn goes_on(control: &Control, socket: &Socket, mut reader: Slot<Thread>, at_ns: u64) {
    runs(control, reader, at_ns);
    let spent_ns = spent_until(&reader, at_ns);
    if let Some(mut wait) = wait(socket.slot) {
        note(&mut wait, reader.tid, spent_ns, at_ns);
    }
    reader.worked_ns = spent_ns[RUNNING as usize];
    reader.worked_slot = socket.slot + 1;
}

#[inline(always)]
fn note(wait: &mut Wait, tid: u32, spent_ns: [u64; STATES], at_ns: u64) {
    wait.tid = tid;
    wait.left = 0;
    wait.spent_ns = spent_ns;
    wait.at_ns = at_ns;
}

/// The reader receives from the socket, or answers: divides up its time since the token's last point, and notes where
/// it stands. `call_ns`: entry of the call that it does so by.
#[inline(always)]
pub fn hands_over(control: &Control, socket: &Socket, mut reader: Slot<Thread>, call_ns: u64, at_ns: u64) {
    runs(control, reader, at_ns);
    let spent_ns = spent_until(&reader, at_ns);
    let running_ns = spent_ns[RUNNING as usize];
    leave_last(socket.slot, &reader, running_ns);
    if let Some(mut wait) = wait(socket.slot) {
        if socket.counted != 0 {
            if wait.tid == reader.tid && wait.at_ns == socket.token.at_ns {
                divide(socket, &reader, &wait, &spent_ns, call_ns, at_ns);
            } else {
                count(socket.token.turn, Counter::ReaderChanged);
            }
        }
        note(&mut wait, reader.tid, spent_ns, at_ns);
    }
    reader.worked_ns = running_ns;
    reader.worked_slot = socket.slot + 1;
}

/// What the reader turns away from: its work there ends now.
#[inline(always)]
fn leave_last(slot: u32, reader: &Thread, running_ns: u64) {
    let last = reader.worked_slot;
    if last == 0 || last == slot + 1 {
        return;
    }
    if let Some(mut wait) = wait(last - 1)
        && wait.tid == reader.tid
        && wait.left == 0
    {
        wait.left = 1;
        wait.processed_ns = running_ns;
    }
}

/// What of a stage's time is not divided up yet.
struct Left<'a> {
    ns: u64,
    token: &'a Token,
}
impl Left<'_> {
    // A method, because a closure would become a function of its own, with all of this behind pointers.
    #[inline(always)]
    fn take(&mut self, to: PlaceId, ns: u64) {
        // Another CPU may have been about to change the reader's state: the rest always makes up the whole.
        let ns = if ns < self.ns { ns } else { self.ns };
        self.ns -= ns;
        if ns > 0 {
            spend_part(stage_key(self.token, true, self.token.point, to), ns);
        }
    }
}

#[inline(always)]
fn divide(socket: &Socket, reader: &Thread, wait: &Wait, spent_ns: &[u64; STATES], call_ns: u64, at_ns: u64) {
    let token = &socket.token;
    let mut left = Left { ns: at_ns - token.at_ns, token };
    let since = |state: u32| spent_ns[state as usize].wrapping_sub(wait.spent_ns[state as usize]);
    left.take(READER_BLOCKED, since(BLOCKED));
    left.take(READER_WAKING, since(WAKING));
    left.take(READER_RUNNABLE, since(RUNNABLE));
    left.take(READER_IDLE_EXIT, since(SWITCHING));
    left.take(READER_THROTTLED, since(THROTTLED));
    // An answer is worked on from its receipt until the reader turns elsewhere, and again from the last such work on; a
    // message that nobody has read, only from there on.
    let from_ns = if token.point != RECEIVED {
        wait.spent_ns[RUNNING as usize]
    } else if wait.left != 0 {
        wait.processed_ns
    } else {
        reader.worked_ns
    };
    let elsewhere_ns = reader.worked_ns.saturating_sub(from_ns);
    left.take(READER_ELSEWHERE, elsewhere_ns);
    left.take(READER_IN_CALL, if call_ns > token.at_ns { at_ns - call_ns } else { 0 });
    left.take(READER_HERE, u64::MAX);
}

/// Splits `received → send`: the client's by the return of the receiving call and the entry of the sending one, the
/// server's by what its thread did meanwhile. Returns the entry of the sending call.
#[inline(always)]
pub fn split_turnaround<const D: bool>(control: Phase<D>, socket: &Socket, at_ns: u64) -> u64 {
    let Some(mut thread) = current() else { return 0 };
    let called_ns = if thread.call == CALL_SEND { thread.call_ns } else { 0 };
    if socket.role == CLIENT {
        // It worked for this request: a message of another one waits for that.
        runs(&control, thread, at_ns);
        thread.worked_ns = spent_until(&thread, at_ns)[RUNNING as usize];
        if called_ns != 0 {
            let mut parts = Parts::of(&socket.token, is_inside(&control, at_ns));
            parts.via(RETURN, thread.return_ns);
            parts.via(CALL, called_ns);
            parts.end(SEND, at_ns);
        }
    } else {
        note_times(&socket.token, &[(RETURN, thread.return_ns), (CALL, called_ns)]);
        hands_over(&control, socket, thread, called_ns, at_ns);
    }
    called_ns
}

/// Appends to a token's record the times that a thread left behind, as far as they are later than the one before.
#[inline(always)]
pub fn note_times(token: &Token, times: &[(PlaceId, u64)]) {
    if token.record() == 0 {
        return;
    }
    let mut last_ns = token.at_ns;
    for (point, at_ns) in times {
        if *at_ns > last_ns {
            append(token.record(), token.role(), *point, *at_ns);
            last_ns = *at_ns;
        }
    }
}
