//! File operations: held by their system call, then by its bios, then by the call again.
//!
//! Each thread has a place among the sockets for the call that it is in. An asynchronous operation has one of its
//! own, known by what its program calls it (the address of its `iocb`, the `user_data` of its ring's entry): it
//! begins with the call that submits it, and ends with the one that takes its completion.

use aya_ebpf::helpers::bpf_probe_read_user;
use profiler_common::{
    CALL_FILE, CALL_REAP, CALL_RING, CALL_SUBMIT, CLIENT, Counter, EMPTY, Operation, READ, Tag, Thread, Token, VMM,
    point::{ENTER, EXIT, IDLE_SWITCH_IN, SWITCH_IN, WAKEUP, WAKING},
};

use crate::{
    core::{
        holder::{Fault, follow_holder, tag_of},
        kernel::read,
        maps::{call_kind, count_inside, now, thread},
        phase::{Phase, following},
        settings::{self, NO_FIELD},
        slot::Slot,
        slots::{operation, operation_in},
        thread::{is_qemus, work_on},
        token::{Parts, append, begin_record, begins, commit_record, ends, holder_passes, is_inside, lose, pass},
    },
    file::{
        block::{settle, submission_returns},
        held,
        operation::{fail, in_ring, is_under_way, key_of, key_of_thread, maker, turn_to},
        worker,
    },
    vm::qemu::{self, qemu_begins},
};

/// Operations that one call may begin or end; more are counted.
const AT_ONCE_MOST: u32 = 128;
/// Bytes of an `io_event`, and where it has its iocb (`include/uapi/linux/aio_abi.h`).
const EVENT_BYTES: u64 = 32;
const EVENT_IOCB: u64 = 8;

/// The role in which a thread has its operations, and its configuration: those of a VM's process are told
/// apart from those that a guest makes.
#[inline(always)]
fn maker_of(tid: u32) -> (u8, u8) {
    match thread(tid) {
        Some(thread) if is_qemus(&thread) => (VMM, thread.configuration),
        Some(thread) => (CLIENT, thread.configuration),
        None => (CLIENT, 0),
    }
}

/// `raw_syscalls:sys_enter`
#[inline(always)]
pub fn entered<const D: bool>(control: Phase<D>, registers: u64, number: u64) -> Fault {
    let kind = call_kind(number);
    if kind < CALL_FILE {
        return None;
    }
    let mut thread = maker()?;
    let at_ns = now();
    held::note_maker(&thread);
    thread.file_call = kind;
    thread.file_call_ns = at_ns;
    match kind {
        CALL_FILE => return begin(control, key_of_thread(thread.tid), thread.tid, at_ns, false),
        CALL_SUBMIT => submit_all(control, thread, registers, at_ns),
        CALL_REAP => thread.memory = argument(registers, settings::registers_fourth()),
        _ => thread.reaped = 0,
    }
    None
}

/// An argument of a system call; 0: it is not known where this processor has it.
#[inline(always)]
fn argument(registers: u64, offset: u32) -> u64 {
    if offset == NO_FIELD { 0 } else { read(registers, offset) }
}

/// A word of the current process's memory, which the kernel reads or wrote just now; 0: it is not there.
#[inline(always)]
fn word(address: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}

/// `io_submit`: all of its operations begin, and the thread works for the first.
#[inline(always)]
fn submit_all<const D: bool>(control: Phase<D>, mut thread: Slot<Thread>, registers: u64, at_ns: u64) {
    let number = argument(registers, settings::registers_second());
    let mut at = argument(registers, settings::registers_third());
    thread.memory = at;
    if number > u64::from(AT_ONCE_MOST) {
        count_inside(&control, control.turn.of(thread.configuration), at_ns, Counter::AtOnceMany);
    }
    for index in 0..AT_ONCE_MOST {
        if u64::from(index) >= number {
            break;
        }
        let key = key_of(word(at));
        if index == 0 {
            thread.submitting = key;
        }
        operation_begins(key, thread.tid, at_ns);
        at += 8;
    }
}

