//! Disks that have others work for them: loop devices, whose workers read or write a file on a disk below, and those
//! that pass bios on as they are (device mapper, RAID).
//!
//! What is done below for a bio, or for the request of a loop device that it is the first of, is left with it; its
//! operation goes through that when it is done (`block::settle`).

use profiler_common::{
    Below, Bio, Counter, Level, Operation, Sector,
    point::{PlaceId, Point},
};

use crate::{
    core::{
        holder::Fault,
        kernel::{Kernel, read},
        maps::{BELOW, PASSED, count_without_holder, current, disk_number, now},
        phase::Phase,
        settings::{self, NO_FIELD},
        slot::{Keyed, Slot},
        thread::work_on,
        token::{Parts, holder_passes},
    },
    file::{
        bios::{self, is_by_others, may_be_passed_on},
        held,
        operation::{disk_under, of_current, tag_at},
        writeback,
    },
};

/// Address of a bio above that stands for write-back.
pub const WRITE_BACK: u64 = 1;
/// Bit beside the index of a bio's disk: it was made for one above, and is still to be queued.
const EXPECTED: u32 = 1 << 31;

/// When a bio was given to its disk: by it, or as a request.
#[inline(always)]
fn given_ns(bio: &Bio) -> u64 {
    if bio.issued_ns != 0 { bio.issued_ns } else { bio.inserted_ns }
}

/// A bio is queued: whether it is one of a disk below, which was seen when it was made.
#[inline(always)]
pub fn is_expected<const D: bool>(control: Phase<D>, bio: u64) -> bool {
    if settings::stacked() == 0 {
        return false;
    }
    if let Some(mut known) = bios::find(bio) {
        let is_expected = known.disk & EXPECTED != 0 && known.epoch == control.epoch();
        known.disk &= !EXPECTED;
        if is_expected {
            // On a partition, it begins elsewhere by now.
            may_be_passed_on(&mut known);
            return true;
        }
    }
    // Whatever its thread passed on is over.
    if let Some(mut thread) = current() {
        thread.passing = 0;
    }
    false
}

/// The bio that is to be passed on from there.
#[inline(always)]
fn at(device: u32, sector: u64) -> Option<Slot<Bio>> {
    let place = Sector { device: u64::from(device), sector };
    let passed = PASSED.value(&place)?;
    bios::find(passed.bio).filter(|bio| bio.inserted_ns == passed.queued_ns)
}

/// What is passed on in several pieces, the further ones begin elsewhere: while nobody else has come between, it is
/// still the current thread's.
#[inline(always)]
fn passed_by_current(device: u32) -> Option<Slot<Bio>> {
    let thread = current()?;
    bios::find(thread.passing).filter(|bio| bio.inserted_ns == thread.passing_ns && disk_number(bio.disk) == device)
}

/// `block:block_bio_remap`: the bio is for another, or the same, which was on that device there. Partitions, too, are
/// said so: nobody has noted those.
#[inline(always)]
pub fn remapped<K: Kernel, const D: bool>(control: Phase<D>, bio: u64, device: u32, sector: u64) -> Fault {
    if settings::stacked() == 0 {
        return None;
    }
    let mut above = at(device, sector).or_else(|| passed_by_current(device))?;
    if above.epoch != control.epoch() {
        return None;
    }
    let disk = disk_under::<K>(bio)?;
    if above.address == bio {
        above.disk = disk;
        above.inserted_ns = 0;
        // As it is: from now on, it is with the disk below.
        may_be_passed_on(&mut above);
        return None;
    }
    if above.above == WRITE_BACK {
        return write_back(control, bio, K::load(bio, settings::bio_size()), disk, EXPECTED);
    }
    let of = Bio { address: bio, disk, above: above.address, inserted_ns: 0, ..*above };
    if control.tags()
        && let Some(operation) = of_current().filter(|operation| operation.slot == of.slot)
    {
        work_on(tag_at(&operation, PlaceId::at(Point::Bio, disk as u8)), false);
    }
    goes_below(of, above.inserted_ns, EXPECTED)
}

/// The bio by which a request is known, if that is under way.
#[inline(always)]
fn first_of<const D: bool>(control: Phase<D>, request: u64) -> Option<Slot<Bio>> {
    let first: u64 = read(request, settings::request_bio());
    bios::find(first).filter(|bio| bio.epoch == control.epoch() && bio.issued_ns != 0)
}

