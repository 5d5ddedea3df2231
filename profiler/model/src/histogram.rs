//! Quantiles of the probes' log-linear histograms.

use profiler_common::{BUCKETS, BUCKETS_PER_OCTAVE, FIRST_OCTAVE};

/// Counts by bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

/// Smallest value of a bucket, ns; that of the next one ends it.
fn lower_ns(bucket: usize) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let index = bucket as u32 - 1;
    let octave = FIRST_OCTAVE + index / BUCKETS_PER_OCTAVE;
    let within = index % BUCKETS_PER_OCTAVE;
    f64::from(BUCKETS_PER_OCTAVE + within) * f64::from(octave - 3).exp2()
}

/// The bucket of a duration, by the probes' arithmetic.
#[must_use]
pub fn bucket_of(ns: u64) -> u16 {
    let value = ns.min(0x7fff_ffff) as u32;
    if value < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = value.ilog2();
    let within = (value >> (octave - 3)) & (BUCKETS_PER_OCTAVE - 1);
    (1 + (octave - FIRST_OCTAVE) * BUCKETS_PER_OCTAVE + within).min(BUCKETS as u32 - 1) as u16
}

impl Histogram {
    /// Adds counts; buckets out of range are ignored.
    pub fn add(&mut self, buckets: &[(u16, u32)]) {
        for (bucket, count) in buckets {
            if let Some(sum) = self.0.get_mut(usize::from(*bucket)) {
                *sum += u64::from(*count);
            }
        }
    }

    /// Upper ends of its buckets, ns, with their counts.
    pub fn steps(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().enumerate().map(|(bucket, count)| (lower_ns(bucket + 1) as u64, *count))
    }

    /// The value below which the share `quantile` (0–1) lies, ns, by linear interpolation within its bucket, which
    /// is an eighth of its value wide; `None` if it is empty.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        for (bucket, count) in self.0.iter().enumerate() {
            let here = *count as f64;
            if here > 0.0 && below + here >= rank {
                let (low, high) = (lower_ns(bucket), lower_ns(bucket + 1));
                return Some(low + (high - low) * ((rank - below) / here));
            }
            below += here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_a_bucket_is_an_eighth_wide(value in 32u64..1 << 30) {
            let bucket = usize::from(bucket_of(value));
            let (low, high) = (lower_ns(bucket), lower_ns(bucket + 1));
            prop_assert!(low <= value as f64 && (value as f64) < high);
            prop_assert!(high / low <= 1.126);
        }

        #[test]
        fn quantiles_are_monotone(values in prop::collection::vec(0u64..5_000_000_000, 1..100)) {
            let mut histogram = Histogram::default();
            for value in values {
                histogram.add(&[(bucket_of(value), 1)]);
            }
            let quantiles: Vec<f64> = (0..=10).filter_map(|tenth| histogram.quantile_ns(f64::from(tenth) / 10.0)).collect();
            prop_assert_eq!(quantiles.len(), 11);
            prop_assert!(quantiles.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }

    #[test]
    fn the_median_of_one_value_is_near_it() {
        let mut histogram = Histogram::default();
        histogram.add(&[(bucket_of(1_900), 1000)]);
        let median = histogram.quantile_ns(0.5).unwrap();
        assert!((median / 1_900.0 - 1.0).abs() < 0.07, "{median}");
        assert_eq!(Histogram::default().quantile_ns(0.5), None);
        histogram.add(&[(u16::MAX, 1)]);
    }

    #[test]
    fn steps_and_quantiles_are_of_the_buckets_that_have_counts() {
        let mut histogram = Histogram::default();
        histogram.add(&[(bucket_of(100), 3), (bucket_of(1000), 1)]);
        let steps: Vec<(u64, u64)> = histogram.steps().filter(|(_, count)| *count > 0).collect();
        // Eight buckets an octave: 96 to 104, 960 to 1024.
        assert_eq!(steps, [(104, 3), (1024, 1)]);
        assert_eq!(histogram.steps().count(), BUCKETS);
        let near = |share: f64, ns: f64| (histogram.quantile_ns(share).unwrap() - ns).abs() < 1e-6;
        assert!(near(0.375, 100.0) && near(0.75, 104.0) && near(0.875, 992.0) && near(1.0, 1024.0));
    }
}