/// `iomap:iomap_dio_rw_begin`, with the kernel's form of an iocb. A file system above another (overlayfs) puts one of
/// its own in its place: then this is the next of the call's, in their order.
#[inline(always)]
pub fn direct<const D: bool>(control: Phase<D>, kernels: u64) -> Fault {
    let mut thread = maker()?;
    if thread.file_call == 0 {
        return worker::begins(control, thread, kernels);
    }
    if thread.file_call != CALL_SUBMIT {
        return None;
    }
    let mut key = key_of(word(thread.memory));
    thread.memory += 8;
    if settings::kiocb_iocb() != NO_FIELD {
        // Typed, it would be a plain `kiocb`, which is shorter.
        let own = key_of(read(kernels, settings::kiocb_iocb()));
        if own != key && operation(own).is_some() {
            key = own;
        }
    }
    turn_to(control, thread, key);
    None
}

/// `io_submit_one`: until the next one, or the end of the call, the thread works for this operation.
#[inline(always)]
pub fn submits(control: Phase<true>, iocb: u64) -> Fault {
    let thread = maker()?;
    if thread.file_call == CALL_SUBMIT {
        turn_to(control, thread, key_of(iocb));
    }
    None
}

/// `io_uring:io_uring_submit_req`: as [`submits`]. With several in one call, all began with it.
#[inline(always)]
pub fn ring_submits(control: Phase<true>, ring: u64, name: u64) -> Fault {
    let mut thread = maker()?;
    if thread.file_call != CALL_RING {
        return None;
    }
    thread.submitting = key_of(in_ring(ring, name));
    begin(control, thread.submitting, thread.tid, thread.file_call_ns, false)
}

/// A function that the verifier looks at once, because one call may begin many. It returns what such functions must,
/// a number.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn operation_begins(key: u64, tid: u32, at_ns: u64) -> u32 {
    following::<true>().and_then(|control| begin(control, key, tid, at_ns, true)).map_or(0, |fault| fault as u32)
}

/// An operation ends: a function of its own, as [`operation_begins`].
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn operation_ends(slot: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(operation)) = (following::<true>(), operation_in(slot)) else { return 0 };
    end(control, operation, at_ns).map_or(0, |fault| fault as u32)
}

#[inline(always)]
fn begin<const D: bool>(control: Phase<D>, key: u64, tid: u32, at_ns: u64, is_libaio: bool) -> Fault {
    let (role, configuration) = maker_of(tid);
    let first = Token::new(at_ns, control.turn.of(configuration), ENTER, role);
    let Some(mut operation) = operation(key) else {
        let fault = follow_holder(key, first, tid);
        if control.splits() && first.role() == VMM && fault.is_none() {
            qemu_begins(tid, at_ns);
        }
        return fault;
    };
    operation.thread = tid;
    // QEMU takes completions of libaio's out of their ring by itself.
    operation.unseen = (is_libaio && first.role() == VMM).into();
    let mut fault = None;
    let is_known = operation.token.epoch() == control.epoch() && operation.state != EMPTY;
    if is_known && first.role() == VMM && operation.token.point != EXIT {
        // It was completed, at the latest just now (`block::operation_is_done`), and nobody saw that.
        if settle(control, operation).is_err() {
            operation.state = EMPTY;
        } else if operation.token.point != ENTER {
            operation.token.point = EXIT;
            let ended_ns = operation.token.at_ns;
            ends(operation.token.turn, &mut operation.counted, ended_ns);
        }
        if control.splits() {
            qemu::ends(&operation.token, 0, 0);
        }
    }
    if control.splits() && first.role() == VMM {
        qemu_begins(tid, at_ns);
    }
    operation.number = operation.number.wrapping_add(1);
    operation.bios = 0;
    if !is_known || operation.token.point != EXIT {
        if is_known {
            // Its return was not seen.
            fault = Some(lose(&operation.token, operation.counted, Counter::LostResynchronised));
        }
        operation.token = first;
        operation.state = READ;
        operation.counted = 0;
    } else {
        // The time between two operations belongs to the second.
        if let Err(cause) = pass(&mut operation.token, is_inside(&control, at_ns), ENTER, at_ns) {
            return fail(control, operation, cause);
        }
        operation.counted = begins(&control, operation.token.turn, at_ns);
        let slot = begin_record(&control, operation.head());
        if slot != 0 {
            append(slot, first.role(), ENTER, at_ns);
        }
        operation.token.set_record(slot);
    }
    if control.tags() {
        work_on(tag_of(&operation), false);
    }
    fault
}

