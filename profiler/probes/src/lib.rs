//! The probes in the kernel: loading, attaching, and reading what they counted.

// What of the model is forgotten must not compile: no arm stands for values to come.
#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

pub mod artifact;
mod cost;
mod drain;
mod events;
mod followed;
pub mod format;
pub mod interrupt;
mod labels;
mod layouts;
mod limits;
mod mapped;
mod object;
mod offsets;
mod options;
mod phase;
pub mod process;
mod records;
pub mod sampling;
mod stacked;
pub mod symbols;
mod table;
mod tables;
mod totals;
mod tracefs;
mod vcpus;

pub use cost::{Dispatch, RunTimes};
pub use events::RawEvent;
pub use followed::{Border, BorderKind, Boundary, ConfigurationId, Followed, Task, Window};
pub use labels::{Labels, Names, role};
pub use limits::Limits;
pub use object::{Attached, Loaded, Support, support};
pub use offsets::Offsets;
pub use options::{KINDS, Options, Preference};
pub use phase::{Closed, Expected, Following, LEAD_IN, LEAD_OUT, Notes, Open, Ready, Sampler};
pub use records::{RawRecord, RawSeen};
pub use totals::Totals;
pub use tracefs::{Tracefs, count_tracepoint};
