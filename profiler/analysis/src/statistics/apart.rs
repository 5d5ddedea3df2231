//! Differences of means of rounds that have nothing to do with each other: of different runs.

use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::{
    Estimate, RESAMPLES, ROUNDS_FOR_VERDICTS, SEED, can_be_told, mean, mean_and_error, quantile, student, wild,
};

/// Mean difference and its standard error, of two samples that have nothing to do with each other: the squares of their
/// errors add up.
fn difference([a, b]: [&[f64]; 2]) -> (f64, f64) {
    let of = |values: &[f64]| mean_and_error(values.iter().copied(), values.len());
    let ((mean_a, error_a), (mean_b, error_b)) = (of(a), of(b));
    (mean_b - mean_a, error_a.hypot(error_b))
}

/// Degrees of freedom of such a difference (Welch, Biometrika 34, 1947).
fn freedom(pair: [&[f64]; 2]) -> f64 {
    let of = |values: &[f64]| {
        let (_, error) = mean_and_error(values.iter().copied(), values.len());
        (error.powi(2), error.powi(4) / (values.len() as f64 - 1.0))
    };
    let ((square_a, fourth_a), (square_b, fourth_b)) = (of(pair[0]), of(pair[1]));
    if fourth_a + fourth_b > 0.0 { (square_a + square_b).powi(2) / (fourth_a + fourth_b) } else { 1.0 }
}

/// Rows of two runs, one value a round: for each, the second's mean less the first's. As of paired rounds, but with
/// Welch's errors and degrees of freedom, and each run's rounds have weights of their own in the bootstrap.
#[must_use]
pub fn estimate_apart(first: &[Vec<f64>], second: &[Vec<f64>]) -> Vec<Estimate> {
    let rounds = |rows: &[Vec<f64>]| rows.first().map_or(0, Vec::len);
    let counts = [rounds(first), rounds(second)];
    let pairs: Vec<[&[f64]; 2]> = first.iter().zip(second).map(|(a, b)| [a.as_slice(), b.as_slice()]).collect();
    let plain = |[a, b]: [&[f64]; 2]| Estimate { mean: mean(b) - mean(a), ci95: None, simultaneous: None };
    if counts.iter().any(|count| *count < ROUNDS_FOR_VERDICTS) {
        return pairs.into_iter().map(plain).collect();
    }
    // Of a row that hardly ever occurs in either, nothing can be told.
    let is_told = |[a, b]: &[&[f64]; 2]| can_be_told(a) || can_be_told(b);
    let told: Vec<[&[f64]; 2]> = pairs.iter().copied().filter(is_told).collect();
    let reach = reach(&told, counts);
    let estimate = |pair: &[&[f64]; 2]| {
        if !is_told(pair) {
            return plain(*pair);
        }
        let (mean, error) = difference(*pair);
        let around = |reach: f64| Some([mean - reach * error, mean + reach * error]);
        let single = student::reach(freedom(*pair));
        Estimate { mean, ci95: around(single), simultaneous: around(reach.max(single)) }
    };
    pairs.iter().map(estimate).collect()
}

