//! Virtual processors: when their guest is entered and left, and who handles what it was left for.
//!
//! A virtual processor is a thread of the VM's process. What it does changes at KVM's tracepoints, at its system
//! calls, and where the scheduler takes it off its CPU; so its time is divided without gaps.

use profiler_common::{
    Control, ExitId, Thread, Token, VHOST, VMM,
    point::{self, PlaceId},
    vcpu::{
        BLOCKED, EXIT, GUEST, HOLDING, HOLDING_NUMBERS, Held, INSIDE, KERNEL, NUMBERS, OUT, PLACE, POLLED, PORT, Steps,
        UNKNOWN, UNSEEN, USER,
    },
};

use crate::{
    core::{
        holder::Fault,
        instructions::{swap_if, write_once},
        maps::{current, held, now, place_of_guest},
        slot::Slot,
        token::{Parts, spend_clipped},
    },
    vm::qemu,
};

/// The VM has taken a request, which counts or not. One thread moves its packets, so that hardly ever another
/// CPU writes here at the same time.
#[inline(always)]
pub fn takes(control: &Control, token: &Token, counted: u8) {
    let Some(mut held) = held(token.turn.configuration()) else { return };
    let at_ns = token.at_ns;
    if held.epoch != control.epoch() {
        *held = Held { epoch: control.epoch(), ..Held::default() };
    }
    if held.count == 0 {
        held.since_ns = at_ns;
        held.steps = Steps { counted, ..Steps::default() };
    }
    held.alone = (held.count == 0) as u8;
    held.count += 1;
}

/// Splits the time that the VM held the last request by what happened to its processor, and that is done with.
/// Not where the answer comes out: the kernel bounds how much a program may do, and that one does a lot.
#[cold]
#[inline(never)]
fn split(control: &Control, configuration: u8) {
    let Some(mut held) = held(configuration) else { return };
    let done = held.done;
    // Several processors may leave their guest at once.
    let is_there = done.taken_ns != 0 && swap_if(&mut held.done.taken_ns, done.taken_ns, 0) == done.taken_ns;
    if held.epoch != control.epoch() || !is_there {
        return;
    }
    // Into totals only: the record has had its next point already.
    let role = profiler_common::CLIENT;
    let token = Token::new(done.taken_ns, control.turn.of(configuration), point::TAKEN, role);
    let mut parts = Parts::of(&token, done.counted);
    parts.via(point::INJECTED, done.injected_ns);
    parts.via(point::VCPU_RUNNING, done.running_ns);
    parts.via(point::ENTERED, done.entered_ns);
    parts.via(point::NOTIFIED, done.notified_ns);
    parts.end(done.answered_at, done.answered_ns);
}

/// `kvm:kvm_apic_accept_irq`: a virtual processor is given an interrupt, here if the VM's process or worker does
/// it for the request that it holds.
#[inline(always)]
pub fn interrupted(control: &Control, number: u32) -> Fault {
    let thread = current()?;
    if thread.role != u32::from(VMM) && thread.role != u32::from(VHOST) {
        return None;
    }
    qemu::interrupts(control, place_of(number));
    let mut held = held(thread.configuration)?;
    if held.epoch == control.epoch() && held.count > 0 && held.steps.injected_ns == 0 {
        held.vcpu = place_of(number);
        held.steps.injected_ns = now();
    }
    None
}

/// A thread is being woken: if a virtual processor's does it, and it is one that moves the VM's packets, the
/// guest has something for it.
#[inline(always)]
pub fn notifies(control: &Control, woken: &Thread) {
    if woken.role != u32::from(VMM) && woken.role != u32::from(VHOST) {
        return;
    }
    let (Some(thread), Some(mut held)) = (current(), held(woken.configuration)) else { return };
    if thread.vcpu.number != 0 && held.epoch == control.epoch() && held.count > 0 {
        held.steps.notified_ns = notified(&held.steps, thread.vcpu.exit_ns);
    }
}

