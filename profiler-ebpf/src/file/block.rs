//! The bios of file operations: known by their address, from when they are queued until they are completed.
//!
//! An operation moves on with the first bio that is queued while none is under way, and with the last that is
//! completed: what lies between is the time until that one was issued, and the device's. Only its own thread moves an
//! operation; who completes its last bio, on whatever CPU, leaves the times for it.
//!
//! What disks below have done for a bio is left with it (`crate::file::below`).

use profiler_common::{
    Bio, Counter, EMPTY, Operation,
    point::{ENTER, EXIT, HELD_BACK, PlaceId, Point},
    state::RUNNING,
};

use crate::{
    core::{
        holder::{Fault, tag_of},
        instructions::{fetch_add_word, write_once},
        kernel::{Kernel, read},
        maps::{DONE, count, count_inside, now, thread},
        phase::{Phase, following},
        settings,
        slot::{Indexed, Slot},
        slots::operation_in,
        thread::work_on,
        token::{Parts, ends, holder_passes},
    },
    file::{
        below::{self, WRITE_BACK},
        bios,
        operation::{disk_under, fail, is_asynchronous, is_under_way, of_current, tag_at},
        worker::{self, worker_makes_bio},
        writeback,
    },
    vm::qemu,
};

/// bios of one request that are looked at; a longer one is counted.
const MERGED_MOST: u32 = 64;

/// Notes that all bios so far are done, where the one who completed the last has left that.
#[inline(always)]
pub fn settle<const D: bool>(control: Phase<D>, operation: Slot<Operation>) -> Result<(), Counter> {
    let Some(mut done) = DONE.slot(operation.slot & settings::slots_mask()) else { return Ok(()) };
    let at_ns = core::mem::take(&mut done.at_ns);
    if done.number != operation.number || at_ns <= operation.token.at_ns {
        return Ok(());
    }
    let disk = done.disk as u8;
    if done.queued_ns > operation.token.at_ns && done.queued_ns <= at_ns && waits_for_bio(&operation) {
        let since_ns = operation.token.at_ns;
        holder_passes(operation, HELD_BACK, since_ns)?;
        holder_passes(operation, PlaceId::at(Point::Bio, disk), done.queued_ns)?;
    }
    if done.issued_ns > operation.token.at_ns && done.issued_ns <= at_ns {
        if control.splits() {
            let mut parts = Parts::of(&operation.token, operation.counted);
            parts.via(PlaceId::at(Point::Insert, disk), done.inserted_ns);
            parts.end(PlaceId::at(Point::Issue, disk), done.issued_ns);
        }
        holder_passes(operation, PlaceId::at(Point::Issue, disk), done.issued_ns)?;
    }
    if done.below.is_within(operation.token.at_ns, at_ns) && operation_was_below(operation.slot) != 0 {
        return Err(Counter::LostStageTable);
    }
    // That function has moved the operation on.
    holder_passes(operation, PlaceId::at(Point::Complete, disk), at_ns)
}

/// The operation went through disks below. Looked at by the verifier once, as its bios are settled in many places; 0:
/// all is well.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn operation_was_below(slot: u32) -> u32 {
    let (Some(control), Some(operation)) = (following::<true>(), operation_in(slot)) else { return 0 };
    let Some(done) = DONE.slot(slot & settings::slots_mask()) else { return 0 };
    u32::from(below::pass(&done.below, &control, operation).is_err())
}

/// `block:block_bio_queue`, in the context of whoever submits.
#[inline(always)]
pub fn queued<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    if below::is_expected(control, bio) {
        return None;
    }
    let Some(mut operation) = of_current().filter(|operation| !is_asynchronous(operation) || worker::made::<K>(bio))
    else {
        return below::queued::<K, D>(control, bio);
    };
    if !is_under_way(control, &operation) {
        return None;
    }
    let disk = disk_under::<K>(bio)?;
    let mut entry = Bio {
        address: bio,
        slot: operation.slot,
        number: operation.number,
        disk,
        epoch: control.epoch(),
        ..Bio::default()
    };
    bios::may_be_passed_on(&mut entry);
    if !bios::put(&entry) {
        count(operation.token.turn, Counter::BioTable);
        return Some(Counter::BioTable);
    }
    let is_first = fetch_add_word(&mut operation.bios, 1) == 0;
    if is_first && let Err(cause) = settle(control, operation) {
        return fail(control, operation, cause);
    }
    // After those of its last bio.
    let at_ns = now();
    count_inside(&control, operation.token.turn, at_ns, Counter::Bios);
    if is_first && waits_for_bio(&operation) {
        if control.splits() && is_asynchronous(&operation) {
            worker_makes_bio(operation.slot, disk, at_ns);
        }
        if let Err(cause) = holder_passes(operation, PlaceId::at(Point::Bio, disk as u8), at_ns) {
            return fail(control, operation, cause);
        }
        if control.tags() {
            work_on(tag_of(&operation), false);
        }
    }
    None
}

