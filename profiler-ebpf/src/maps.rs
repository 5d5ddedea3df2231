//! All maps, and the look-ups that every program shares.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use profiler_common::{
    COUNTERS, Control, Counter, Cpu, Device, OFF, PACKET_SLOTS, Packet, RECORD_SLOTS, Record, SLOTS, STAGE_KEYS,
    STAGES, Socket, Stage, Thread, Wait,
    point::DEVICES,
    state::{RUNNING, STATES},
};

use crate::{
    kernel::{low, read},
    settings,
    token::lose,
};

/// `BPF_F_MMAPABLE`: user space reads the array as memory, without a system call per entry.
const MMAPABLE: u32 = 1 << 10;

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);
#[map]
static ROLES: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);
#[map]
static CALL_KINDS: Array<u32> = Array::with_max_entries(profiler_common::SYSTEM_CALLS, 0);
#[map]
static SOCKETS: Array<Socket> = Array::with_max_entries(SLOTS, MMAPABLE);
#[map]
static PACKETS: Array<Packet> = Array::with_max_entries(PACKET_SLOTS, MMAPABLE);
#[map]
static THREADS: Array<Thread> = Array::with_max_entries(SLOTS, MMAPABLE);
#[map]
static WAITS: Array<Wait> = Array::with_max_entries(SLOTS, 0);
#[map]
static DEVICE_TABLE: Array<Device> = Array::with_max_entries(DEVICES, MMAPABLE);
#[map]
static STAGE_NUMBERS: Array<u32> = Array::with_max_entries(STAGE_KEYS, 0);
#[map]
static STAGE_NEXT: Array<u32> = Array::with_max_entries(1, MMAPABLE);
#[map]
static STAGE_OF_NUMBER: Array<u32> = Array::with_max_entries(STAGES, MMAPABLE);
/// Numbers already given out, of devices and stages. Rust has no compare-and-swap for BPF; an insertion that must not
/// find its key is one, and both are numbered only once.
#[map]
static CLAIMED: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);
#[map]
static STAGE_TOTALS: PerCpuArray<Stage> = PerCpuArray::with_max_entries(STAGES, 0);
#[map]
static COUNTS: PerCpuArray<[u64; COUNTERS]> = PerCpuArray::with_max_entries(1, 0);
#[map]
static CPUS: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);
/// Occurrences and ns of each state of the threads of each role.
#[map]
static STATE_TOTALS: PerCpuArray<[[[u64; 2]; STATES]; 2]> = PerCpuArray::with_max_entries(1, 0);
#[map]
static RECORDS: Array<Record> = Array::with_max_entries(RECORD_SLOTS, MMAPABLE);
#[map]
pub static RECORD_RING: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
#[map]
pub static EVENT_RING: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
#[map]
static LAST_LOGGED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `CLOCK_MONOTONIC`, ns: the clock of the client's and the agent's times, too.
#[inline(always)]
pub fn now() -> u64 {
    unsafe { bpf_ktime_get_ns() }
}

/// The phase, while requests are followed.
#[inline(always)]
pub fn following() -> Option<&'static Control> {
    let control = unsafe { &*CONTROL.get_ptr(0)? };
    (unsafe { core::ptr::read_volatile(&control.state) } != OFF).then_some(control)
}

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        unsafe { (*counts)[counter as usize & (COUNTERS - 1)] += 1 }
    }
}

/// Counts what happens inside the recorded interval.
#[inline(always)]
pub fn count_inside(control: &Control, at_ns: u64, counter: Counter) {
    if at_ns >= control.open_ns && at_ns < control.close_ns {
        count(counter);
    }
}

/// Whether this CPU may send another line to the terminal: ten a second.
#[inline(always)]
pub fn may_log() -> bool {
    if settings::debug_probes() == 0 {
        return false;
    }
    let Some(last) = LAST_LOGGED.get_ptr_mut(0) else {
        return false;
    };
    let at = now();
    let due = at.wrapping_sub(unsafe { *last }) > 100_000_000;
    if due {
        unsafe { *last = at }
    }
    due
}

const CLAIM_DEVICE: u32 = 1 << 30;
const CLAIM_STAGE: u32 = 1 << 29;
const BPF_NOEXIST: u64 = 1;

/// Takes a number for good; false: it is taken.
#[inline(always)]
fn claim(number: u32) -> bool {
    CLAIMED.insert(&number, &1, BPF_NOEXIST).is_ok()
}

#[inline(always)]
fn mix(address: u64) -> u32 {
    // Fibonacci hashing (Knuth, TAOCP 6.4): addresses of one slab cache differ in few bits.
    low(address).wrapping_mul(0x9E37_79B1) >> 16
}

