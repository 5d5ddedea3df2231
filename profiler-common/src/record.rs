//! Single requests with all their points.

use crate::point::PlaceId;

/// Points that one record holds.
pub const RECORD_POINTS: usize = 128;
/// Requests with a record under way, where the plan does not ask for more.
pub const RECORD_SLOTS: u32 = 1024;
/// The most of them: a token has 13 bits for its record.
pub const MOST_RECORD_SLOTS: u32 = 4096;

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
    /// Phase and configuration.
    pub turn: crate::Turn,
    /// Points used.
    pub len: u32,
    /// The points, in order.
    pub points: [Seen; RECORD_POINTS],
}
/// Bytes before a record's points.
pub const RECORD_HEADER: usize = 16;

const _: () = assert!(size_of::<Seen>() == 16);
const _: () = assert!(size_of::<Record>() == RECORD_HEADER + 16 * RECORD_POINTS);