/// Whether an operation has no bio under way.
#[inline(always)]
fn waits_for_bio(operation: &Operation) -> bool {
    operation.token.point == ENTER || operation.token.point.is_at(Point::Complete)
}

/// `block:block_split`: the front of a bio becomes one of its own, to which the rest is bound.
#[inline(always)]
pub fn split<const D: bool>(control: Phase<D>, front: u64) -> Fault {
    let rest: u64 = read(front, settings::bio_private());
    let Some(mut known) = bios::find(rest) else {
        // The device mapper has passed on the front of it, and what is left is still to be.
        let mut front = bios::find(front)?;
        bios::may_be_passed_on(&mut front);
        return None;
    };
    // Both now begin elsewhere, or are others.
    bios::may_be_passed_on(&mut known);
    let mut entry = Bio { address: front, ..*known };
    bios::may_be_passed_on(&mut entry);
    if entry.above != 0 {
        // Its bytes are the whole one's.
        bios::put(&Bio { number: if entry.above == WRITE_BACK { 0 } else { entry.number }, ..entry });
        return None;
    }
    let mut operation = operation_in(entry.slot)?;
    if entry.epoch != control.epoch() || entry.number != operation.number || !is_under_way(control, &operation) {
        return None;
    }
    if !bios::put(&entry) {
        count(operation.token.turn, Counter::BioTable);
        return Some(Counter::BioTable);
    }
    fetch_add_word(&mut operation.bios, 1);
    count_inside(&control, operation.token.turn, now(), Counter::BioSplits);
    None
}

/// What a request's bios pass at once.
#[inline(always)]
fn note<K: Kernel>(request: u64, is_issue: bool) -> Fault {
    let at_ns = now();
    let mut bio: u64 = K::load(request, settings::request_bio());
    for _ in 0..MERGED_MOST {
        if bio == 0 {
            break;
        }
        if let Some(mut entry) = bios::find(bio) {
            if is_issue {
                entry.issued_ns = at_ns;
            } else {
                entry.inserted_ns = at_ns;
            }
        }
        bio = K::load(bio, settings::bio_next());
    }
    None
}

/// From now on, a thread that issues its only bio itself is in the driver, and then waits for the disk.
#[inline(always)]
fn driver_works(entry: &Bio) {
    let Some(operation) = of_current() else { return };
    if operation.slot == entry.slot && operation.number == entry.number && operation.bios == 1 {
        work_on(tag_at(&operation, PlaceId::at(Point::Issue, entry.disk as u8)), false);
    }
}

/// `block:block_rq_insert`
#[inline(always)]
pub fn inserted<K: Kernel>(request: u64) -> Fault {
    note::<K>(request, false)
}

/// `block:block_rq_issue`
#[inline(always)]
pub fn issued<K: Kernel, const D: bool>(control: Phase<D>, request: u64) -> Fault {
    if control.tags() {
        let first: u64 = K::load(request, settings::request_bio());
        if let Some(entry) = bios::find(first) {
            driver_works(&entry);
        }
    }
    note::<K>(request, true)
}

/// `block:block_rq_requeue`
#[inline(always)]
pub fn requeued<const D: bool>(control: Phase<D>, request: u64) -> Fault {
    let bio: u64 = read(request, settings::request_bio());
    if bios::find(bio).is_some() {
        count_inside(&control, control.turn, now(), Counter::Requeues);
    }
    None
}

/// `block:block_rq_complete`, in any context: so many bytes of a request are done, and with them the bios at its
/// beginning.
#[inline(always)]
pub fn request_done<K: Kernel, const D: bool>(control: Phase<D>, request: u64, status: u8, bytes: u32) -> Fault {
    let at_ns = now();
    let mut bio: u64 = K::load(request, settings::request_bio());
    let mut left = bytes;
    let mut first = 0;
    for index in 0..MERGED_MOST {
        if bio == 0 {
            return None;
        }
        let size: u32 = K::load(bio, settings::bio_size());
        if size > left {
            return None;
        }
        left -= size;
        if let Some(mut known) = bios::find(bio) {
            if index == 0 {
                first = bios::number_of_address(&known);
            }
            complete(control, &mut known, status, at_ns, first);
        }
        bio = K::load(bio, settings::bio_next());
    }
    if bio != 0 && bios::find(bio).is_some() {
        count_inside(&control, control.turn, at_ns, Counter::LongRequests);
    }
    None
}

