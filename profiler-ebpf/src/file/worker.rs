//! io_uring's workers (`io-wq`), which make operations in the stead of the thread that submitted them: every one on
//! file systems that cannot promise not to wait.
//!
//! A worker has one operation at a time. Of which its direct I/O is, the kernel says by the address of its `kiocb`,
//! which is that of the request that was given to the workers. Nothing says so of what goes through the page cache.

use profiler_common::{
    CLIENT, Counter, Given, Thread,
    point::{IO_RUNNING, PlaceId, Point},
};

use crate::{
    core::{
        holder::Fault,
        kernel::{Kernel, read},
        maps::{GIVEN, count_inside, current, now},
        phase::{Phase, following},
        settings::{self, NO_FIELD},
        slot::{Keyed, Slot},
        slots::operation_in,
        token::Parts,
    },
    file::operation::{in_ring, key_of, maker, turn_to},
};

/// `io_uring:io_uring_queue_async_work`: the workers are given an operation.
#[inline(always)]
pub fn given(control: Phase<true>, ring: u64, request: u64, name: u64) -> Fault {
    let maker = maker()?;
    count_inside(&control, control.turn.of(maker.configuration), now(), Counter::ByWorkers);
    let _ = GIVEN.insert(request, Given { key: key_of(in_ring(ring, name)), epoch: control.epoch().into() }, 0);
    None
}

/// The workers are given an operation, and its record does not say which.
#[inline(always)]
pub fn counted(control: Phase<true>) -> Fault {
    let maker = maker()?;
    count_inside(&control, control.turn.of(maker.configuration), now(), Counter::ByWorkers);
    None
}

/// `iomap:iomap_dio_rw_begin` in a thread that is in no call: a worker begins with the operation of this `kiocb`, or
/// of the one that the `kiocb` of a file system below another (overlayfs) was made for.
#[inline(always)]
pub fn begins<const D: bool>(control: Phase<D>, mut thread: Slot<Thread>, kernels: u64) -> Fault {
    let of = |request: u64| {
        let given = GIVEN.value(&request).filter(|given| given.epoch == u64::from(control.epoch()));
        given.map_or(0, |given| given.key)
    };
    let mut key = of(kernels);
    if key == 0 && settings::over_iocb() != NO_FIELD {
        key = of(read(kernels, settings::over_iocb()));
    }
    // A second try is the same operation's.
    if key != 0 && (key != thread.submitting || thread.memory != kernels) {
        count_inside(&control, control.turn.of(thread.configuration), now(), Counter::InWorkers);
    }
    thread.memory = kernels;
    turn_to(control, thread, key);
    None
}

/// Whether the thread that queues a bio of an asynchronous operation submits that, or is a worker that makes it: what
/// a worker does next, through the page cache, say, tells nobody when it begins.
#[inline(always)]
pub fn made<K: Kernel>(bio: u64) -> bool {
    let Some(thread) = maker() else { return false };
    if thread.file_call != 0 || settings::dio_iocb() == NO_FIELD {
        return true;
    }
    let direct: u64 = K::load(bio, settings::bio_private());
    let iocb: u64 = read(direct, settings::dio_iocb());
    iocb == thread.memory
}

/// The first bio of an operation is queued at this disk: if a worker does, which had to be woken, that is a part of
/// the way. Looked at by the verifier once.
#[cold]
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn worker_makes_bio(slot: u32, disk: u32, at_ns: u64) -> u32 {
    let (Some(_), Some(operation), Some(thread)) = (following::<true>(), operation_in(slot), current()) else {
        return 0;
    };
    if thread.tid != operation.thread && operation.token.role() == CLIENT {
        let mut parts = Parts::of(&operation.token, operation.counted);
        parts.via(IO_RUNNING, thread.switch_in_ns);
        parts.end(PlaceId::at(Point::Bio, disk as u8), at_ns);
    }
    0
}
