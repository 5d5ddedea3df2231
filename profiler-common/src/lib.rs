//! What the probes in the kernel and the agent in user space agree on: point numbers, map values, counters.
//!
//! Every type here is `#[repr(C)]` without implicit padding, because its bytes cross the kernel's boundary.
#![no_std]

mod counter;
mod crossing;
pub mod layout;
pub mod point;
mod thread;
pub mod vcpu;

pub use counter::{COUNTERS, Counter};
pub use crossing::{CROSSINGS, Crossing, SPREAD, SPREAD_WIDE, crossing_number, crossing_place};
pub use layout::*;
pub use thread::*;
pub use vcpu::{EXIT_KEYS, Vcpu, exit_key};
