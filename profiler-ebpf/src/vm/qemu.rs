//! A VM between its guest's operation on a disk and its own on the host's: who wakes whom before it, and
//! how its guest is told afterwards.
//!
//! Nothing says which of the guest's operations one of the VM's is for. So this is followed only where the
//! VM has one at a time: from the notification before it to the guest's being entered after it.

use profiler_common::{
    Control, QemuSteps, Thread, Token, VCPU, VMM,
    point::{
        BACK_RUNNING, BACK_WAKING, ENTER, ENTERED, EXIT, INJECTED, IO_RUNNING, IO_WAKING, NOTIFIED, PlaceId,
        VCPU_RUNNING,
    },
};

use crate::core::{
    instructions::fetch_add,
    maps::{QEMU, current, now, thread},
    phase::following,
    slot::{Indexed, Slot},
    thread::is_qemus,
    token::Parts,
};

/// The steps, in this phase, of a configuration's VM.
#[inline(always)]
fn steps(control: &Control, configuration: u8) -> Option<Slot<QemuSteps>> {
    let mut steps = QEMU.slot(configuration.into())?;
    if steps.token.epoch() != control.epoch() {
        *steps = QemuSteps {
            token: Token::new(0, control.turn.of(configuration), PlaceId::NONE, VCPU),
            // Who was woken before this phase was woken for something else.
            ended_ns: now(),
            ..QemuSteps::default()
        };
    }
    Some(steps)
}

/// The next step on the way back.
#[inline(always)]
fn go_on(mut steps: Slot<QemuSteps>, control: &Control, to: PlaceId, at_ns: u64) {
    Parts::within(control, &steps.token).via(to, at_ns);
    steps.token.at_ns = at_ns;
    steps.token.point = to;
}
/// Whether a thread that was woken by another (0: it was not) goes on with what the last operation was for.
#[inline(always)]
fn is_continued(steps: &QemuSteps, tid: u32, woken_by: u32) -> bool {
    steps.ended_by != 0 && steps.ended_by == if woken_by == 0 { tid } else { woken_by }
}
/// Whether the guest is told on this processor, and was not entered yet.
#[inline(always)]
fn are_on(steps: &QemuSteps, thread: &Thread) -> bool {
    let is_told = steps.token.point == INJECTED || steps.token.point == VCPU_RUNNING;
    let number = u32::from(thread.vcpu.number);
    is_told && if steps.number != 0 { steps.number == number } else { steps.tid == thread.tid }
}

/// `sched:sched_waking` of one of the VM's threads.
#[inline(always)]
pub fn wakes(control: &Control, woken: Slot<Thread>, at_ns: u64) {
    if !control.has_borders() && is_qemus(&woken) {
        qemu_wakes(woken.tid, at_ns);
    }
}

/// Looked at by the verifier once, as what follows.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn qemu_wakes(tid: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(mut woken)) = (following::<true>(), thread(tid)) else { return 0 };
    woken.woken_by = 0;
    woken.left_ns = 0;
    let Some(mut steps) = steps(&control, woken.configuration) else { return 0 };
    if steps.completed != 0 && woken.role == u32::from(VMM) {
        steps.completed = 0;
        return 0;
    }
    let Some(waker) = current().filter(|waker| is_qemus(waker)) else { return 0 };
    woken.woken_by = waker.tid;
    if waker.role == u32::from(VCPU) {
        woken.left_ns = waker.vcpu.exit_ns;
    }
    if steps.token.point == PlaceId::NONE {
        return 0;
    }
    if waker.role == u32::from(VCPU) && woken.role == u32::from(VMM) {
        // The guest wants something else: so it has been told, whether or not it had to be entered for that.
        if steps.token.point != EXIT {
            steps.token.point = PlaceId::NONE;
        }
    } else if woken.role == u32::from(VCPU) && woken.vcpu.number == 0 {
        // An emulated processor that sleeps is woken to be told, by QEMU's main loop, or by another that had the
        // operation.
        let is_its = waker.role == u32::from(VMM) || waker.tid == steps.ended_by;
        if is_its && tell(&control, steps, &waker, at_ns) {
            steps.tid = tid;
            steps.number = 0;
        }
    }
    0
}

