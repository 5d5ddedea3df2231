//! What the probes in the kernel and virtax in user space agree on: points, tables and their entries, counters.
//!
//! Every type here is `#[repr(C)]` without implicit padding, because its bytes cross the kernel's boundary.
#![no_std]

mod control;
mod counter;
mod crossing;
mod device;
pub mod file;
mod followed;
mod holder;
pub mod point;
mod qemu;
mod record;
mod sampled;
mod stage;
mod tables;
mod thread;
mod token;
pub mod vcpu;

pub use control::*;
pub use counter::{COUNTERS, Counter};
pub use crossing::{CROSSINGS, Crossing, SPREAD, SPREAD_WIDE, crossing_number, crossing_place};
pub use device::*;
pub use file::{Below, Bio, Done, Given, Level, Passed, Sector};
pub use followed::*;
pub use holder::*;
pub use qemu::QemuSteps;
pub use record::*;
pub use sampled::*;
pub use stage::*;
pub use tables::*;
pub use thread::*;
pub use token::Token;
pub use vcpu::{EXIT_KEYS, ExitId, Vcpu};

/// The offset of a field that the running kernel lacks.
pub const NO_FIELD: u32 = u32::MAX;
