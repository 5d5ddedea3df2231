//! What virtax is about, and how it is kept: points and places, raw counts, stacks and single requests, the files of a
//! run's folder. Everything here is a shape with its reading and writing; nothing measures, and nothing computes.

pub mod counts;
pub mod environment;
pub mod error;
pub mod header;
pub mod histogram;
#[allow(clippy::wildcard_enum_match_arm, reason = "JSON's kinds are another crate's")]
pub mod input;
pub mod phases;
pub mod placement;
pub mod points;
pub mod profile;
pub mod records;
pub mod run_folder;
pub mod spec;
pub mod terms;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod whole;