/// Slots probed for one key: a socket stays long, so with fewer, fifty of them would clash for good.
const WAYS: u32 = 4;

#[inline(always)]
pub fn socket(address: u64) -> Option<&'static mut Socket> {
    let first = mix(address);
    for way in 0..WAYS {
        let slot = unsafe { &mut *SOCKETS.get_ptr_mut((first + way) & (SLOTS - 1))? };
        if slot.key == address {
            return Some(slot);
        }
    }
    None
}

/// Takes a slot's lock; false: another CPU has it. Without it, two CPUs that find the same slot free would both write it, and
/// one's token would vanish uncounted. Rust's own compare-and-swap does not exist for BPF.
#[inline(always)]
fn try_lock(lock: &mut u64) -> bool {
    let mut before = 0u64;
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({lock} + 0, r0, {one})",
            lock = in(reg) lock,
            one = in(reg) 1u64,
            inout("r0") before,
        );
    }
    before == 0
}

/// Gives it back.
#[inline(always)]
fn unlock(lock: &mut u64) {
    unsafe { core::ptr::write_volatile(lock, 0) }
}

/// Starts to follow a socket; a slot that no phase has used since `epoch` began counts as free.
#[inline(always)]
pub fn put_socket(value: &Socket) -> bool {
    let first = mix(value.key);
    for way in 0..WAYS {
        let index = (first + way) & (SLOTS - 1);
        let Some(slot) = SOCKETS.get_ptr_mut(index) else {
            return false;
        };
        let slot = unsafe { &mut *slot };
        if !try_lock(&mut slot.lock) {
            continue;
        }
        let free = slot.key == 0 || slot.key == value.key || slot.token.epoch != value.token.epoch;
        if free {
            *slot = *value;
            slot.slot = index;
        }
        unlock(&mut slot.lock);
        if free {
            return true;
        }
    }
    false
}

#[inline(always)]
pub fn packet(address: u64) -> Option<&'static mut Packet> {
    let first = mix(address);
    for way in 0..WAYS {
        let slot = unsafe { &mut *PACKETS.get_ptr_mut((first + way) & (PACKET_SLOTS - 1))? };
        if slot.key == address {
            return Some(slot);
        }
    }
    None
}

/// Starts to follow an skb. What still stands at its address was freed without notice: that token is lost.
#[inline(always)]
pub fn put_packet(value: &Packet) -> bool {
    // Its own address first: an entry of it further on must not survive a free slot before it.
    if let Some(slot) = packet(value.key) {
        if try_lock(&mut slot.lock) {
            // A free one may have been taken for another address meanwhile.
            let ours = slot.key == value.key;
            if ours {
                if slot.live != 0 && slot.token.epoch == value.token.epoch {
                    lose(&slot.token, slot.counted, Counter::LostRecycled);
                }
                *slot = *value;
            }
            unlock(&mut slot.lock);
            if ours {
                return true;
            }
        }
    }
    let first = mix(value.key);
    for way in 0..WAYS {
        let Some(slot) = PACKETS.get_ptr_mut((first + way) & (PACKET_SLOTS - 1)) else {
            return false;
        };
        let slot = unsafe { &mut *slot };
        if !try_lock(&mut slot.lock) {
            continue;
        }
        let free = slot.live == 0 || slot.token.epoch != value.token.epoch;
        if free {
            *slot = *value;
        }
        unlock(&mut slot.lock);
        if free {
            return true;
        }
    }
    false
}

/// The thread with this id, if it is one of the run's and was seen in a call.
#[inline(always)]
pub fn thread(tid: u32) -> Option<&'static mut Thread> {
    // The idle threads' number, and that of a free slot.
    if tid == 0 {
        return None;
    }
    let slot = unsafe { &mut *THREADS.get_ptr_mut(tid & (SLOTS - 1))? };
    (slot.tid == tid).then_some(slot)
}

/// The current thread, if its process is of the run.
#[inline(always)]
pub fn current() -> Option<&'static mut Thread> {
    let ids = bpf_get_current_pid_tgid();
    let tid = ids as u32;
    // An idle thread is nobody's; its number is that of a free slot.
    if tid == 0 {
        return None;
    }
    let slot = unsafe { &mut *THREADS.get_ptr_mut(tid & (SLOTS - 1))? };
    if slot.tid == tid {
        return Some(slot);
    }
    let role = role((ids >> 32) as u32)?;
    if slot.tid != 0 {
        count(Counter::ThreadClash);
    }
    *slot = Thread { tid, role, state: RUNNING, ..Thread::default() };
    Some(slot)
}