/// `block:block_bio_complete`: of disks that take bios as they are. Where requests are made of them, it is silent.
#[inline(always)]
pub fn bio_done<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    let mut known = bios::find(bio)?;
    let address = bios::number_of_address(&known);
    complete(control, &mut known, K::load(bio, settings::bio_status()), now(), address);
    None
}

/// All of an operation is done whose completion nobody sees being taken: as far as is known, that is at once.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn operation_is_done(slot: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(mut operation)) = (following::<true>(), operation_in(slot)) else { return 0 };
    // Its submission may have returned at the same moment.
    if operation.token.point == EXIT {
        return 0;
    }
    // There may be more bios to come: `submission_returns` looks again.
    if thread(operation.thread).is_some_and(|thread| thread.submitting == operation.key) {
        return 0;
    }
    if let Err(cause) = settle(control, operation) {
        return fail(control, operation, cause).map_or(0, |fault| fault as u32);
    }
    operation.token.point = EXIT;
    let ended_ns = operation.token.at_ns;
    ends(operation.token.turn, &mut operation.counted, ended_ns);
    if control.splits() {
        qemu::ends(&operation.token, 0, at_ns);
    }
    0
}

/// The call that has submitted this operation returns, and no bio of it can come any more: on a fast disk, all may be
/// done already.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn submission_returns(slot: u32) -> u32 {
    let (Some(operation), Some(done)) = (operation_in(slot), DONE.slot(slot & settings::slots_mask())) else {
        return 0;
    };
    let is_done = done.number == operation.number && done.at_ns != 0 && operation.bios == 0;
    if operation.unseen != 0 && is_done { operation_is_done(slot, done.at_ns) } else { 0 }
}

/// A bio is done; with the last of its operation, that goes on. `first`: the first bio of its request.
#[cold]
#[inline(never)]
fn complete<const D: bool>(control: Phase<D>, known: &mut Bio, status: u8, at_ns: u64, first: u64) {
    if known.above != 0 || bios::is_by_others(known) {
        bio_is_done(bios::number_of_address(known), status.into(), at_ns, first);
        return;
    }
    let bio = bios::take(known);
    go_on(control, &bio, status, at_ns, None);
}

/// A bio is done where disks below are, or write-back is. The verifier looks at it once.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn bio_is_done(address: u64, status: u32, at_ns: u64, first: u64) -> u32 {
    let (Some(control), Some(mut known)) = (following::<true>(), bios::find(address)) else { return 0 };
    let bio = bios::take(&mut known);
    if bio.above == WRITE_BACK {
        if bio.epoch == control.epoch() {
            writeback::done(control, bio.number, bio.issued_ns, at_ns);
        }
    } else if bio.above != 0 {
        below::done(&bio, first, at_ns);
    } else {
        go_on(control, &bio, status as u8, at_ns, Some(first));
    }
    0
}

#[inline(always)]
fn go_on<const D: bool>(control: Phase<D>, entry: &Bio, status: u8, at_ns: u64, first: Option<u64>) -> Fault {
    let mut operation = operation_in(entry.slot)?;
    if entry.epoch != control.epoch() || operation.token.epoch() != control.epoch() {
        return None;
    }
    if status != 0 {
        count_inside(&control, operation.token.turn, at_ns, Counter::BioErrors);
    }
    if operation.number != entry.number || operation.token.point == EXIT || operation.state == EMPTY {
        count_inside(&control, operation.token.turn, at_ns, Counter::BiosLater);
        return None;
    }
    if fetch_add_word(&mut operation.bios, -1) != 1 {
        return None;
    }
    let mut done = DONE.slot(entry.slot & settings::slots_mask())?;
    done.number = entry.number;
    done.disk = entry.disk;
    done.inserted_ns = entry.inserted_ns;
    done.issued_ns = entry.issued_ns;
    done.queued_ns = entry.above_ns;
    done.below.forget();
    if let Some(first) = first {
        below::report(entry, first, &mut done.below);
    }
    // Last: its thread may look at it, on another CPU.
    write_once(&mut done.at_ns, at_ns);
    if operation.unseen != 0 {
        operation_is_done(entry.slot, at_ns);
        return None;
    }
    if control.tags() {
        // What is done from now on, by whoever wakes the thread and by itself, is done after the disk's part. A
        // thread that works for another operation meanwhile goes on with that.
        if let Some(mut thread) =
            thread(operation.thread).filter(|thread| !is_asynchronous(&operation) || thread.state != RUNNING)
        {
            thread.tag = tag_at(&operation, PlaceId::at(Point::Complete, entry.disk as u8));
        }
    }
    None
}
