//! The experiment: rounds of repetitions, each of phases, saved one by one.

pub mod bench;
mod client;
pub mod lab;
mod measure;
mod parties;
pub mod plan;
pub mod profiles;
mod quiet;
mod raw;
mod round;
pub mod schedule;
pub mod store;
mod together;
mod windows;

pub use lab::Lab;
pub use plan::Plan;
pub use virtax_model::spec::RunSpec;
