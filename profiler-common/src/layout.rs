//! Values of the maps, and the numbers of their entries.

use crate::point::PlaceId;

/// Role of the process that sends requests.
pub const CLIENT: u8 = 0;
/// Role of the process that answers them.
pub const SERVER: u8 = 1;

/// Role of a proxy's sockets to clients, of requests that it has, and of its threads.
pub const PROXY_IN: u8 = 2;
/// Role of a proxy's sockets to servers, and of responses that it has.
pub const PROXY_OUT: u8 = 3;
/// Role of threads that are virtual processors, and of the steps between a guest's operation on its disk and its
/// machine's own.
pub const VCPU: u8 = 4;
/// Role of a virtual machine's process (its main loop, and threads for its devices), and of the operations on files
/// that it makes for its guest.
pub const VMM: u8 = 5;
/// Role of the kernel's workers for a virtual machine's devices.
pub const VHOST: u8 = 6;
/// Roles, rounded up to a power of two. Requests over the network have those of client, server and proxy only.
pub const ROLES: usize = 8;

/// Whether a thread's role is a proxy's.
#[inline(always)]
#[must_use]
pub const fn is_proxy(role: u32) -> bool {
    role == PROXY_IN as u32 || role == PROXY_OUT as u32
}

/// The role in which a thread has requests: a virtual machine's process that has any is their server, behind a
/// network of its own.
#[inline(always)]
#[must_use]
pub const fn path_role(role: u32) -> u8 {
    if role >= VCPU as u32 { SERVER } else { role as u8 }
}

/// Nothing is followed.
pub const OFF: u32 = 0;
/// Requests are followed; what falls between `open_ns` and `close_ns` is recorded.
pub const ON: u32 = 1;

/// In place of a field's offset: the running kernel lacks it.
pub const NO_FIELD: u32 = u32::MAX;

/// Sockets, and threads, that can be followed at once.
pub const SLOTS: u32 = 16384;
/// skbs with a token at any instant.
pub const PACKET_SLOTS: u32 = 4096;
/// Connections into a virtual machine that can be followed at once.
pub const CONNECTION_SLOTS: u32 = 4096;

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
    /// What is watched besides: [`TOTALS`], [`PARTS`] or [`STACKS`].
    pub mode: u32,
    /// With [`STACKS`]: one wait in about this many leaves its stacks; 0: none.
    pub wait_every: u32,
    /// Port on which a proxy listens; 0: there is none.
    pub proxy_port: u32,
    /// Interface number of the device behind which a virtual machine answers; 0: there is none.
    pub boundary_ifindex: u32,
    /// Inode number of its network namespace.
    pub boundary_namespace: u32,
    /// This is the virtual machine: the boundary is its card, and its server listens on this port. 0: it is not.
    pub inside_port: u32,
    /// Stops the compiler from inventing padding.
    pub reserved: u32,
}

/// Nothing but the totals and records.
pub const TOTALS: u32 = 0;
/// Threads, system calls and softirqs too: they split stages into parts.
pub const PARTS: u32 = 1;
/// Threads and softirqs too, and what each works on: stacks are sampled.
pub const STACKS: u32 = 2;

/// A request (or its response) on its way from holder to holder.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Token {
    /// When it passed its last point, ns.
    pub at_ns: u64,
    /// Phase that it belongs to.
    pub epoch: u32,
    /// Its last point.
    pub point: PlaceId,
    /// Role and record, see [`Token::role`] and [`Token::record`].
    marks: u16,
}

impl Token {
    /// Bits of the record.
    const RECORD_BITS: u32 = 13;

