//! The bios under way, by their addresses: as [`crate::core::slots`] has its tables, because a hash table of the
//! kernel's costs several times as much, and an operation of some microseconds puts, looks up and takes.

use profiler_common::{Bio, Passed, SPREAD, Sector};

use crate::core::{
    instructions::{low, read_once, swap_if, write_once},
    kernel::read,
    maps::{BIOS, PASSED, current, disk_number, is_loop, now, passes_on},
    settings,
    slot::{Indexed, Slot},
};

/// Address of a place that is being written.
const BEING_FILLED: u64 = 1;
/// Places looked at for one bio.
const WAYS: u32 = 8;

/// A bio's address as it stands in the table, a number to the verifier. Volatile, or the compiler would use in its
/// place the typed pointer that it was found by, which no global function takes.
#[inline(always)]
pub fn number_of_address(bio: &Bio) -> u64 {
    // SAFETY: a field of a live reference.
    read_once(&bio.address)
}

#[inline(always)]
fn first_place(address: u64) -> u32 {
    low(address).wrapping_mul(SPREAD) >> 16
}

#[inline(always)]
fn place(index: u32) -> Option<Slot<Bio>> {
    BIOS.slot(index & settings::bios_mask())
}

/// What is known of the bio at this address.
#[inline(always)]
pub fn find(address: u64) -> Option<Slot<Bio>> {
    let found = place(first_place(address))?;
    if found.address == address && address != 0 {
        return Some(found);
    }
    let further = find_further(address);
    if further == 0 { None } else { place(further - 1) }
}

/// 1 + the place beyond its first; 0: there is none.
#[cold]
#[inline(never)]
fn find_further(address: u64) -> u32 {
    if address == 0 {
        return 0;
    }
    let first = first_place(address);
    for way in 1..WAYS {
        let index = (first + way) & settings::bios_mask();
        if place(index).is_some_and(|found| found.address == address) {
            return index + 1;
        }
    }
    0
}

/// Puts a bio into the table, in the place of what was known by its address. False: there was no room.
#[inline(always)]
pub fn put(bio: &Bio) -> bool {
    let Some(mut first) = place(first_place(bio.address)) else { return false };
    if first.address == bio.address || (first.address == 0 && claim(&mut first, 0)) {
        fill(&mut first, bio);
        return true;
    }
    put_further(bio)
}

/// Takes the bio's own place, wherever that is; then a free one, or one that nobody has taken back since its phase.
#[cold]
#[inline(never)]
fn put_further(bio: &Bio) -> bool {
    if let Some(mut known) = find(bio.address) {
        fill(&mut known, bio);
        return true;
    }
    let first = first_place(bio.address);
    for way in 0..WAYS {
        let Some(mut found) = place(first + way) else { return false };
        let before = found.address;
        let is_free = before == 0 || (before != BEING_FILLED && found.epoch != bio.epoch);
        if is_free && claim(&mut found, before) {
            fill(&mut found, bio);
            return true;
        }
    }
    false
}

/// Whether this CPU is the one that fills the place.
#[inline(always)]
fn claim(found: &mut Bio, before: u64) -> bool {
    swap_if(&mut found.address, before, BEING_FILLED) == before
}

/// All of it, its address last: until then, nobody finds it, and nobody takes the place for an old one.
#[inline(always)]
fn fill(found: &mut Bio, bio: &Bio) {
    *found = Bio { address: BEING_FILLED, ..*bio };
    write_once(&mut found.address, bio.address);
}

/// Takes a bio out of the table.
#[inline(always)]
pub fn take(found: &mut Bio) -> Bio {
    let bio = *found;
    found.address = 0;
    bio
}

/// Bit beside the index of a bio's disk: others have work done for that disk.
const BY_OTHERS: u32 = 1 << 30;

/// Whether others work for the bio's disk.
#[inline(always)]
pub fn is_by_others(bio: &Bio) -> bool {
    bio.disk & BY_OTHERS != 0
}

/// A bio is queued: if its disk may pass it on, where it begins is noted.
#[inline(always)]
pub fn may_be_passed_on(entry: &mut Bio) {
    if is_loop(entry.disk) {
        entry.disk |= BY_OTHERS;
    }
    if settings::stacked() == 0 || !passes_on(entry.disk) {
        return;
    }
    entry.disk |= BY_OTHERS;
    // A bio that is passed on has no request that could be inserted.
    if entry.inserted_ns == 0 {
        entry.inserted_ns = now();
    }
    let sector: u64 = read(entry.address, settings::bio_sector());
    let place = Sector { device: u64::from(disk_number(entry.disk)), sector };
    if let Some(mut thread) = current() {
        thread.passing = entry.address;
        thread.passing_ns = entry.inserted_ns;
    }
    let _ = PASSED.insert(place, Passed { bio: entry.address, queued_ns: entry.inserted_ns }, 0);
}
