//! Threads never hold a request: they leave times behind, which [`crate::net::path`] binds to sockets, and it is known
//! what they do at any moment, so that the wait for one can be divided up.

use core::ffi::c_void;

use profiler_common::{
    CALL_CONTROL, CALL_POLL, CALL_RECEIVE, CallId, Control, Counter, EventHead, STACKS, SYSTEM_CALLS, Tag, Thread,
    event,
    state::{BLOCKED, RUNNABLE, RUNNING, STATES, SWITCHING, THROTTLED, UNKNOWN, WAKING},
};

use crate::{
    core::{
        instructions::{add_shared, below_8},
        kernel::{Kernel, random, read},
        maps::{add_state, call_kind, count_inside, cpu, current, follow, followed, forget_role, now, thread},
        settings::{self, NO_FIELD},
        slot::Slot,
        stacks,
        token::spend_clipped,
    },
    vm::{qemu, vcpu},
};

type Fault = Option<Counter>;

/// The vector of `NET_RX_SOFTIRQ` (`include/linux/interrupt.h`).
const NET_RX: u32 = 3;

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

/// The thread does something else from now on.
#[inline(always)]
fn turn_to(control: &Control, mut thread: Slot<Thread>, state: u32, at_ns: u64) {
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
    if at_ns > control.open_ns && since_ns < control.close_ns {
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

/// `sched:sched_waking`
#[inline(always)]
pub fn waking(control: &Control, context: *mut c_void, tid: u32) -> Fault {
    let mut thread = thread(tid)?;
    let at_ns = now();
    thread.waking_ns = at_ns;
    vcpu::notifies(control, &thread);
    qemu::wakes(control, thread, at_ns);
    // A thread on its way to sleep, woken before it is there, never leaves its run queue.
    if thread.epoch == control.epoch() && thread.state == BLOCKED {
        turn_to(control, thread, WAKING, at_ns);
        if thread.watched != 0 && control.mode == STACKS {
            let head = EventHead { at_ns, epoch: control.epoch(), tid, kind: event::WAKER, ..EventHead::default() };
            stacks::emit(context, &head, current().is_some());
        }
    }
    None
}
/// `sched:sched_wakeup`
#[inline(always)]
pub fn wakeup(control: &Control, tid: u32) -> Fault {
    let mut thread = thread(tid)?;
    let at_ns = now();
    thread.wakeup_ns = at_ns;
    if thread.epoch == control.epoch() && (thread.state == WAKING || thread.state == BLOCKED) {
        turn_to(control, thread, RUNNABLE, at_ns);
    }
    vcpu::wakes(control, thread, at_ns);
    None
}

/// `sched:sched_switch`
#[inline(always)]
pub fn switched<K: Kernel>(control: &Control, context: *mut c_void, preempted: u64, before: u64, next: u64) -> Fault {
    let at_ns = now();
    let before_tid: u32 = K::load(before, settings::task_pid());
    if let Some(thread) = thread(before_tid) {
        leaves::<K>(control, context, thread, preempted, before, at_ns);
    }
    let tid: u32 = K::load(next, settings::task_pid());
    let mut thread = thread(tid)?;
    thread.switch_in_ns = at_ns;
    thread.from_idle = u32::from(before_tid == 0 && thread.state == RUNNABLE);
    if thread.from_idle != 0 {
        thread.state = SWITCHING;
    }
    turn_to(control, thread, RUNNING, at_ns);
    vcpu::gets_cpu(control, thread, at_ns);
    qemu::runs(control, &thread, at_ns);
    if thread.watched != 0 && control.mode == STACKS {
        thread.watched = 0;
        stacks::emit_head(&wait_event(control, &thread, event::WAIT_END, at_ns));
    }
    None
}

#[inline(always)]
fn wait_event(control: &Control, thread: &Thread, kind: u8, at_ns: u64) -> EventHead {
    EventHead {
        at_ns,
        epoch: control.epoch(),
        tid: thread.tid,
        kind,
        thread_role: thread.role as u8 + 1,
        waited_ns: [
            thread.spent_ns[BLOCKED as usize],
            thread.spent_ns[WAKING as usize],
            thread.spent_ns[RUNNABLE as usize],
            thread.spent_ns[THROTTLED as usize],
        ],
        ..EventHead::default()
    }
}

#[inline(always)]
fn leaves<K: Kernel>(
    control: &Control,
    context: *mut c_void,
    mut thread: Slot<Thread>,
    preempted: u64,
    task: u64,
    at_ns: u64,
) {
    let sleeps = K::load::<u32>(task, settings::task_state()) != 0;
    let state = if preempted & 1 == 0 && sleeps {
        BLOCKED
    } else if is_throttled::<K>(task) {
        THROTTLED
    } else {
        RUNNABLE
    };
    turn_to(control, thread, state, at_ns);
    vcpu::leaves_cpu(control, thread, state == BLOCKED, at_ns);
    if control.mode != STACKS || control.wait_every == 0 || at_ns < control.open_ns || at_ns >= control.close_ns {
        return;
    }
    if random().is_multiple_of(control.wait_every) {
        thread.watched = 1;
        stacks::emit(context, &wait_event(control, &thread, event::WAIT, at_ns), true);
    }
}

/// Whether a task leaves its CPU because its group's quota is used up.
#[inline(always)]
fn is_throttled<K: Kernel>(task: u64) -> bool {
    if settings::task_throttled() != NO_FIELD {
        return K::load::<u8>(task, settings::task_throttled()) != 0;
    }
    if settings::task_cfs_rq() == NO_FIELD || settings::cfs_rq_throttled() == NO_FIELD {
        return false;
    }
    let queue: u64 = K::load(task, settings::task_cfs_rq());
    read::<i32>(queue, settings::cfs_rq_throttled()) != 0
}

/// `raw_syscalls:sys_enter`
#[inline(always)]
pub fn called(control: &Control, number: u64) -> Fault {
    let mut thread = current()?;
    let at_ns = now();
    thread.number = number as u32 + 1;
    thread.entered_ns = at_ns;
    let kind = call_kind(number);
    if kind == CALL_CONTROL {
        vcpu::asks_kernel(control, thread, at_ns);
    } else if kind != 0 {
        thread.call = kind;
        thread.call_ns = at_ns;
    }
    None
}
/// `raw_syscalls:sys_exit`
#[inline(always)]
pub fn returned(control: &Control) -> Fault {
    let mut thread = current()?;
    let at_ns = now();
    vcpu::returned(control, thread, at_ns);
    let number = thread.number.wrapping_sub(1);
    thread.number = 0;
    if number < SYSTEM_CALLS && at_ns < control.close_ns && thread.entered_ns >= control.open_ns {
        let call = CallId { configuration: thread.configuration, role: thread.role as u8, number };
        spend_clipped(control, call.key(), thread.entered_ns, at_ns);
    }
    let kind = thread.call;
    thread.call = 0;
    if kind == CALL_POLL {
        thread.poll_return_ns = at_ns;
    } else if kind == CALL_RECEIVE && thread.return_ns == 0 {
        thread.return_ns = at_ns;
    }
    None
}

/// `irq:softirq_entry`
#[inline(always)]
pub fn softirq_began(control: &Control, vector: u32) -> Fault {
    let mut cpu = cpu()?;
    cpu.softirq = vector + 1;
    if vector == NET_RX {
        let at_ns = now();
        cpu.softirq_since_ns = at_ns;
        cpu.tag = cpu.sent;
        count_inside(control, control.turn, at_ns, Counter::Softirqs);
    } else {
        cpu.tag.holder = 0;
    }
    None
}
/// `irq:softirq_exit`
#[inline(always)]
pub fn softirq_ended(vector: u32) -> Fault {
    let mut cpu = cpu()?;
    cpu.softirq = 0;
    if vector == NET_RX {
        cpu.softirq_since_ns = 0;
    }
    None
}

/// `sched:sched_process_fork`: children have their parent's role.
#[inline(always)]
pub fn forked<K: Kernel>(parent: u64, child: u64) -> Fault {
    let parent: u32 = K::load(parent, settings::task_tgid());
    let child: u32 = K::load(child, settings::task_tgid());
    if parent != child {
        follow(child, followed(parent)?);
    }
    None
}
/// `sched:sched_process_exit`: thread ids are used again.
#[inline(always)]
pub fn exited<K: Kernel>(task: u64) -> Fault {
    let tid: u32 = K::load(task, settings::task_pid());
    let tgid: u32 = K::load(task, settings::task_tgid());
    if let Some(mut thread) = thread(tid) {
        *thread = Thread::default();
    }
    if tid == tgid {
        forget_role(tgid);
    }
    None
}
