//! Bios that are held back, by the limit of a control group above all: they are queued later, by a thread of the
//! kernel's, in the stead of the one that made them. Whose they are, their direct I/O says.

use profiler_common::{Bio, Counter, Operation, Thread};

use crate::{
    core::{
        holder::Fault,
        instructions::fetch_add_word,
        kernel::{Kernel, read},
        maps::{MAKER, count, count_inside, now},
        phase::Phase,
        settings::{self, NO_FIELD},
        slot::{Indexed, Slot},
        slots::operation,
    },
    file::{
        bios,
        operation::{disk_under, in_ring, is_under_way, key_in, key_of_thread},
    },
};

/// A thread makes an operation.
#[inline(always)]
pub fn note_maker(_thread: &Thread) {
    if let Some(mut maker) = MAKER.slot(0) {
        *maker = aya_ebpf::helpers::bpf_get_current_pid_tgid() >> 32;
    }
}

/// The operation of a bio that a thread of the kernel's queues, if it is direct I/O of one that is under way.
#[inline(always)]
fn owner<K: Kernel>(bio: u64) -> Option<Slot<Operation>> {
    let direct: u64 = K::load(bio, settings::bio_private());
    if direct == 0 || settings::dio_iocb() == NO_FIELD || settings::dio_waiter() == NO_FIELD {
        return None;
    }
    let iocb: u64 = read(direct, settings::dio_iocb());
    // The thread that waits for the call; where none does, the place holds something else.
    let waiter: u64 = read(direct, settings::dio_waiter());
    let tid: u32 = read(waiter, settings::task_pid());
    if tid != 0
        && let Some(operation) = operation(key_of_thread(tid))
    {
        return Some(operation);
    }
    let process = MAKER.slot(0).map_or(0, |maker| *maker);
    if settings::kiocb_iocb() != NO_FIELD
        && let Some(operation) = operation(key_in(process, read(iocb, settings::kiocb_iocb())))
    {
        return Some(operation);
    }
    if settings::ring_request_ctx() == NO_FIELD || settings::ring_request_data() == NO_FIELD {
        return None;
    }
    let ring: u64 = read(iocb, settings::ring_request_ctx());
    operation(key_in(process, in_ring(ring, read(iocb, settings::ring_request_data()))))
}

/// A bio is queued by a thread that makes no operations. It is noted with its time; the operation goes through that
/// when it is done, as only its own thread moves it.
#[inline(always)]
pub fn queued<K: Kernel, const D: bool>(control: Phase<D>, bio: u64) -> Option<Fault> {
    let mut operation = owner::<K>(bio).filter(|operation| is_under_way(control, operation))?;
    let at_ns = now();
    let mut entry = Bio {
        address: bio,
        slot: operation.slot,
        number: operation.number,
        disk: disk_under::<K>(bio)?,
        epoch: control.epoch(),
        above_ns: at_ns,
        ..Bio::default()
    };
    bios::may_be_passed_on(&mut entry);
    if !bios::put(&entry) {
        count(operation.token.turn, Counter::BioTable);
        return Some(Some(Counter::BioTable));
    }
    fetch_add_word(&mut operation.bios, 1);
    count_inside(&control, operation.token.turn, at_ns, Counter::Bios);
    count_inside(&control, operation.token.turn, at_ns, Counter::HeldBack);
    Some(None)
}