/// `raw_syscalls:sys_exit`
#[inline(always)]
pub fn left<const D: bool>(control: Phase<D>, result: i64) -> Fault {
    let mut thread = maker()?;
    let at_ns = now();
    let submitted = core::mem::take(&mut thread.submitting);
    let mut fault = None;
    match core::mem::take(&mut thread.file_call) {
        CALL_FILE => {
            if let Some(operation) = operation(key_of_thread(thread.tid)) {
                fault = end(control, operation, at_ns);
            }
        }
        CALL_REAP => reap(control, thread.memory, result, at_ns),
        CALL_RING => reap_ring(control, thread, at_ns),
        CALL_SUBMIT => {
            if let Some(operation) = if submitted == 0 { None } else { operation(submitted) } {
                submission_returns(operation.slot);
            }
        }
        _ => return None,
    }
    // What it does from now on is for none, or for all.
    if control.tags() && thread.tag.point != EXIT {
        work_on(Tag::default(), false);
    }
    fault
}

/// `io_getevents` has put this many events into its caller's memory.
#[inline(always)]
fn reap<const D: bool>(control: Phase<D>, events: u64, result: i64, at_ns: u64) {
    if result > i64::from(AT_ONCE_MOST) {
        count_inside(&control, control.turn, at_ns, Counter::AtOnceMany);
    }
    let mut at = events + EVENT_IOCB;
    for index in 0..AT_ONCE_MOST {
        if i64::from(index) >= result {
            break;
        }
        if let Some(operation) = operation(key_of(word(at))) {
            operation_ends(operation.slot, at_ns);
        }
        at += EVENT_BYTES;
    }
}

/// `io_uring:io_uring_cqring_wait`: what is done from now on, in its waits, is for none that it submitted.
#[inline(always)]
pub fn ring_waits(control: Phase<true>) -> Fault {
    let mut thread = maker()?;
    thread.submitting = 0;
    if control.tags() {
        work_on(Tag::default(), false);
    }
    None
}

/// `io_uring:io_uring_complete`: the completion lies in the ring. Whoever is in a call for it sees it when that
/// returns; else it has it now.
#[inline(always)]
pub fn ring_completed(control: Phase<true>, ring: u64, name: u64) -> Fault {
    let mut thread = maker()?;
    let mut operation = operation(key_of(in_ring(ring, name)))?;
    if thread.file_call == 0 {
        // A worker has done it, and its next may be seen less well.
        thread.submitting = 0;
    }
    if thread.file_call == CALL_RING && operation.thread == thread.tid {
        operation.next = thread.reaped;
        thread.reaped = operation.slot + 1;
    } else {
        return end(control, operation, now());
    }
    None
}

/// `io_uring_enter` returns: its caller finds what was completed meanwhile.
#[inline(always)]
fn reap_ring<const D: bool>(control: Phase<D>, mut thread: Slot<Thread>, at_ns: u64) {
    for _ in 0..AT_ONCE_MOST {
        let Some(slot) = thread.reaped.checked_sub(1) else { return };
        let Some(mut operation) = operation_in(slot) else { return };
        thread.reaped = core::mem::take(&mut operation.next);
        operation_ends(slot, at_ns);
    }
    if thread.reaped != 0 {
        count_inside(&control, control.turn.of(thread.configuration), at_ns, Counter::AtOnceMany);
    }
}

#[inline(always)]
fn end<const D: bool>(control: Phase<D>, mut operation: Slot<Operation>, at_ns: u64) -> Fault {
    if !is_under_way(control, &operation) {
        return None;
    }
    if let Err(cause) = settle(control, operation) {
        return fail(control, operation, cause);
    }
    if control.splits()
        && let Some(thread) = thread(operation.thread)
    {
        let mut parts = Parts::of(&operation.token, operation.counted);
        parts.via(WAKING, thread.waking_ns);
        parts.via(WAKEUP, thread.wakeup_ns);
        parts.via(if thread.from_idle != 0 { IDLE_SWITCH_IN } else { SWITCH_IN }, thread.switch_in_ns);
        parts.end(EXIT, at_ns);
    }
    if let Err(cause) = holder_passes(operation, EXIT, at_ns) {
        return fail(control, operation, cause);
    }
    ends(operation.token.turn, &mut operation.counted, at_ns);
    if control.splits() && operation.token.role() == VMM {
        qemu::ends(&operation.token, operation.thread, at_ns);
    }
    if operation.token.record() != 0 {
        commit_record(operation.token.record());
        operation.token.set_record(0);
    }
    if control.tags() {
        work_on(tag_of(&operation), false);
    }
    None
}
