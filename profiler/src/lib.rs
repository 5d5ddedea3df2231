//! virtax shows where, on the path of a request, virtualization charges its toll.
//!
//! Data flows one way: a plan becomes repetitions ([`experiment`]), whose phases are raw [`counts`]; [`analysis`] turns
//! them into waterfalls and comparisons, the [`result`]; [`render`] shows it.

// Of the modules that know the model, none may let a match arm stand for values to come: what is forgotten there must
// not compile.

#[cfg(feature = "host")]
pub use virtax_analysis as analysis;
pub use virtax_model::{counts, error, histogram, input, points, profile, records, run_folder};

// What virtax and the agent in a guest share.
pub mod agent;
pub mod artifact;
pub mod interrupt;
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
pub mod probes;
pub mod process;
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
pub mod sampling;
pub mod symbols;

#[cfg(feature = "host")]
pub mod cgroup;
#[cfg(feature = "host")]
pub mod child;
#[cfg(feature = "host")]
pub mod clean;
#[cfg(feature = "host")]
pub mod doctor;
#[cfg(feature = "host")]
pub mod engine;
#[cfg(feature = "host")]
pub mod environment;
#[cfg(feature = "host")]
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
pub mod experiment;
#[cfg(feature = "host")]
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
pub mod export;
#[cfg(feature = "host")]
pub mod guest;
#[cfg(feature = "host")]
pub mod injection;
#[cfg(feature = "host")]
pub mod ladder;
#[cfg(feature = "host")]
pub mod ledger;
#[cfg(feature = "host")]
pub mod net;
#[cfg(feature = "host")]
#[doc(hidden)]
pub mod outside;
#[cfg(feature = "host")]
pub mod pack;
#[cfg(feature = "host")]
pub mod placement;
#[cfg(feature = "host")]
pub mod privileges;
#[cfg(feature = "host")]
#[cfg(feature = "host")]
pub mod removal;
#[cfg(feature = "host")]
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
pub mod render;
#[cfg(feature = "host")]
#[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
pub mod result;
#[cfg(feature = "host")]
pub mod run;
#[cfg(feature = "host")]
#[cfg(feature = "host")]
pub mod signals;
#[cfg(feature = "host")]
pub mod truth;
#[cfg(feature = "host")]
pub mod workload;
