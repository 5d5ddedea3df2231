//! Values of the maps, and the numbers of their entries.

/// Role of the process that sends requests.
pub const CLIENT: u8 = 0;
/// Role of the process that answers them.
pub const SERVER: u8 = 1;

/// Nothing is followed.
pub const OFF: u32 = 0;
/// Requests are followed; what falls between `open_ns` and `close_ns` is recorded.
pub const ON: u32 = 1;

/// Sockets, and threads, that can be followed at once.
pub const SLOTS: u32 = 16384;
/// skbs with a token at any instant.
pub const PACKET_SLOTS: u32 = 4096;

/// What user space tells the probes: one entry, read by every program before anything else.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Control {
    /// [`OFF`] or [`ON`].
    pub state: u32,
    /// Number of the phase; tokens of an earlier phase are void.
    pub epoch: u32,
    /// Start of the recorded interval, `CLOCK_MONOTONIC` ns.
    pub open_ns: u64,
    /// End of the recorded interval, `CLOCK_MONOTONIC` ns.
    pub close_ns: u64,
    /// One request in this many gets a record; 0: none.
    pub record_every: u32,
    /// 1: threads, system calls and softirqs are watched too, and split stages into parts. A u32 instead of a bool, so
    /// that there is no padding.
    pub detailed: u32,
}

/// A request (or its response) on its way from holder to holder.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Token {
    /// When it passed its last point, ns.
    pub at_ns: u64,
    /// Phase that it belongs to.
    pub epoch: u32,
    /// 1 + slot of its record, 0: none.
    pub record: u16,
    /// Its last point.
    pub point: u8,
    /// Role of its holder: the sending side's until delivery, the receiving side's from then on.
    pub role: u8,
}

/// A socket holds nothing: its token travels, or was lost.
pub const EMPTY: u8 = 0;
/// A socket holds a message that nobody has read yet.
pub const UNREAD: u8 = 1;
/// A socket holds a message that was read and not yet answered.
pub const READ: u8 = 2;

/// A followed socket.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Socket {
    /// The kernel's address, 0: free.
    pub key: u64,
    /// What it holds, if `state` is not [`EMPTY`].
    pub token: Token,
    /// Requests until the next record.
    pub countdown: u32,
    /// [`EMPTY`], [`UNREAD`] or [`READ`].
    pub state: u8,
    /// Role of the process that reads and writes it.
    pub role: u8,
    /// 1: its token was started inside the recorded interval and not completed.
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: u8,
}

/// A travelling skb.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Packet {
    /// The kernel's address.
    pub key: u64,
    /// The socket that sent it.
    pub socket: u64,
    /// What it holds, if `live`.
    pub token: Token,
    /// When it was handed to a device's queueing discipline, ns.
    pub queued_ns: u64,
    /// 1: it carries a token.
    pub live: u8,
    /// As in [`Socket`].
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 6],
}

/// A thread: times that it leaves behind, bound to a socket when it receives or sends.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Thread {
    /// Thread id, 0: free.
    pub tid: u32,
    /// Its process's role.
    pub role: u32,
    /// See [`crate::point::WAKING`], ns.
    pub waking_ns: u64,
    /// See [`crate::point::WAKEUP`], ns.
    pub wakeup_ns: u64,
    /// See [`crate::point::SWITCH_IN`], ns.
    pub switch_in_ns: u64,
    /// See [`crate::point::POLL_RETURN`], ns.
    pub poll_return_ns: u64,
    /// Entry of the system call that it is in, ns.
    pub call_ns: u64,
    /// First return of a receiving call since the last message was received, ns.
    pub return_ns: u64,
    /// Kind of the system call that it is in (`CALL_…`), 0: none that matters.
    pub call: u32,
    /// The socket that a receiving function was entered with (kretprobe alternative), low half.
    pub reserved: u32,
    /// The socket that a receiving function was entered with (kretprobe alternative).
    pub receiving: u64,
}

/// A sending system call.
pub const CALL_SEND: u32 = 1;
/// A receiving system call.
pub const CALL_RECEIVE: u32 = 2;
/// A system call that waits for readiness.
pub const CALL_POLL: u32 = 3;

/// A network device on a path.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Device {
    /// The kernel's address, 0: free.
    pub key: u64,
    /// Interface number in its namespace.
    pub ifindex: u32,
    /// Inode number of its network namespace.
    pub namespace: u32,
    /// Its name, ended by a zero byte.
    pub name: [u8; 16],
}

/// Sub-buckets per power of two in [`Stage::buckets`]: a value is known to within 1/8 of itself.
pub const BUCKETS_PER_OCTAVE: u32 = 8;
/// Values below 2^this share the first bucket, ns.
pub const FIRST_OCTAVE: u32 = 5;
/// Number of buckets: up to 2^31 ns; longer ones share the last.
pub const BUCKETS: usize = 208;

/// Totals of one stage on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Tokens that went through it.
    pub count: u64,
    /// Time they spent in it, ns.
    pub total_ns: u64,
    /// How often each duration occurred.
    pub buckets: [u32; BUCKETS],
}

