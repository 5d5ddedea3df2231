//! What `virtax truth` shows.

use std::fmt::Write;

use super::{Again, Truth, judge::Judged};
use crate::render::{
    numbers::micros,
    terminal::{Look, lines, number},
};

fn interval(of: Option<[f64; 2]>, show: impl Fn(f64) -> String) -> String {
    of.map_or(String::new(), |[low, high]| format!("{} – {}", show(low), show(high)))
}

/// A case.
#[must_use]
pub fn case(judged: &Judged, look: Look) -> String {
    let verdict = if judged.failures.is_empty() { "found" } else { "NOT FOUND" };
    let mut text = format!(
        "{}: {verdict}; {:.3} of what was put in ({}), known by {}; {} rounds\n",
        judged.case,
        judged.slope,
        interval(judged.slope_ci95, |value| format!("{value:.3}")),
        judged.established_by,
        judged.rounds
    );
    let mut table =
        look.table(&["µs per operation", "put in", "95 %", "attributed", "95 %", "largest spill", "residual"]);
    for size in &judged.sizes {
        table.add_row([
            comfy_table::Cell::new(&size.configuration),
            number(micros(size.injected_ns)),
            number(interval(size.injected_ci95_ns, micros)),
            number(micros(size.attributed_ns)),
            number(interval(size.attributed_ci95_ns, micros)),
            number(format!("{:.1} %", 100.0 * size.largest_spill_share)),
            number(micros(size.residual_delta_ns)),
        ]);
    }
    text += &lines(&table);
    for failure in &judged.failures {
        let _ = writeln!(text, "  fails: {failure}");
    }
    text
}

/// Comparisons of configurations with themselves.
#[must_use]
pub fn again(again: &Again) -> String {
    let mut text = format!(
        "{} comparisons of a configuration with itself: {} with a significant row, {} with a verdict\n",
        again.comparisons.len(),
        again.wrong(),
        again.wrong_verdicts()
    );
    for comparison in again.comparisons.iter().filter(|comparison| !comparison.significant.is_empty()) {
        let _ = writeln!(
            text,
            "  `{}`, placement {}: {}",
            comparison.configuration,
            comparison.placement.name(),
            comparison.significant.join(", ")
        );
    }
    text
}

/// The end: how many passed, and what is missing.
#[must_use]
pub fn summary(truth: &Truth) -> String {
    let mut text = String::new();
    if !truth.cases.is_empty() {
        let passed = truth.cases.iter().filter(|case| case.failures.is_empty()).count();
        let _ = writeln!(text, "{passed} of {} known costs found where they were put", truth.cases.len());
    }
    for missing in &truth.missing {
        let _ = writeln!(text, "missing: {}: {}", missing.case, missing.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        analysis::comparison::Verdict,
        placement::Placement,
        truth::{
            AgainResult, Missing, Options,
            judge::{Size, Spill},
        },
    };

    fn judged(failures: &[&str]) -> Judged {
        let size = |value: u32, injected_ns: f64| Size {
            configuration: format!("native+spin-us={value}"),
            injected_ns,
            injected_ci95_ns: Some([injected_ns - 40.0, injected_ns + 40.0]),
            attributed_ns: injected_ns + 10.0,
            attributed_ci95_ns: None,
            fewest_events: None,
            spills: vec![Spill { id: "request/x→y".to_owned(), delta_ns: 30.0, ci95_ns: None }],
            largest_spill_share: 0.0123,
            residual_delta_ns: -4.0,
        };
        Judged {
            case: "server-spins".to_owned(),
            established_by: "the server's clock".to_owned(),
            rounds: 10,
            base_ns: 17_000.0,
            sizes: vec![size(20, 20_100.0), size(160, 160_200.0)],
            slope: 1.001,
            slope_ci95: Some([0.998, 1.004]),
            failures: failures.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn cases_and_their_sum_are_as_reviewed() {
        let options = Options {
            full: false,
            cases: Vec::new(),
            rounds: 10,
            duration: Duration::from_secs(1),
            out: "out".into(),
            force: false,
        };
        let mut truth = Truth::new(&options);
        truth.cases = vec![judged(&[]), judged(&["the slope is 0.8"])];
        truth.missing = vec![Missing { case: "quota".to_owned(), why: "no cgroup".to_owned() }];
        assert!(!truth.holds());
        let look = Look { width: Some(160), styled: false };
        let cases: Vec<String> = truth.cases.iter().map(|judged| case(judged, look)).collect();
        insta::assert_snapshot!(format!("{}\n{}", cases.join("\n"), summary(&truth)));
        truth.cases.pop();
        assert!(truth.holds());
        truth.cases.clear();
        assert!(!truth.holds());
    }

    #[test]
    fn comparisons_with_itself_are_as_reviewed() {
        let one = |significant: &[&str], verdict| AgainResult {
            configuration: "ns:net=nat".to_owned(),
            placement: Placement::Same,
            latency_delta_ns: 120.0,
            ci95_ns: Some([20.0, 220.0]),
            verdict,
            significant: significant.iter().map(|id| (*id).to_owned()).collect(),
        };
        let found = Again {
            wanted: 2,
            comparisons: vec![one(&[], Verdict::NotTold), one(&["request/x→y"], Verdict::Slower)],
        };
        insta::assert_snapshot!(again(&found));
    }
}
