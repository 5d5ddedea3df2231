//! Threads never hold a request: they leave times behind, which [`crate::net::path`] binds to sockets, and it is known
//! what they do at any moment, so that the wait for one can be divided up.

use profiler_common::{
    Control, Tag, Thread, VCPU, VMM,
    state::{BLOCKED, RUNNING, STATES, UNKNOWN},
};

use crate::core::{
    instructions::{add_shared, below_8},
    maps::{add_state, cpu, current, now},
    slot::Slot,
};

/// What the thread was found to do in an earlier phase is forgotten.
#[inline(always)]
fn renew(control: &Control, mut thread: Slot<Thread>, state: u32, at_ns: u64) -> bool {
    if thread.epoch == control.epoch() {
        return false;
    }
    thread.epoch = control.epoch();
    thread.state = state;
    thread.since_ns = at_ns;
    thread.ready = 0;
    thread.read = 0;
    thread.watched = 0;
    true
}

/// The time in a state.
#[inline(always)]
fn time_in(spent_ns: &mut [u64; STATES], state: u32) -> &mut u64 {
    // SAFETY: `below_8`, and so many there are.
    unsafe { spent_ns.get_unchecked_mut(below_8(state.into())) }
}
const _: () = assert!(STATES == 8);

/// Whether the recorded interval is that of the thread's configuration. In another's, a thread that rests may have
/// something to do by itself; how it spends that time says nothing of its own operations.
#[inline(always)]
pub fn is_asked(control: &Control, thread: &Thread) -> bool {
    thread.configuration == control.turn.configuration()
}

/// The thread does something else from now on.
#[inline(always)]
pub fn turn_to(control: &Control, mut thread: Slot<Thread>, state: u32, at_ns: u64) {
    if renew(control, thread, state, at_ns) {
        return;
    }
    let before = thread.state;
    let since_ns = thread.since_ns;
    thread.state = state;
    if at_ns <= since_ns {
        return;
    }
    thread.since_ns = at_ns;
    // Asleep from end to end of the phase: it has no part in the operations.
    if before == BLOCKED && since_ns <= control.open_ns && at_ns >= control.close_ns {
        return;
    }
    *time_in(&mut thread.spent_ns, before) += at_ns - since_ns;
    if is_asked(control, &thread) && at_ns > control.open_ns && since_ns < control.close_ns {
        add_state(&thread, before, at_ns.min(control.close_ns) - since_ns.max(control.open_ns));
    }
}

/// The thread's time in each state until now.
#[inline(always)]
pub fn spent_until(thread: &Thread, at_ns: u64) -> [u64; STATES] {
    let mut spent_ns = thread.spent_ns;
    if at_ns > thread.since_ns {
        *time_in(&mut spent_ns, thread.state) += at_ns - thread.since_ns;
    }
    spent_ns
}

/// A message of its sockets became ready (1), or was received (−1).
#[inline(always)]
pub fn add_ready(control: &Control, mut thread: Slot<Thread>, value: i64) {
    renew(control, thread, UNKNOWN, now());
    add_shared(&mut thread.ready, value);
}

/// The current thread runs, whatever was known of it.
#[inline(always)]
pub fn runs(control: &Control, thread: Slot<Thread>, at_ns: u64) {
    if thread.epoch != control.epoch() || thread.state != RUNNING {
        turn_to(control, thread, RUNNING, at_ns);
    }
}

/// The thread has received a message.
#[inline(always)]
pub fn has_read(control: &Control, mut thread: Slot<Thread>) {
    runs(control, thread, now());
    thread.read += 1;
}

/// The thread has answered a message that it had received, or that message was lost.
#[inline(always)]
pub fn answered(control: &Control, mut thread: Slot<Thread>) {
    renew(control, thread, UNKNOWN, now());
    // What was received before it was followed is not counted.
    if thread.read > 0 {
        thread.read -= 1;
    }
}

/// What this context of execution works on from now on.
#[inline(always)]
pub fn work_on(tag: Tag, sent: bool) {
    let Some(mut cpu) = cpu() else { return };
    if sent {
        cpu.sent = tag;
    }
    if cpu.softirq != 0 {
        cpu.tag = tag;
    } else if let Some(mut thread) = current() {
        thread.tag = tag;
    }
}

/// Whether a thread is one of a VM's: where nothing wakes another, a virtual processor's makes what its
/// guest asks for.
#[inline(always)]
pub fn is_qemus(thread: &Thread) -> bool {
    thread.role == u32::from(VMM) || thread.role == u32::from(VCPU)
}
