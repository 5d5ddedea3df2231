//! File operations: held by their system call, then by its bios, then by the call again.
//!
//! Each thread has a place among the sockets for the operation that it is in. Its bios are known by their address, from when they
//! are queued until they are completed. The operation moves on with the first bio that is queued while none is under way, and with
//! the last that is completed: what lies between is the time until that one was issued, and the device's.

use aya_ebpf::{macros::map, maps::HashMap};
use profiler_common::{
    CALL_FILE, CLIENT, Counter, SERVER, Socket, Token,
    point::{AT_BIO, AT_COMPLETE, AT_INSERT, AT_ISSUE, ENTER, EXIT, SWITCH_IN, WAKEUP, WAKING, at_disk, disk_of},
};

use crate::{
    kernel::{Kernel, read},
    loss::give_up,
    maps::{call_kind, count, count_inside, current, disk, fetch_add, now, thread},
    path::{Fault, finish_request, follow_socket, tag_of},
    phase::Phase,
    settings,
    slots::{socket, socket_in},
    thread::work_on,
    token::{Parts, append, begin_record, commit_record, lose, pass},
};

/// bios under way that can be told apart.
const BIOS_MOST: u32 = 16384;
/// bios of one request that are looked at: the rest of a longer one counts as issued when it was queued.
const MERGED_MOST: u32 = 64;
/// Keys of threads lie where the kernel has no addresses.
const THREADS: u64 = 1 << 62;

/// A bio under way.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Bio {
    /// Place of its operation, and which one of that thread's it is.
    slot: u32,
    number: u32,
    /// When its request was given to the scheduler, and to the driver, ns; 0: not.
    inserted_ns: u64,
    issued_ns: u64,
    /// Index of its disk.
    disk: u32,
    reserved: u32,
}

#[map]
static BIOS: HashMap<u64, Bio> = HashMap::with_max_entries(BIOS_MOST, 0);

/// The operation that the current thread is in, or was in last; the thread's number with it.
#[inline(always)]
fn of_current() -> Option<(u32, Option<&'static mut Socket>)> {
    let thread = current()?;
    if thread.role != u32::from(SERVER) {
        return None;
    }
    Some((thread.tid, socket(THREADS | u64::from(thread.tid))))
}

/// `raw_syscalls:sys_enter`
#[inline(always)]
pub fn entered<const D: bool>(control: Phase<D>, number: u64) -> Fault {
    if call_kind(number) != CALL_FILE {
        return None;
    }
    let (tid, known) = of_current()?;
    let at_ns = now();
    let first = Token { at_ns, epoch: control.epoch, record: 0, point: ENTER, role: CLIENT };
    let Some(operation) = known else {
        return follow_socket(THREADS | u64::from(tid), first, tid);
    };
    operation.crossing = operation.crossing.wrapping_add(1);
    operation.bios = 0;
    let mut fault = None;
    if operation.token.epoch != control.epoch || operation.token.point != EXIT {
        if operation.token.epoch == control.epoch {
            // Its return was not seen.
            fault = Some(lose(&operation.token, operation.counted, Counter::LostResynchronised));
        }
        operation.token = first;
        operation.counted = 0;
    } else {
        if let Err(cause) = pass(&control, &mut operation.token, ENTER, at_ns) {
            return give_up(&control, operation, cause);
        }
        operation.counted = (at_ns >= control.open_ns && at_ns < control.close_ns) as u8;
        if operation.counted != 0 {
            count(Counter::Followed);
        }
        let slot = begin_record(&control, operation);
        if slot != 0 {
            append(slot, CLIENT, ENTER, at_ns);
        }
        operation.token.record = slot;
    }
    if control.tags() {
        work_on(tag_of(operation), false);
    }
    fault
}

/// `raw_syscalls:sys_exit`
#[inline(always)]
pub fn left<const D: bool>(control: Phase<D>) -> Fault {
    let (tid, known) = of_current()?;
    let operation = known?;
    if operation.token.epoch != control.epoch || operation.token.point == EXIT {
        return None;
    }
    let at_ns = now();
    if control.splits() {
        if let Some(thread) = thread(tid) {
            let mut parts = Parts::of(&operation.token);
            parts.via(&control, WAKING, thread.waking_ns);
            parts.via(&control, WAKEUP, thread.wakeup_ns);
            parts.via(&control, SWITCH_IN, thread.switch_in_ns);
            parts.end(&control, EXIT, at_ns);
        }
    }
    if let Err(cause) = pass(&control, &mut operation.token, EXIT, at_ns) {
        return give_up(&control, operation, cause);
    }
    finish_request(control, operation, at_ns);
    if operation.token.record != 0 {
        commit_record(operation.token.record);
        operation.token.record = 0;
    }
    if control.tags() {
        work_on(tag_of(operation), false);
    }
    None
}

