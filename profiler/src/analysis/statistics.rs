//! Intervals of means over rounds: a studentized bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 12.5)
//! with the same resamples for all rows, and simultaneous intervals from the largest studentized deviation of all rows
//! (single-step max-t: Westfall & Young, Resampling-Based Multiple Testing, 2.6).

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::experiment::plan::ROUNDS_FOR_VERDICTS;

const RESAMPLES: usize = 2000;
/// A result is the same whenever it is computed.
const SEED: u64 = 0x7669_7274_6178;

/// A mean over rounds with its intervals, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// 95 % interval; `None` below eight rounds.
    pub ci95: Option<[f64; 2]>,
    /// 95 % interval that holds for all rows of the same call at once.
    pub simultaneous: Option<[f64; 2]>,
}

impl Estimate {
    /// Whether, among all rows of the same call, this one differs from 0.
    #[must_use]
    pub fn differs_from_zero(&self) -> bool {
        self.simultaneous.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }
}

/// Mean of values; 0 for none.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Mean and its standard error.
fn mean_and_error(values: impl Iterator<Item = f64> + Clone, count: usize) -> (f64, f64) {
    let mean = values.clone().sum::<f64>() / count as f64;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count as f64 - 1.0) / count as f64).sqrt())
}

/// Nearest-rank quantile of sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Estimates for rows of values, one value a round, all rows of the same length.
#[must_use]
pub fn estimate(rows: &[Vec<f64>]) -> Vec<Estimate> {
    let rounds = rows.first().map_or(0, Vec::len);
    if rounds < ROUNDS_FOR_VERDICTS {
        return rows.iter().map(|row| Estimate { mean: mean(row), ci95: None, simultaneous: None }).collect();
    }
    let whole: Vec<(f64, f64)> = rows.iter().map(|row| mean_and_error(row.iter().copied(), rounds)).collect();
    let mut deviations: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); rows.len()];
    let mut largest = Vec::with_capacity(RESAMPLES);
    let mut random = Pcg64::seed_from_u64(SEED);
    for _ in 0..RESAMPLES {
        let chosen: Vec<usize> = (0..rounds).map(|_| random.random_range(0..rounds)).collect();
        let mut of_all: f64 = 0.0;
        for ((row, (mean, _)), deviations) in rows.iter().zip(&whole).zip(&mut deviations) {
            let (resampled, error) = mean_and_error(chosen.iter().map(|round| row[*round]), rounds);
            // A resample of one round alone, or a row that never varies: no deviation can be told.
            if error > 0.0 {
                let deviation = (resampled - mean) / error;
                deviations.push(deviation);
                of_all = of_all.max(deviation.abs());
            }
        }
        largest.push(of_all);
    }
    largest.sort_by(f64::total_cmp);
    let reach = quantile(&largest, 0.95);
    whole
        .iter()
        .zip(&mut deviations)
        .map(|((mean, error), deviations)| {
            deviations.sort_by(f64::total_cmp);
            let interval = if deviations.is_empty() {
                [*mean, *mean]
            } else {
                [mean - quantile(deviations, 0.975) * error, mean - quantile(deviations, 0.025) * error]
            };
            Estimate {
                mean: *mean,
                ci95: Some(interval),
                simultaneous: Some([mean - reach * error, mean + reach * error]),
            }
        })
        .collect()
}

/// The estimate of one row.
#[must_use]
pub fn estimate_one(row: Vec<f64>) -> Estimate {
    estimate(&[row]).swap_remove(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn below_eight_rounds_there_are_no_intervals() {
        let estimate = estimate_one(vec![1.0, 2.0, 3.0]);
        assert_eq!(estimate, Estimate { mean: 2.0, ci95: None, simultaneous: None });
        assert!(!estimate.differs_from_zero());
    }

    #[test]
    fn a_row_that_never_varies_is_certain() {
        let estimate = estimate_one(vec![5.0; 10]);
        assert_eq!(estimate.ci95, Some([5.0, 5.0]));
    }

    /// Of intervals for means of ten normal values, 95 % must hold the truth: here within three standard errors of 400.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = Pcg64::seed_from_u64(1);
        // Twelve uniform numbers less six: near enough to a normal one.
        let mut normal = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        let (mut single, mut all) = (0, 0);
        for _ in 0..400 {
            let rows: Vec<Vec<f64>> = (0..5).map(|_| (0..10).map(|_| 3.0 + normal()).collect()).collect();
            let estimates = estimate(&rows);
            let holds = |interval: Option<[f64; 2]>| interval.is_some_and(|[low, high]| low <= 3.0 && 3.0 <= high);
            single += usize::from(holds(estimates[0].ci95));
            all += usize::from(estimates.iter().all(|estimate| holds(estimate.simultaneous)));
        }
        assert!((367..=393).contains(&single), "{single} of 400");
        assert!(all >= 367, "{all} of 400");
    }

    proptest! {
        #[test]
        fn means_of_rows_add_up(first in prop::collection::vec(0.0f64..1e6, 10), second in prop::collection::vec(0.0f64..1e6, 10)) {
            let sum: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a + b).collect();
            let estimates = estimate(&[first, second, sum]);
            prop_assert!((estimates[0].mean + estimates[1].mean - estimates[2].mean).abs() < 1e-6);
            for estimate in estimates {
                let [low, high] = estimate.ci95.unwrap();
                prop_assert!(low <= high);
            }
        }
    }
}
