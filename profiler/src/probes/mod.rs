//! The probes in the kernel: loading, attaching, and reading what they counted.

mod cost;
mod drain;
mod events;
pub mod format;
mod layouts;
mod limits;
mod mapped;
mod object;
mod offsets;
mod options;
mod phase;
mod records;
mod stacked;
mod tables;
mod tracefs;
mod vcpus;

pub use cost::{Dispatch, RunTimes};
pub use events::RawEvent;
pub use limits::Limits;
pub use object::{Attached, Loaded, Support, support};
pub use offsets::Offsets;
pub use options::{KINDS, Options, Preference};
pub use phase::{
    Borders, Boundary, Closed, Expected, Following, LEAD_IN, LEAD_OUT, Notes, Open, Ready, Sampler, Window,
};
pub use records::{RawRecord, RawSeen};
pub use tables::{Labels, Names, Totals, role};
pub use tracefs::{Tracefs, count_tracepoint};