/// Stages that one repetition can tell apart; 0 is never used.
pub const STAGES: u32 = 512;

/// Packs a stage into the index of the map that numbers stages: 19 bits.
#[inline(always)]
#[must_use]
pub const fn stage_key(part: bool, role: u8, from: u8, to: u8) -> u32 {
    ((part as u32) << 18) | (((role & 3) as u32) << 16) | ((from as u32) << 8) | to as u32
}
/// Entries of the map that numbers stages.
pub const STAGE_KEYS: u32 = 1 << 19;

/// Points that one record holds.
pub const RECORD_POINTS: usize = 128;
/// Requests with a record under way.
pub const RECORD_SLOTS: u32 = 1024;

/// One point of a record.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// When, ns.
    pub at_ns: u64,
    /// The point.
    pub point: u8,
    /// Role of the holder.
    pub role: u8,
    /// CPU on which it was seen (for thread times: on which they were bound).
    pub cpu: u16,
    /// Thread that was current.
    pub tid: u32,
}

/// One request with all its points. What travels through the ring buffer is `len` points long.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The client's socket, 0: the slot is free.
    pub socket: u64,
    /// Phase.
    pub epoch: u32,
    /// Points used.
    pub len: u32,
    /// The points, in order.
    pub points: [Seen; RECORD_POINTS],
}
/// Bytes before a record's points.
pub const RECORD_HEADER: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Everything the probes count, as indices into one per-CPU array.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $variant,)* }
        impl Counter {
            /// All of them, in order of their index.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];
            /// The name under which a result shows it.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Counter::$variant => $name,)* } }
        }
    };
}
counters! {
    /// Requests that started inside the recorded interval.
    Followed = "followed",
    /// Of those, the ones whose response was received inside it.
    Completed = "completed",
    /// Of those, the ones seen to go on after its end.
    Unfinished = "unfinished",
    /// Responses received inside the interval, whenever their request started.
    Operations = "operations",
    /// Token lost: no slot for its skb.
    LostPacketTable = "packet_table_full",
    /// Token lost: delivered to a socket that is not followed.
    LostUnknownSocket = "unknown_socket",
    /// Token lost: its skb was freed without delivery.
    LostFreed = "freed",
    /// Token lost: its skb's address was taken by another.
    LostRecycled = "recycled",
    /// Token lost: its socket was closed.
    LostClosed = "closed",
    /// Token lost: time ran backwards.
    LostNegative = "negative_time",
    /// Token lost: dropped, and its sender is unknown.
    LostDropped = "dropped_without_sender",
    /// Token lost: its socket received something else in between.
    LostResynchronised = "resynchronised",
    /// Token lost: no number left for its stage.
    LostStageTable = "stage_table_full",
    /// Records begun.
    RecordsStarted = "records_started",
    /// Records handed to user space.
    RecordsCommitted = "records_committed",
    /// Record lost: the ring buffer was full.
    RecordsRingFull = "records_ring_full",
    /// Record lost: its path was longer than a record.
    RecordsTooLong = "records_too_long",
    /// Record lost with its token.
    RecordsAbandoned = "records_abandoned",
    /// A message was received in parts.
    Parts = "received_in_parts",
    /// Further segments or retransmissions of a message whose token is in flight.
    Segments = "further_segments",
    /// skbs with a token that were dropped.
    Drops = "drops",
    /// A client sent while its request was under way: pipelining, or a request in several writes.
    Pipelined = "sent_while_under_way",
    /// A server answered what it had not received by a call: splice, sendfile, io_uring.
    Unreceived = "answered_unreceived",
    /// Sockets that found no slot.
    SocketTable = "socket_table_full",
    /// Devices that found no slot.
    DeviceTable = "device_table_full",
    /// Threads whose slot was taken over by another.
    ThreadClash = "thread_slot_taken",
    /// Successful sends seen by `sock:sock_send_length` (detailed phases).
    Sent = "sent",
    /// NET_RX softirqs that ran (detailed phases).
    Softirqs = "softirqs",
    /// Requests delivered to a socket that is not followed, in or out of the interval.
    UnknownSocket = "delivered_to_unknown_socket",
}
/// Length of the counters' array.
pub const COUNTERS: usize = 32;
const _: () = assert!(Counter::ALL.len() <= COUNTERS);

const _: () = assert!(size_of::<Control>() == 32);
const _: () = assert!(size_of::<Token>() == 16);
const _: () = assert!(size_of::<Socket>() == 32);
const _: () = assert!(size_of::<Packet>() == 48);
const _: () = assert!(size_of::<Thread>() == 72);
const _: () = assert!(size_of::<Device>() == 32);
const _: () = assert!(size_of::<Stage>() == 16 + 4 * BUCKETS);
const _: () = assert!(size_of::<Seen>() == 16);
const _: () = assert!(size_of::<Record>() == RECORD_HEADER + 16 * RECORD_POINTS);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: all are `repr(C)`, without padding (asserted above), and any bit pattern is a value of theirs.
    unsafe impl aya::Pod for super::Control {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Stage {}
}
