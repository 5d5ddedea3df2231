//! What QEMU does between its guest's operation on a disk and its own on the host's.

use crate::Token;

/// What it does at present.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct QemuSteps {
    /// The last step since an operation ended: the end itself, or one on the way back to the guest. No point: it is
    /// not waited for any.
    pub token: Token,
    /// Operations under way.
    pub under_way: u64,
    /// When one ended last, ns.
    pub ended_ns: u64,
    /// Thread in which it ended.
    pub ended_by: u32,
    /// 1: the last to begin was the only one.
    pub alone: u16,
    /// 1: one has ended by its completion, for which a thread is being woken next, on top of whatever runs.
    pub completed: u16,
    /// The virtual processor that the guest is told on: its thread; 0: see `number`.
    pub tid: u32,
    /// 1 + number of the virtual processor that the guest is told on; 0: see `tid`.
    pub number: u32,
}

const _: () = assert!(size_of::<QemuSteps>() == 48);
