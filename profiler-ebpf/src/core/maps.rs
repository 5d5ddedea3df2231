//! All maps, and the look-ups that every program shares.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use profiler_common::{
    Border, COUNTERS, Control, Counter, Cpu, Crossing, Followed, ROLES as ROLE_COUNT, Record, SPREAD, SPREAD_WIDE,
    Stage, Thread, Turn, Wait, border_key,
    point::{DEVICES, DISKS},
    state::{RUNNING, STATES},
    vcpu,
};

use crate::core::{
    instructions::{below_64, fetch_add, low, read_once, swap_if, try_lock},
    kernel::read,
    settings::{self, NO_FIELD},
    slot::{Indexed, Keyed, Slot},
};

/// `BPF_F_MMAPABLE`: user space reads the array as memory, without a system call per entry.
const MMAPABLE: u32 = 1 << 10;
/// An entry is made, and none changed.
const BPF_NOEXIST: u64 = 1;

macro_rules! flags {
    (mapped) => {
        MMAPABLE
    };
    (plain) => {
        0
    };
}
macro_rules! declare {
    (
        rings { $($ring:ident = $bytes:expr;)* }
        $($name:ident: $kind:ident<$($type:ty),+> = $entries:expr, $access:ident, $emptied:ident;)*
    ) => {
        $(
            #[map]
            pub static $ring: RingBuf = RingBuf::with_byte_size($bytes, 0);
        )*
        $(
            #[map]
            pub static $name: $kind<$($type),+> = $kind::with_max_entries($entries, flags!($access));
        )*
    };
}
profiler_common::tables!(declare);

/// `CLOCK_MONOTONIC`, ns: the clock of the client's and virtax's own times, too.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// What user space tells the probes.
#[inline(always)]
pub fn control() -> Option<Slot<Control>> {
    CONTROL.slot(0)
}

/// Counts something of a configuration's, by its holder's turn.
#[inline(always)]
pub fn count(whose: Turn, counter: Counter) {
    count_number(whose.configuration(), counter as u32);
}

#[inline(always)]
pub fn count_number(configuration: u8, counter: u32) {
    if let Some(mut counts) = COUNTS.slot(configuration.into()) {
        counts[counter as usize & (COUNTERS - 1)] += 1;
    }
}

/// Adds to several of a configuration's counters, which are looked up once.
#[inline(always)]
pub fn add_all<const N: usize>(whose: Turn, values: [(Counter, u64); N]) {
    if let Some(mut counts) = COUNTS.slot(whose.configuration().into()) {
        for (counter, value) in values {
            let place = &mut counts[counter as usize & (COUNTERS - 1)];
            *place = place.wrapping_add(value);
        }
    }
}

/// Counts what has no holder yet, where a table is full, for the configuration that is asked.
#[inline(always)]
pub fn count_without_holder(counter: Counter) {
    if let Some(control) = control() {
        count(control.turn, counter);
    }
}

/// Adds to a counter of a configuration's, modulo 2^64: what is taken off on one CPU may be added on another.
#[inline(always)]
pub fn add(whose: Turn, counter: Counter, value: u64) {
    if let Some(mut counts) = COUNTS.slot(whose.configuration().into()) {
        let place = &mut counts[counter as usize & (COUNTERS - 1)];
        *place = place.wrapping_add(value);
    }
}

/// Counts what happens inside the recorded interval.
#[inline(always)]
pub fn count_inside(control: &Control, whose: Turn, at_ns: u64, counter: Counter) {
    if at_ns >= control.open_ns && at_ns < control.close_ns {
        count(whose, counter);
    }
}

/// Adds to a counter what happens inside the recorded interval.
#[inline(always)]
pub fn add_inside(control: &Control, whose: Turn, at_ns: u64, counter: Counter, value: u64) {
    if at_ns >= control.open_ns && at_ns < control.close_ns {
        add(whose, counter, value);
    }
}

/// Whether this CPU may send another line to the terminal: ten a second.
#[inline(always)]
pub fn may_log() -> bool {
    if settings::debug_probes() == 0 {
        return false;
    }
    let Some(mut last) = LAST_LOGGED.slot(0) else {
        return false;
    };
    let at = now();
    let due = at.wrapping_sub(*last) > 100_000_000;
    if due {
        *last = at;
    }
    due
}

/// The thread with this id, if it is one of the run's and was seen in a call.
#[inline(always)]
pub fn thread(tid: u32) -> Option<Slot<Thread>> {
    // The idle threads' number, and that of a free slot.
    if tid == 0 {
        return None;
    }
    let slot = THREADS.slot(tid & settings::threads_mask())?;
    (slot.tid == tid).then_some(slot)
}

/// A request comes into the VM. One that does not count takes no place from one that does.
#[inline(always)]
pub fn comes_in(control: &Control, counted: u8, number: u32, at_ns: u64) {
    if counted == 0 {
        return;
    }
    if let Some(mut crossing) = crossing(number) {
        *crossing = Crossing { epoch: control.epoch(), number, since_ns: at_ns, until_ns: 0 };
    }
}

