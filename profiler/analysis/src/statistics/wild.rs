//! The wild bootstrap over rounds: deviations keep their size, and get random weights, the same for all rows of a
//! round. Six weights instead of two signs, for few rounds: of five, signs make sixteen different resamples (Webb, Can.
//! J. Econ. 56, 2023).

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::{RESAMPLES, SEED, mean, mean_and_error, quantile, smallest_error};

/// Squares of the weights, which have either sign: their mean is 1.
const SQUARES: [f64; 3] = [0.5, 1.0, 1.5];

/// A weight for each of so many rounds.
pub(super) fn weights(rounds: usize, random: &mut Pcg64) -> Vec<f64> {
    let mut weight = || {
        let index = random.random_range(0..6_usize);
        let size = SQUARES[index % 3].sqrt();
        if index < 3 { size } else { -size }
    };
    (0..rounds).map(|_| weight()).collect()
}

/// How many of its standard errors the row that deviates most reaches to either side, in 95 % of the resamples; 0
/// without rows.
pub(super) fn reach(rows: &[&Vec<f64>]) -> f64 {
    let rounds = rows.first().map_or(0, |row| row.len());
    let deviations: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let mean = mean(row);
            row.iter().map(|value| value - mean).collect()
        })
        .collect();
    let sizes: Vec<f64> = rows.iter().map(|row| smallest_error(mean(row))).collect();
    let mut random = Pcg64::seed_from_u64(SEED);
    let mut largest: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let weights = weights(rounds, &mut random);
            let studentized = deviations.iter().zip(&sizes).map(|(row, smallest)| {
                let resampled = row.iter().zip(&weights).map(|(deviation, weight)| deviation * weight);
                let (mean, error) = mean_and_error(resampled, rounds);
                if error > *smallest { (mean / error).abs() } else { 0.0 }
            });
            studentized.fold(0.0, f64::max)
        })
        .collect();
    largest.sort_by(f64::total_cmp);
    if rows.is_empty() { 0.0 } else { quantile(&largest, 0.95) }
}
