//! Events of the sampled phases: stacks, and the ends of waits.

use crate::point::PlaceId;

/// Frames of one stack that the kernel gives.
pub const FRAMES: usize = 127;

/// What happened when a stack was taken, and which stack it is.
pub mod event {
    /// The sampler's timer met a CPU at work for the run: kernel and user stacks follow.
    pub const SAMPLE: u8 = 0;
    /// A sample of an idle CPU: no stacks.
    pub const IDLE: u8 = 1;
    /// A sample of a CPU at other work: no stacks, nothing is known of it.
    pub const FOREIGN: u8 = 2;
    /// A thread left its CPU: its own stacks.
    pub const WAIT: u8 = 3;
    /// A thread is being woken: the waker's stacks.
    pub const WAKER: u8 = 4;
    /// A thread that left its CPU is back: its times, no stacks.
    pub const WAIT_END: u8 = 5;
}

/// The beginning of an event of the sampled phases, alone where it has no stacks.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct EventHead {
    /// When, ns.
    pub at_ns: u64,
    /// Phase.
    pub epoch: u32,
    /// The thread: the interrupted one, or the one that waits.
    pub tid: u32,
    /// Process of the thread.
    pub tgid: u32,
    /// CPU.
    pub cpu: u16,
    /// See [`event`].
    pub kind: u8,
    /// 1 + vector of the softirq that was interrupted (or that wakes); 0: none.
    pub softirq: u8,
    /// 1: the context works on a token, whose stage begins at `point`.
    pub on_path: u8,
    /// Role of the token's holder.
    pub role: u8,
    /// The token's last point.
    pub point: PlaceId,
    /// Bytes of the kernel's stack; negative: an error number.
    pub kernel_bytes: i32,
    /// Bytes of the user's stack; negative: an error number.
    pub user_bytes: i32,
    /// 1 + role of the thread; 0: not one of the run's.
    pub thread_role: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 3],
    /// Time blocked, waking, runnable and throttled, ns, with [`event::WAIT_END`].
    pub waited_ns: [u64; 4],
}

/// An event with its stacks: innermost frame first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What it is.
    pub head: EventHead,
    /// Addresses in the kernel.
    pub kernel: [u64; FRAMES],
    /// Addresses in the process.
    pub user: [u64; FRAMES],
}

const _: () = assert!(size_of::<EventHead>() == 72);
const _: () = assert!(size_of::<Event>() == 72 + 16 * FRAMES);
