//! What a virtual processor does; its thread's time in a state is kept by [`ExitId`].

use crate::point::PlaceId;

/// Not seen yet.
pub const UNKNOWN: u8 = 0;
/// The processor executes the guest.
pub const GUEST: u8 = 1;
/// The kernel handles an exit.
pub const KERNEL: u8 = 2;
/// The VM's process does.
pub const USER: u8 = 3;
/// The thread waits for a CPU.
pub const OUT: u8 = 4;
/// The kernel has put the thread to sleep: the guest has nothing to do, or what it wants is not there yet.
pub const BLOCKED: u8 = 5;
/// The kernel looked for something to do instead of sleeping.
pub const POLLED: u8 = 6;
/// No state: from exit to entry, whatever happened in between.
pub const EXIT: u8 = 7;
/// No state: the VM's process handles an access to a place, by its number in the table of places.
pub const PLACE: u8 = 8;
/// Virtual processors that are told apart; the last stands for all further ones.
pub const NUMBERS: u8 = 64;
/// Reason of a thread that was taken off its CPU before the kernel said why the guest was left.
pub const UNSEEN: u16 = 0xfffe;
/// Ports and pages of memory that are told apart.
pub const PLACES: u32 = 256;
/// Bit of a place that is a port; others are numbers of pages (4 KiB).
pub const PORT: u64 = 1 << 63;

/// A virtual processor, as far as it is known of its thread.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Vcpu {
    /// Since when it is in its state, ns.
    pub since_ns: u64,
    /// When the guest was left, if it has not been entered again, ns.
    pub exit_ns: u64,
    /// Time that the VM's process has handled this exit, ns.
    pub user_ns: u64,
    /// How long its VM had held a request at `since_ns`, see [`Held`].
    pub held_ns: u64,
    /// Phase that all this belongs to.
    pub epoch: u32,
    /// Why the guest was left last, as the kernel numbers it.
    pub reason: u16,
    /// 1 + index of the place that the guest accessed last; 0: none since it was left.
    pub place: u16,
    /// 1 + its number; 0: the thread is none.
    pub number: u8,
    /// What it does, by the numbers of this module.
    pub state: u8,
    /// State of the processor when the thread left the CPU.
    pub before: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<Vcpu>() == 48);

/// How long a VM has held a request, or several: from when it took one out of its tap until the answer came back.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Held {
    /// Phase that this belongs to.
    pub epoch: u32,
    /// Requests that it holds.
    pub count: u32,
    /// Since when it has held any, ns; void if it holds none.
    pub since_ns: u64,
    /// Time before that, ns.
    pub sum_ns: u64,
    /// The last time before that, ns: what is divided up may lie in the past.
    pub last_from_ns: u64,
    /// End of that time, ns.
    pub last_until_ns: u64,
    /// What has happened with the request that it holds.
    pub steps: Steps,
    /// Steps of the last request, whose answer is out.
    pub done: Steps,
    /// 1 + number of the virtual processor of `steps`.
    pub vcpu: u8,
    /// 1: no second request has come since `since_ns`, so that all this belongs to one.
    pub alone: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 6],
}

/// A request's way through a VM; 0: not yet, or not seen.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Steps {
    /// When the VM's process or its worker in the kernel first gave a virtual processor an interrupt, ns.
    pub injected_ns: u64,
    /// When the thread of that processor was first put on a CPU after this, ns.
    pub running_ns: u64,
    /// When the guest was first entered there after this, ns.
    pub entered_ns: u64,
    /// When the guest was last left in order to wake the process or worker, after it had been interrupted (and
    /// entered, if it was), ns.
    pub notified_ns: u64,
    /// When the VM had taken the request, ns. This and what follows is set when the answer is out.
    pub taken_ns: u64,
    /// When the answer came out, ns.
    pub answered_ns: u64,
    /// The point at which it did.
    pub answered_at: PlaceId,
    /// Whether the request counts (not 0), which began inside the recorded interval: its steps count as its stages do.
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<Held>() == 160);

/// States of virtual processors have totals along with them, too: their keys begin here.
pub const EXIT_KEYS: u64 = 1 << 57;

/// Bit of such a key: of the time in a state, that in which the VM held a request.
pub const HOLDING: u64 = 1 << 26;
/// Bit of such a key, beside [`HOLDING`]: the guest had the request, and not its VM. It had been entered with
/// it, and had not been left to hand on the answer.
pub const INSIDE: u64 = 1 << 27;
/// Virtual processors of which that is kept.
pub const HOLDING_NUMBERS: u8 = 4;

/// A state of a virtual processor, as its key in the same table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitId {
    /// Number of the configuration.
    pub configuration: u8,
    /// The state, by the numbers of this module.
    pub state: u8,
    /// The virtual processor's number, below [`NUMBERS`].
    pub number: u8,
    /// The reason of the exit, or the place.
    pub reason: u16,
}

impl ExitId {
    /// The key, which has the configuration where a stage's has it. [`HOLDING`] and [`INSIDE`] may be added.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> u64 {
        let vcpu = (self.state as u64 & 15) << 6 | self.number as u64 & 63;
        EXIT_KEYS | (self.configuration as u64) << 36 | vcpu << 16 | self.reason as u64
    }

    /// The state of a key.
    #[must_use]
    pub const fn of_key(key: u64) -> Self {
        Self {
            configuration: (key >> 36) as u8,
            state: (key >> 22 & 15) as u8,
            number: (key >> 16 & 63) as u8,
            reason: key as u16,
        }
    }
}