/// `kvm:kvm_apic_accept_irq`, by one of the VM's threads.
#[inline(always)]
pub fn interrupts(control: &Control, place: u8) {
    if !control.has_borders() {
        qemu_interrupts(place.into());
    }
}

/// The VM interrupts its guest: a function of its own, as [`qemu_wakes`].
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn qemu_interrupts(place: u32) -> u32 {
    let (Some(control), Some(thread)) = (following::<true>(), current()) else { return 0 };
    // The network's worker has interrupts of its own.
    if thread.role != u32::from(VMM) {
        return 0;
    }
    if let Some(mut steps) = steps(&control, thread.configuration)
        && tell(&control, steps, &thread, now())
    {
        steps.number = place;
    }
    0
}

/// A thread of the VM's tells the guest that an operation is done. False: none is.
#[inline(always)]
fn tell(control: &Control, mut steps: Slot<QemuSteps>, thread: &Thread, at_ns: u64) -> bool {
    if steps.token.point != EXIT {
        return false;
    }
    steps.completed = 0;
    // It was woken for that, or had the operation itself.
    let mut parts = Parts::within(control, &steps.token);
    // Worker, I/O thread, main loop: of those, the first had it.
    Woken::<3>::of(thread, steps.ended_ns).pass(&mut parts, BACK_WAKING, BACK_RUNNING);
    parts.via(INJECTED, at_ns);
    steps.token.at_ns = at_ns;
    steps.token.point = INJECTED;
    true
}

/// Who woke whom of the VM's threads since an operation ended: the last, the one that woke it, and so on. QEMU's
/// hand an operation on to a worker (`aio=threads`), and it comes back by its I/O thread and, where KVM takes no
/// interrupts, its main loop.
struct Woken<const MOST: usize> {
    /// When each was being woken, and ran: the first of them at the end; 0: there are not so many.
    times_ns: [(u64, u64); MOST],
    /// The thread that woke the first.
    by: u32,
    /// Time at which the waker of the first had left its guest, as [`Thread::left_ns`].
    left_ns: u64,
}

impl<const MOST: usize> Woken<MOST> {
    #[inline(always)]
    fn of(last: &Thread, since_ns: u64) -> Self {
        let mut woken = Self { times_ns: [(0, 0); MOST], by: 0, left_ns: 0 };
        let mut tid = last.tid;
        let mut until_ns = u64::MAX;
        for times_ns in &mut woken.times_ns {
            let Some(thread) = thread(tid).filter(|thread| thread.role == u32::from(VMM)) else { break };
            // Since then it may have been woken for something else.
            let is_in_order = thread.waking_ns > since_ns && thread.switch_in_ns > thread.waking_ns;
            if !is_in_order || thread.switch_in_ns > until_ns {
                break;
            }
            *times_ns = (thread.waking_ns, thread.switch_in_ns);
            until_ns = thread.waking_ns;
            tid = thread.woken_by;
            woken.by = tid;
            woken.left_ns = thread.left_ns;
        }
        woken
    }

    #[inline(always)]
    fn pass(&self, parts: &mut Parts, waking: PlaceId, running: PlaceId) {
        for (waking_ns, running_ns) in self.times_ns.iter().rev() {
            parts.via(waking, *waking_ns);
            parts.via(running, *running_ns);
        }
    }

    /// When the first was being woken.
    #[inline(always)]
    fn first_ns(&self) -> u64 {
        self.times_ns.iter().rev().map(|(waking_ns, _)| *waking_ns).find(|ns| *ns != 0).unwrap_or(0)
    }
}

/// The thread of a virtual processor gets a CPU.
#[inline(always)]
pub fn runs(control: &Control, thread: &Thread, at_ns: u64) {
    if thread.role == u32::from(VCPU) && !control.has_borders() {
        qemu_runs(thread.tid, at_ns);
    }
}

/// A virtual processor runs: a function of its own, as [`qemu_wakes`].
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn qemu_runs(tid: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(thread)) = (following::<true>(), thread(tid)) else { return 0 };
    let Some(mut steps) = steps(&control, thread.configuration) else { return 0 };
    if steps.token.point == INJECTED && are_on(&steps, &thread) {
        go_on(steps, &control, VCPU_RUNNING, at_ns);
        // An emulated guest is not entered.
        if steps.number == 0 {
            steps.token.point = PlaceId::NONE;
        }
    }
    0
}

