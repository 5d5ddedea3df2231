//! `virtax truth`: known costs, put into one place, must be found there (`docs/truth.md`); and a configuration
//! compared with itself must not differ.

mod again;
pub mod cases;
pub mod judge;
pub mod show;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use virtax_model::whole;

pub use again::{Again, AgainResult, run_again};

use self::{
    cases::{CASES, Case},
    judge::{Judged, judge, judge_tail},
};
use crate::{
    analysis::path::StageKey,
    counts::Repetition,
    error::{Error, Result, did_you_mean},
    experiment::{RunSpec, store},
    interrupt,
    placement::Placement,
    probes,
    result::{ConfigurationResult, RunResult, StageResult},
    run::{self, Request, VmSettings},
};

/// Version of the shape of `truth.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// All cases, not only the half chosen for speed.
    pub full: bool,
    /// These cases alone; empty: those of `full`.
    pub cases: Vec<String>,
    /// Rounds of each.
    pub rounds: u32,
    /// Measured time per configuration and round.
    pub duration: Duration,
    /// Folder for the runs and `truth.json`.
    pub out: PathBuf,
    /// Whether earlier results there may be replaced.
    pub force: bool,
}

impl Options {
    /// Makes the folder, or takes one that is empty or may be replaced.
    ///
    /// # Errors
    /// If it has other content, or cannot be made.
    pub fn make_folder(&self) -> Result<()> {
        store::Store::check(&self.out, self.force)?;
        std::fs::create_dir_all(&self.out).map_err(|error| Error::file("create", &self.out, error))
    }
}

/// `truth.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of virtax.
    pub virtax_version: String,
    /// Rounds of each case.
    pub rounds: u32,
    /// Measured time per configuration and round, seconds.
    pub duration_s: f64,
    /// What the cases brought.
    pub cases: Vec<Judged>,
    /// Cases that this host cannot run, and why.
    pub missing: Vec<Missing>,
    /// Comparisons of configurations with themselves.
    pub again: Option<Again>,
}

/// A case that cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The case.
    pub case: String,
    /// What is lacking.
    pub why: String,
}

impl Truth {
    /// Nothing yet.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            virtax_version: env!("CARGO_PKG_VERSION").to_owned(),
            rounds: options.rounds,
            duration_s: options.duration.as_secs_f64(),
            cases: Vec::new(),
            missing: Vec::new(),
            again: None,
        }
    }

    /// Whether something was run, and all of it passed.
    #[must_use]
    pub fn holds(&self) -> bool {
        match &self.again {
            Some(again) => again.holds(),
            None => !self.cases.is_empty() && self.cases.iter().all(|case| case.failures.is_empty()),
        }
    }

    /// Writes it into its folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        whole::write_json(&folder.join("truth.json"), self)
    }
}

/// The cases that are asked for.
///
/// # Errors
/// [`Error::Usage`] for names that do not exist.
pub fn select(options: &Options) -> Result<Vec<&'static Case>> {
    if options.cases.is_empty() {
        return Ok(CASES.iter().filter(|case| options.full || case.quick).collect());
    }
    let find = |name: &String| {
        CASES.iter().find(|case| case.name == name).ok_or_else(|| {
            let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            let near = did_you_mean(name, known.iter().copied());
            Error::Usage(format!("there is no case `{name}`{near}; cases: {}", known.join(", ")))
        })
    };
    options.cases.iter().map(find).collect()
}

