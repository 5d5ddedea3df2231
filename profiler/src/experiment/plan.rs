//! What a run is to do.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64;
use virtax_model::spec::RunSpec;

use crate::{
    engine::configuration::Configuration,
    engine::vm,
    workload::{Settings, Workload},
};

/// Most rounds of a run that goes on until something is told.
pub const MOST_ROUNDS: u32 = 10_000;

/// What a run is to do.
pub struct Plan {
    /// What client and server do.
    pub workload: &'static dyn Workload,
    /// The workload's settings.
    pub settings: Settings,
    /// Configurations, in the order of `--in`.
    pub configurations: Vec<Configuration>,
    /// Index of the one that others are compared with.
    pub baseline: usize,
    /// How it is measured.
    pub spec: RunSpec,
    /// How VMs are to be started.
    pub vms: vm::VmOptions,
}

/// The order of `count` configurations in every round, without end: shuffled, reproducibly, and every other round
/// backwards. So a host that grows steadily slower, or a place in the round that is better than another, meets all
/// configurations alike; what is left of it makes intervals wider, never too narrow.
pub fn orders(count: usize, seed: u64) -> impl Iterator<Item = Vec<usize>> {
    let mut random = Pcg64::seed_from_u64(seed);
    std::iter::repeat_with(move || {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut random);
        let back = order.iter().rev().copied().collect();
        [order, back]
    })
    .flatten()
}

/// A run's id: five hexadecimal digits, so that link names with it fit into 15 characters.
#[must_use]
pub fn new_run_id() -> String {
    format!("{:05x}", rand::rng().random_range(0..1u32 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_hold_every_configuration_once_in_changing_order() {
        let orders: Vec<Vec<usize>> = orders(3, 7).take(40).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
        }
        for pair in orders.chunks(2) {
            assert!(pair[0].iter().eq(pair[1].iter().rev()));
        }
        let firsts = |which| orders.iter().filter(|order| order[0] == which).count();
        assert!((0..3).all(|which| firsts(which) > 3));
        assert_eq!(orders, super::orders(3, 7).take(40).collect::<Vec<_>>());
    }
}
