//! What the detailed phases say of virtual processors, in the result's shapes.

use std::collections::BTreeMap;

use profiler_common::Counter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use virtax_analysis::waterfall::of_kind;
use virtax_model::{
    counts::{Phase, PhaseKind, Repetition, VcpuState, VcpuTotal},
    histogram::Histogram,
};

/// Time of a virtual processor by what it did, ns per operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VcpuTimes {
    /// Time in the guest.
    pub guest_ns_per_op: f64,
    /// The kernel handled exits.
    pub kernel_ns_per_op: f64,
    /// The VM's process did.
    pub user_ns_per_op: f64,
    /// Time for which the thread waited for a CPU.
    pub scheduled_out_ns_per_op: f64,
    /// The kernel had put its thread to sleep: no overhead where the guest had nothing to do.
    pub blocked_ns_per_op: f64,
    /// The guest had nothing to do, and the kernel polled.
    pub polled_ns_per_op: f64,
}

impl VcpuTimes {
    fn of(states: &States, operations: f64) -> Self {
        let per = |state| states.per(state, operations);
        Self {
            guest_ns_per_op: per(VcpuState::Guest),
            kernel_ns_per_op: per(VcpuState::Kernel),
            user_ns_per_op: per(VcpuState::User),
            scheduled_out_ns_per_op: per(VcpuState::ScheduledOut),
            blocked_ns_per_op: per(VcpuState::Blocked),
            polled_ns_per_op: per(VcpuState::Polled),
        }
    }
    /// All times, in the order of the fields.
    #[must_use]
    pub const fn all(&self) -> [f64; 6] {
        [
            self.guest_ns_per_op,
            self.kernel_ns_per_op,
            self.user_ns_per_op,
            self.scheduled_out_ns_per_op,
            self.blocked_ns_per_op,
            self.polled_ns_per_op,
        ]
    }
    /// All of it.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.all().iter().sum()
    }
}

/// What a virtual processor did. The six states sum to the time of the phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VcpuResult {
    /// Number of the processor.
    pub vcpu: u8,
    /// All its time.
    #[serde(flatten)]
    pub times: VcpuTimes,
    /// That part of it in which the VM held a request, or several: from when it took it out of its tap until the
    /// answer came back. With one request at a time, it sums to the VM's stage in the same phases.
    #[serde(default)]
    pub holding: VcpuTimes,
    /// How far the sum of all that is from the length of the phases, %.
    pub deviation_percent: f64,
}

/// Exits of a virtual processor for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExitResult {
    /// The virtual processor's number.
    pub vcpu: u8,
    /// The kernel's own name of it.
    pub reason: String,
    /// How often, seen at the next entry.
    pub count: u64,
    /// Exits per operation.
    pub count_per_op: f64,
    /// From exit to entry, ns per operation: the following five together, and what crosses the ends of phases.
    pub ns_per_op: f64,
    /// Part of it that the kernel handled.
    pub kernel_ns_per_op: f64,
    /// The VM's process's.
    pub user_ns_per_op: f64,
    /// Waiting for a CPU.
    pub scheduled_out_ns_per_op: f64,
    /// Asleep.
    pub blocked_ns_per_op: f64,
    /// Polling.
    pub polled_ns_per_op: f64,
    /// Part of these five while the VM held a request.
    #[serde(default)]
    pub holding_ns_per_op: f64,
    /// Part of that which lies inside the guest: it had been entered with a request, the only one, and had not been
    /// left to hand on the answer. Nearly all of it is in the guest's rows; what is outside, in the boundary's toll.
    #[serde(default)]
    pub inside_ns_per_op: f64,
    /// Exits inside the guest's residence, per operation.
    #[serde(default)]
    pub inside_per_op: f64,
    /// Median from exit to entry, ns.
    pub p50_ns: Option<f64>,
    /// 99 % quantile, ns.
    pub p99_ns: Option<f64>,
}

/// Accesses of a virtual processor that its VM's process handled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccessResult {
    /// The virtual processor's number.
    pub vcpu: u8,
    /// `port 0x3f8`, or `memory 0xfebc0000`: a page of 4 KiB.
    pub place: String,
    /// How often per operation.
    pub count_per_op: f64,
    /// Time in the VM's process, ns per operation.
    pub ns_per_op: f64,
}

