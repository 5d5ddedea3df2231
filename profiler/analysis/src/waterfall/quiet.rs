//! Windows that the host disturbed, by its own accounts, and whether a round does without them.

use std::collections::BTreeMap;

use virtax_model::counts::{PhaseKind, Repetition, WindowCounts};

use super::{Blocks, of_kind, per};

/// Part of a round that has to be undisturbed for the rest to be left out: one third, which is half of what was
/// planned where all of it was measured half again.
const ENOUGH: usize = 3;

/// Whether so many of all are enough to do without the others.
#[must_use]
pub fn are_enough(quiet: usize, all: usize) -> bool {
    ENOUGH * quiet >= all
}

/// Windows of a round's phases without probes, each with the number of its phase.
fn windows(repetition: &Repetition) -> impl Iterator<Item = (usize, &WindowCounts)> {
    let phases = of_kind(repetition, PhaseKind::Detached).enumerate();
    phases.flat_map(|(number, phase)| phase.windows.iter().map(move |window| (number, window)))
}

/// Whether a round's latencies are of the windows alone that the host did not disturb.
#[must_use]
pub fn leaves_out(repetition: &Repetition) -> bool {
    let all = windows(repetition).count();
    let quiet = windows(repetition).filter(|(_, window)| window.disturbed.is_none()).count();
    // Nobody knows in which window something began that has not ended.
    let is_whole = of_kind(repetition, PhaseKind::Detached).all(|phase| phase.client.unfinished == 0);
    is_whole && quiet < all && are_enough(quiet, all)
}

/// Mean latencies by block: of the windows that the host did not disturb, or of all.
#[must_use]
pub fn means(repetition: &Repetition, quiet_alone: bool) -> Blocks {
    let mut sums: BTreeMap<(usize, u32), (u64, u64)> = BTreeMap::new();
    for (number, window) in windows(repetition).filter(|(_, window)| !quiet_alone || window.disturbed.is_none()) {
        let sum = sums.entry((number, window.block)).or_default();
        *sum = (sum.0 + window.operations, sum.1 + window.latency_sum_ns);
    }
    let told = sums.into_iter().filter(|(_, (operations, _))| *operations > 0);
    told.map(|(block, (operations, latency_ns))| (block, per(latency_ns, operations))).collect()
}

#[cfg(test)]
mod tests {
    use virtax_model::{counts::Disturbance, testing};

    use super::*;

    fn window(block: u32, latency_ns: u64, disturbed: bool) -> WindowCounts {
        WindowCounts {
            block,
            at_ns: 0,
            length_ns: 1_000,
            operations: 10,
            latency_sum_ns: 10 * latency_ns,
            work_ns: [0; 2],
            disturbed: disturbed.then_some(Disturbance::Slow),
        }
    }

    /// A round with blocks of two windows each, some of which are disturbed.
    fn round(disturbed: &[[bool; 2]]) -> Repetition {
        let mut phase = testing::phase(PhaseKind::Detached, 1);
        for (block, windows) in (0u32..).zip(disturbed) {
            let of_window = |disturbed: &bool| window(block, if *disturbed { 90 } else { 50 }, *disturbed);
            phase.windows.extend(windows.iter().map(of_window));
        }
        phase.client.operations = phase.windows.iter().map(|window| window.operations).sum();
        phase.client.latency_sum_ns = phase.windows.iter().map(|window| window.latency_sum_ns).sum();
        phase.client.turnaround_sum_ns = phase.client.operations;
        testing::repetition("native", 0, 0, vec![phase])
    }

    #[test]
    fn disturbed_windows_are_left_out_where_enough_others_are() {
        assert!(!leaves_out(&round(&[[false; 2]; 3])));
        assert!(leaves_out(&round(&[[true, false], [false, true], [true; 2]])));
        assert!(!leaves_out(&round(&[[true; 2], [true; 2], [true, false]])));
        assert!(!leaves_out(&testing::repetition("native", 0, 0, Vec::new())));
        let mut waiting = round(&[[true, false]]);
        waiting.phases[0].client.unfinished = 1;
        assert!(!leaves_out(&waiting));
    }

    #[test]
    fn blocks_are_of_what_counts() {
        let round = round(&[[true, false], [true; 2], [false; 2]]);
        assert_eq!(means(&round, true), Blocks::from([((0, 0), 50.0), ((0, 2), 50.0)]));
        assert_eq!(means(&round, false), Blocks::from([((0, 0), 70.0), ((0, 1), 90.0), ((0, 2), 50.0)]));
    }

    #[test]
    fn sums_are_of_what_counts() {
        let sums = |disturbed: &[[bool; 2]]| {
            let sums = super::super::sums(&round(disturbed), PhaseKind::Detached, false);
            (sums.client_operations, sums.latency_ns, sums.turnaround_ns, sums.all_ns_per_op)
        };
        assert_eq!(sums(&[[false; 2], [false; 2]]), (40, 40 * 50, 40, 50.0));
        assert_eq!(sums(&[[true, false], [true, false]]), (20, 20 * 50, 20, 70.0));
        // Too few are left: all count.
        assert_eq!(sums(&[[true; 2], [true, false]]), (40, 30 * 90 + 10 * 50, 40, 80.0));
    }
}