/// The answer to a request leaves the VM.
#[inline(always)]
pub fn goes_out(control: &Control, number: u32, at_ns: u64) {
    if let Some(mut crossing) = crossing(number)
        && crossing.number == number
        && crossing.epoch == control.epoch()
    {
        crossing.until_ns = at_ns;
    }
}

#[inline(always)]
fn crossing(number: u32) -> Option<Slot<Crossing>> {
    if number == 0 {
        return None;
    }
    CROSSINGS.slot(profiler_common::crossing_place(number) & settings::crossings_mask())
}

/// How long the VM of a configuration has held requests.
#[inline(always)]
pub fn held(configuration: u8) -> Option<Slot<vcpu::Held>> {
    HELD.slot(configuration.into())
}

/// The current thread, if its process is of the run.
#[inline(always)]
pub fn current() -> Option<Slot<Thread>> {
    let ids = bpf_get_current_pid_tgid();
    let tid = ids as u32;
    // An idle thread is nobody's; its number is that of a free slot.
    if tid == 0 {
        return None;
    }
    let mut slot = THREADS.slot(tid & settings::threads_mask())?;
    if slot.tid == tid {
        return Some(slot);
    }
    // A virtual processor is a thread among others of its process.
    let followed = followed(tid).or_else(|| followed((ids >> 32) as u32))?;
    if slot.tid != 0 {
        count_without_holder(Counter::ThreadClash);
    }
    *slot = Thread { state: RUNNING, ..Thread::new(tid, followed) };
    Some(slot)
}

/// What is known of a process or thread that is followed.
#[inline(always)]
pub fn followed(tgid: u32) -> Option<Followed> {
    ROLES.value(&tgid)
}
/// A process is followed from now on.
#[inline(always)]
pub fn follow(tgid: u32, followed: Followed) {
    // A full table shows as sockets that are not followed.
    let _ = ROLES.insert(tgid, followed, 0);
}
#[inline(always)]
pub fn forget_role(tgid: u32) {
    let _ = ROLES.remove(tgid);
}

/// What kind of call (`CALL_…`) a system call is, 0: one that does not matter.
#[inline(always)]
pub fn call_kind(number: u64) -> u32 {
    CALL_KINDS.slot(number as u32).map_or(0, |kind| *kind)
}

/// What runs on this CPU.
#[inline(always)]
pub fn cpu() -> Option<Slot<Cpu>> {
    CPUS.slot(0)
}

/// What the reader of the socket in this slot has done.
#[inline(always)]
pub fn wait(slot: u32) -> Option<Slot<Wait>> {
    WAITS.slot(slot & settings::slots_mask())
}

const _: () = assert!(ROLE_COUNT * STATES == 64);

/// Adds the time that a thread was in a state.
#[inline(always)]
pub fn add_state(thread: &Thread, state: u32, ns: u64) {
    if let Some(mut totals) = STATE_TOTALS.slot(thread.configuration.into()) {
        let index = below_64(u64::from(thread.role) * STATES as u64 + u64::from(state));
        // SAFETY: `below_64`, and so many there are.
        let total = unsafe { totals.as_flattened_mut().get_unchecked_mut(index) };
        total[0] += 1;
        total[1] += ns;
    }
}

#[inline(always)]
pub fn record(slot: u32) -> Option<Slot<Record>> {
    RECORDS.slot(slot & settings::records_mask())
}

/// Index of a device.
#[inline(always)]
pub fn device(address: u64) -> Option<u8> {
    let index = (low(address) >> 12) & (DEVICES - 1);
    if DEVICE_TABLE.slot(index).is_some_and(|slot| slot.key == address) {
        return Some(index as u8);
    }
    device_further(address, index)
}

/// Places looked at for one disk.
const DISK_WAYS: u32 = 16;

/// Index of a disk, by its `gendisk`; a new one takes the next free place, where its name is noted.
#[inline(always)]
pub fn disk(address: u64) -> Option<u8> {
    let first = low(address) >> 10;
    for way in 0..DISK_WAYS {
        let index = (first + way) & (DISKS - 1);
        let Some(mut slot) = DISK_TABLE.slot(index) else {
            continue;
        };
        if slot.key == address {
            return Some(index as u8);
        }
        if slot.key == 0 && try_lock(&mut slot.lock) {
            slot.name = read(address, settings::disk_name());
            let major: u32 = read(address, settings::disk_major());
            let minor: u32 = read(address, settings::disk_minor());
            slot.number = major << 20 | minor;
            if settings::disk_operations() != NO_FIELD && settings::operations_submit() != NO_FIELD {
                let operations: u64 = read(address, settings::disk_operations());
                let submit: u64 = read(operations, settings::operations_submit());
                slot.takes_bios = u32::from(submit != 0);
            }
            slot.key = address;
            return Some(index as u8);
        }
    }
    count_without_holder(Counter::DeviceTable);
    None
}