/// `block:block_bio_queue`, in the context of whoever submits.
#[inline(always)]
pub fn queued<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    let operation = of_current()?.1?;
    if operation.token.epoch != control.epoch || operation.token.point == EXIT {
        return None;
    }
    let at_ns = now();
    let device: u64 = K::load(bio, settings::bio_bdev());
    let disk = u32::from(disk(read(device, settings::bdev_disk()))?);
    let entry = Bio { slot: operation.slot, number: operation.crossing, disk, ..Bio::default() };
    if BIOS.insert(&bio, &entry, 0).is_err() {
        count(Counter::BioTable);
        return Some(Counter::BioTable);
    }
    count_inside(&control, at_ns, Counter::Bios);
    let waits = operation.token.point == ENTER || matches!(disk_of(operation.token.point), Some((AT_COMPLETE, _)));
    if fetch_add(&mut operation.bios, 1) == 0 && waits {
        if let Err(cause) = pass(&control, &mut operation.token, at_disk(AT_BIO, disk as u8), at_ns) {
            return give_up(&control, operation, cause);
        }
        if control.tags() {
            work_on(tag_of(operation), false);
        }
    }
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
        if let Some(entry) = BIOS.get_ptr_mut(&bio) {
            let entry = unsafe { &mut *entry };
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

/// `block:block_rq_insert`
#[inline(always)]
pub fn inserted(request: u64) -> Fault {
    note(request, false)
}

/// `block:block_rq_issue`
#[inline(always)]
pub fn issued(request: u64) -> Fault {
    note(request, true)
}

/// `block:block_rq_requeue`
#[inline(always)]
pub fn requeued<const D: bool>(control: Phase<D>, request: u64) -> Fault {
    let bio: u64 = read(request, settings::request_bio());
    if unsafe { BIOS.get(&bio) }.is_some() {
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
            break;
        }
        let size: u32 = read(bio, settings::bio_size());
        if size > left {
            break;
        }
        left -= size;
        complete(control, bio, status, at_ns);
        bio = read(bio, settings::bio_next());
    }
    None
}

/// `block:block_bio_complete`: of disks that take bios as they are. Where requests are made of them, it is silent.
#[inline(always)]
pub fn bio_done<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Fault {
    complete(control, bio, K::load(bio, settings::bio_status()), now());
    None
}

/// A bio is done; with the last of its operation, that goes on.
#[cold]
#[inline(never)]
fn complete<const D: bool>(control: Phase<D>, bio: u64, status: u8, at_ns: u64) {
    if let Some(entry) = unsafe { BIOS.get(&bio) }.copied() {
        let _ = BIOS.remove(&bio);
        go_on(control, &entry, status, at_ns);
    }
}

#[inline(always)]
fn go_on<const D: bool>(control: Phase<D>, entry: &Bio, status: u8, at_ns: u64) -> Fault {
    let operation = socket_in(entry.slot)?;
    if operation.token.epoch != control.epoch {
        return None;
    }
    if status != 0 {
        count_inside(&control, at_ns, Counter::BioErrors);
    }
    if operation.crossing != entry.number || operation.token.point == EXIT {
        count_inside(&control, at_ns, Counter::BiosLater);
        return None;
    }
    if fetch_add(&mut operation.bios, -1) != 1 {
        return None;
    }
    let disk = entry.disk as u8;
    if entry.issued_ns > operation.token.at_ns {
        if control.splits() {
            let mut parts = Parts::of(&operation.token);
            parts.via(&control, at_disk(AT_INSERT, disk), entry.inserted_ns);
            parts.end(&control, at_disk(AT_ISSUE, disk), entry.issued_ns);
        }
        if let Err(cause) = pass(&control, &mut operation.token, at_disk(AT_ISSUE, disk), entry.issued_ns) {
            return give_up(&control, operation, cause);
        }
    }
    if let Err(cause) = pass(&control, &mut operation.token, at_disk(AT_COMPLETE, disk), at_ns) {
        return give_up(&control, operation, cause);
    }
    if control.tags() {
        // Its thread works on it, though somebody else has moved it on.
        if let Some(thread) = thread(operation.reader) {
            thread.tag = tag_of(operation);
        }
    }
    None
}
