//! Threads never hold a request: they leave times behind, which [`crate::path`] binds to sockets.

use profiler_common::{CALL_POLL, CALL_RECEIVE, Control, Counter, Thread};

use crate::{
    kernel::Kernel,
    maps::{call_kind, count_inside, current, forget_role, now, role, set_role, softirq_since, thread},
    settings,
};

type Fault = Option<Counter>;

/// The vector of `NET_RX_SOFTIRQ` (`include/linux/interrupt.h`).
const NET_RX: u32 = 3;

#[inline(always)]
pub fn waking<K: Kernel>(task: u64) -> Fault {
    let tid: u32 = K::load(task, settings::task_pid());
    thread(tid)?.waking_ns = now();
    None
}
#[inline(always)]
pub fn wakeup<K: Kernel>(task: u64) -> Fault {
    let tid: u32 = K::load(task, settings::task_pid());
    thread(tid)?.wakeup_ns = now();
    None
}
#[inline(always)]
pub fn switched_in<K: Kernel>(next: u64) -> Fault {
    let tid: u32 = K::load(next, settings::task_pid());
    thread(tid)?.switch_in_ns = now();
    None
}

/// `raw_syscalls:sys_enter`
#[inline(always)]
pub fn called(number: u64) -> Fault {
    let kind = call_kind(number);
    if kind == 0 {
        return None;
    }
    let thread = current()?;
    thread.call = kind;
    thread.call_ns = now();
    None
}
/// `raw_syscalls:sys_exit`
#[inline(always)]
pub fn returned() -> Fault {
    let thread = current()?;
    let kind = thread.call;
    thread.call = 0;
    if kind == CALL_POLL {
        thread.poll_return_ns = now();
    } else if kind == CALL_RECEIVE && thread.return_ns == 0 {
        thread.return_ns = now();
    }
    None
}

/// `irq:softirq_entry`
#[inline(always)]
pub fn softirq_began(control: &Control, vector: u32) -> Fault {
    if vector == NET_RX {
        let at_ns = now();
        *softirq_since()? = at_ns;
        count_inside(control, at_ns, Counter::Softirqs);
    }
    None
}
/// `irq:softirq_exit`
#[inline(always)]
pub fn softirq_ended(vector: u32) -> Fault {
    if vector == NET_RX {
        *softirq_since()? = 0;
    }
    None
}

/// `sched:sched_process_fork`: children have their parent's role.
#[inline(always)]
pub fn forked<K: Kernel>(parent: u64, child: u64) -> Fault {
    let parent: u32 = K::load(parent, settings::task_tgid());
    let child: u32 = K::load(child, settings::task_tgid());
    if parent != child {
        set_role(child, role(parent)?);
    }
    None
}
/// `sched:sched_process_exit`: thread ids are used again.
#[inline(always)]
pub fn exited<K: Kernel>(task: u64) -> Fault {
    let tid: u32 = K::load(task, settings::task_pid());
    let tgid: u32 = K::load(task, settings::task_tgid());
    if let Some(thread) = thread(tid) {
        *thread = Thread::default();
    }
    if tid == tgid {
        forget_role(tgid);
    }
    None
}
