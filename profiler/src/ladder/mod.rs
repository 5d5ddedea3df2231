//! `virtax ladder`: configurations that each add one mechanism to the one before, and what each mechanism costs.

pub mod judge;
pub mod rungs;
pub mod show;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use judge::{Ladder, RungResult, Says};
pub use rungs::Order;

use virtax_model::whole;

use self::{
    judge::canonical,
    rungs::{below, rungs},
};
use crate::{
    error::{Error, Result},
    input,
    result::RunResult,
    run::{self, Outcome, Request},
    run_folder::{LADDER, LADDER_CHART},
};

/// What is asked for, besides what is asked of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which ladder.
    pub order: Order,
    /// Differences of less than this are nothing, % of the latency.
    pub precision_percent: f64,
    /// Rounds go on until every mechanism's cost is told to that precision, this long at most; `None`: no further
    /// than asked.
    pub budget: Option<Duration>,
}

/// What a ladder brought.
pub struct Climbed {
    /// Rungs of the ladder.
    pub ladder: Ladder,
    /// The run.
    pub outcome: Outcome,
    /// The chart.
    pub chart: PathBuf,
}

/// Runs a ladder; rungs that this host lacks are left out and shown as missing. `request`: its configurations are
/// the ladder's.
///
/// # Errors
/// If nothing could be measured, or files cannot be written.
pub fn climb(request: &Request, options: &Options) -> Result<Climbed> {
    let rungs = rungs(options.order);
    let missing = find_missing(request, options.order)?;
    let standing: Vec<String> =
        rungs.iter().zip(&missing).filter(|(_, why)| why.is_none()).map(|(rung, _)| canonical(rung)).collect();
    if standing.len() < 2 {
        let why: Vec<String> = missing.iter().flatten().cloned().collect();
        return Err(Error::unsupported(
            "no ladder with two rungs can be built here",
            why.join("; "),
            "see `virtax doctor`",
        ));
    }
    let request = Request { configurations: standing.join(","), ..request.clone() };
    let (mut plan, _) = run::plan(&request)?;
    plan.compared = steps(options.order, &missing);
    let deadline = options.budget.map(|budget| Instant::now() + budget);
    let mut goes_on = |folder: &Path| {
        let Some(deadline) = deadline else { return Ok(false) };
        if Instant::now() > deadline {
            return Ok(false);
        }
        let so_far = run::compute(folder)?;
        Ok(judge::judge(options.order, &so_far, &missing, options.precision_percent).is_undecided())
    };
    let outcome = run::run_until(&request, &plan, &mut goes_on)?;
    let ladder = judge::judge(options.order, &outcome.result, &missing, options.precision_percent);
    let chart = save(&outcome.folder, &ladder)?;
    Ok(Climbed { ladder, outcome, chart })
}

/// The ladder of a run's folder, judged anew from its result; `None`: the run was none.
///
/// # Errors
/// If `ladder.json` cannot be read, or files cannot be written.
pub fn again(folder: &Path, result: &RunResult) -> Result<Option<(Ladder, PathBuf)>> {
    let path = folder.join(LADDER);
    if !path.exists() {
        return Ok(None);
    }
    let before: Ladder = input::document(&path, judge::SCHEMA_VERSION)?;
    let missing: Vec<Option<String>> = before.rungs.into_iter().map(|rung| rung.why).collect();
    let ladder = judge::judge(before.order, result, &missing, before.precision_percent);
    let chart = save(folder, &ladder)?;
    Ok(Some((ladder, chart)))
}

/// Writes a ladder and its chart; the chart's path.
fn save(folder: &Path, ladder: &Ladder) -> Result<PathBuf> {
    whole::write_json(&folder.join(LADDER), ladder)?;
    let chart = folder.join(LADDER_CHART);
    whole::write_whole(&chart, show::chart(ladder).as_bytes())?;
    Ok(chart)
}

/// The steps between rungs that stand, by their places among those: what is compared.
fn steps(order: Order, missing: &[Option<String>]) -> Vec<[usize; 2]> {
    let rungs = rungs(order);
    let stands = |index: usize| missing.get(index).is_some_and(Option::is_none);
    let place = |index: usize| (0..index).filter(|before| stands(*before)).count();
    let standing = (0..rungs.len()).filter(|index| stands(*index));
    standing.filter_map(|index| Some([place(below(rungs, index, &stands)?), place(index)])).collect()
}

/// Tries every rung: its server is started and ended again. Why those are missing that cannot be.
fn find_missing(request: &Request, order: Order) -> Result<Vec<Option<String>>> {
    let names: Vec<String> = rungs(order).iter().map(canonical).collect();
    let request = Request { configurations: names.join(","), ..request.clone() };
    let (plan, _) = run::plan(&request)?;
    let tried = run::try_out(&plan)?;
    Ok(tried.into_iter().map(|why| why.map(|error| error.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lead_over_what_is_missing() {
        let mut missing: Vec<Option<String>> = vec![None; rungs(Order::Storage).len()];
        assert_eq!(steps(Order::Storage, &missing), [[0, 1], [1, 2], [2, 3], [1, 4]]);
        // Without overlayfs, Docker's host network stands on the bind mount.
        missing[2] = Some("no overlayfs".to_owned());
        assert_eq!(steps(Order::Storage, &missing), [[0, 1], [1, 2], [1, 3]]);
    }
}
