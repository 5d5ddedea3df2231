//! Totals of stages, and the keys by which they are found.

use crate::point::PlaceId;

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

/// Number of places for [`STAGES`] that a stage has by its key, or the one behind.
pub const DIRECT_STAGES: u32 = 512;
/// Stages and system calls that one repetition can tell apart: places by key, and such for those that find theirs
/// taken.
pub const STAGES: u32 = DIRECT_STAGES + 256;

/// A stage, or a part of one, as its key in the table of stages says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageId {
    /// Number of the configuration.
    pub configuration: u8,
    /// Whether it is a part.
    pub part: bool,
    /// Number of the role.
    pub role: u8,
    /// Where it begins.
    pub from: PlaceId,
    /// Where it ends.
    pub to: PlaceId,
}

impl StageId {
    /// The key, never 0: from the lowest bit on, 16 bits each of the points where it ends and begins, three of the
    /// role, one that it is a part, eight of the configuration.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> u64 {
        let holder = (self.configuration as u64) << 4 | (self.part as u64) << 3 | self.role as u64 & 7;
        holder << 32 | (self.from.raw() as u64) << 16 | self.to.raw() as u64
    }

    /// The stage of a key.
    #[must_use]
    pub const fn of_key(key: u64) -> Self {
        Self {
            configuration: (key >> 36) as u8,
            part: key >> 35 & 1 != 0,
            role: (key >> 32 & 7) as u8,
            from: PlaceId::from_raw((key >> 16) as u16),
            to: PlaceId::from_raw(key as u16),
        }
    }
}

/// System calls have totals along with the stages: their keys begin here.
pub const CALL_KEYS: u64 = 1 << 56;
/// System calls that can be told apart.
pub const SYSTEM_CALLS: u32 = 512;

/// A system call of a role's threads, as its key in the same table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    /// Number of the configuration.
    pub configuration: u8,
    /// Number of the role.
    pub role: u8,
    /// The system call's, below [`SYSTEM_CALLS`].
    pub number: u32,
}

impl CallId {
    /// The key, which has role and configuration where a stage's has them.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> u64 {
        let holder = (self.configuration as u64) << 4 | self.role as u64 & 7;
        CALL_KEYS | holder << 32 | (self.number & (SYSTEM_CALLS - 1)) as u64
    }

    /// The call of a key.
    #[must_use]
    pub const fn of_key(key: u64) -> Self {
        Self { configuration: (key >> 36) as u8, role: (key >> 32 & 7) as u8, number: key as u32 & (SYSTEM_CALLS - 1) }
    }
}

const _: () = assert!(size_of::<Stage>() == 16 + 4 * BUCKETS);
