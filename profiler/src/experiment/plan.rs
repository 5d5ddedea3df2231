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
    /// Pairs of configurations that are compared above all, by their indices: they share blocks.
    pub compared: Vec<[usize; 2]>,
    /// How it is measured.
    pub spec: RunSpec,
    /// Number of the first round, from 0: not 0 where it goes on with an earlier run.
    pub first_round: u32,
    /// How VMs are to be started.
    pub vms: vm::VmOptions,
}

/// The pairs of a baseline with each of so many configurations.
#[must_use]
pub fn with_baseline(count: usize, baseline: usize) -> Vec<[usize; 2]> {
    (0..count).filter(|index| *index != baseline).map(|index| [baseline, index]).collect()
}

impl Plan {
    /// The pairs among some of its configurations, by their places there.
    pub fn pairs_of<'a>(&self, some: impl Iterator<Item = &'a Configuration>) -> Vec<[usize; 2]> {
        let some: Vec<&Configuration> = some.collect();
        let place = |index: usize| some.iter().position(|found| **found == self.configurations[index]);
        self.compared.iter().filter_map(|[one, other]| Some([place(*one)?, place(*other)?])).collect()
    }
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
    fn pairs_are_those_that_are_there() {
        assert_eq!(with_baseline(3, 1), [[1, 0], [1, 2]]);
        let configurations = crate::engine::configuration::parse_list("native,ns:net=nat,tcg,ns").unwrap();
        let plan = Plan {
            workload: crate::workload::by_name("tcp-rr").unwrap(),
            settings: Settings::new(),
            compared: vec![[0, 1], [1, 2], [1, 3]],
            configurations: configurations.configurations,
            baseline: 0,
            spec: RunSpec::default(),
            first_round: 0,
            vms: Default::default(),
        };
        // In another order, and without the one that is measured alone.
        let some = [3, 1, 0].map(|index: usize| &plan.configurations[index]);
        assert_eq!(plan.pairs_of(some.into_iter()), [[2, 1], [1, 0]]);
    }

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
