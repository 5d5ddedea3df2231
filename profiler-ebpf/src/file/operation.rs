//! Operations on files: what they are called, who makes them, and how they fail.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use profiler_common::{
    Counter, EMPTY, Operation, SERVER, Tag, Thread, VMM,
    point::{EXIT, PlaceId},
};

use crate::{
    core::{
        holder::{Fault, give_up, tag_of},
        kernel::Kernel,
        maps::{current, disk},
        phase::Phase,
        settings,
        slot::Slot,
        slots::operation,
        thread::{is_qemus, work_on},
    },
    vm::qemu,
};

/// Keys of operations lie where the kernel has no addresses: those of threads,
const THREADS: u64 = 1 << 62;
/// and those of asynchronous ones: below it, their process and as much of what that calls them.
const ASYNCHRONOUS: u64 = 1 << 62 | 1 << 61;
const NAME_BITS: u32 = 45;

/// The token is lost; the next operation in its place has a new one.
#[inline(always)]
pub fn fail<const D: bool>(control: Phase<D>, mut operation: Slot<Operation>, cause: Counter) -> Fault {
    if control.splits() && operation.token.role() == VMM {
        qemu::ends(&operation.token, 0, 0);
    }
    let fault = give_up(&control, operation.head(), cause);
    operation.token.set_record(0);
    fault
}

/// Whether an operation's thread goes on while it is under way.
#[inline(always)]
pub fn is_asynchronous(operation: &Operation) -> bool {
    operation.key & ASYNCHRONOUS == ASYNCHRONOUS
}

/// The current thread, if it makes operations: a server's, or a VM's process for its guest.
#[inline(always)]
pub fn maker() -> Option<Slot<Thread>> {
    current().filter(|thread| thread.role == u32::from(SERVER) || is_qemus(thread))
}

/// The operation that the current thread is in, was in last, or submits.
#[inline(always)]
pub fn of_current() -> Option<Slot<Operation>> {
    let thread = maker()?;
    operation(if thread.submitting == 0 { THREADS | u64::from(thread.tid) } else { thread.submitting })
}

/// The key of what the current process calls `name`.
#[inline(always)]
pub fn key_of(name: u64) -> u64 {
    key_in(bpf_get_current_pid_tgid() >> 32, name)
}

/// The key of what any process calls `name`.
#[inline(always)]
pub fn key_in(process: u64, name: u64) -> u64 {
    ASYNCHRONOUS | (process & 0xffff) << NAME_BITS | name & ((1 << NAME_BITS) - 1)
}

/// The key of the operations that a thread makes in calls which return when they are done.
#[inline(always)]
pub fn key_of_thread(tid: u32) -> u64 {
    THREADS | u64::from(tid)
}

/// Whether its call, or its completion, is still to come, and its token known.
#[inline(always)]
pub fn is_under_way<const D: bool>(control: Phase<D>, operation: &Operation) -> bool {
    operation.token.epoch() == control.epoch() && operation.state != EMPTY && operation.token.point != EXIT
}

/// What a ring's program calls an operation may be a small number, the same in another ring: both together.
#[inline(always)]
pub fn in_ring(ring: u64, name: u64) -> u64 {
    // Places are found by the low half: the rings' differing bits are to reach all of it (Knuth's multiplicative
    // hash, 64 bits).
    name ^ (ring >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 19
}

/// The thread works for an operation from now on.
#[inline(always)]
pub fn turn_to<const D: bool>(control: Phase<D>, mut thread: Slot<Thread>, key: u64) {
    thread.submitting = key;
    if control.tags()
        && let Some(operation) = operation(key)
    {
        work_on(tag_of(&operation), false);
    }
}

/// What a thread works on, when its operation is further on than its token.
#[inline(always)]
pub fn tag_at(operation: &Operation, point: PlaceId) -> Tag {
    Tag { point, ..tag_of(operation) }
}

/// The index of a bio's disk.
#[inline(always)]
pub fn disk_under<K: Kernel>(bio: u64) -> Option<u32> {
    let device: u64 = K::load(bio, settings::bio_bdev());
    disk(K::load(device, settings::bdev_disk())).map(u32::from)
}