/// Runs cases, one after another; `told` hears of each.
///
/// # Errors
/// If one cannot be completed; what was judged is in `truth.json` already. What the host lacks is no error.
pub fn run_cases(options: &Options, told: &mut dyn FnMut(&Judged)) -> Result<Truth> {
    let cases = select(options)?;
    options.make_folder()?;
    let mut truth = Truth::new(options);
    let bar = ProgressBar::new(cases.len() as u64);
    for case in cases {
        interrupt::check()?;
        match run_case(case, options) {
            Ok(judged) => {
                bar.suspend(|| told(&judged));
                truth.cases.push(judged);
            }
            Err(error @ (Error::Unsupported { .. } | Error::Engine { .. })) => {
                truth.missing.push(Missing { case: case.name.to_owned(), why: error.to_string() });
            }
            Err(error) => return Err(error),
        }
        truth.save(&options.out)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(truth)
}

/// A run of these configurations, as the cases need it: totals and records, no stacks.
fn request(configurations: &str, placement: Placement, folder: PathBuf, options: &Options) -> Request {
    Request {
        workload: "tcp-rr".to_owned(),
        configurations: configurations.to_owned(),
        baseline: None,
        spec: RunSpec {
            placement,
            rounds: options.rounds,
            duration_s: options.duration.as_secs_f64(),
            sample_rate_hz: 0,
            ..RunSpec::default()
        },
        budget: Duration::ZERO,
        settings: Vec::new(),
        out: Some(folder),
        force: true,
        probes: probes::Options::default(),
        vms: VmSettings::default(),
    }
}

fn run_case(case: &Case, options: &Options) -> Result<Judged> {
    let folder = options.out.join(case.name);
    let mut request = request(&case.configurations().join(","), case.placement, folder.clone(), options);
    case.workload.clone_into(&mut request.workload);
    request.settings = case.settings.iter().map(|pair| (*pair).to_owned()).collect();
    request.spec.duration_s *= f64::from(case.longer);
    let (plan, _) = run::plan(&request)?;
    // A case that is not told yet goes on: its interval reaches over a limit, say, on a host whose speed swings.
    let mut goes_on = |folder: &Path| {
        let (_, repetitions) = store::load(folder)?;
        let rounds = repetitions.iter().map(|repetition| repetition.round + 1).max().unwrap_or(0);
        Ok(rounds < MOST_TIMES * options.rounds && !judge_all(case, folder, &repetitions)?.failures.is_empty())
    };
    let outcome = run::run_until(&request, &plan, &mut goes_on)?;
    if let Some(error) = outcome.ended_by {
        return Err(error);
    }
    let (_, repetitions) = store::load(&folder)?;
    judge_all(case, &folder, &repetitions)
}

/// A case has so many times the rounds that were asked for, at most.
const MOST_TIMES: u32 = 3;

fn judge_all(case: &Case, folder: &Path, repetitions: &[Repetition]) -> Result<Judged> {
    let mut judged = judge(case, repetitions);
    if case.in_tail {
        let result = run::compute(folder)?;
        judged.failures.extend(judge_tail(&tails(case, &judged, &result)));
    }
    Ok(judged)
}

/// Whether a stage of a configuration, by its id, is one that is to show a cost.
fn is_target(configuration: &ConfigurationResult, case: &Case, id: &str) -> bool {
    let key = |stage: &StageResult| StageKey { role: stage.role, from: stage.from.clone(), to: stage.to.clone() };
    configuration.stages.iter().any(|stage| stage.id == id && case.is_target(&key(stage)))
}

/// For every size: how far the median moves, as a share of the injection, what the slowest requests show in the
/// target stages more than the base's, and what a slow request was given.
fn tails(case: &Case, judged: &Judged, result: &RunResult) -> Vec<(String, f64, f64, f64)> {
    let Some(base) = result.configurations.first() else { return Vec::new() };
    let shown = |configuration: &ConfigurationResult| -> f64 {
        let stages = configuration.tail_stages.iter().filter(|stage| is_target(configuration, case, &stage.id));
        stages.map(|stage| stage.ns_per_op).sum()
    };
    let of_size = |size: &judge::Size| {
        let given_ns = size.injected_ns * crate::injection::SLOW_EVERY as f64;
        // What was not measured shows nothing, which fails.
        let found = result.configuration(&size.configuration);
        let moved = found.map_or(1.0, |found| (found.latency.p50_ns - base.latency.p50_ns) / size.injected_ns.max(1.0));
        let seen_ns = found.map_or(0.0, |found| shown(found) - shown(base));
        (size.configuration.clone(), moved, seen_ns, given_ns)
    };
    judged.sizes.iter().map(of_size).collect()
}
