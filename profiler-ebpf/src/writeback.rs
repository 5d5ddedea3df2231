//! Write-back of what operations left in the page cache: bios that threads of the kernel's make, charged to whose file it is.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{HashMap, LruHashMap},
};
use profiler_common::Counter;

use crate::{
    file::maker,
    kernel::read,
    maps::{add_inside, now},
    path::Fault,
    phase::Phase,
    settings::{self, NO_FIELD},
};

/// Files with pages of the operations' that can be told apart.
const FILES_MOST: u32 = 4096;
/// Threads that write back at once.
const FLUSHERS_MOST: u32 = 256;

/// By the addresses of their inodes.
#[map]
static FILES: LruHashMap<u64, u32> = LruHashMap::with_max_entries(FILES_MOST, 0);
/// Which of them a thread is at.
#[map]
static FLUSHERS: HashMap<u32, u64> = HashMap::with_max_entries(FLUSHERS_MOST, 0);

/// `writeback:writeback_dirty_folio`, by an operation: the page is its file's.
#[inline(always)]
pub fn dirtied(control: Phase<true>, mapping: u64) -> Fault {
    // The verifier knows that the kernel gives none at times.
    if mapping == 0 || settings::mapping_host() == NO_FIELD {
        return None;
    }
    maker()?;
    let inode: u64 = read(mapping, settings::mapping_host());
    if unsafe { FILES.get(&inode) }.is_none() {
        let _ = FILES.insert(&inode, &control.epoch, 0);
    }
    None
}

/// `writeback:writeback_single_inode_start`: from now on, the thread writes this file's pages.
#[inline(always)]
pub fn begins(inode: u64) -> Fault {
    if unsafe { FILES.get(&inode) }.is_some() {
        let _ = FLUSHERS.insert(&(bpf_get_current_pid_tgid() as u32), &inode, 0);
    }
    None
}

/// `writeback:writeback_single_inode`: it has done what it wanted.
#[inline(always)]
pub fn ends() -> Fault {
    let _ = FLUSHERS.remove(&(bpf_get_current_pid_tgid() as u32));
    None
}

/// Whether the current thread, which makes no operations, writes back what they wrote.
#[inline(always)]
pub fn is_at_it() -> bool {
    unsafe { FLUSHERS.get(&(bpf_get_current_pid_tgid() as u32)) }.is_some()
}

/// A bio of so many bytes is given to the block layer.
#[inline(always)]
pub fn gives<const D: bool>(control: Phase<D>, bytes: u32) {
    let at_ns = now();
    add_inside(&control, at_ns, Counter::WriteBacks, 1);
    add_inside(&control, at_ns, Counter::WriteBackBytes, u64::from(bytes));
}

/// It was with its disk for so long.
#[inline(always)]
pub fn done<const D: bool>(control: Phase<D>, issued_ns: u64, at_ns: u64) {
    if issued_ns != 0 && at_ns > issued_ns {
        add_inside(&control, at_ns, Counter::WriteBackNs, at_ns - issued_ns);
    }
}