/// The first device number of the disk of this index, as `MAJOR << 20 | MINOR`.
#[inline(always)]
pub fn disk_number(index: u32) -> u32 {
    DISK_TABLE.slot(index & (DISKS - 1)).map_or(0, |disk| disk.number)
}

/// Whether the disk of this index is a loop device, which has a disk below.
#[inline(always)]
pub fn is_loop(index: u32) -> bool {
    /// `LOOP_MAJOR` (`include/uapi/linux/major.h`).
    const MAJOR: u32 = 7;
    disk_number(index) >> 20 == MAJOR
}

/// Whether the disk of this index takes bios as they are, and may pass them on to disks below.
#[inline(always)]
pub fn passes_on(index: u32) -> bool {
    DISK_TABLE.slot(index & (DISKS - 1)).is_some_and(|disk| disk.takes_bios != 0)
}

/// 1 + index of a port or page (`vcpu::PORT`); 0: there is no room for it.
#[cold]
#[inline(never)]
pub fn place_of_guest(place: u64) -> u32 {
    let first = ((place >> 32) as u32 ^ place as u32).wrapping_mul(SPREAD) >> 24;
    for way in 0..8 {
        let index = (first + way) & (vcpu::PLACES - 1);
        let Some(mut slot) = VM_PLACES.slot(index) else { continue };
        let known = swap_if(&mut slot, 0, place);
        if known == 0 || known == place {
            return index + 1;
        }
    }
    0
}

/// Whether requests leave or come in at the device with this index, and how.
#[inline(always)]
pub fn border(index: u8) -> Border {
    DEVICE_TABLE.slot(u32::from(index) & (DEVICES - 1)).map_or(Border::default(), |device| device.border)
}

/// The device's place further on; a new one takes the next free place, where its name is noted.
#[inline(always)]
fn device_further(address: u64, first: u32) -> Option<u8> {
    for way in 0..8 {
        let index = (first + way) & (DEVICES - 1);
        let Some(mut slot) = DEVICE_TABLE.slot(index) else {
            continue;
        };
        if slot.key == address {
            return Some(index as u8);
        }
        // Two CPUs may meet a new device at once: one of them gets the place, the other the next.
        if slot.key == 0 && try_lock(&mut slot.lock) {
            slot.name = read(address, settings::dev_name());
            slot.ifindex = read(address, settings::dev_ifindex());
            let net: u64 = read(address, settings::dev_net());
            slot.namespace = read(net, settings::net_inum());
            let border = BORDERS.value(&border_key(slot.namespace, slot.ifindex));
            slot.border = border.unwrap_or_default();
            slot.key = address;
            return Some(index as u8);
        }
    }
    count_without_holder(Counter::DeviceTable);
    None
}

/// The totals of a stage on this CPU.
#[inline(always)]
pub fn stage(key: u64) -> Option<Slot<Stage>> {
    let mut index = (key.wrapping_mul(SPREAD_WIDE) >> settings::stages_shift()) as u32;
    if STAGE_KEYS.slot(index).is_none_or(|known| *known != key) {
        index = find_stage(key, index).checked_sub(1)?;
    }
    STAGE_TOTALS.slot(index)
}

/// 1 + the place of a stage that is not at its first; a new one takes that, the next, or one of those behind. 0:
/// there is none.
#[cold]
#[inline(never)]
fn find_stage(key: u64, first: u32) -> u32 {
    // Not more of them: the verifier goes through every one, from each place in a program where time is spent.
    for way in 0..2 {
        let index = (first + way) & settings::stages_mask();
        let Some(mut place) = STAGE_KEYS.slot(index) else {
            continue;
        };
        let mut known = read_once(&*place);
        if known == 0 {
            // Another CPU may take the place first, for the same stage even.
            known = swap_if(&mut place, 0, key);
        }
        if known == 0 || known == key {
            return index + 1;
        }
    }
    further_stage(key)
}

#[inline(always)]
fn further_stage(key: u64) -> u32 {
    if let Some(index) = FURTHER_STAGES.value(&key) {
        return index + 1;
    }
    let Some(mut taken) = FURTHER_TAKEN.slot(0) else { return 0 };
    let index = settings::stages_mask() + 1 + fetch_add(&mut taken, 1) as u32;
    if index >= settings::stages_most() {
        return 0;
    }
    let Some(mut place) = STAGE_KEYS.slot(index) else { return 0 };
    if FURTHER_STAGES.insert(key, index, BPF_NOEXIST).is_err() {
        // Another CPU was first; the number stays unused.
        return FURTHER_STAGES.value(&key).map_or(0, |index| index + 1);
    }
    *place = key;
    index + 1
}