#[inline(always)]
pub fn role(tgid: u32) -> Option<u32> {
    unsafe { ROLES.get(&tgid) }.copied()
}
#[inline(always)]
pub fn set_role(tgid: u32, role: u32) {
    // A full table shows as sockets that are not followed.
    let _ = ROLES.insert(&tgid, &role, 0);
}
#[inline(always)]
pub fn forget_role(tgid: u32) {
    let _ = ROLES.remove(&tgid);
}

/// What kind of call (`CALL_…`) a system call is, 0: one that does not matter.
#[inline(always)]
pub fn call_kind(number: u64) -> u32 {
    CALL_KINDS.get_ptr(number as u32).map_or(0, |kind| unsafe { *kind })
}

/// What runs on this CPU.
#[inline(always)]
pub fn cpu() -> Option<&'static mut Cpu> {
    CPUS.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

/// What the reader of the socket in this slot has done.
#[inline(always)]
pub fn wait(slot: u32) -> Option<&'static mut Wait> {
    WAITS.get_ptr_mut(slot & (SLOTS - 1)).map(|wait| unsafe { &mut *wait })
}

/// Adds the time that a thread of a role was in a state.
#[inline(always)]
pub fn add_state(role: u32, state: u32, ns: u64) {
    if let Some(totals) = STATE_TOTALS.get_ptr_mut(0) {
        let mut index = u64::from(role) * STATES as u64 + u64::from(state);
        unsafe {
            core::arch::asm!("{index} &= 15", index = inout(reg) index);
            let total = (*totals).as_flattened_mut().get_unchecked_mut(index as usize);
            total[0] += 1;
            total[1] += ns;
        }
    }
}

/// Adds to a number that other CPUs add to as well: Rust's own atomics do not exist for BPF.
#[inline(always)]
pub fn add_shared(number: &mut u64, value: i64) {
    unsafe {
        core::arch::asm!("lock *(u64 *)({number} + 0) += {value}", number = in(reg) number, value = in(reg) value);
    }
}

#[inline(always)]
pub fn record(slot: u32) -> Option<&'static mut Record> {
    RECORDS.get_ptr_mut(slot & (RECORD_SLOTS - 1)).map(|record| unsafe { &mut *record })
}

/// Index of a device; its name is read only the first time.
#[inline(always)]
pub fn device(address: u64) -> Option<u8> {
    let first = low(address) >> 12;
    for way in 0..8 {
        let index = (first + way) & (DEVICES - 1);
        let slot = unsafe { &mut *DEVICE_TABLE.get_ptr_mut(index)? };
        if slot.key == address {
            return Some(index as u8);
        }
        // Two CPUs may meet a new device at once: one of them gets the slot, the other the next.
        if slot.key == 0 && claim(CLAIM_DEVICE | index) {
            slot.name = read(address, settings::dev_name());
            slot.ifindex = read(address, settings::dev_ifindex());
            let net: u64 = read(address, settings::dev_net());
            slot.namespace = read(net, settings::net_inum());
            slot.key = address;
            return Some(index as u8);
        }
    }
    count(Counter::DeviceTable);
    None
}

/// The totals of a stage on this CPU. Should two CPUs number a new stage at once, it gets two numbers, and user
/// space adds them up.
#[inline(always)]
pub fn stage(key: u32) -> Option<&'static mut Stage> {
    let number = STAGE_NUMBERS.get_ptr_mut(key)?;
    let mut index = unsafe { *number };
    if index == 0 {
        index = new_stage(key);
        if index == 0 {
            return None;
        }
        unsafe { *number = index }
    }
    STAGE_TOTALS.get_ptr_mut(index).map(|stage| unsafe { &mut *stage })
}

/// The next free number; should another CPU take it first, the one after that.
#[cold]
#[inline(never)]
fn new_stage(key: u32) -> u32 {
    let first = next_stage(key);
    if first == 0 { next_stage(key) } else { first }
}

/// 0: it was taken, or there is none left.
#[inline(always)]
fn next_stage(key: u32) -> u32 {
    let Some(next) = STAGE_NEXT.get_ptr_mut(0) else {
        return 0;
    };
    let index = unsafe { *next } + 1;
    if index >= STAGES {
        return 0;
    }
    unsafe { *next = index }
    if !claim(CLAIM_STAGE | index) {
        return 0;
    }
    let Some(of_number) = STAGE_OF_NUMBER.get_ptr_mut(index) else {
        return 0;
    };
    unsafe { *of_number = key }
    index
}