/// A bio of a thread that makes no operations: it may be a loop device's worker, or who lets its bios go where a
/// group has a limit. Then it is for the direct I/O of an iocb that lies within a request of the disk above.
#[inline(always)]
pub fn queued<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    if writeback::is_at_it(control) {
        let disk = if settings::stacked() == 0 { 0 } else { disk_under::<K>(bio)? };
        return write_back(control, bio, K::load(bio, settings::bio_size()), disk, 0);
    }
    if let Some(fault) = held::queued::<K, D>(control, bio) {
        return fault;
    }
    if settings::loop_iocb() == NO_FIELD || settings::dio_iocb() == NO_FIELD {
        return None;
    }
    let direct: u64 = K::load(bio, settings::bio_private());
    let iocb: u64 = read(direct, settings::dio_iocb());
    let request = iocb.wrapping_sub(u64::from(settings::loop_iocb()));
    let above = first_of(control, request)?;
    let disk = disk_under::<K>(bio)?;
    let of = Bio { address: bio, disk, above: above.address, inserted_ns: 0, issued_ns: 0, ..*above };
    goes_below(of, above.issued_ns, 0)
}

/// A bio of so many bytes of what operations left in the page cache.
#[inline(always)]
fn write_back<const D: bool>(control: Phase<D>, bio: u64, bytes: u32, disk: u32, expected: u32) -> Fault {
    // In place of the number of its operation, of which it is none's.
    let mut entry =
        Bio { address: bio, number: bytes, disk, epoch: control.epoch(), above: WRITE_BACK, ..Bio::default() };
    may_be_passed_on(&mut entry);
    entry.disk |= expected;
    if !bios::put(&entry) {
        count_without_holder(Counter::BioTable);
    }
    None
}

/// A bio is made for another, which was given to its own disk at `for_ns`.
#[inline(always)]
fn goes_below(mut bio: Bio, for_ns: u64, expected: u32) -> Fault {
    may_be_passed_on(&mut bio);
    let at_ns = now();
    let disk = u64::from(bio.disk as u8);
    bio.disk |= expected;
    bio.above_ns = for_ns;
    if !bios::put(&bio) {
        count_without_holder(Counter::BioTable);
        return Some(Counter::BioTable);
    }
    if BELOW.slot(&bio.above).is_none_or(|below| below.for_ns != for_ns) {
        let first = Level { queued_ns: at_ns, disk, ..Level::default() };
        let below = Below { for_ns, levels: [first, Level::default()] };
        if BELOW.insert(bio.above, below, 0).is_err() {
            count_without_holder(Counter::BioTable);
            return Some(Counter::BioTable);
        }
    }
    None
}

/// What disks below have done for a bio that is done, and for the others of its request, whose `first` they know.
#[inline(always)]
fn below(bio: &Bio, first: u64) -> Option<Slot<Below>> {
    if !is_by_others(bio) {
        return None;
    }
    BELOW.slot(&first).filter(|below| below.for_ns == given_ns(bio))
}

/// A bio of a disk below is done.
#[inline(always)]
pub fn done(bio: &Bio, first: u64, at_ns: u64) {
    let Some(mut above) = BELOW.slot(&bio.above) else { return };
    if above.for_ns != bio.above_ns {
        return;
    }
    let level = &mut above.levels[0];
    level.inserted_ns = bio.inserted_ns;
    level.issued_ns = bio.issued_ns;
    level.done_ns = at_ns;
    // Of several, the last: that of a mirror.
    level.disk = u64::from(bio.disk as u8);
    if let Some(under) = below(bio, first) {
        above.levels[1] = under.levels[0];
    }
}

/// The last bio of an operation is done: what disks below did for it goes `into` what its thread will note.
#[inline(always)]
pub fn report(bio: &Bio, first: u64, into: &mut Below) {
    if let Some(below) = below(bio, first) {
        *into = *below;
    }
}

/// An operation goes through one disk below.
#[inline(always)]
fn begins(level: &Level, control: &Phase<true>, operation: Slot<Operation>) -> Result<(), Counter> {
    let disk = level.disk as u8;
    holder_passes(operation, PlaceId::at(Point::Bio, disk), level.queued_ns)?;
    if level.issued_ns < level.queued_ns || level.issued_ns > level.done_ns {
        return Ok(());
    }
    if control.splits() {
        let mut parts = Parts::of(&operation.token, operation.counted);
        parts.via(PlaceId::at(Point::Insert, disk), level.inserted_ns);
        parts.end(PlaceId::at(Point::Issue, disk), level.issued_ns);
    }
    holder_passes(operation, PlaceId::at(Point::Issue, disk), level.issued_ns)
}

/// That disk is done.
#[inline(always)]
fn ends(level: &Level, operation: Slot<Operation>) -> Result<(), Counter> {
    holder_passes(operation, PlaceId::at(Point::Complete, level.disk as u8), level.done_ns)
}

/// An operation goes through all disks below.
#[inline(always)]
pub fn pass(below: &Below, control: &Phase<true>, operation: Slot<Operation>) -> Result<(), Counter> {
    let [upper, lower] = &below.levels;
    begins(upper, control, operation)?;
    if lower.is_within(operation.token.at_ns, upper.done_ns) {
        begins(lower, control, operation)?;
        ends(lower, operation)?;
    }
    ends(upper, operation)
}
