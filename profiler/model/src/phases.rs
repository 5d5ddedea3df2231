//! The phases of a repetition.

use std::time::Duration;

use crate::{
    counts::PhaseKind,
    error::{Error, Result},
};

/// Shortest phase.
pub const SHORTEST_PHASE: Duration = Duration::from_millis(50);
/// Length of a block that a repetition aims at.
const BLOCK_LENGTH: Duration = Duration::from_millis(2400);
/// Phases of one block and their weights: balanced, so that a drift of the host meets all kinds alike whose
/// latencies are compared. The sampled one stands apart. The dearer a kind is, the shorter: a run slows the workload
/// by a few percent on the whole, and the headline latencies, from detached phases, have most of the time.
const BLOCK: [(PhaseKind, u32); 6] = [
    (PhaseKind::Detached, 6),
    (PhaseKind::Traced, 2),
    (PhaseKind::Detailed, 1),
    (PhaseKind::Traced, 2),
    (PhaseKind::Detached, 6),
    (PhaseKind::Sampled, 1),
];

/// Kinds and lengths of a repetition's phases: blocks of six (of five without samples), as long as fits, none below
/// [`SHORTEST_PHASE`].
///
/// # Errors
/// [`Error::Usage`] if the duration is too short or beyond an hour.
pub fn phases(duration: Duration, sampled: bool) -> Result<Vec<(PhaseKind, Duration)>> {
    let block: Vec<_> = BLOCK.into_iter().filter(|(kind, _)| sampled || *kind != PhaseKind::Sampled).collect();
    let kinds = block.len() as u32;
    if duration < SHORTEST_PHASE * kinds || duration > Duration::from_secs(3600) {
        return Err(Error::Usage(format!(
            "`--duration` must lie between {} s ({kinds} phases of {} ms) and 3600 s",
            (SHORTEST_PHASE * kinds).as_secs_f64(),
            SHORTEST_PHASE.as_millis()
        )));
    }
    let blocks = (duration.as_secs_f64() / BLOCK_LENGTH.as_secs_f64()).round().max(1.0) as u32;
    let lengths = divided(duration / blocks, &block);
    Ok((0..blocks).flat_map(|_| lengths.iter().copied()).collect())
}

/// Divides a block's length by weight; whoever would get too little gets the shortest, and the others share the rest.
fn divided(length: Duration, block: &[(PhaseKind, u32)]) -> Vec<(PhaseKind, Duration)> {
    let mut at_least = Duration::ZERO;
    let mut weights: u32 = block.iter().map(|(_, weight)| weight).sum();
    let is_short = |weight: u32, rest: Duration, weights: u32| rest * weight / weights < SHORTEST_PHASE;
    // From the lightest on: each one that is set to the shortest leaves less for the rest.
    let mut by_weight: Vec<u32> = block.iter().map(|(_, weight)| *weight).collect();
    by_weight.sort_unstable();
    let mut lightest = 0;
    for weight in by_weight {
        if !is_short(weight, length.saturating_sub(at_least), weights) {
            break;
        }
        (at_least, weights, lightest) = (at_least + SHORTEST_PHASE, weights - weight, weight);
    }
    let rest = length.saturating_sub(at_least);
    let share = |weight: u32| if weight <= lightest { SHORTEST_PHASE } else { rest * weight / weights.max(1) };
    block.iter().map(|(kind, weight)| (*kind, share(*weight))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_is_one_block() {
        let without = phases(Duration::from_secs(1), false).unwrap();
        assert_eq!(without.len(), 5);
        let with = phases(Duration::from_secs(1), true).unwrap();
        assert_eq!((with.len(), with[5].0), (6, PhaseKind::Sampled));
        let ratio = |one: usize, other: usize| with[one].1.as_secs_f64() / with[other].1.as_secs_f64();
        assert!((ratio(0, 1) - 3.0).abs() < 1e-3 && (ratio(1, 5) - 2.0).abs() < 1e-3, "{with:?}");
    }

    #[test]
    fn phases_shrink_to_fit_and_no_further() {
        let shortest = phases(Duration::from_millis(250), false).unwrap();
        assert!(shortest.iter().all(|(_, length)| *length == SHORTEST_PHASE));
        assert!(phases(Duration::from_millis(249), false).unwrap_err().to_string().contains("0.25 s"));
        assert!(phases(Duration::from_millis(299), true).unwrap_err().to_string().contains("0.3 s (6 phases"));
        for milliseconds in [300u64, 333, 400, 500, 750, 1000, 1700, 7000, 3_600_000] {
            let duration = Duration::from_millis(milliseconds);
            let made = phases(duration, true).unwrap();
            let sum: Duration = made.iter().map(|(_, length)| *length).sum();
            assert!(duration.abs_diff(sum) < Duration::from_millis(1), "{duration:?} {sum:?}");
            assert!(made.iter().all(|(_, length)| *length >= SHORTEST_PHASE), "{made:?}");
        }
        assert_eq!(phases(Duration::from_millis(400), true).unwrap()[0].1, Duration::from_millis(100));
    }

    #[test]
    fn every_block_is_balanced() {
        let compared = || BLOCK.into_iter().filter(|(kind, _)| *kind != PhaseKind::Sampled);
        assert!(compared().eq(compared().collect::<Vec<_>>().into_iter().rev()));
    }
}
