//! What pictures show beyond the result's numbers: single rounds, distributions, the middle of the records.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{TailStage, client::client_sums, labels::tail_stages};
use virtax_analysis::{label::Label, path::StageKey, tail, waterfall::Waterfall};
use virtax_model::{
    counts::{PhaseKind, Repetition},
    error::Result,
    records::Record,
};

/// Width of a step in distributions of latencies, as a factor; and where the first ends, ns.
const STEP: f64 = 1.04;
const FIRST_STEP_NS: u64 = 500;

/// Details of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Details {
    /// Rounds, in order.
    pub rounds: Vec<RoundDetail>,
    /// Blocks without probes, in order; none where rounds were asked as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockDetail>,
    /// The tenth of the records around the median latency; empty: too few records.
    pub typical: Vec<TailStage>,
    /// Latencies of detached phases: upper end of a step, ns, and operations in it.
    pub histogram: Vec<(u64, u64)>,
    /// Distribution of each stage, in the order of the result's.
    pub stages: Vec<Vec<(u64, u64)>>,
    /// ns per operation of each stage in each round.
    #[serde(skip)]
    pub stage_rounds: Vec<Vec<f64>>,
}

/// A round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RoundDetail {
    /// Number of the round, from 0.
    pub round: u32,
    /// Mean latency with nothing attached, ns.
    pub detached_ns: f64,
    /// Mean latency with the core probes, ns.
    pub traced_ns: f64,
}

/// A block: its round, the phase in that, its number in the phase, mean latency, ns, and whether the host disturbed all
/// of its windows.
pub type BlockDetail = (u32, usize, u32, f64, bool);

/// Blocks of all rounds: of the windows that the host did not disturb, if there are any.
fn blocks(waterfall: &Waterfall) -> Vec<BlockDetail> {
    let of_round = waterfall.rounds.iter().zip(&waterfall.blocks);
    let blocks = of_round.flat_map(|(round, blocks)| {
        blocks.all.iter().map(|(block, ns)| {
            let quiet = blocks.quiet.get(block);
            (round.round, block.0, block.1, *quiet.unwrap_or(ns), quiet.is_none())
        })
    });
    blocks.collect()
}

impl Details {
    /// # Errors
    /// If a stored histogram cannot be read.
    pub(super) fn of(
        waterfall: &Waterfall,
        repetitions: &[&Repetition],
        records: &[Record],
        labels: &[(StageKey, Label)],
    ) -> Result<Self> {
        let detached = client_sums(repetitions, PhaseKind::Detached)?.histogram;
        let rounds = waterfall.rounds.iter().map(|round| RoundDetail {
            round: round.round,
            detached_ns: round.detached_ns,
            traced_ns: round.traced_ns,
        });
        Ok(Self {
            rounds: rounds.collect(),
            blocks: blocks(waterfall),
            typical: tail::typical(records).map_or_else(Vec::new, |typical| tail_stages(&typical, labels)),
            histogram: steps_of(&detached),
            stages: waterfall.rows.iter().map(|row| trimmed(row.histogram.steps().collect())).collect(),
            stage_rounds: waterfall.rows.iter().map(|row| row.rounds_ns.clone()).collect(),
        })
    }
}

/// Counts of a witness's histogram in logarithmic steps: upper end, ns, and operations.
pub(super) fn steps_of(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let steps = histogram.iter_log(FIRST_STEP_NS, STEP);
    trimmed(steps.map(|step| (step.value_iterated_to(), step.count_since_last_iteration())).collect())
}

/// Without what is empty before the first and behind the last.
fn trimmed(mut steps: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let is_filled = |step: &(u64, u64)| step.1 > 0;
    let Some(first) = steps.iter().position(is_filled) else { return Vec::new() };
    let last = steps.iter().rposition(is_filled).unwrap_or(first);
    steps.truncate(last + 1);
    steps.split_off(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_around_is_left_out() {
        assert_eq!(trimmed(vec![(1, 0), (2, 3), (3, 0), (4, 1), (5, 0)]), [(2, 3), (3, 0), (4, 1)]);
        assert_eq!(trimmed(vec![(1, 0)]), []);
        assert_eq!(trimmed(Vec::new()), []);
    }
}
