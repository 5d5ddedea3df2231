//! Student's distribution.

use std::f64::consts::PI;

/// Probability that a value of Student's distribution lies within ± `t`, for a whole number of degrees of freedom: the
/// finite series (Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
fn within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    let mut term = if is_odd { cosine } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    let mut next = if is_odd { 2 } else { 1 };
    while next + 2 < freedom {
        term *= f64::from(next) / f64::from(next + 1) * cosine * cosine;
        sum += term;
        next += 2;
    }
    if is_odd { 2.0 / PI * (angle + sine * sum) } else { sine * sum }
}

/// How many standard errors a 95 % interval reaches to either side. Degrees of freedom are rounded down: that makes it
/// wider.
#[must_use]
pub fn reach(freedom: f64) -> f64 {
    let freedom = freedom.clamp(1.0, 10_000.0) as u32;
    let (mut low, mut high) = (1.9, 13.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if within(middle, freedom) < 0.95 { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles as every table has them.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (7, 2.3646), (9, 2.2622)];
        for (freedom, expected) in table.into_iter().chain([(10, 2.2281), (30, 2.0423), (120, 1.9799), (9999, 1.9602)])
        {
            let found = reach(f64::from(freedom));
            assert!((found - expected).abs() < 1e-4, "{freedom}: {found}");
        }
        assert_eq!((reach(0.3), reach(4.9)), (reach(1.0), reach(4.0)));
    }
}
