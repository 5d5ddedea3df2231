//! virtax shows where, on the path of a request, virtualization charges its toll.
//!
//! Data flows one way: a plan becomes repetitions ([`experiment`]), whose phases are raw [`counts`]; [`analysis`] turns
//! them into waterfalls and comparisons, the [`result`]; [`render`] shows it.

pub use virtax_agent as agent;
pub use virtax_analysis as analysis;
pub use virtax_engines::{
    artifact, cgroup, child, clean, engine, environment, finding, guest, injection, ledger, net, pack, removal,
    workload,
};
pub use virtax_model::{counts, error, histogram, input, placement, points, profile, records, run_folder};
pub use virtax_probes::{self as probes, interrupt, process, sampling, symbols};
pub use virtax_report::{export, render, result};

pub mod doctor;
pub mod experiment;
pub mod ladder;
#[doc(hidden)]
pub mod outside;
pub mod privileges;
pub mod run;
pub mod signals;
pub mod truth;
