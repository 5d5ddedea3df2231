//! What operations left in the page cache, and threads of the kernel's wrote back.

use profiler_common::Counter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use virtax_analysis::statistics::estimate_one;
use virtax_model::counts::Repetition;

/// Write-back of what the operations of a configuration left in the page cache, in all phases with probes: beside
/// their latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WriteBackResult {
    /// bios per operation.
    pub bios_per_op: f64,
    /// Bytes of them per operation.
    pub bytes_per_op: f64,
    /// Their time from issue to completion, ns per operation: of several at once, each one's.
    pub device_ns_per_op: f64,
    /// Interval of 95 % over the rounds.
    pub device_ci95_ns: Option<[f64; 2]>,
}

/// The write-back of a configuration's repetitions; `None`: nothing was written back meanwhile.
pub(super) fn write_back(repetitions: &[&Repetition]) -> Option<WriteBackResult> {
    let of_phases = |repetition: &Repetition, counter: Counter| -> f64 {
        repetition
            .phases
            .iter()
            .filter_map(|phase| phase.probes.as_ref())
            .map(|probes| probes.counter(counter))
            .sum::<u64>() as f64
    };
    let sum = |counter| repetitions.iter().map(|repetition| of_phases(repetition, counter)).sum::<f64>();
    let operations = sum(Counter::Completed);
    if operations == 0.0 || sum(Counter::WriteBacks) == 0.0 {
        return None;
    }
    let of_rounds = repetitions.iter().map(|repetition| {
        of_phases(repetition, Counter::WriteBackNs) / of_phases(repetition, Counter::Completed).max(1.0)
    });
    Some(WriteBackResult {
        bios_per_op: sum(Counter::WriteBacks) / operations,
        bytes_per_op: sum(Counter::WriteBackBytes) / operations,
        device_ns_per_op: sum(Counter::WriteBackNs) / operations,
        device_ci95_ns: estimate_one(of_rounds.collect()).ci95,
    })
}
