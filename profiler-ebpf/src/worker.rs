//! io_uring's workers (`io-wq`), which make operations in the stead of the thread that submitted them: every one on file systems that cannot
//! promise not to wait.
//!
//! A worker has one operation at a time. Of which its direct I/O is, the kernel says by the address of its `kiocb`, which is that of the request that was
//! given to the workers. Nothing says so of what goes through the page cache.

use aya_ebpf::{macros::map, maps::LruHashMap};
use profiler_common::{
    CLIENT, Counter, Thread,
    point::{AT_BIO, IO_RUNNING, at_disk},
};

use crate::{
    file::{in_ring, key_of, maker, turn_to},
    kernel::read,
    maps::{count_inside, current, now},
    path::Fault,
    phase::{Phase, following},
    settings::{self, NO_FIELD},
    slots::socket_in,
    token::Parts,
};

/// Requests that workers have been given, of which the oldest go.
const REQUESTS_MOST: u32 = 4096;

/// By their addresses: the keys of their operations.
#[map]
static GIVEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(REQUESTS_MOST, 0);

/// `io_uring:io_uring_queue_async_work`: the workers are given an operation.
#[inline(always)]
pub fn given(control: Phase<true>, ring: u64, request: u64, name: u64) -> Fault {
    maker()?;
    count_inside(&control, now(), Counter::ByWorkers);
    let _ = GIVEN.insert(&request, &key_of(in_ring(ring, name)), 0);
    None
}

/// The same where its record does not say which.
#[inline(always)]
pub fn counted(control: Phase<true>) -> Fault {
    maker()?;
    count_inside(&control, now(), Counter::ByWorkers);
    None
}

/// `iomap:iomap_dio_rw_begin` in a thread that is in no call: a worker begins with the operation of this `kiocb`, or of the one that the
/// `kiocb` of a file system below another (overlayfs) was made for.
#[inline(always)]
pub fn begins<const D: bool>(control: Phase<D>, thread: &mut Thread, kernels: u64) -> Fault {
    let mut key = unsafe { GIVEN.get(&kernels) }.copied().unwrap_or(0);
    if key == 0 && settings::over_iocb() != NO_FIELD {
        let own: u64 = read(kernels, settings::over_iocb());
        key = unsafe { GIVEN.get(&own) }.copied().unwrap_or(0);
    }
    turn_to(control, thread, key);
    if key != 0 {
        count_inside(&control, now(), Counter::InWorkers);
    }
    None
}

/// The first bio of an operation is queued at this disk: if a worker does, which had to be woken, that is a part of the way. Looked at by the
/// verifier once.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn worker_makes_bio(slot: u32, disk: u32, at_ns: u64) -> u32 {
    let (Some(control), Some(operation), Some(thread)) = (following::<true>(), socket_in(slot), current()) else {
        return 0;
    };
    if thread.tid != operation.reader && operation.token.role == CLIENT {
        let mut parts = Parts::of(&operation.token);
        parts.via(&control, IO_RUNNING, thread.switch_in_ns);
        parts.end(&control, at_disk(AT_BIO, disk as u8), at_ns);
    }
    0
}
