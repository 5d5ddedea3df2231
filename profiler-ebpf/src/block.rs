//! The bios of file operations: known by their address, from when they are queued until they are completed.
//!
//! An operation moves on with the first bio that is queued while none is under way, and with the last that is completed: what lies
//! between is the time until that one was issued, and the device's. Only its own thread moves an operation; who completes its last
//! bio, on whatever CPU, leaves the times for it.
//!
//! A loop device's worker makes a request's bios on a disk below: they are the request's, and their times are left with it.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use profiler_common::{
    Counter, EMPTY, SLOTS, Socket, Tag,
    point::{AT_BIO, AT_COMPLETE, AT_INSERT, AT_ISSUE, ENTER, EXIT, at_disk, disk_of},
    state::RUNNING,
};

use crate::{
    bios::{self, Bio},
    file::{fail, is_asynchronous, is_under_way, of_current},
    kernel::{Kernel, read},
    machine::machine_ends,
    maps::{count, count_inside, disk, fetch_add, is_loop, now, thread},
    path::{Fault, tag_of},
    phase::{Phase, following},
    settings::{self, NO_FIELD},
    slots::socket_in,
    thread::work_on,
    token::{Parts, pass},
    writeback,
};

/// bios of one request that are looked at; a longer one is counted.
const MERGED_MOST: u32 = 64;
/// In place of the request above: it is write-back.
const WRITE_BACK: u64 = 1;
/// Requests that a disk below works for.
const BELOW_MOST: u32 = 4096;

/// What a disk below does for a request.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Below {
    /// When the request was issued: by that, it is told from others that had its address.
    for_ns: u64,
    /// When the first bio was queued; when the last to be completed was given to the scheduler, and to the driver, and when it was
    /// completed, ns.
    queued_ns: u64,
    inserted_ns: u64,
    issued_ns: u64,
    done_ns: u64,
    /// Index of the disk.
    disk: u32,
    unused: u32,
}

/// The last bio of an operation is done: what its thread has not noted yet.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Done {
    /// Which of the operations in its place.
    number: u32,
    /// Index of the disk.
    disk: u32,
    /// As in [`Bio`].
    inserted_ns: u64,
    issued_ns: u64,
    /// When it was completed, ns; 0: it was noted.
    at_ns: u64,
    /// What a disk below did for it.
    below: Below,
}

/// By the operations' places.
#[map]
static DONE: Array<Done> = Array::with_max_entries(SLOTS, 0);

/// By the addresses of requests.
#[map]
static BELOW: HashMap<u64, Below> = HashMap::with_max_entries(BELOW_MOST, 0);

/// Notes that all bios so far are done, where the one who completed the last has left that.
#[inline(always)]
pub fn settle<const D: bool>(control: Phase<D>, operation: &mut Socket) -> Result<(), Counter> {
    let Some(done) = DONE.get_ptr_mut(operation.slot & (SLOTS - 1)) else { return Ok(()) };
    let done = unsafe { &mut *done };
    let at_ns = core::mem::take(&mut done.at_ns);
    if done.number != operation.crossing || at_ns <= operation.token.at_ns {
        return Ok(());
    }
    let disk = done.disk as u8;
    if done.issued_ns > operation.token.at_ns && done.issued_ns <= at_ns {
        if control.splits() {
            let mut parts = Parts::of(&operation.token);
            parts.via(&control, at_disk(AT_INSERT, disk), done.inserted_ns);
            parts.end(&control, at_disk(AT_ISSUE, disk), done.issued_ns);
        }
        pass(&control, &mut operation.token, at_disk(AT_ISSUE, disk), done.issued_ns)?;
        let below = &done.below;
        let is_within = below.queued_ns >= done.issued_ns && below.done_ns <= at_ns && below.done_ns != 0;
        if is_within {
            if operation_was_below(operation.slot) != 0 {
                return Err(Counter::LostStageTable);
            }
            // That function found the operation by itself, and moved it on.
            let mut moved = core::ptr::from_mut(operation);
            unsafe { core::arch::asm!("{0} = {0}", inout(reg) moved) };
            return pass(&control, unsafe { &mut (*moved).token }, at_disk(AT_COMPLETE, disk), at_ns);
        }
    }
    pass(&control, &mut operation.token, at_disk(AT_COMPLETE, disk), at_ns)
}

