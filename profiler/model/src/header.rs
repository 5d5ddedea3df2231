//! What is known of a run before its first repetition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{environment::Environment, spec::RunSpec};

/// Values of a workload's settings, by their names.
pub type Settings = BTreeMap<String, String>;

/// Version of the files in a directory. Within a version, fields are added, and none changes its meaning.
pub const SCHEMA_VERSION: u32 = 2;

/// What is known before the first repetition: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Five hexadecimal digits.
    pub run_id: String,
    /// Version of virtax.
    pub virtax_version: String,
    /// Start, seconds since 1970.
    pub started_unix_s: u64,
    /// The command that repeats the run.
    pub command: String,
    /// The workload's name.
    pub workload: String,
    /// Settings of the workload.
    pub settings: Settings,
    /// Largest residual of a complete result, share of the client's mean.
    pub residual_limit: f64,
    /// Configurations' names, in the order of `--in`.
    pub configurations: Vec<String>,
    /// Name of the one that others are compared with.
    pub baseline: String,
    /// How it was to be measured.
    #[serde(flatten)]
    pub spec: RunSpec,
    /// Kernel memory of the probes' tables, bytes.
    #[serde(default)]
    pub tables_bytes: u64,
    /// The host.
    pub environment: Environment,
    /// Runs that went on with this one, in order: their rounds are part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<Again>,
}

/// A run that went on with an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Again {
    /// Five hexadecimal digits.
    pub run_id: String,
    /// Version of virtax.
    pub virtax_version: String,
    /// Start, seconds since 1970.
    pub started_unix_s: u64,
    /// Number of the first of its rounds, from 0.
    pub first_round: u32,
    /// The host, which may have booted another kernel.
    pub environment: Environment,
}