/// When the guest was last left to hand on its answer, if it may have been now: after it was interrupted, and
/// entered. (It is not entered anew if it takes the interrupt as it runs; and what wakes a thread may be an interrupt
/// of the host's, in the midst of anything.)
#[inline(always)]
fn notified(steps: &Steps, left_ns: u64) -> u64 {
    let had_ns = steps.injected_ns.max(steps.entered_ns);
    if steps.injected_ns != 0 && left_ns > had_ns { left_ns } else { steps.notified_ns }
}

/// Whether the guest has had the request that its VM holds since before `since_ns`, and has it still.
#[inline(always)]
fn has_request(control: &Control, thread: &Thread, since_ns: u64) -> bool {
    let Some(held) = held(thread.configuration) else { return false };
    held.epoch == control.epoch()
        && held.count > 0
        && held.alone != 0
        && held.vcpu == thread.vcpu.number
        && held.steps.entered_ns != 0
        && since_ns >= held.steps.entered_ns
        && held.steps.notified_ns == 0
}

/// 1 + number of a virtual processor.
#[inline(always)]
fn place_of(number: u32) -> u8 {
    1 + number.min(u32::from(NUMBERS) - 1) as u8
}

/// The answer comes out at a point, or will not come: none.
#[inline(always)]
pub fn gives_back(control: &Control, token: &Token, answered_at: PlaceId, at_ns: u64) {
    let Some(mut held) = held(token.turn.configuration()) else { return };
    if held.epoch == control.epoch() && held.count > 0 {
        // Where several are held at once, nothing tells whose interrupt and whose notification it was.
        if held.count == 1 && held.alone != 0 && answered_at != PlaceId::NONE {
            // Where the thread that was in the guest does the sending itself, nobody is woken.
            let own_ns = current().filter(|thread| thread.vcpu.number != 0).map_or(0, |thread| thread.vcpu.exit_ns);
            let notified_ns = notified(&held.steps, own_ns);
            held.done = Steps { notified_ns, taken_ns: 0, answered_ns: at_ns, answered_at, ..held.steps };
            // Last: with it, all of it is there for whoever leaves the guest next.
            let since_ns = held.since_ns;
            write_once(&mut held.done.taken_ns, since_ns);
        }
        held.count -= 1;
        if held.count == 0 {
            held.sum_ns += at_ns.saturating_sub(held.since_ns);
            held.last_from_ns = held.since_ns;
            held.last_until_ns = at_ns;
        }
    }
}

/// How long the VM has held requests in this phase, up to now or to a moment not long ago.
#[inline(always)]
fn held_until(control: &Control, configuration: u8, at_ns: u64) -> u64 {
    let Some(held) = held(configuration) else { return 0 };
    if held.epoch != control.epoch() {
        return 0;
    }
    let after_ns = held.last_until_ns.saturating_sub(at_ns.max(held.last_from_ns));
    let under_way_ns = if held.count > 0 { at_ns.saturating_sub(held.since_ns) } else { 0 };
    held.sum_ns.saturating_sub(after_ns) + under_way_ns
}

/// Ends the time in the present state at `at_ns`.
#[inline(always)]
fn turn_to(control: &Control, mut thread: Slot<Thread>, state: u8, at_ns: u64) {
    let held_ns = held_until(control, thread.configuration, at_ns);
    if thread.vcpu.epoch != control.epoch() {
        // What happened between the phases was not seen.
        thread.vcpu.epoch = control.epoch();
        thread.vcpu.exit_ns = 0;
        thread.vcpu.user_ns = 0;
        thread.vcpu.state = UNKNOWN;
    }
    if thread.vcpu.state != UNKNOWN {
        ends_state(control, thread, held_ns, at_ns);
    }
    thread.vcpu.state = state;
    thread.vcpu.since_ns = at_ns;
    thread.vcpu.held_ns = held_ns;
}

