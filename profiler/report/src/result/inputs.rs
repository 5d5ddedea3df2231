//! What a result is computed from.

use virtax_model::{counts::Repetition, error::Result, header::Header, profile::Profile, records::Record};

/// What a run saved.
pub struct Inputs<'a> {
    /// What was known before.
    pub header: &'a Header,
    /// What engine and workload say of it.
    pub told: &'a Told<'a>,
    /// Counts of the run.
    pub repetitions: &'a [Repetition],
    /// Records of a configuration.
    pub records: &'a dyn Fn(&str) -> Result<Vec<Record>>,
    /// Stacks of a configuration.
    pub profiles: &'a dyn Fn(&str) -> Result<Vec<Profile>>,
}

/// What engines and the workload say of a run. They are asked by whoever knows them; the result passes it on.
pub struct Told<'a> {
    /// What a person calls a configuration.
    pub phrase: &'a dyn Fn(&str) -> String,
    /// Operations per second that were asked for; `None`: each connection sends as soon as it has its answer.
    pub rate_per_s: Option<f64>,
    /// How the workload was made smaller than what it stands for; `None`: it was not.
    pub scaled: Option<String>,
}
