//! The probes in the kernel: loading, attaching, and reading what they counted.

mod cost;
mod events;
mod mapped;
mod object;
mod offsets;
mod records;
mod tables;

pub use cost::{Dispatch, RunTimes, ns_per_run};
pub use events::RawEvent;
pub use object::{Attached, Loaded, Preference, Support, support};
pub use offsets::Offsets;
pub use records::{RawRecord, RawSeen};
pub use tables::{Labels, Names};
