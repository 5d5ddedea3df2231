//! Counters of the probes: losses of tokens by their cause, and other events.

const fn is_called_lost(variant: &str) -> bool {
    matches!(variant.as_bytes(), [b'L', b'o', b's', b't', ..])
}

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Everything the probes count, as indices into one per-CPU array.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter { $($(#[$doc])* $variant,)* }
        impl Counter {
            /// All of them, in order of their index.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];
            /// The name under which a result shows it.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Counter::$variant => $name,)* } }
            /// Whether each of them is a token that was lost: those that are called so.
            #[must_use]
            pub const fn is_loss(self) -> bool {
                match self { $(Counter::$variant => is_called_lost(stringify!($variant)),)* }
            }
            /// The causes of lost tokens.
            pub fn losses() -> impl Iterator<Item = Counter> + Clone {
                Self::ALL.iter().copied().filter(|counter| counter.is_loss())
            }
        }
    };
}
counters! {
    /// Requests that started inside the recorded interval.
    Followed = "followed",
    /// Followed requests that ended, whenever that was.
    Completed = "completed",
    /// Followed requests that went on after the interval: none, since requests count where they begin.
    Unfinished = "unfinished",
    /// Operations that ended: as many as have been completed. (Before: responses received inside the interval.)
    Operations = "operations",
    /// The ends of requests that count less their beginnings, modulo 2^64: of what is lost or unfinished, its last
    /// point. It is what their stages must sum to.
    LifeNs = "life_ns",
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
    /// Token lost: no place left for its stage or device.
    LostStageTable = "stage_table_full",
    /// Token lost: no slot for its connection into a VM.
    LostConnectionTable = "connection_table_full",
    /// Token lost: another message of its connection went into the VM before its answer came out.
    LostUnanswered = "unanswered",
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
    /// Further segments of a message whose token is in flight.
    Segments = "further_segments",
    /// Segments of such a message that were sent again.
    Resent = "resent_segments",
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
    /// bios that found no place: their operation is followed as if they were not there.
    BioTable = "bio_table_full",
    /// bios of file operations.
    Bios = "bios",
    /// bios that another thread queued than their operation's: they had been held back.
    HeldBack = "bios_held_back",
    /// bios of file operations that the device failed.
    BioErrors = "bios_failed",
    /// bios of file operations that were completed after their operation: read-ahead.
    BiosLater = "bios_after_return",
    /// bios of which a part became one of its own, too large for the device as a whole.
    BioSplits = "bio_splits",
    /// Requests of more bios than are looked at: their operations seem to wait for the rest.
    LongRequests = "requests_of_too_many_bios",
    /// Calls that began or ended more operations than are looked at: the rest are not followed.
    AtOnceMany = "too_many_operations_at_once",
    /// Operations that a worker of io_uring's made in the stead of who submitted them.
    ByWorkers = "operations_by_workers",
    /// Operations of workers whose direct I/O was seen to begin in the worker, so that its bios are theirs.
    InWorkers = "operations_followed_into_workers",
    /// bios by which threads of the kernel's wrote back what operations had left in the page cache.
    WriteBacks = "write_back_bios",
    /// Bytes that were written back so.
    WriteBackBytes = "write_back_bytes",
    /// Time from issue to completion of bios that wrote back, ns.
    WriteBackNs = "write_back_device_ns",
    /// Requests that a device's driver gave back, to be issued again.
    Requeues = "requeues",
    /// Threads whose slot was taken over by another.
    ThreadClash = "thread_slot_taken",
    /// Successful sends seen by `sock:sock_send_length` (detailed phases).
    Sent = "sent",
    /// NET_RX softirqs that ran (detailed phases).
    Softirqs = "softirqs",
    /// Requests delivered to a socket that is not followed, in or out of the interval.
    UnknownSocket = "delivered_to_unknown_socket",
    /// Stacks and waits noted (sampled phases).
    Events = "events",
    /// Stacks or waits lost: the ring buffer was full.
    EventsRingFull = "events_ring_full",
    /// Stages that could not be divided up by what the reader did: it was not known from the beginning (detailed
    /// phases).
    ReaderChanged = "reader_changed",
    /// Times of parts and of system calls that found no place (detailed phases).
    DetailsTable = "details_table_full",
}
/// Length of the counters' array.
pub const COUNTERS: usize = 64;
const _: () = assert!(Counter::ALL.len() <= COUNTERS);
