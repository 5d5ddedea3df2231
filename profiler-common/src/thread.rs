//! What is kept of threads and CPUs: what they do, since when, and what they work on.

use crate::point::PlaceId;

/// What a thread does; [`Thread::spent_ns`] has its time in each.
pub mod state {
    /// Not seen switching yet.
    pub const UNKNOWN: u32 = 0;
    /// On a CPU.
    pub const RUNNING: u32 = 1;
    /// Asleep.
    pub const BLOCKED: u32 = 2;
    /// Being woken: somebody decided to, and it is on no run queue yet.
    pub const WAKING: u32 = 3;
    /// On a run queue.
    pub const RUNNABLE: u32 = 4;
    /// Kept from running by its group's CPU quota.
    pub const THROTTLED: u32 = 5;
    /// On the run queue of a CPU that had nothing else to do: the way out of idling. The scheduler's own account
    /// calls it running already.
    pub const SWITCHING: u32 = 6;
    /// How many there are, rounded up to a power of two.
    pub const STATES: usize = 8;
}

/// Where the reader of a socket stood when its token reached the point from which the reader's time is divided up.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Wait {
    /// The reader.
    pub tid: u32,
    /// 1: `processed_ns` holds.
    pub left: u32,
    /// When the token reached that point, ns: what was noted for another one does not hold.
    pub at_ns: u64,
    /// The reader's [`Thread::spent_ns`] then.
    pub spent_ns: [u64; state::STATES],
    /// Running time of the reader when it turned to another socket.
    pub processed_ns: u64,
}

/// What a context of execution (a thread, or the softirq on top of it) works on: the token that it handed on last.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Tag {
    /// The kernel's address of the token's holder; 0: it works on none.
    pub holder: u64,
    /// When the token passed its last point, ns: the tag holds only as long as this is still so.
    pub at_ns: u64,
    /// That point.
    pub point: PlaceId,
    /// Role of the holder.
    pub role: u8,
    /// 1: the holder is an skb, 0: a socket.
    pub packet: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 4],
}

/// What runs on a CPU.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    /// 1 + vector of the softirq that runs on it; 0: none.
    pub softirq: u32,
    /// Stops the compiler from inventing padding.
    pub reserved: u32,
    /// When the receiving softirq that runs on it began, ns; 0: none.
    pub softirq_since_ns: u64,
    /// What the softirq works on.
    pub tag: Tag,
    /// The last token that was given to a device on it: the next softirq probably receives it.
    pub sent: Tag,
}

impl Thread {
    /// A thread of which nothing else is known.
    #[inline(always)]
    #[must_use]
    pub fn new(tid: u32, followed: crate::Followed) -> Self {
        Self {
            tid,
            role: followed.role.into(),
            port: followed.port,
            configuration: followed.configuration,
            ..Self::default()
        }
    }
}

/// A thread: times that it leaves behind, bound to a socket when it receives or sends.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Thread {
    /// Thread id, 0: free.
    pub tid: u32,
    /// Role of the process.
    pub role: u32,
    /// See [`crate::point::Point::Waking`], ns.
    pub waking_ns: u64,
    /// See [`crate::point::Point::Wakeup`], ns.
    pub wakeup_ns: u64,
    /// See [`crate::point::Point::SwitchIn`], ns.
    pub switch_in_ns: u64,
    /// See [`crate::point::Point::PollReturn`], ns.
    pub poll_return_ns: u64,
    /// Entry of the system call that it is in, ns.
    pub call_ns: u64,
    /// First return of a receiving call since the last message was received, ns.
    pub return_ns: u64,
    /// Kind of the system call that it is in (`CALL_…`), 0: none that matters.
    pub call: u32,
    /// 1 + number of the system call that it is in; 0: none.
    pub number: u32,
    /// When it entered the system call that it is in, ns.
    pub entered_ns: u64,
    /// The socket that a receiving function was entered with (kretprobe alternative).
    pub receiving: u64,
    /// What it does, see [`state`].
    pub state: u32,
    /// 1: the wait that it is in leaves its stacks.
    pub watched: u32,
    /// Since when, ns.
    pub since_ns: u64,
    /// Time in each state before `since_ns`, ns.
    pub spent_ns: [u64; state::STATES],
    /// Running time of the thread when it last received or sent a message.
    pub worked_ns: u64,
    /// 1 + slot of the socket on which it did.
    pub worked_slot: u32,
    /// 1 + slot of the socket that a proxy's thread last received from, 0: what that held is handed on.
    pub proxied_slot: u32,
    /// Kind of the call that it is in which makes, submits or ends file operations ([`CALL_FILE`] and above); 0: none.
    pub file_call: u32,
    /// Phase that `state`, `ready` and `read` belong to.
    pub epoch: u32,
    /// Messages that wait in its sockets.
    pub ready: u64,
    /// Messages that it has received and not answered.
    pub read: u64,
    /// When it entered that call, ns.
    pub file_call_ns: u64,
    /// Key of the asynchronous operation that it submits; 0: none.
    pub submitting: u64,
    /// Where its program has the next operation that the call is to submit, or wants the events of those that it
    /// takes. Of one of io_uring's workers: the `kiocb` that it is at.
    pub memory: u64,
    /// The bio that it queued last, if that was at a disk that may pass it on; 0: it was elsewhere.
    pub passing: u64,
    /// When it queued that, ns.
    pub passing_ns: u64,
    /// 1 + slot of the operation that was completed last while it was in the call; 0: none.
    pub reaped: u32,
    /// The thread of the same VM that woke it last; 0: another did.
    pub woken_by: u32,
    /// When that one had left its guest, if it is a virtual processor of KVM's, ns.
    pub left_ns: u64,
    /// 1: it was switched in last on a CPU that had nothing else to do.
    pub from_idle: u32,
    /// Port on which a proxy's thread listens.
    pub port: u16,
    /// Number of the configuration that it belongs to.
    pub configuration: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: u8,
    /// What it works on.
    pub tag: Tag,
    /// What virtual processor it is.
    pub vcpu: crate::Vcpu,
}

/// A sending system call.
pub const CALL_SEND: u32 = 1;
/// A receiving system call.
pub const CALL_RECEIVE: u32 = 2;
/// A system call that waits for readiness.
pub const CALL_POLL: u32 = 3;
/// `ioctl`: how a VM's process asks something of KVM, entering the guest above all.
pub const CALL_CONTROL: u32 = 4;

/// A call that reads, writes or syncs a file at a position that it is given: in runs of file operations, an operation.
pub const CALL_FILE: u32 = 5;
/// `io_submit`. All that make, submit or end file operations are not less than [`CALL_FILE`].
pub const CALL_SUBMIT: u32 = 6;
/// `io_getevents`.
pub const CALL_REAP: u32 = 7;
/// `io_uring_enter`, which does both.
pub const CALL_RING: u32 = 8;

const _: () = assert!(size_of::<Wait>() == 88);
const _: () = assert!(size_of::<Tag>() == 24);
const _: () = assert!(size_of::<Cpu>() == 64);
const _: () = assert!(size_of::<Thread>() == 336);
