//! What is kept of operations on files and their bios.

/// bios under way that can be told apart, where the plan does not ask for more: a power of two.
pub const BIOS: u32 = 16384;
/// bios that disks below work for, or did.
pub const BELOW: u32 = 4096;
/// Places on disks with a bio that may be passed on.
pub const PASSED: u32 = 16384;
/// Requests that workers of io_uring have been given, of which the oldest go.
pub const WORKERS_REQUESTS: u32 = 4096;
/// Files with pages of the operations' that can be told apart.
pub const FILES: u32 = 4096;
/// Threads that write back at once.
pub const FLUSHERS: u32 = 256;
/// Disks below the one that operations are at: a loop device's file or a device mapper's may itself be on one that
/// passes bios on.
pub const LEVELS: usize = 2;

/// A bio under way.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Bio {
    /// Address of the bio; 0: the place is free.
    pub address: u64,
    /// Place of its operation.
    pub slot: u32,
    /// Which of the operations in that place. Of write-back: its bytes.
    pub number: u32,
    /// When its request was given to the scheduler, ns; 0: not.
    pub inserted_ns: u64,
    /// When its request was given to the driver, ns; 0: not.
    pub issued_ns: u64,
    /// Index of its disk, with what the probes know of it in the highest bits.
    pub disk: u32,
    /// Phase in which it was queued.
    pub epoch: u32,
    /// The bio, of a disk above, that it is made for, by its address; 0: it is its operation's own; or what stands
    /// for write-back.
    pub above: u64,
    /// When that one was given to its disk, ns: another may have its address meanwhile. Of an operation's own: when
    /// it was queued by another thread, ns; 0: by the operation's.
    pub above_ns: u64,
}

/// What one disk below did.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Level {
    /// When the first bio was queued, ns.
    pub queued_ns: u64,
    /// When the last to be completed was given to the scheduler, ns; 0: it was not.
    pub inserted_ns: u64,
    /// When it was given to the driver, ns; 0: it was not.
    pub issued_ns: u64,
    /// When it was completed, ns; 0: it was not.
    pub done_ns: u64,
    /// Index of the disk.
    pub disk: u64,
}

impl Level {
    /// Whether it was at work within this time.
    #[inline(always)]
    #[must_use]
    pub const fn is_within(&self, from_ns: u64, until_ns: u64) -> bool {
        self.done_ns != 0 && self.queued_ns >= from_ns && self.done_ns <= until_ns
    }
}

/// What disks below do for a bio.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Below {
    /// When that was given to its own disk: by this, it is told from others that had its address.
    pub for_ns: u64,
    /// The disk below, and the one below that.
    pub levels: [Level; LEVELS],
}

impl Below {
    /// Nothing is done below.
    #[inline(always)]
    pub const fn forget(&mut self) {
        self.levels[0].done_ns = 0;
    }
    /// Whether anything was done below within this time.
    #[inline(always)]
    #[must_use]
    pub const fn is_within(&self, from_ns: u64, until_ns: u64) -> bool {
        self.levels[0].is_within(from_ns, until_ns)
    }
}

/// Where on a disk a bio begins.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Sector {
    /// The disk, as `MAJOR << 20 | MINOR`.
    pub device: u64,
    /// Sector, in units of 512 bytes.
    pub sector: u64,
}

/// A bio on a disk that passes it on.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Passed {
    /// Address of the bio.
    pub bio: u64,
    /// When it was queued there, ns.
    pub queued_ns: u64,
}

/// Whose a request is that workers were given.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Given {
    /// The key of its operation.
    pub key: u64,
    /// The phase: its address is used again.
    pub epoch: u64,
}

/// The last bio of an operation is done: what its thread has not noted yet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Done {
    /// Which of the operations in its place.
    pub number: u32,
    /// Index of the disk.
    pub disk: u32,
    /// Time at which the request was given to the scheduler, as in [`Bio`].
    pub inserted_ns: u64,
    /// Time at which the request was given to the driver, as in [`Bio`].
    pub issued_ns: u64,
    /// When another thread than the operation's queued it, ns; 0: that did.
    pub queued_ns: u64,
    /// When it was completed, ns; 0: it was noted.
    pub at_ns: u64,
    /// What disks below did for it.
    pub below: Below,
}

const _: () = assert!(size_of::<Bio>() == 56);
const _: () = assert!(size_of::<Below>() == 8 + 40 * LEVELS);
const _: () = assert!(size_of::<Done>() == 40 + 8 + 40 * LEVELS);
