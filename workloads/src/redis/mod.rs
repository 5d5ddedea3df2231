//! A load generator for Redis: one thread, many connections, one request under way on each.

pub mod client;
pub mod resp;

/// Largest value: the whole request fits into one segment on an Ethernet-sized link.
pub const LARGEST_VALUE: usize = 1024;
