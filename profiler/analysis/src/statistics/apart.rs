//! Differences of means of rounds that have nothing to do with each other: of different runs.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::ROUNDS_FOR_VERDICTS;
use super::{Estimate, RESAMPLES, SEED, mean, mean_and_error, quantile};

/// Rows of two runs, one value a round: for each, the second's mean less the first's. A studentized bootstrap as of
/// paired rounds, but each run is resampled by itself, and the error is that of both (Welch's: the squares add up).
#[must_use]
pub fn estimate_apart(first: &[Vec<f64>], second: &[Vec<f64>]) -> Vec<Estimate> {
    let rounds = |rows: &[Vec<f64>]| rows.first().map_or(0, Vec::len);
    let counts = [rounds(first), rounds(second)];
    let pairs: Vec<(&[f64], &[f64])> = first.iter().map(Vec::as_slice).zip(second.iter().map(Vec::as_slice)).collect();
    if counts.iter().any(|count| *count < ROUNDS_FOR_VERDICTS) {
        let plain = |(a, b): &(&[f64], &[f64])| Estimate { mean: mean(b) - mean(a), ci95: None, simultaneous: None };
        return pairs.iter().map(plain).collect();
    }
    let all: [Vec<usize>; 2] = counts.map(|count| (0..count).collect());
    let of = |(a, b): &(&[f64], &[f64]), chosen: &[Vec<usize>; 2]| {
        let (mean_a, error_a) = mean_and_error(chosen[0].iter().map(|round| a[*round]), counts[0]);
        let (mean_b, error_b) = mean_and_error(chosen[1].iter().map(|round| b[*round]), counts[1]);
        (mean_b - mean_a, error_a.hypot(error_b))
    };
    let whole: Vec<(f64, f64)> = pairs.iter().map(|pair| of(pair, &all)).collect();
    let mut random = Pcg64::seed_from_u64(SEED);
    let mut deviations = vec![Vec::with_capacity(RESAMPLES); pairs.len()];
    let mut largest = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let chosen = counts.map(|count| (0..count).map(|_| random.random_range(0..count)).collect::<Vec<usize>>());
        let mut most: f64 = 0.0;
        for ((pair, (whole_mean, _)), deviations) in pairs.iter().zip(&whole).zip(&mut deviations) {
            let (resampled, error) = of(pair, &chosen);
            if error > 0.0 {
                let deviation = (resampled - whole_mean) / error;
                most = most.max(deviation.abs());
                deviations.push(deviation);
            }
        }
        largest.push(most);
    }
    largest.sort_by(f64::total_cmp);
    let reach = quantile(&largest, 0.95);
    let told = |((mean, error), mut deviations): (&(f64, f64), Vec<f64>)| {
        // Rows that hardly ever occur do not vary in most resamples.
        if *error <= 0.0 || deviations.len() * 40 < RESAMPLES * 39 {
            return Estimate { mean: *mean, ci95: None, simultaneous: None };
        }
        deviations.sort_by(f64::total_cmp);
        let ci95 = [mean - quantile(&deviations, 0.975) * error, mean - quantile(&deviations, 0.025) * error];
        Estimate { mean: *mean, ci95: Some(ci95), simultaneous: Some([mean - reach * error, mean + reach * error]) }
    };
    whole.iter().zip(deviations).map(told).collect()
}

#[cfg(test)]
mod tests {
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
    fn eight_rounds_of_each_do() {
        let rounds = |count: u32| vec![(0..count).map(f64::from).collect::<Vec<_>>()];
        assert!(estimate_apart(&rounds(8), &rounds(8))[0].ci95.is_some());
        assert_eq!(estimate_apart(&rounds(8), &rounds(7))[0].ci95, None);
    }

    /// What another program makes of the same values with 300,000 resamples by another generator; here it is 2,000.
    #[test]
    fn intervals_are_those_of_another_program() {
        let other = [16.1, 13.0, 15.2, 18.7, 14.4, 12.9, 17.5, 15.0, 14.1, 19.3, 13.7, 16.6];
        let found = estimate_apart(&[STEADY.to_vec()], &[other.to_vec()])[0];
        assert!((found.mean - 3.751_666).abs() < 1e-5, "{found:?}");
        assert!(alike(found.ci95, [1.765, 5.694]) && alike(found.simultaneous, [1.788, 5.716]), "{found:?}");
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