/// How many of its standard errors the row that deviates most reaches to either side, in 95 % of the resamples.
fn reach(rows: &[[&[f64]; 2]], counts: [usize; 2]) -> f64 {
    let deviations: Vec<[Vec<f64>; 2]> = rows
        .iter()
        .map(|pair| pair.map(|row| row.iter().map(|value| value - mean(row)).collect::<Vec<f64>>()))
        .collect();
    let mut random = Pcg64::seed_from_u64(SEED);
    let mut largest = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let weights = counts.map(|count| wild::weights(count, &mut random));
        let mut most: f64 = 0.0;
        for row in &deviations {
            let weighted = |of: usize| row[of].iter().zip(&weights[of]).map(|(a, b)| a * b).collect::<Vec<f64>>();
            let (mean, error) = difference([&weighted(0), &weighted(1)]);
            if error > 0.0 {
                most = most.max((mean / error).abs());
            }
        }
        largest.push(most);
    }
    largest.sort_by(f64::total_cmp);
    quantile(&largest, 0.95)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::{
        super::tests::{STEADY, alike},
        *,
    };

    #[test]
    fn what_differs_is_told_and_what_does_not_is_not() {
        let noisy = |centre: f64, seed: u64| -> Vec<f64> {
            let mut random = Pcg64::seed_from_u64(seed);
            (0..20).map(|_| centre + random.random_range(-5.0..5.0)).collect()
        };
        let first = vec![noisy(100.0, 1), noisy(50.0, 2)];
        let second = vec![noisy(120.0, 3), noisy(50.0, 4)];
        let [differs, same] = estimate_apart(&first, &second)[..] else { panic!() };
        assert!(differs.differs_from_zero() && (differs.mean - 20.0).abs() < 4.0, "{differs:?}");
        assert!(!same.differs_from_zero(), "{same:?}");
        let [low, high] = differs.ci95.unwrap();
        assert!(low < 20.0 && 20.0 < high, "{differs:?}");
    }

    #[test]
    fn few_rounds_have_no_interval() {
        let few = estimate_apart(&[vec![1.0; 3]], &[vec![2.0; 20]]);
        assert_eq!((few[0].mean, few[0].ci95), (1.0, None));
    }

    #[test]
    fn five_rounds_of_each_do() {
        let rounds = |count: u32| vec![(0..count).map(f64::from).collect::<Vec<_>>()];
        assert!(estimate_apart(&rounds(5), &rounds(5))[0].ci95.is_some());
        assert_eq!(estimate_apart(&rounds(5), &rounds(4))[0].ci95, None);
    }

    /// Welch's interval as another program computes it, with 18 degrees of freedom for 18.99; the simultaneous one of a
    /// single row is no narrower.
    #[test]
    fn intervals_are_those_of_another_program() {
        let other = [16.1, 13.0, 15.2, 18.7, 14.4, 12.9, 17.5, 15.0, 14.1, 19.3, 13.7, 16.6];
        let found = estimate_apart(&[STEADY.to_vec()], &[other.to_vec()])[0];
        assert!((found.mean - 3.751_666).abs() < 1e-5, "{found:?}");
        assert!(alike(found.ci95, [1.7916, 5.7117], 1e-4), "{found:?}");
        // By chance of the bootstrap, somewhat wider.
        let [[low, high], [all_low, all_high]] = [found.ci95, found.simultaneous].map(Option::unwrap);
        assert!(all_low <= low && high <= all_high && alike(found.simultaneous, [low, high], 0.02), "{found:?}");
    }

    #[test]
    fn a_row_that_occurs_in_one_round_has_no_interval_and_spoils_no_other() {
        let steady = STEADY.to_vec();
        let mut rare = vec![0.0; 10];
        rare[3] = 700.0;
        let never = vec![0.0; 10];
        let alone = estimate_apart(std::slice::from_ref(&steady), std::slice::from_ref(&steady))[0];
        let rows = [steady, rare, never.clone()];
        let together = estimate_apart(&rows, &[rows[0].clone(), never.clone(), never]);
        assert_eq!(together[0].ci95, alone.ci95);
        assert_eq!((together[1].mean, together[1].ci95, together[1].simultaneous), (-70.0, None, None));
        assert_eq!(together[2], Estimate { mean: 0.0, ci95: None, simultaneous: None });
        let width = |estimate: &Estimate| estimate.simultaneous.map(|[low, high]| high - low).unwrap();
        assert!(width(&together[0]) < 2.0 * width(&alone), "{together:?} {alone:?}");
    }

    /// An interval of two samples of one distribution misses 0 in about one of twenty.
    #[test]
    fn intervals_cover() {
        let mut random = Pcg64::seed_from_u64(7);
        let mut sample = || -> Vec<f64> { (0..12).map(|_| random.random_range(0.0..1.0)).collect() };
        let covered = (0..200)
            .filter(|_| {
                let [low, high] = estimate_apart(&[sample()], &[sample()])[0].ci95.unwrap();
                low <= 0.0 && 0.0 <= high
            })
            .count();
        assert!((180..=199).contains(&covered), "{covered}");
    }
}
