//! What threads and CPUs do, by the scheduler's, the system calls' and the softirqs' tracepoints: it is noted for the
//! threads, and for VMs whose threads they are.

use core::ffi::c_void;

use profiler_common::{
    CALL_CONTROL, CALL_POLL, CALL_RECEIVE, CallId, Control, Counter, EventHead, STACKS, SYSTEM_CALLS, Thread, event,
    state::{BLOCKED, RUNNABLE, RUNNING, SWITCHING, THROTTLED, WAKING},
};

use crate::{
    core::{
        holder::Fault,
        kernel::{Kernel, random, read},
        maps::{call_kind, count_inside, cpu, current, follow, followed, forget_role, now, thread},
        settings::{self, NO_FIELD},
        slot::Slot,
        stacks,
        thread::{is_asked, turn_to},
        token::spend_clipped,
    },
    vm::{qemu, vcpu},
};

/// The vector of `NET_RX_SOFTIRQ` (`include/linux/interrupt.h`).
const NET_RX: u32 = 3;

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
    let is_inside = at_ns < control.close_ns && thread.entered_ns >= control.open_ns;
    if number < SYSTEM_CALLS && is_inside && is_asked(control, &thread) {
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