/// The operation went through the disk below. Looked at by the verifier once, as its bios are settled in many places; 0: all is well.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn operation_was_below(slot: u32) -> u32 {
    let (Some(control), Some(operation)) = (following::<true>(), socket_in(slot)) else { return 0 };
    let Some(done) = DONE.get_ptr_mut(slot & (SLOTS - 1)) else { return 0 };
    let below = unsafe { (*done).below };
    u32::from(pass_below(&control, operation, &below).is_err())
}

#[inline(always)]
fn pass_below(control: &Phase<true>, operation: &mut Socket, below: &Below) -> Result<(), Counter> {
    let disk = below.disk as u8;
    pass(control, &mut operation.token, at_disk(AT_BIO, disk), below.queued_ns)?;
    if below.issued_ns >= below.queued_ns && below.issued_ns <= below.done_ns {
        if control.splits() {
            let mut parts = Parts::of(&operation.token);
            parts.via(control, at_disk(AT_INSERT, disk), below.inserted_ns);
            parts.end(control, at_disk(AT_ISSUE, disk), below.issued_ns);
        }
        pass(control, &mut operation.token, at_disk(AT_ISSUE, disk), below.issued_ns)?;
    }
    pass(control, &mut operation.token, at_disk(AT_COMPLETE, disk), below.done_ns)
}

/// What a thread works on, when its operation is further on than its token.
#[inline(always)]
fn tag_at(operation: &Socket, point: u8) -> Tag {
    Tag { point, ..tag_of(operation) }
}

/// `block:block_bio_queue`, in the context of whoever submits.
#[inline(always)]
pub fn queued<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    let Some(operation) = of_current() else {
        return queued_below::<K, D>(control, bio);
    };
    if !is_under_way(control, operation) {
        return None;
    }
    let disk = disk_under::<K>(bio)?;
    let entry = Bio {
        address: bio,
        slot: operation.slot,
        number: operation.crossing,
        disk,
        epoch: control.epoch,
        ..Bio::default()
    };
    if !bios::put(&entry) {
        count(Counter::BioTable);
        return Some(Counter::BioTable);
    }
    let is_first = fetch_add(&mut operation.bios, 1) == 0;
    if is_first {
        if let Err(cause) = settle(control, operation) {
            return fail(control, operation, cause);
        }
    }
    // After those of its last bio.
    let at_ns = now();
    count_inside(&control, at_ns, Counter::Bios);
    let waits = operation.token.point == ENTER || matches!(disk_of(operation.token.point), Some((AT_COMPLETE, _)));
    if is_first && waits {
        if let Err(cause) = pass(&control, &mut operation.token, at_disk(AT_BIO, disk as u8), at_ns) {
            return fail(control, operation, cause);
        }
        if control.tags() {
            work_on(tag_of(operation), false);
        }
    }
    None
}

/// The index of a bio's disk.
#[inline(always)]
fn disk_under<K: Kernel>(bio: u64) -> Option<u32> {
    let device: u64 = K::load(bio, settings::bio_bdev());
    disk(read(device, settings::bdev_disk())).map(u32::from)
}

/// The bio by which a request is known, if that is under way.
#[inline(always)]
fn first_of<const D: bool>(control: Phase<D>, request: u64) -> Option<&'static Bio> {
    let first: u64 = read(request, settings::request_bio());
    bios::find(first).map(|bio| &*bio).filter(|bio| bio.epoch == control.epoch && bio.issued_ns != 0)
}

