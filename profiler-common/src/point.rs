//! Points: where a request is seen.
//!
//! [`Point`] says what happens there, and [`PlaceId`] at which device as well: it is what travels between the kernel
//! and user space.

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
            /// The number in the kernel, never 0.
            #[inline(always)]
            #[must_use]
            pub const fn number(self) -> u8 { self as u8 + 1 }
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
    /// A VM's QEMU, or vhost, has read the skb from its tap: `skb:consume_skb`.
    Taken "taken",
    /// A virtual processor was given an interrupt: `kvm:kvm_apic_accept_irq`.
    Injected "injected",
    /// The virtual processor's thread runs: `sched:sched_switch`.
    VcpuRunning "vcpu-running",
    /// The guest was entered: `kvm:kvm_entry`.
    Entered "entered",
    /// The guest was left to notify its VM: `kvm:kvm_exit`.
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
    /// A thread of a VM's is being woken for what its guest wants of a disk: `sched:sched_waking`.
    IoWaking "io-waking",
    /// A thread runs for what a guest wants of a disk: `sched:sched_switch`.
    IoRunning "io-running",
    /// A thread of a VM's is being woken because an operation on the disk is done.
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

/// A point and the index of the device that a request is seen at: what in the lower eight bits, the index above.
///
/// Points that are at no device have the index 0.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(u16);

impl PlaceId {
    /// No point.
    pub const NONE: Self = Self(0);
    /// A point at no device.
    #[must_use]
    pub const fn fixed(point: Point) -> Self {
        Self(point.number() as u16)
    }
    /// A point at the device, or the disk, with this index.
    #[inline(always)]
    #[must_use]
    pub const fn at(point: Point, index: u8) -> Self {
        Self(point.number() as u16 | (index as u16) << 8)
    }
    /// The place that is written as this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
    /// The number as which it is written.
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
    /// The point; `None`: the number is no point's.
    #[must_use]
    pub const fn point(self) -> Option<Point> {
        match (self.0 as u8).checked_sub(1) {
            Some(index) if (index as usize) < Point::ALL.len() => Some(Point::ALL[index as usize]),
            _ => None,
        }
    }
    /// The index of the device.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// Whether this is the point, at whichever device.
    #[inline(always)]
    #[must_use]
    pub const fn is_at(self, point: Point) -> bool {
        self.0 as u8 == point.number()
    }
}

/// Network devices that the probes can tell apart; they count what exceeds them.
pub const DEVICES: u32 = 256;
/// Disks that the probes can tell apart; they count what exceeds them.
pub const DISKS: u32 = 64;

