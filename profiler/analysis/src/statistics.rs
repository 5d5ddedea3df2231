//! Intervals of means over rounds: Student's, which with as many blocks in every round is the interval of Hartung,
//! Knapp, Sidik and Jonkman for random effects (IntHout et al., BMC Med. Res. Methodol. 14, 2014), and simultaneous
//! ones from the largest studentized deviation of all rows (single-step max-t: Westfall & Young, Resampling-Based
//! Multiple Testing, 2.6) in a wild bootstrap over the rounds.

pub mod apart;
pub mod student;
mod wild;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Fewest rounds for intervals and verdicts.
pub const ROUNDS_FOR_VERDICTS: usize = 5;
/// Fewest rounds for the interval of a slope: a bootstrap over fewer covers too little.
pub const ROUNDS_FOR_SLOPES: usize = 8;

const RESAMPLES: usize = 2000;
/// A result is the same whenever it is computed.
const SEED: u64 = 0x7669_7274_6178;

/// A mean over rounds with its intervals, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// 95 % interval; `None` below five rounds.
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

/// Variance of a sample of two values or more.
#[must_use]
pub fn variance(values: &[f64]) -> f64 {
    let centre = mean(values);
    values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
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
    let told: Vec<&Vec<f64>> = rows.iter().filter(|row| can_be_told(row)).collect();
    let single = student::reach(rounds as f64 - 1.0);
    let reach = wild::reach(&told).max(single);
    rows.iter()
        .map(|row| {
            let (mean, error) = mean_and_error(row.iter().copied(), rounds);
            let is_told = can_be_told(row) || error <= smallest_error(mean);
            let around = |reach: f64| is_told.then_some([mean - reach * error, mean + reach * error]);
            Estimate { mean, ci95: around(single), simultaneous: around(reach) }
        })
        .collect()
}

/// The smallest difference that as many rounds, as scattered, find in four cases of five (a power of 80 %, two-sided
/// at 5 %): the normal quantiles of both times the standard error, which is the interval's half over 1.96.
#[must_use]
pub fn detectable(ci95: Option<[f64; 2]>) -> Option<f64> {
    const BOTH: f64 = 1.96 + 0.8416;
    ci95.map(|[low, high]| (high - low) / 2.0 / 1.96 * BOTH)
}

/// 95 % interval of a share of which `part` of `whole` independent samples were found (Wilson, J. Am. Stat. Assoc. 22,
/// 1927); `None` without samples.
#[must_use]
pub fn share_interval(part: u64, whole: u64) -> Option<[f64; 2]> {
    const Z: f64 = 1.96;
    if whole == 0 {
        return None;
    }
    let n = whole as f64;
    let share = part as f64 / n;
    let centre = share + Z * Z / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some([((centre - reach) / scale).max(0.0), ((centre + reach) / scale).min(1.0)])
}

/// 95 % interval of the expectation of a count that came by chance (Poisson): Byar's approximation to the exact
/// limits (Breslow & Day, Statistical Methods in Cancer Research II, 1987, 2.3).
#[must_use]
pub fn count_interval(count: u64) -> [f64; 2] {
    let limit = |n: f64, sign: f64| {
        if n <= 0.0 { 0.0 } else { n * (1.0 - 1.0 / (9.0 * n) + sign * 1.96 / (3.0 * n.sqrt())).powi(3) }
    };
    [limit(count as f64, -1.0).max(0.0), limit(count as f64 + 1.0, 1.0)]
}

/// Samples for every share of them to be known to ± `until`: the normal approximation to the binomial at its widest,
/// a share of one half.
#[must_use]
pub fn samples_needed(until: f64) -> f64 {
    (1.96 * 0.5 / until).powi(2)
}

/// Standard error below which a row counts as not varying: rounding alone makes this much.
fn smallest_error(mean: f64) -> f64 {
    1e-9 * mean.abs()
}

/// Whether a row varies enough: one that is the same in nearly all rounds, such as a rare stage, is far from anything
/// that an interval can be told from.
fn can_be_told(row: &[f64]) -> bool {
    let mut sorted = row.to_vec();
    sorted.sort_by(f64::total_cmp);
    let alike = |pair: &f64, other: &f64| (pair - other).abs() <= smallest_error(*pair);
    let most = sorted.chunk_by(alike).map(<[f64]>::len).max().unwrap_or(0);
    10 * most <= 6 * row.len()
}

