//! A request on its way.

use crate::{MOST_RECORD_SLOTS, ROLES, Turn, point::PlaceId};

/// A request (or its response) on its way from holder to holder.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Token {
    /// When it passed its last point, ns.
    pub at_ns: u64,
    /// Phase that it belongs to, and configuration.
    pub turn: Turn,
    /// The last point that it has passed.
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
    pub const fn new(at_ns: u64, turn: Turn, point: PlaceId, role: u8) -> Self {
        Self { at_ns, turn, point, marks: (role as u16) << Self::RECORD_BITS }
    }
    /// Number of the phase that it belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.turn.epoch()
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
    /// Moves the token to another point.
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
    /// Gives the token a record (1 + the record's slot), or takes it (0).
    #[inline(always)]
    pub const fn set_record(&mut self, record: u16) {
        self.marks = record | (self.role() as u16) << Self::RECORD_BITS;
    }
}

const _: () = assert!(MOST_RECORD_SLOTS < 1 << Token::RECORD_BITS && ROLES == 8, "role and record share 16 bits");

const _: () = assert!(size_of::<Token>() == 16);
