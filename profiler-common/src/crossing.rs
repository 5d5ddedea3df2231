//! Single requests on their way through a VM, as both sides know them.

/// Fibonacci hashing (Knuth, TAOCP 6.4): addresses of one slab cache differ in few bits, and so do keys of stages.
pub const SPREAD: u32 = 0x9E37_79B1;
/// Fibonacci hashing for 64 bits.
pub const SPREAD_WIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Requests that went into a VM and came out, and that are remembered by their numbers, where the plan
/// does not ask for more.
pub const CROSSINGS: u32 = 8192;

/// A request's stay in a VM: seen from the host, and, by the guest's own clock, from within. Both number
/// it alike, by what stands in the header of its segment (connection and sequence number), so that either side's
/// times can be put together.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Crossing {
    /// Phase that it belongs to, by the side's own count.
    pub epoch: u32,
    /// Number of the request, never 0.
    pub number: u32,
    /// When it came in, ns.
    pub since_ns: u64,
    /// When its answer went out, ns; 0: not yet.
    pub until_ns: u64,
}

/// The number of a request by its segment's sequence number and the port on the outside.
#[inline(always)]
#[must_use]
pub const fn crossing_number(sequence: u32, port: u16) -> u32 {
    let number = sequence ^ (port as u32).wrapping_mul(SPREAD);
    if number == 0 { 1 } else { number }
}

/// Where a request of this number is remembered, modulo the table's entries.
#[inline(always)]
#[must_use]
pub const fn crossing_place(number: u32) -> u32 {
    number.wrapping_mul(SPREAD) >> 16
}
const _: () = assert!(CROSSINGS <= 1 << 16, "places have 16 bits");
const _: () = assert!(size_of::<Crossing>() == 24);