    /// A token without a record.
    #[inline(always)]
    #[must_use]
    pub const fn new(at_ns: u64, epoch: u32, point: PlaceId, role: u8) -> Self {
        Self { at_ns, epoch, point, marks: (role as u16) << Self::RECORD_BITS }
    }
    /// Role of its holder: the sending side's until delivery, the receiving side's from then on.
    #[inline(always)]
    #[must_use]
    pub const fn role(&self) -> u8 {
        (self.marks >> Self::RECORD_BITS) as u8
    }
    /// 1 + slot of its record, 0: none.
    #[inline(always)]
    #[must_use]
    pub const fn record(&self) -> u16 {
        self.marks & ((1 << Self::RECORD_BITS) - 1)
    }
    /// The same token at another point.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, point: PlaceId, at_ns: u64) -> Self {
        Self { at_ns, point, ..self }
    }
    /// Another role holds it.
    #[inline(always)]
    pub const fn set_role(&mut self, role: u8) {
        self.marks = self.record() | (role as u16) << Self::RECORD_BITS;
    }
    /// It has a record from now on (1 + its slot), or none (0).
    #[inline(always)]
    pub const fn set_record(&mut self, record: u16) {
        self.marks = record | (self.role() as u16) << Self::RECORD_BITS;
    }
}

const _: () = assert!(RECORD_SLOTS < 1 << Token::RECORD_BITS && ROLES == 8, "role and record share 16 bits");

/// A socket holds nothing: its token travels, or was lost.
pub const EMPTY: u8 = 0;
/// A socket holds a message that nobody has read yet.
pub const UNREAD: u8 = 1;
/// A socket holds a message that was read and not yet answered.
pub const READ: u8 = 2;

/// The request of a token began inside the recorded interval, and is under way: it counts.
pub const COUNTED: u8 = 1;
/// The request counts, and has ended.
pub const ENDED: u8 = 2;

/// A followed socket: one cache line.
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
    /// [`COUNTED`] or [`ENDED`], if the request of its token began inside the recorded interval; else 0.
    pub counted: u8,
    /// Of a file operation, 1: nobody sees its program take the completion.
    pub unseen: u8,
    /// Its index in the array.
    pub slot: u32,
    /// The thread that last received from it; 0: not known.
    pub reader: u32,
    /// 1: a CPU is taking the slot.
    pub lock: u64,
    /// In a virtual machine: the number of the request that it holds, see [`crate::Crossing`]; 0: none. Of a thread's
    /// file operations: the number of the one that it is in.
    pub crossing: u32,
    /// Of a file operation that is completed: 1 + slot of the next of its thread's; 0: there is none.
    pub next: u32,
    /// Of a file operation: its bios that are under way.
    pub bios: u64,
}

/// A travelling skb: one cache line.
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
    /// 1: a CPU is taking the slot.
    pub lock: u64,
    /// 1 + slot of the connection that its token went to, into a virtual machine; 0: it did not.
    pub connection: u32,
    /// In a virtual machine: as in [`Socket`].
    pub crossing: u32,
}

/// A connection into a virtual machine, which holds its token from the one skb to the other: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Connection {
    /// Address and port outside, port inside; 0: free.
    pub key: u64,
    /// What the machine holds, if `state` is not [`EMPTY`].
    pub token: Token,
    /// The socket that sent it.
    pub socket: u64,
    /// 1: a CPU is taking the slot.
    pub lock: u64,
    /// [`EMPTY`] or [`READ`].
    pub state: u8,
    /// As in [`Socket`].
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 6],
    /// The number of the request that the machine holds, see [`crate::Crossing`].
    pub crossing: u32,
    /// Fills the cache line.
    pub unused: [u32; 3],
}

/// A network device on a path, or a disk.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Device {
    /// The kernel's address, 0: free.
    pub key: u64,
    /// Interface number in its namespace; a disk's first device number, as `MAJOR << 20 | MINOR`.
    pub ifindex: u32,
    /// Inode number of its network namespace; 0: it is a disk.
    pub namespace: u32,
    /// Its name, ended by a zero byte.
    pub name: [u8; 16],
    /// 1: the slot is taken.
    pub lock: u64,
    /// Of a disk, 1: it takes bios as they are, and may pass them on to other disks.
    pub takes_bios: u64,
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

/// Of the places for [`STAGES`], those that a stage has by its key, or the one behind.
pub const DIRECT_STAGES: u32 = 512;
/// Stages and system calls that one repetition can tell apart: places by key, and such for those that find theirs
/// taken.
pub const STAGES: u32 = DIRECT_STAGES + 256;

