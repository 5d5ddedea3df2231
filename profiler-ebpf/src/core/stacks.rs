//! Stacks: of what runs when the sampler's timer fires, of a thread that leaves its CPU, of the one that wakes it.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_USER_STACK,
    helpers::{bpf_get_current_pid_tgid, bpf_get_stack},
};
use profiler_common::{
    Control, Counter, EMPTY, Event, EventHead, FRAMES, STACKS, Tag, Thread, event, path_role,
    point::{READY, RECEIVED},
};

use crate::core::{
    kernel::this_cpu,
    maps::{EVENT_RING, count_without_holder, cpu, current, now},
    slots::{packet, socket, socket_in},
    token::BPF_RB_NO_WAKEUP,
};

/// Sends an event without stacks.
#[inline(always)]
pub fn emit_head(head: &EventHead) {
    let sent = EVENT_RING.output::<EventHead>(head, BPF_RB_NO_WAKEUP).is_ok();
    count_without_holder(if sent { Counter::Events } else { Counter::EventsRingFull });
}

/// Sends an event with the kernel's stack and, if it is a process of the run's, the user's.
#[inline(always)]
pub fn emit(context: *mut c_void, head: &EventHead, with_user: bool) {
    let Some(mut entry) = EVENT_RING.reserve::<Event>(0) else {
        count_without_holder(Counter::EventsRingFull);
        return;
    };
    let size = (FRAMES * size_of::<u64>()) as u32;
    // SAFETY: a reserved entry, all of which is written: its head here, its stacks by the helper, as far as it says.
    unsafe {
        let event = entry.as_mut_ptr();
        (*event).head = *head;
        (*event).head.cpu = this_cpu() as u16;
        (*event).head.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*event).head.softirq = cpu().map_or(0, |cpu| cpu.softirq as u8);
        (*event).head.kernel_bytes = bpf_get_stack(context, (&raw mut (*event).kernel).cast(), size, 0) as i32;
        (*event).head.user_bytes = if with_user {
            bpf_get_stack(context, (&raw mut (*event).user).cast(), size, u64::from(BPF_F_USER_STACK)) as i32
        } else {
            0
        };
    }
    entry.submit(BPF_RB_NO_WAKEUP);
    count_without_holder(Counter::Events);
}

/// The sampler's timer.
#[inline(always)]
pub fn sample(control: &Control, context: *mut c_void) {
    let at_ns = now();
    if control.mode != STACKS || at_ns < control.open_ns || at_ns >= control.close_ns {
        return;
    }
    let Some(cpu) = cpu() else { return };
    let ids = bpf_get_current_pid_tgid();
    let mut head = EventHead {
        at_ns,
        epoch: control.epoch(),
        tid: ids as u32,
        tgid: (ids >> 32) as u32,
        cpu: this_cpu() as u16,
        softirq: cpu.softirq as u8,
        ..EventHead::default()
    };
    let thread = current();
    let in_softirq = cpu.softirq != 0;
    head.thread_role = thread.as_ref().map_or(0, |thread| thread.role as u8 + 1);
    if thread.is_none() && (!in_softirq || cpu.tag.holder == 0) {
        head.kind = if ids as u32 == 0 && !in_softirq { event::IDLE } else { event::FOREIGN };
        emit_head(&head);
        return;
    }
    head.kind = event::SAMPLE;
    if in_softirq {
        set_work(control, &mut head, &cpu.tag);
    } else if let Some(thread) = &thread {
        set_work(control, &mut head, &thread.tag);
        if head.on_path == 0 {
            set_next_work(control, &mut head, thread);
        }
    }
    emit(context, &head, thread.is_some());
}

/// The stage of the token that the context handed on last, if it has not gone further since.
#[inline(always)]
fn set_work(control: &Control, head: &mut EventHead, tag: &Tag) {
    if tag.holder == 0 {
        return;
    }
    let still_there = if tag.packet != 0 {
        packet(tag.holder).is_some_and(|packet| {
            packet.live != 0 && packet.token.epoch() == control.epoch() && packet.token.at_ns == tag.at_ns
        })
    } else {
        socket(tag.holder).is_some_and(|socket| {
            socket.state != EMPTY && socket.token.epoch() == control.epoch() && socket.token.at_ns == tag.at_ns
        })
    };
    if still_there {
        head.on_path = 1;
        head.point = tag.point;
        head.role = tag.role;
    }
}

/// A thread that has handed its token on turns to the next: first it answers what it has read, then it reads.
#[inline(always)]
fn set_next_work(control: &Control, head: &mut EventHead, thread: &Thread) {
    // Another CPU may have counted one off that it had not counted on yet.
    let ready = thread.ready as i64 > 0;
    if thread.epoch != control.epoch() || (thread.read == 0 && !ready) {
        return;
    }
    head.on_path = 1;
    head.point = if thread.read != 0 { RECEIVED } else { READY };
    head.role = path_role(thread.role);
    // A proxy's thread has messages of both directions: the last that it read says which.
    if thread.proxied_slot != 0
        && let Some(socket) = socket_in(thread.proxied_slot - 1)
    {
        head.role = socket.role;
    }
}