/// See [`Point::Call`].
pub const CALL: PlaceId = PlaceId::fixed(Point::Call);
/// See [`Point::Send`].
pub const SEND: PlaceId = PlaceId::fixed(Point::Send);
/// See [`Point::Delivered`].
pub const DELIVERED: PlaceId = PlaceId::fixed(Point::Delivered);
/// See [`Point::Backlog`].
pub const BACKLOG: PlaceId = PlaceId::fixed(Point::Backlog);
/// See [`Point::Ready`].
pub const READY: PlaceId = PlaceId::fixed(Point::Ready);
/// See [`Point::Waking`].
pub const WAKING: PlaceId = PlaceId::fixed(Point::Waking);
/// See [`Point::Wakeup`].
pub const WAKEUP: PlaceId = PlaceId::fixed(Point::Wakeup);
/// See [`Point::SwitchIn`].
pub const SWITCH_IN: PlaceId = PlaceId::fixed(Point::SwitchIn);
/// See [`Point::PollReturn`].
pub const POLL_RETURN: PlaceId = PlaceId::fixed(Point::PollReturn);
/// See [`Point::ReceiveCall`].
pub const RECEIVE_CALL: PlaceId = PlaceId::fixed(Point::ReceiveCall);
/// See [`Point::Received`].
pub const RECEIVED: PlaceId = PlaceId::fixed(Point::Received);
/// See [`Point::Return`].
pub const RETURN: PlaceId = PlaceId::fixed(Point::Return);
/// See [`Point::Dropped`].
pub const DROPPED: PlaceId = PlaceId::fixed(Point::Dropped);
/// See [`Point::Taken`].
pub const TAKEN: PlaceId = PlaceId::fixed(Point::Taken);
/// See [`Point::Refused`].
pub const REFUSED: PlaceId = PlaceId::fixed(Point::Refused);
/// See [`Point::ReaderBlocked`].
pub const READER_BLOCKED: PlaceId = PlaceId::fixed(Point::ReaderBlocked);
/// See [`Point::ReaderWaking`].
pub const READER_WAKING: PlaceId = PlaceId::fixed(Point::ReaderWaking);
/// See [`Point::ReaderRunnable`].
pub const READER_RUNNABLE: PlaceId = PlaceId::fixed(Point::ReaderRunnable);
/// See [`Point::ReaderThrottled`].
pub const READER_THROTTLED: PlaceId = PlaceId::fixed(Point::ReaderThrottled);
/// See [`Point::ReaderElsewhere`].
pub const READER_ELSEWHERE: PlaceId = PlaceId::fixed(Point::ReaderElsewhere);
/// See [`Point::ReaderHere`].
pub const READER_HERE: PlaceId = PlaceId::fixed(Point::ReaderHere);
/// See [`Point::ReaderInCall`].
pub const READER_IN_CALL: PlaceId = PlaceId::fixed(Point::ReaderInCall);
/// See [`Point::ReaderIdleExit`].
pub const READER_IDLE_EXIT: PlaceId = PlaceId::fixed(Point::ReaderIdleExit);
/// See [`Point::Rto`].
pub const RTO: PlaceId = PlaceId::fixed(Point::Rto);
/// See [`Point::LossProbe`].
pub const LOSS_PROBE: PlaceId = PlaceId::fixed(Point::LossProbe);
/// See [`Point::FastRetransmit`].
pub const FAST: PlaceId = PlaceId::fixed(Point::FastRetransmit);
/// See [`Point::ProbeTimer`].
pub const PROBE_TIMER: PlaceId = PlaceId::fixed(Point::ProbeTimer);
/// See [`Point::OtherRetransmission`].
pub const OTHER_RETRANSMISSION: PlaceId = PlaceId::fixed(Point::OtherRetransmission);
/// See [`Point::HeldBack`].
pub const HELD_BACK: PlaceId = PlaceId::fixed(Point::HeldBack);
/// See [`Point::IdleSwitchIn`].
pub const IDLE_SWITCH_IN: PlaceId = PlaceId::fixed(Point::IdleSwitchIn);
/// See [`Point::Injected`].
pub const INJECTED: PlaceId = PlaceId::fixed(Point::Injected);
/// See [`Point::VcpuRunning`].
pub const VCPU_RUNNING: PlaceId = PlaceId::fixed(Point::VcpuRunning);
/// See [`Point::Entered`].
pub const ENTERED: PlaceId = PlaceId::fixed(Point::Entered);
/// See [`Point::Notified`].
pub const NOTIFIED: PlaceId = PlaceId::fixed(Point::Notified);
/// See [`Point::Enter`].
pub const ENTER: PlaceId = PlaceId::fixed(Point::Enter);
/// See [`Point::Exit`].
pub const EXIT: PlaceId = PlaceId::fixed(Point::Exit);
/// See [`Point::IoWaking`].
pub const IO_WAKING: PlaceId = PlaceId::fixed(Point::IoWaking);
/// See [`Point::IoRunning`].
pub const IO_RUNNING: PlaceId = PlaceId::fixed(Point::IoRunning);
/// See [`Point::BackWaking`].
pub const BACK_WAKING: PlaceId = PlaceId::fixed(Point::BackWaking);
/// See [`Point::BackRunning`].
pub const BACK_RUNNING: PlaceId = PlaceId::fixed(Point::BackRunning);

const _: () = assert!(DEVICES <= 256 && DISKS <= 256, "an index is a byte");
const _: () = assert!(Point::ALL.len() < 256, "a point is a byte, and 0 is none");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lead_back_to_point_and_device() {
        for point in Point::ALL {
            for index in [0, 1, 63, 255] {
                let place = PlaceId::at(*point, index);
                assert_eq!((place.point(), place.index()), (Some(*point), index));
                assert_eq!(PlaceId::from_raw(place.raw()), place);
                assert!(place.is_at(*point) && place != PlaceId::NONE);
            }
            assert_eq!(PlaceId::fixed(*point), PlaceId::at(*point, 0));
        }
        assert_eq!(PlaceId::NONE.point(), None);
        assert_eq!(PlaceId::from_raw(0xff).point(), None);
    }
}
