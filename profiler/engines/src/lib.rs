//! What is started, and taken away again: [`engine`]s (native, Docker, namespaces, VMs) with what they are
//! made of, and the [`workload`]s that run in them.

pub mod artifact;
pub mod cgroup;
pub mod child;
pub mod clean;
pub mod engine;
pub mod environment;
pub mod finding;
pub mod guest;
pub mod injection;
pub mod ledger;
pub mod net;
pub mod pack;
pub mod removal;
pub mod workload;