/// Spends the time in the present state, in which its VM's time with requests came to `held_ns`.
#[inline(always)]
fn ends_state(control: &Control, mut thread: Slot<Thread>, held_ns: u64, at_ns: u64) {
    let (vcpu, configuration) = (thread.vcpu, thread.configuration);
    let number = vcpu.number.wrapping_sub(1);
    let reason = if vcpu.state == GUEST { 0 } else { vcpu.reason };
    let key = ExitId { configuration, state: vcpu.state, number, reason }.key();
    spend_clipped(control, key, vcpu.since_ns, at_ns);
    // Another CPU may be about to change the one or the other. Many processors would fill the table.
    let held_ns = held_ns.saturating_sub(vcpu.held_ns).min(at_ns - vcpu.since_ns.min(at_ns));
    if held_ns > 0 && number < HOLDING_NUMBERS {
        let inside = vcpu.state != GUEST && has_request(control, &thread, vcpu.since_ns);
        spend_clipped(control, HOLDING | if inside { INSIDE } else { 0 } | key, at_ns - held_ns, at_ns);
    }
    if vcpu.state == USER {
        thread.vcpu.user_ns += at_ns - vcpu.since_ns.min(at_ns);
    }
}

/// `kvm:kvm_entry`
#[inline(always)]
pub fn entered(control: &Control, number: u32) -> Fault {
    let mut thread = current()?;
    let at_ns = now();
    thread.vcpu.number = place_of(number);
    turn_to(control, thread, GUEST, at_ns);
    qemu::enters(control, &thread, at_ns);
    let (vcpu, configuration) = (thread.vcpu, thread.configuration);
    let number = vcpu.number - 1;
    if vcpu.exit_ns != 0 {
        let key = ExitId { configuration, state: EXIT, number, reason: vcpu.reason }.key();
        spend_clipped(control, key, vcpu.exit_ns, at_ns);
        if number < HOLDING_NUMBERS && has_request(control, &thread, vcpu.exit_ns) {
            spend_clipped(control, HOLDING | INSIDE | key, vcpu.exit_ns, at_ns);
        }
        thread.vcpu.exit_ns = 0;
    }
    if let Some(mut held) = held(configuration) {
        let waits = held.steps.injected_ns != 0 && held.steps.entered_ns == 0 && held.steps.notified_ns == 0;
        if waits && held.epoch == control.epoch() && held.vcpu == vcpu.number {
            held.steps.entered_ns = at_ns;
        }
    }
    // What a guest reads from a port is told only when it is back from the VM's process.
    if vcpu.user_ns != 0 && vcpu.place != 0 {
        let began_ns = at_ns.saturating_sub(vcpu.user_ns);
        let access = ExitId { configuration, state: PLACE, number, reason: vcpu.place - 1 };
        spend_clipped(control, access.key(), began_ns, at_ns);
    }
    thread.vcpu.user_ns = 0;
    None
}

/// `kvm:kvm_exit`. The basic reason of VMX has 16 bits, with flags above; of SVM, all codes but one that stands for
/// an error.
#[inline(always)]
pub fn left(control: &Control, reason: u32) -> Fault {
    let mut thread = current()?;
    if thread.vcpu.number == 0 {
        return None;
    }
    let at_ns = now();
    turn_to(control, thread, KERNEL, at_ns);
    qemu::leaves(control, &thread, reason & 0xffff);
    thread.vcpu.reason = reason as u16;
    thread.vcpu.place = 0;
    thread.vcpu.user_ns = 0;
    thread.vcpu.exit_ns = at_ns;
    // Last: it takes a while, and the exit has begun.
    split(control, thread.configuration);
    None
}

/// `kvm:kvm_userspace_exit`
#[inline(always)]
pub fn handed_to_user(control: &Control) -> Fault {
    let thread = current()?;
    if thread.vcpu.number != 0 {
        turn_to(control, thread, USER, now());
    }
    None
}

/// The VM's process asks KVM for something: to enter the guest, as a rule. Other calls are part of its handling,
/// sleeping in them included.
#[inline(always)]
pub fn asks_kernel(control: &Control, thread: Slot<Thread>, at_ns: u64) {
    if thread.vcpu.number != 0 && thread.vcpu.epoch == control.epoch() && thread.vcpu.state == USER {
        turn_to(control, thread, KERNEL, at_ns);
    }
}