/// Slope of a line through the origin by least squares over the rounds' means, and its 95 % interval by a bootstrap
/// over the rounds (percentiles), the same rounds for all sizes; `sizes`: for each, x and y of every round.
#[must_use]
pub fn slope(sizes: &[(&[f64], &[f64])]) -> (f64, Option<[f64; 2]>) {
    let rounds = sizes.iter().map(|(x, y)| x.len().min(y.len())).min().unwrap_or(0);
    let of = |chosen: &[usize]| {
        let at = |values: &[f64]| chosen.iter().map(|round| values[*round]).sum::<f64>();
        let (mut over, mut under) = (0.0, 0.0);
        for (x, y) in sizes {
            over += at(x) * at(y);
            under += at(x) * at(x);
        }
        if under > 0.0 { over / under } else { 0.0 }
    };
    let all: Vec<usize> = (0..rounds).collect();
    if rounds < ROUNDS_FOR_SLOPES {
        return (of(&all), None);
    }
    let mut random = Pcg64::seed_from_u64(SEED);
    let mut resampled: Vec<f64> =
        (0..RESAMPLES).map(|_| of(&(0..rounds).map(|_| random.random_range(0..rounds)).collect::<Vec<_>>())).collect();
    resampled.sort_by(f64::total_cmp);
    (of(&all), Some([quantile(&resampled, 0.025), quantile(&resampled, 0.975)]))
}

/// The estimate of one row.
#[must_use]
pub fn estimate_one(row: Vec<f64>) -> Estimate {
    estimate(&[row]).swap_remove(0)
}

#[cfg(test)]
mod tests {
    /// A difference of 2.8 is found four times in five, with an error of 1.
    #[test]
    fn what_can_be_found_follows_from_the_error() {
        let found = super::detectable(Some([-1.96, 1.96])).unwrap();
        assert!((found - 2.8016).abs() < 1e-9, "{found}");
        assert_eq!(super::detectable(None), None);
    }

    use proptest::prelude::*;

    use super::*;

    /// The exact limits are chi-square quantiles: 0 – 3.69, 1.62 – 11.67 (of 5), 80.4 – 123.0 (of 100 less 1).
    #[test]
    fn intervals_of_counts() {
        let near = |count, low: f64, high: f64| {
            let [found_low, found_high] = count_interval(count);
            assert!(
                (found_low - low).abs() < 0.1 && (found_high - high).abs() < 0.1,
                "{count}: {found_low} {found_high}"
            );
        };
        near(0, 0.0, 3.69);
        near(5, 1.62, 11.67);
        near(100, 81.36, 121.63);
    }

