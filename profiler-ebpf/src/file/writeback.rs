//! Write-back of what operations left in the page cache: bios that threads of the kernel's make, charged to whose
//! file it is.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use profiler_common::Counter;

use crate::{
    core::{
        holder::Fault,
        kernel::read,
        maps::{FILES, FLUSHERS, add_inside},
        phase::Phase,
        settings::{self, NO_FIELD},
        slot::Keyed,
    },
    file::operation::maker,
};

/// What kind of file an inode is (`S_IFMT`), and a disk itself, whose pages are everybody's.
const KIND: u16 = 0o170_000;
const DISK: u16 = 0o060_000;

fn current() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// `writeback:writeback_dirty_folio`, by an operation: the page is its file's.
#[inline(always)]
pub fn dirtied(mapping: u64) -> Fault {
    // The verifier knows that the kernel gives none at times.
    if mapping == 0 || settings::mapping_host() == NO_FIELD {
        return None;
    }
    maker()?;
    let inode: u64 = read(mapping, settings::mapping_host());
    let number: u64 = read(inode, settings::inode_number());
    let kind: u16 = read(inode, settings::inode_mode());
    if kind & KIND != DISK && FILES.value(&inode).is_none_or(|known| known != number) {
        let _ = FILES.insert(inode, number, 0);
    }
    None
}

/// `writeback:writeback_single_inode_start`: from now on, the thread writes this file's pages.
#[inline(always)]
pub fn begins(control: Phase<true>, inode: u64) -> Fault {
    let number: u64 = read(inode, settings::inode_number());
    if FILES.value(&inode).is_some_and(|known| known == number) {
        let _ = FLUSHERS.insert(current(), control.epoch(), 0);
        None
    } else {
        ends()
    }
}

/// `writeback:writeback_single_inode`: it has done what it wanted.
#[inline(always)]
pub fn ends() -> Fault {
    let _ = FLUSHERS.remove(current());
    None
}

/// Whether the current thread, which makes no operations, writes back what they wrote.
#[inline(always)]
pub fn is_at_it<const D: bool>(control: Phase<D>) -> bool {
    FLUSHERS.value(&current()).is_some_and(|epoch| epoch == control.epoch())
}

/// A bio of so many bytes is done, which was with its disk since then. Of devices that pass their bios on to others,
/// only those of the disk below are ever issued.
#[inline(always)]
pub fn done<const D: bool>(control: Phase<D>, bytes: u32, issued_ns: u64, at_ns: u64) {
    if issued_ns == 0 || at_ns <= issued_ns {
        return;
    }
    if bytes != 0 {
        add_inside(&control, control.turn, at_ns, Counter::WriteBacks, 1);
        add_inside(&control, control.turn, at_ns, Counter::WriteBackBytes, u64::from(bytes));
    }
    add_inside(&control, control.turn, at_ns, Counter::WriteBackNs, at_ns - issued_ns);
}
