//! Points: where a request is seen.
//!
//! [`Point`] says which; its number in the kernel is one byte: below [`DEVICE_BASE`] it is a fixed point, from there on
//! it names a device and what happens there.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident $name:literal,)*) => {
        /// A point at which a request is seen, or an end of a part of a stage.
        ///
        /// Points are ordered by their names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Point { $($(#[$doc])* $point,)* }
        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$point,)*];
            /// The name under which a result shows it.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$point => $name,)* } }
        }
    };
}
points! {
    /// A client's or server's sending system call was entered.
    Call "call",
    /// TCP took the message: `tcp:tcp_sendmsg_locked`. A request starts here, in the client.
    Send "send",
    /// A device was given the skb: `net:net_dev_start_xmit`.
    Xmit "xmit",
    /// A device's queueing discipline was given the skb: `net:net_dev_queue`.
    Queue "queue",
    /// The softirq began that will receive from the device: `irq:softirq_entry`.
    Softirq "softirq",
    /// The stack received the skb from a device: `net:netif_receive_skb`.
    Receive "receive",
    /// TCP found the receiving socket, in softirq: `tcp:tcp_probe`.
    Delivered "delivered",
    /// TCP found the receiving socket from its backlog, in the context of the task that held the socket's lock.
    Backlog "backlog",
    /// The socket called its wake-up: `sock:sk_data_ready`.
    Ready "ready",
    /// A thread of the receiver is being woken: `sched:sched_waking`.
    Waking "waking",
    /// The thread is on a run queue: `sched:sched_wakeup`.
    Wakeup "wakeup",
    /// The thread runs: `sched:sched_switch`.
    SwitchIn "switch-in",
    /// The thread runs again, on a CPU that was idle: `sched:sched_switch`.
    IdleSwitchIn "idle-switch-in",
    /// The poll call of the thread returned.
    PollReturn "poll-return",
    /// The receiving call of the thread was entered.
    ReceiveCall "receive-call",
    /// The data lies in user memory: `sock:sock_recv_length` above 0.
    Received "received",
    /// The receiving call returned to user space.
    Return "return",
    /// The skb was dropped; its token waits in the sending socket for the retransmission: `skb:kfree_skb`.
    Dropped "dropped",
    /// The own stack has dropped a segment before it left; the token stays in the sending socket until TCP tries again:
    /// `skb:kfree_skb`.
    Refused "refused",
    /// TCP's retransmission timer has run out.
    Rto "rto",
    /// The timer for a tail-loss probe has run out.
    LossProbe "loss-probe",
    /// What came back says that the segment was lost.
    FastRetransmit "fast-retransmit",
    /// Nothing was outstanding: the probe timer tries what never left.
    ProbeTimer "probe-timer",
    /// The segment is sent again for a reason that is not known.
    OtherRetransmission "other-retransmission",
    /// A virtual machine's QEMU, or vhost, has read the skb from its tap: `skb:consume_skb`.
    Taken "taken",
    /// A virtual processor was given an interrupt: `kvm:kvm_apic_accept_irq`.
    Injected "injected",
    /// The virtual processor's thread runs: `sched:sched_switch`.
    VcpuRunning "vcpu-running",
    /// The guest was entered: `kvm:kvm_entry`.
    Entered "entered",
    /// The guest was left to notify its machine: `kvm:kvm_exit`.
    Notified "notified",
    /// A file operation's system call was entered: `raw_syscalls:sys_enter`. The operation starts here.
    Enter "enter",
    /// A file operation's system call returns: `raw_syscalls:sys_exit`.
    Exit "exit",
    /// A bio was held back, and queued by another thread than its operation's: from here until then.
    HeldBack "held-back",
    /// A disk was given the bio: `block:block_bio_queue`.
    Bio "bio",
    /// A disk's scheduler has the request: `block:block_rq_insert`.
    Insert "insert",
    /// A disk's driver has the request: `block:block_rq_issue`.
    Issue "issue",
    /// The request is done: `block:block_rq_complete`, or `block:block_bio_complete`.
    Complete "complete",
    /// A thread of a virtual machine's is being woken for what its guest wants of a disk: `sched:sched_waking`.
    IoWaking "io-waking",
    /// A thread runs for what a guest wants of a disk: `sched:sched_switch`.
    IoRunning "io-running",
    /// A thread of a virtual machine's is being woken because an operation on the disk is done.
    BackWaking "back-waking",
    /// A thread runs because an operation on the disk is done.
    BackRunning "back-running",
    /// The socket's reader slept, and nobody had begun to wake it.
    ReaderBlocked "blocked",
    /// The socket's reader was being woken.
    ReaderWaking "waking",
    /// The socket's reader waited for a CPU.
    ReaderRunnable "run-queue",
    /// An idle CPU was on its way to the socket's reader.
    ReaderIdleExit "idle-exit",
    /// The group of the socket's reader had used up its quota.
    ReaderThrottled "throttled",
    /// The socket's reader worked on other requests.
    ReaderElsewhere "other-requests",
    /// The socket's reader worked on this request (or turned to it), outside of the call that ends the stage.
    ReaderHere "own-work",
    /// The socket's reader was in the call that ends the stage.
    ReaderInCall "own-call",
}

impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Point {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.name().cmp(other.name()).then((*self as u8).cmp(&(*other as u8)))
    }
}

impl core::fmt::Display for Point {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A client's or server's sending system call was entered.
pub const CALL: u8 = 1;
/// TCP took the message: `tcp:tcp_sendmsg_locked`. A request starts here, in the client.
pub const SEND: u8 = 2;
/// TCP found the receiving socket, in softirq: `tcp:tcp_probe`.
pub const DELIVERED: u8 = 3;
/// The same from the socket's backlog, in the context of the task that held the socket's lock.
pub const BACKLOG: u8 = 4;
/// The socket called its wake-up: `sock:sk_data_ready`.
pub const READY: u8 = 5;
/// A thread of the receiver is being woken: `sched:sched_waking`.
pub const WAKING: u8 = 6;
/// The thread is on a run queue: `sched:sched_wakeup`.
pub const WAKEUP: u8 = 7;
/// The thread runs: `sched:sched_switch`.
pub const SWITCH_IN: u8 = 8;
/// Its poll call returned.
pub const POLL_RETURN: u8 = 9;
/// Its receiving call was entered.
pub const RECEIVE_CALL: u8 = 10;
/// The data lies in user memory: `sock:sock_recv_length` above 0.
pub const RECEIVED: u8 = 11;
/// The receiving call returned to user space.
pub const RETURN: u8 = 12;
/// The skb was dropped; its token waits in the sending socket for the retransmission: `skb:kfree_skb`.
pub const DROPPED: u8 = 13;
/// A virtual machine's QEMU, or vhost, has read the skb from its tap: `skb:consume_skb`.
pub const TAKEN: u8 = 14;

/// The own stack has dropped a segment before it left; the token stays in the sending socket until TCP tries again:
/// `skb:kfree_skb`.
pub const REFUSED: u8 = 15;

/// The first of the numbers that belong to devices.
pub const DEVICE_BASE: u8 = 16;
/// Devices that one repetition can tell apart; the probes count what exceeds them.
pub const DEVICES: u32 = 32;
/// What happens at a device: `net:net_dev_start_xmit`.
pub const AT_XMIT: u8 = 0;
/// What happens at a device: `net:netif_receive_skb`.
pub const AT_RECEIVE: u8 = 1;
/// What happens at a device: `net:net_dev_queue`.
pub const AT_QUEUE: u8 = 2;
/// What happens at a device: the softirq that will receive from it began.
pub const AT_SOFTIRQ: u8 = 3;

/// The number of what (`AT_…`) happens at the device with this index (below [`DEVICES`]).
#[inline(always)]
#[must_use]
pub const fn at_device(what: u8, device: u8) -> u8 {
    DEVICE_BASE + 4 * device + what
}

/// The inverse of [`at_device`]: `(what, device index)`, or `None` for any other number.
#[inline(always)]
#[must_use]
pub const fn device_of(point: u8) -> Option<(u8, u8)> {
    if point < DEVICE_BASE || point >= READER_BASE {
        return None;
    }
    Some(((point - DEVICE_BASE) & 3, (point - DEVICE_BASE) >> 2))
}

/// The first of the numbers that stand for what a reader did meanwhile: ends of parts, never points of a record.
pub const READER_BASE: u8 = 144;
/// The reader slept, and nobody had begun to wake it.
pub const READER_BLOCKED: u8 = READER_BASE;
/// It was being woken.
pub const READER_WAKING: u8 = READER_BASE + 1;
/// It waited for a CPU.
pub const READER_RUNNABLE: u8 = READER_BASE + 2;
/// Its group had used up its quota.
pub const READER_THROTTLED: u8 = READER_BASE + 3;
/// It worked on other requests.
pub const READER_ELSEWHERE: u8 = READER_BASE + 4;
/// It worked on this one (or turned to it), outside of the call that ends the stage.
pub const READER_HERE: u8 = READER_BASE + 5;
/// It was in the call that ends the stage.
pub const READER_IN_CALL: u8 = READER_BASE + 6;

/// An idle CPU was on its way to it.
pub const READER_IDLE_EXIT: u8 = READER_BASE + 7;

/// A segment is sent again: TCP's retransmission timer has run out. With those that follow, ends of parts of the time
/// that a token waits for that.
pub const RTO: u8 = 153;
/// The timer for a tail-loss probe has.
pub const LOSS_PROBE: u8 = 154;
/// What came back says that it was lost.
pub const FAST: u8 = 155;
/// Nothing was outstanding: the probe timer tries what never left.
pub const PROBE_TIMER: u8 = 156;
/// For a reason that is not known.
pub const OTHER_RETRANSMISSION: u8 = 157;

/// A bio was held back, and queued by another thread than its operation's: from here until then.
pub const HELD_BACK: u8 = 158;
/// The thread runs again, on a CPU that was idle: `sched:sched_switch`.
pub const IDLE_SWITCH_IN: u8 = 159;

/// A virtual processor was given an interrupt: `kvm:kvm_apic_accept_irq`. With those that follow, ends of parts of
/// the time that a virtual machine holds a request.
pub const INJECTED: u8 = 160;
/// The virtual processor's thread runs: `sched:sched_switch`.
pub const VCPU_RUNNING: u8 = 161;
/// The guest was entered: `kvm:kvm_entry`.
pub const ENTERED: u8 = 162;
/// The guest was left to notify its machine: `kvm:kvm_exit`.
pub const NOTIFIED: u8 = 163;

/// A file operation's system call was entered: `raw_syscalls:sys_enter`. The operation starts here.
pub const ENTER: u8 = 164;
/// It returns: `raw_syscalls:sys_exit`.
pub const EXIT: u8 = 165;

/// A thread of a virtual machine's is being woken for what its guest wants of a disk: `sched:sched_waking`. With
/// those that follow, ends of parts of the time that a guest waits for its disk.
pub const IO_WAKING: u8 = 166;
/// It runs: `sched:sched_switch`.
pub const IO_RUNNING: u8 = 167;
/// One is being woken because an operation on the disk is done.
pub const BACK_WAKING: u8 = 168;
/// It runs.
pub const BACK_RUNNING: u8 = 169;

/// The first of the numbers that belong to disks.
pub const DISK_BASE: u8 = 176;
/// Disks that one repetition can tell apart; the probes count what exceeds them.
pub const DISKS: u32 = 16;
/// What happens at a disk: `block:block_bio_queue`.
pub const AT_BIO: u8 = 0;
/// What happens at a disk: `block:block_rq_insert`.
pub const AT_INSERT: u8 = 1;
/// What happens at a disk: `block:block_rq_issue`.
pub const AT_ISSUE: u8 = 2;
/// What happens at a disk: `block:block_rq_complete`, or `block:block_bio_complete`.
pub const AT_COMPLETE: u8 = 3;

/// The number of what (`AT_…`) happens at the disk with this index (below [`DISKS`]).
#[inline(always)]
#[must_use]
pub const fn at_disk(what: u8, disk: u8) -> u8 {
    DISK_BASE + 4 * disk + what
}

/// The inverse of [`at_disk`]: `(what, disk's index)`, or `None` for any other number.
#[inline(always)]
#[must_use]
pub const fn disk_of(point: u8) -> Option<(u8, u8)> {
    if point < DISK_BASE || point >= DISK_BASE + 4 * DISKS as u8 {
        return None;
    }
    Some(((point - DISK_BASE) & 3, (point - DISK_BASE) >> 2))
}

const _: () = assert!(DISK_BASE as u32 + 4 * DISKS <= 256);
const _: () = assert!(DEVICE_BASE as u32 + 4 * DEVICES <= READER_BASE as u32);