/// `kvm:kvm_entry`
#[inline(always)]
pub fn enters(control: &Control, thread: &Thread, at_ns: u64) {
    if !control.has_borders()
        && let Some(mut steps) = steps(control, thread.configuration).filter(|steps| are_on(steps, thread))
    {
        go_on(steps, control, ENTERED, at_ns);
        steps.token.point = PlaceId::NONE;
    }
}

/// `kvm:kvm_exit`: a processor that was in its guest when it was told is left because of that, or took the interrupt
/// as it ran.
#[inline(always)]
pub fn leaves(control: &Control, thread: &Thread, reason: u32) {
    /// `EXIT_REASON_EXTERNAL_INTERRUPT` and `SVM_EXIT_INTR` (`arch/x86/include/uapi/asm/{vmx,svm}.h`).
    const INTERRUPTS: [u32; 2] = [1, 0x60];
    if !control.has_borders()
        && reason != INTERRUPTS[0]
        && reason != INTERRUPTS[1]
        && let Some(mut steps) = steps(control, thread.configuration).filter(|steps| are_on(steps, thread))
    {
        steps.token.point = PlaceId::NONE;
    }
}

/// An operation of the VM's begins.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn qemu_begins(tid: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(thread)) = (following::<true>(), thread(tid)) else { return 0 };
    let Some(mut steps) = steps(&control, thread.configuration) else { return 0 };
    let is_alone = fetch_add(&mut steps.under_way, 1) == 0;
    steps.alone = is_alone.into();
    steps.completed = 0;
    let last = steps.token;
    steps.token.point = PlaceId::NONE;
    if !is_alone {
        return 0;
    }
    // The I/O thread, and its worker. (Not one more: older kernels bound what all functions have on their stacks, and
    // this is called deep.)
    let woken = Woken::<2>::of(&thread, steps.ended_ns);
    let since = notified(&steps, &thread, &woken);
    if since.at_ns != 0 {
        let mut parts = Parts::within(&control, &since);
        woken.pass(&mut parts, IO_WAKING, IO_RUNNING);
        parts.via(ENTER, at_ns);
    } else if last.point == EXIT && steps.number != 0 && is_continued(&steps, tid, woken.by) {
        // No interrupt was seen after the last one (of emulated processors that are awake, none ever is), and its end
        // led to this: it is a further one for the same.
        Parts::within(&control, &last).via(ENTER, at_ns);
    }
    0
}

/// The first step before an operation of a thread's: the notification, if one was seen since the last operation. Time
/// 0: it was not.
#[inline(always)]
fn notified(steps: &QemuSteps, own: &Thread, woken: &Woken<2>) -> Token {
    let at = |point, at_ns| steps.token.at(point, at_ns);
    let since = |ns: u64| if ns > steps.ended_ns { ns } else { 0 };
    if own.role == u32::from(VCPU) {
        // It is in its own exit.
        return at(NOTIFIED, since(own.vcpu.exit_ns));
    }
    if thread(woken.by).is_none_or(|thread| thread.role != u32::from(VCPU)) {
        return at(NOTIFIED, 0);
    }
    match since(woken.left_ns) {
        0 => at(IO_WAKING, woken.first_ns()),
        left_ns => at(NOTIFIED, left_ns),
    }
}

/// An operation of the VM's ends, as [`qemu_ends`] says.
#[inline(always)]
pub fn ends(operation: &Token, tid: u32, at_ns: u64) {
    qemu_ends(operation.turn.configuration().into(), tid, at_ns);
}

/// One of a configuration's VM ends; at 0: it was not seen when. In thread 0: when its bios did, which was seen,
/// and not by whom that was taken.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qemu_ends(configuration: u32, tid: u32, at_ns: u64) -> u32 {
    let Some(control) = following::<true>() else { return 0 };
    let steps = steps(&control, configuration as u8);
    let Some(mut steps) = steps.filter(|steps| steps.under_way != 0) else { return 0 };
    let was_only = fetch_add(&mut steps.under_way, -1) == 1;
    steps.token.point = PlaceId::NONE;
    if at_ns != 0 {
        steps.ended_ns = at_ns;
        steps.ended_by = tid;
        steps.completed = u16::from(tid == 0);
        steps.token.at_ns = at_ns;
        if was_only && steps.alone != 0 {
            steps.token.point = EXIT;
        }
    }
    0
}
