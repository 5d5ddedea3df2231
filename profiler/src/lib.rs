//! virtax shows where, on the path of a request, virtualization charges its toll.
//!
//! Data flows one way: a plan becomes repetitions ([`experiment`]), whose phases are raw [`counts`]; [`analysis`] turns
//! them into waterfalls and comparisons, the [`result`]; [`render`] shows it.

pub mod agent;
pub mod analysis;
pub mod artifact;
pub mod cgroup;
pub mod child;
pub mod clean;
pub mod configuration;
pub mod counts;
pub mod doctor;
pub mod engine;
pub mod environment;
pub mod error;
pub mod experiment;
pub mod guest;
pub mod injection;
pub mod input;
pub mod interrupt;
pub mod ladder;
pub mod ledger;
pub mod net;
pub mod pack;
pub mod points;
pub mod privileges;
pub mod probes;
pub mod process;
pub mod profile;
pub mod render;
pub mod result;
pub mod run;
pub mod symbols;
pub mod truth;
pub mod workload;