/// The thread is back from the kernel.
#[inline(always)]
pub fn returned(control: &Control, thread: Slot<Thread>, at_ns: u64) {
    if thread.vcpu.number != 0 && thread.vcpu.epoch == control.epoch() && thread.vcpu.state == KERNEL {
        turn_to(control, thread, USER, at_ns);
    }
}

/// `kvm:kvm_vcpu_wakeup`: the guest has something to do again. Where the thread did not sleep, the kernel has looked
/// for it all the time. (Looking that ended in sleep is part of the kernel's handling: the tracepoint does not tell
/// the one from the other.)
#[inline(always)]
pub fn halted(control: &Control, ns: u64, waited: u8) -> Fault {
    let mut thread = current()?;
    let vcpu = &mut thread.vcpu;
    if waited != 0 || vcpu.number == 0 || vcpu.epoch != control.epoch() || vcpu.state != KERNEL {
        return None;
    }
    let at_ns = now();
    let began_ns = at_ns.saturating_sub(ns).max(vcpu.since_ns);
    turn_to(control, thread, POLLED, began_ns);
    turn_to(control, thread, KERNEL, at_ns);
    None
}

/// `kvm:kvm_pio`
#[inline(always)]
pub fn accessed_port(port: u32) -> Fault {
    accessed(PORT | u64::from(port))
}

/// `kvm:kvm_mmio`
#[inline(always)]
pub fn accessed_memory(address: u64) -> Fault {
    accessed((address >> 12) & !PORT)
}

#[inline(always)]
fn accessed(place: u64) -> Fault {
    let mut thread = current()?;
    if thread.vcpu.number != 0 {
        thread.vcpu.place = place_of_guest(place) as u16;
    }
    None
}

/// The thread leaves its CPU. Asleep in the VM's process, it still handles the exit.
#[inline(always)]
pub fn leaves_cpu(control: &Control, mut thread: Slot<Thread>, sleeps: bool, at_ns: u64) {
    let vcpu = &mut thread.vcpu;
    if vcpu.number == 0 || vcpu.epoch != control.epoch() || (sleeps && vcpu.state == USER) {
        return;
    }
    if vcpu.state != OUT && vcpu.state != BLOCKED {
        vcpu.before = vcpu.state;
    }
    let was_in_guest = vcpu.state == GUEST;
    turn_to(control, thread, if sleeps { BLOCKED } else { OUT }, at_ns);
    // Some kernels say why the guest was left only after interrupts, and with them others' turns, were let in.
    if was_in_guest {
        thread.vcpu.before = KERNEL;
        thread.vcpu.reason = UNSEEN;
    }
}

/// The thread may run again.
#[inline(always)]
pub fn wakes(control: &Control, thread: Slot<Thread>, at_ns: u64) {
    if thread.vcpu.number != 0 && thread.vcpu.epoch == control.epoch() && thread.vcpu.state == BLOCKED {
        turn_to(control, thread, OUT, at_ns);
    }
}

/// The thread runs again.
#[inline(always)]
pub fn gets_cpu(control: &Control, mut thread: Slot<Thread>, at_ns: u64) {
    let vcpu = &mut thread.vcpu;
    if vcpu.number == 0 {
        return;
    }
    if vcpu.epoch != control.epoch() {
        // The first that is seen of it in this phase: it has been away all the time.
        vcpu.epoch = control.epoch();
        vcpu.exit_ns = 0;
        vcpu.user_ns = 0;
        vcpu.held_ns = 0;
        vcpu.since_ns = 0;
        vcpu.state = BLOCKED;
        vcpu.before = KERNEL;
    }
    if vcpu.state == OUT || vcpu.state == BLOCKED {
        let before = vcpu.before;
        turn_to(control, thread, before, at_ns);
        if let Some(mut held) = held(thread.configuration) {
            let waits = held.steps.injected_ns != 0 && held.steps.entered_ns == 0 && held.steps.running_ns == 0;
            if waits && held.epoch == control.epoch() && held.vcpu == thread.vcpu.number {
                held.steps.running_ns = at_ns;
            }
        }
    }
}