/// Packs a stage into the key of the table of stages, never 0: from the lowest bit on, 16 bits each of the points where
/// it ends and begins, three of the role, one that it is a part. (The eight behind are for the configuration, where
/// several are alive at once.)
#[inline(always)]
#[must_use]
pub const fn stage_key(part: bool, role: u8, from: PlaceId, to: PlaceId) -> u64 {
    ((part as u64) << 35) | ((role as u64 & 7) << 32) | ((from.raw() as u64) << 16) | to.raw() as u64
}

/// What [`stage_key`] packs: whether it is a part, the role's number, where it begins, where it ends.
#[must_use]
pub const fn stage_of_key(key: u64) -> (bool, u8, PlaceId, PlaceId) {
    let (from, to) = (PlaceId::from_raw((key >> 16) as u16), PlaceId::from_raw(key as u16));
    (key >> 35 & 1 != 0, (key >> 32 & 7) as u8, from, to)
}

/// System calls have totals along with the stages: their keys begin here.
pub const CALL_KEYS: u64 = 1 << 56;
/// System calls that can be told apart.
pub const SYSTEM_CALLS: u32 = 512;

/// Packs a role and a system call's number (below [`SYSTEM_CALLS`]) into a key of the same table.
#[inline(always)]
#[must_use]
pub const fn call_key(role: u8, number: u32) -> u64 {
    CALL_KEYS | ((role as u64 & 7) << 32) | (number & (SYSTEM_CALLS - 1)) as u64
}

/// What [`call_key`] packs: the role's number, and the system call's.
#[must_use]
pub const fn call_of_key(key: u64) -> (u8, u32) {
    ((key >> 32 & 7) as u8, key as u32 & (SYSTEM_CALLS - 1))
}

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
    pub point: PlaceId,
    /// Role of the holder and CPU, see [`Seen::role`] and [`Seen::cpu`].
    pub marks: u16,
    /// Thread that was current.
    pub tid: u32,
}

impl Seen {
    /// Bits of the CPU: the kernel is built for 8192 of them at most.
    const CPU_BITS: u32 = 13;

    /// Packs role and CPU.
    #[inline(always)]
    #[must_use]
    pub const fn marks(role: u8, cpu: u32) -> u16 {
        (role as u16) << Self::CPU_BITS | (cpu as u16 & ((1 << Self::CPU_BITS) - 1))
    }
    /// Role of the holder.
    #[must_use]
    pub const fn role(&self) -> u8 {
        (self.marks >> Self::CPU_BITS) as u8
    }
    /// CPU on which it was seen (for thread times: on which they were bound).
    #[must_use]
    pub const fn cpu(&self) -> u16 {
        self.marks & ((1 << Self::CPU_BITS) - 1)
    }
}

/// One request with all its points. What travels through the ring buffer is `len` points long.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// 1 + slot of the client's socket, 0: the record is free.
    pub taken: u64,
    /// Phase.
    pub epoch: u32,
    /// Points used.
    pub len: u32,
    /// The points, in order.
    pub points: [Seen; RECORD_POINTS],
}
/// Bytes before a record's points.
pub const RECORD_HEADER: usize = 16;

/// Frames of one stack that the kernel gives.
pub const FRAMES: usize = 127;

/// What happened when a stack was taken, and which stack it is.
pub mod event {
    /// The sampler's timer met a CPU at work for the run: kernel and user stacks follow.
    pub const SAMPLE: u8 = 0;
    /// The same on an idle CPU: no stacks.
    pub const IDLE: u8 = 1;
    /// The same on a CPU at other work: no stacks, nothing is known of it.
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
    /// Its process.
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
    /// With [`event::WAIT_END`]: time blocked, waking, runnable, throttled, ns.
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

const _: () = assert!(size_of::<Control>() == 56);
const _: () = assert!(size_of::<Token>() == 16);
const _: () = assert!(size_of::<Socket>() == 64);
const _: () = assert!(size_of::<EventHead>() == 72);
const _: () = assert!(size_of::<Event>() == 72 + 16 * FRAMES);
const _: () = assert!(size_of::<Packet>() == 64);
const _: () = assert!(size_of::<Connection>() == 64);
const _: () = assert!(size_of::<Device>() == 48);
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