/// A bio of a thread that makes no operations: it may be a loop device's worker, or who lets its bios go where a group has a limit. Then
/// it is for the direct I/O of an iocb that lies within a request of the disk above.
#[inline(always)]
fn queued_below<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    if writeback::is_at_it(control) {
        // In place of the number of its operation, of which it is none's.
        let number = K::load(bio, settings::bio_size());
        let entry = Bio { address: bio, number, epoch: control.epoch, above: WRITE_BACK, ..Bio::default() };
        if !bios::put(&entry) {
            count(Counter::BioTable);
        }
        return None;
    }
    if settings::loop_iocb() == NO_FIELD || settings::dio_iocb() == NO_FIELD {
        return None;
    }
    let direct: u64 = K::load(bio, settings::bio_private());
    let iocb: u64 = read(direct, settings::dio_iocb());
    let request = iocb.wrapping_sub(u64::from(settings::loop_iocb()));
    let above = first_of(control, request)?;
    let (for_ns, slot, number) = (above.issued_ns, above.slot, above.number);
    let disk = disk_under::<K>(bio)?;
    let entry = Bio { address: bio, slot, number, disk, epoch: control.epoch, above: request, ..Bio::default() };
    if !bios::put(&entry) {
        count(Counter::BioTable);
        return Some(Counter::BioTable);
    }
    if unsafe { BELOW.get(&request) }.is_none_or(|below| below.for_ns != for_ns) {
        let below = Below { for_ns, queued_ns: now(), disk, ..Below::default() };
        if BELOW.insert(&request, &below, 0).is_err() {
            count(Counter::BioTable);
            return Some(Counter::BioTable);
        }
    }
    None
}

/// A bio of a disk below is done.
#[inline(always)]
fn done_below(entry: &Bio, at_ns: u64) {
    if let Some(below) = BELOW.get_ptr_mut(&entry.above) {
        let below = unsafe { &mut *below };
        below.inserted_ns = entry.inserted_ns;
        below.issued_ns = entry.issued_ns;
        below.done_ns = at_ns;
    }
}

/// `block:block_split`: the front of a bio becomes one of its own, to which the rest is bound.
#[inline(always)]
pub fn split<const D: bool>(control: Phase<D>, front: u64) -> Fault {
    let rest: u64 = read(front, settings::bio_private());
    let entry = Bio { address: front, ..*bios::find(rest)? };
    if entry.above != 0 {
        // Its bytes are the whole one's.
        bios::put(&Bio { number: if entry.above == WRITE_BACK { 0 } else { entry.number }, ..entry });
        return None;
    }
    let operation = socket_in(entry.slot)?;
    if entry.epoch != control.epoch || entry.number != operation.crossing || !is_under_way(control, operation) {
        return None;
    }
    if !bios::put(&entry) {
        count(Counter::BioTable);
        return Some(Counter::BioTable);
    }
    fetch_add(&mut operation.bios, 1);
    count_inside(&control, now(), Counter::BioSplits);
    None
}

/// What a request's bios pass at once.
#[inline(always)]
fn note(request: u64, is_issue: bool) -> Fault {
    let at_ns = now();
    let mut bio: u64 = read(request, settings::request_bio());
    for _ in 0..MERGED_MOST {
        if bio == 0 {
            break;
        }
        if let Some(entry) = bios::find(bio) {
            if is_issue {
                entry.issued_ns = at_ns;
            } else {
                entry.inserted_ns = at_ns;
            }
        }
        bio = read(bio, settings::bio_next());
    }
    None
}

/// From now on, a thread that issues its only bio itself is in the driver, and then waits for the disk.
#[inline(always)]
fn driver_works(entry: &Bio) {
    let Some(operation) = of_current() else { return };
    if operation.slot == entry.slot && operation.crossing == entry.number && operation.bios == 1 {
        work_on(tag_at(operation, at_disk(AT_ISSUE, entry.disk as u8)), false);
    }
}

/// `block:block_rq_insert`
#[inline(always)]
pub fn inserted(request: u64) -> Fault {
    note(request, false)
}

/// `block:block_rq_issue`
#[inline(always)]
pub fn issued<const D: bool>(control: Phase<D>, request: u64) -> Fault {
    if control.tags() {
        let first: u64 = read(request, settings::request_bio());
        if let Some(entry) = bios::find(first) {
            driver_works(entry);
        }
    }
    note(request, true)
}