    #[test]
    fn below_five_rounds_there_are_no_intervals() {
        let estimate = estimate_one(vec![1.0, 2.0, 3.0]);
        assert_eq!(estimate, Estimate { mean: 2.0, ci95: None, simultaneous: None });
        assert!(!estimate.differs_from_zero());
        let rounds = |count: u32| (0..count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(estimate_one(rounds(4)).ci95, None);
        assert!(estimate_one(rounds(5)).ci95.is_some());
    }

    /// The sample's deviation, here √(5/3), over the root of the count.
    #[test]
    fn errors_of_means() {
        let (mean, error) = mean_and_error([1.0, 2.0, 3.0, 4.0].into_iter(), 4);
        assert_eq!(mean, 2.5);
        assert!((error - (5.0_f64 / 3.0).sqrt() / 2.0).abs() < 1e-12, "{error}");
    }

    /// Whether an interval's ends are near the expected ones, for its width.
    pub(super) fn alike(found: Option<[f64; 2]>, expected: [f64; 2], within: f64) -> bool {
        let within = within * (expected[1] - expected[0]);
        found.is_some_and(|found| std::iter::zip(found, expected).all(|(a, b)| (a - b).abs() < within))
    }

    pub(super) const STEADY: [f64; 10] = [12.0, 9.5, 14.2, 11.1, 10.4, 13.3, 8.9, 12.7, 10.0, 15.8];
    const SKEWED: [f64; 10] = [103.0, 97.0, 110.5, 99.0, 125.0, 101.5, 95.5, 98.0, 106.0, 99.5];

    /// Student's intervals as another program computes them; simultaneous ones are wider, by as much as a bootstrap of
    /// 100,000 resamples makes them, written anew in another language.
    #[test]
    fn intervals_are_those_of_another_program() {
        let [steady, skewed] = estimate(&[STEADY.to_vec(), SKEWED.to_vec()])[..] else { panic!() };
        assert!((steady.mean - 11.79).abs() < 1e-9 && (skewed.mean - 103.5).abs() < 1e-9);
        assert!(alike(steady.ci95, [10.203_82, 13.376_18], 1e-4), "{steady:?}");
        assert!(alike(skewed.ci95, [97.215_98, 109.784_02], 1e-4), "{skewed:?}");
        assert!(alike(steady.simultaneous, [10.026, 13.554], 0.03), "{steady:?}");
        assert!(alike(skewed.simultaneous, [96.512, 110.488], 0.03), "{skewed:?}");
    }

    #[test]
    fn samples_for_a_share() {
        // Of 385, a half is known to ± 0.05.
        assert!((samples_needed(0.05) - 384.16).abs() < 1e-9);
        let [low, high] = share_interval(193, 385).unwrap();
        assert!((high - low - 0.1).abs() < 0.001, "{low} {high}");
    }

    #[test]
    fn slopes() {
        let x: Vec<Vec<f64>> = (1..=4).map(|size| vec![f64::from(size) * 100.0; 8]).collect();
        let y: Vec<Vec<f64>> = x
            .iter()
            .map(|of_size| of_size.iter().enumerate().map(|(round, x)| 0.98 * x + round as f64 - 3.5).collect())
            .collect();
        let sizes: Vec<(&[f64], &[f64])> = x.iter().zip(&y).map(|(x, y)| (x.as_slice(), y.as_slice())).collect();
        let (value, interval) = slope(&sizes);
        let [low, high] = interval.unwrap();
        assert!((value - 0.98).abs() < 1e-9 && low < 0.98 && 0.98 < high && high - low < 0.02, "{low} {high}");
        assert_eq!(slope(&[(&x[0][..3], &y[0][..3])]).1, None);
        assert_eq!(slope(&[]), (0.0, None));
    }

    #[test]
    fn a_row_that_never_varies_is_certain() {
        let estimate = estimate_one(vec![5.0; 10]);
        assert_eq!(estimate.ci95, Some([5.0, 5.0]));
    }

    /// Ninety-five of a hundred intervals for means of few normal values hold the truth, within three standard errors.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        for rounds in [5, 10] {
            check_coverage(rounds);
        }
    }

    fn check_coverage(rounds: usize) {
        let mut random = Pcg64::seed_from_u64(1);
        // Twelve uniform numbers less six: near enough to a normal one.
        let mut normal = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        let (mut single, mut all) = (0, 0);
        for _ in 0..400 {
            let rows: Vec<Vec<f64>> = (0..5).map(|_| (0..rounds).map(|_| 3.0 + normal()).collect()).collect();
            let estimates = estimate(&rows);
            let holds = |interval: Option<[f64; 2]>| interval.is_some_and(|[low, high]| low <= 3.0 && 3.0 <= high);
            single += usize::from(holds(estimates[0].ci95));
            all += usize::from(estimates.iter().all(|estimate| holds(estimate.simultaneous)));
        }
        assert!((367..=393).contains(&single), "{rounds} rounds: {single} of 400");
        assert!(all >= 367, "{rounds} rounds: {all} of 400");
    }

    #[test]
    fn a_row_that_occurs_in_one_round_has_no_interval_and_spoils_no_other() {
        let steady: Vec<f64> = (0..10).map(|round| 5_000.0 + f64::from(round)).collect();
        let mut rare = vec![0.0; 10];
        rare[3] = 700.0;
        let mut nearly = vec![100.1; 10];
        nearly[7] = 100.2;
        let alone = estimate_one(steady.clone());
        let together = estimate(&[steady, rare, nearly]);
        assert_eq!(together[0].ci95, alone.ci95);
        assert_eq!((together[1].mean, together[1].ci95), (70.0, None));
        let [low, high] = together[0].simultaneous.unwrap();
        assert!(high - low < 20.0, "{low} {high}");
    }

    proptest! {
        #[test]
        fn means_of_rows_add_up(first in prop::collection::vec(0.0f64..1e6, 10), second in prop::collection::vec(0.0f64..1e6, 10)) {
            let sum: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a + b).collect();
            let estimates = estimate(&[first, second, sum]);
            prop_assert!((estimates[0].mean + estimates[1].mean - estimates[2].mean).abs() < 1e-6);
            for [low, high] in estimates.iter().filter_map(|estimate| estimate.ci95) {
                prop_assert!(low <= high);
            }
        }
    }
}