fn phases<'a>(repetitions: &'a [&'a Repetition]) -> impl Iterator<Item = &'a Phase> {
    repetitions
        .iter()
        .flat_map(|repetition| of_kind(repetition, PhaseKind::Detailed))
        .filter(|phase| phase.probes.as_ref().is_some_and(|probes| !probes.vcpus.is_empty()))
}

fn totals<'a>(repetitions: &'a [&'a Repetition]) -> impl Iterator<Item = &'a VcpuTotal> {
    phases(repetitions).filter_map(|phase| phase.probes.as_ref()).flat_map(|probes| &probes.vcpus)
}

fn operations(repetitions: &[&Repetition]) -> f64 {
    let probes = phases(repetitions).filter_map(|phase| phase.probes.as_ref());
    probes.map(|probes| probes.counter(Counter::Operations)).sum::<u64>().max(1) as f64
}

/// ns by state.
#[derive(Default)]
struct States(BTreeMap<VcpuState, u64>);

impl States {
    fn of<'a>(totals: impl Iterator<Item = &'a VcpuTotal>) -> Self {
        let mut states = Self::default();
        for total in totals {
            *states.0.entry(total.state).or_default() += total.total_ns;
        }
        states
    }
    fn per(&self, state: VcpuState, operations: f64) -> f64 {
        self.0.get(&state).copied().unwrap_or(0) as f64 / operations
    }
}

/// Every virtual processor, and how its time divides.
pub(super) fn vcpus(repetitions: &[&Repetition]) -> Vec<VcpuResult> {
    let operations = operations(repetitions);
    let mut numbers: Vec<u8> = totals(repetitions).map(|total| total.vcpu).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
        .into_iter()
        .map(|vcpu| {
            // A phase in which it had not been seen yet says nothing of it.
            let of_it =
                |phase: &&Phase| phase.probes.iter().flat_map(|probes| &probes.vcpus).any(|total| total.vcpu == vcpu);
            let wall_ns: u64 = phases(repetitions).filter(of_it).map(|phase| phase.length_ns).sum();
            let times = |holding| {
                let of_it = totals(repetitions).filter(|total| total.vcpu == vcpu && total.holding == holding);
                VcpuTimes::of(&States::of(of_it), operations)
            };
            let all = times(false);
            let deviation_percent = 100.0 * (all.sum() * operations / wall_ns.max(1) as f64 - 1.0);
            VcpuResult { vcpu, times: all, holding: times(true), deviation_percent }
        })
        .collect()
}

/// Exits by reason, most time first.
pub(super) fn exits(repetitions: &[&Repetition]) -> Vec<ExitResult> {
    let operations = operations(repetitions);
    let mut reasons: BTreeMap<(u8, &str), (u64, u64, Histogram)> = BTreeMap::new();
    let with_reason =
        || totals(repetitions).filter(|total| !matches!(total.state, VcpuState::Guest | VcpuState::Access));
    for total in with_reason() {
        let reason = reasons.entry((total.vcpu, &total.reason)).or_default();
        if total.state == VcpuState::Exit && total.inside {
            reason.1 += total.count;
        } else if total.state == VcpuState::Exit {
            reason.0 += total.count;
            reason.2.add(&total.buckets);
        }
    }
    let mut found: Vec<ExitResult> = reasons
        .into_iter()
        .map(|((vcpu, reason), (count, inside, histogram))| {
            let of_it = |wanted: fn(&VcpuTotal) -> bool| {
                let of_it = move |total: &&VcpuTotal| total.vcpu == vcpu && total.reason == reason && wanted(total);
                States::of(with_reason().filter(of_it))
            };
            let states = of_it(|total| !total.holding);
            let per = |state| states.per(state, operations);
            ExitResult {
                vcpu,
                reason: reason.to_owned(),
                count,
                count_per_op: count as f64 / operations,
                ns_per_op: per(VcpuState::Exit),
                kernel_ns_per_op: per(VcpuState::Kernel),
                user_ns_per_op: per(VcpuState::User),
                scheduled_out_ns_per_op: per(VcpuState::ScheduledOut),
                blocked_ns_per_op: per(VcpuState::Blocked),
                polled_ns_per_op: per(VcpuState::Polled),
                holding_ns_per_op: VcpuTimes::of(&of_it(|total| total.holding), operations).sum(),
                inside_ns_per_op: VcpuTimes::of(&of_it(|total| total.inside), operations).sum(),
                inside_per_op: inside as f64 / operations,
                p50_ns: histogram.quantile_ns(0.5),
                p99_ns: histogram.quantile_ns(0.99),
            }
        })
        .collect();
    found.sort_by(|a, b| a.vcpu.cmp(&b.vcpu).then(b.ns_per_op.total_cmp(&a.ns_per_op)));
    found
}

/// What the VM's process handled, by place.
pub(super) fn accesses(repetitions: &[&Repetition]) -> Vec<AccessResult> {
    let operations = operations(repetitions);
    let mut places: BTreeMap<(u8, &str), (u64, u64)> = BTreeMap::new();
    for total in totals(repetitions).filter(|total| total.state == VcpuState::Access) {
        let place = places.entry((total.vcpu, &total.reason)).or_default();
        place.0 += total.count;
        place.1 += total.total_ns;
    }
    let mut found: Vec<AccessResult> = places
        .into_iter()
        .map(|((vcpu, place), (count, ns))| AccessResult {
            vcpu,
            place: place.to_owned(),
            count_per_op: count as f64 / operations,
            ns_per_op: ns as f64 / operations,
        })
        .collect();
    found.sort_by(|a, b| a.vcpu.cmp(&b.vcpu).then(b.ns_per_op.total_cmp(&a.ns_per_op)));
    found
}