/// `block:block_rq_requeue`
#[inline(always)]
pub fn requeued<const D: bool>(control: Phase<D>, request: u64) -> Fault {
    let bio: u64 = read(request, settings::request_bio());
    if bios::find(bio).is_some() {
        count_inside(&control, now(), Counter::Requeues);
    }
    None
}

/// `block:block_rq_complete`, in any context: so many bytes of a request are done, and with them the bios at its beginning.
#[inline(always)]
pub fn request_done<const D: bool>(control: Phase<D>, request: u64, status: u8, bytes: u32) -> Fault {
    let at_ns = now();
    let mut bio: u64 = read(request, settings::request_bio());
    let mut left = bytes;
    for _ in 0..MERGED_MOST {
        if bio == 0 {
            return None;
        }
        let size: u32 = read(bio, settings::bio_size());
        if size > left {
            return None;
        }
        left -= size;
        complete(control, bio, status, at_ns, request);
        bio = read(bio, settings::bio_next());
    }
    if bio != 0 && bios::find(bio).is_some() {
        count_inside(&control, at_ns, Counter::LongRequests);
    }
    None
}

/// `block:block_bio_complete`: of disks that take bios as they are. Where requests are made of them, it is silent.
#[inline(always)]
pub fn bio_done<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    complete(control, bio, K::load(bio, settings::bio_status()), now(), 0);
    None
}

/// All of an operation is done whose completion nobody sees being taken: as far as is known, that is at once.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn operation_is_done(slot: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(operation)) = (following::<true>(), socket_in(slot)) else { return 0 };
    // There may be more bios to come: then it is as over as that is known when its place is used again.
    if thread(operation.reader).is_some_and(|thread| thread.submitting == operation.key) {
        return 0;
    }
    if let Err(cause) = settle(control, operation) {
        return fail(control, operation, cause).map_or(0, |fault| fault as u32);
    }
    operation.token.point = EXIT;
    if control.splits() {
        machine_ends(0, at_ns);
    }
    0
}

/// A bio is done, in a request if there are such; with the last of its operation, that goes on.
#[cold]
#[inline(never)]
fn complete<const D: bool>(control: Phase<D>, bio: u64, status: u8, at_ns: u64, request: u64) {
    if let Some(entry) = bios::take(bio) {
        if entry.above == WRITE_BACK {
            if entry.epoch == control.epoch {
                writeback::done(control, entry.number, entry.issued_ns, at_ns);
            }
        } else if entry.above != 0 {
            done_below(&entry, at_ns);
        } else {
            go_on(control, &entry, status, at_ns, request);
        }
    }
}

#[inline(always)]
fn go_on<const D: bool>(control: Phase<D>, entry: &Bio, status: u8, at_ns: u64, request: u64) -> Fault {
    let operation = socket_in(entry.slot)?;
    if entry.epoch != control.epoch || operation.token.epoch != control.epoch {
        return None;
    }
    if status != 0 {
        count_inside(&control, at_ns, Counter::BioErrors);
    }
    if operation.crossing != entry.number || operation.token.point == EXIT || operation.state == EMPTY {
        count_inside(&control, at_ns, Counter::BiosLater);
        return None;
    }
    if fetch_add(&mut operation.bios, -1) != 1 {
        return None;
    }
    let done = unsafe { &mut *DONE.get_ptr_mut(entry.slot & (SLOTS - 1))? };
    *done = Done {
        number: entry.number,
        disk: entry.disk,
        inserted_ns: entry.inserted_ns,
        issued_ns: entry.issued_ns,
        at_ns,
        below: if is_loop(entry.disk) {
            unsafe { BELOW.get(&request) }.copied().unwrap_or_default()
        } else {
            Below::default()
        },
    };
    if operation.unseen != 0 {
        operation_is_done(entry.slot, at_ns);
        return None;
    }
    if control.tags() {
        // What is done from now on, by whoever wakes the thread and by itself, is done after the disk's part. A thread that works
        // for another operation meanwhile goes on with that.
        if let Some(thread) =
            thread(operation.reader).filter(|thread| !is_asynchronous(operation) || thread.state != RUNNING)
        {
            thread.tag = tag_at(operation, at_disk(AT_COMPLETE, entry.disk as u8));
        }
    }
    None
}
