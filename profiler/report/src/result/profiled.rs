//! What the sampled and the detailed phases say, in the result's shapes.

use std::collections::{BTreeMap, BTreeSet};

use profiler_common::Counter;

use super::{CpuLayerResult, CpuTimeResult, LayerDelta, LayerResult, SampleCounts, SyscallResult, UnmatchedResult};
use virtax_analysis::{
    profile::{LayerShare, Profiled},
    statistics::estimate,
    waterfall::of_kind,
};
use virtax_model::{
    counts::{PhaseKind, Repetition, Role},
    histogram::Histogram,
};

/// Functions listed that no rule matches.
const LISTED: usize = 10;

pub(super) fn layers(shares: &[LayerShare]) -> Vec<LayerResult> {
    shares
        .iter()
        .map(|share| LayerResult {
            layer: share.layer.clone(),
            share: share.share,
            ci95: share.ci95,
            samples: share.samples,
        })
        .collect()
}

pub(super) fn cpu_layers(profiled: &Profiled) -> Vec<CpuLayerResult> {
    profiled
        .cpu
        .iter()
        .map(|layer| CpuLayerResult {
            role: layer.owner.name().to_owned(),
            layer: layer.layer.clone(),
            ns_per_op: layer.ns_per_op,
            ci95_ns: layer.ci95,
        })
        .collect()
}

pub(super) fn cpu_times(profiled: &Profiled) -> Vec<CpuTimeResult> {
    if profiled.samples == 0 {
        return Vec::new();
    }
    let rest = |role: &str, ns: f64| CpuTimeResult {
        role: role.to_owned(),
        running_ns_per_op: ns,
        sampled_ns_per_op: ns,
        softirq_ns_per_op: 0.0,
        schedstat_ns_per_op: None,
    };
    profiled
        .roles
        .iter()
        .filter(|time| time.running_ns > 0.0 || time.sampled_ns > 0.0 || time.schedstat_ns > 0.0)
        .map(|time| CpuTimeResult {
            role: time.role.name().to_owned(),
            running_ns_per_op: time.running_ns,
            sampled_ns_per_op: time.sampled_ns,
            softirq_ns_per_op: time.softirq_ns,
            schedstat_ns_per_op: Some(time.schedstat_ns),
        })
        .chain([rest("idle", profiled.idle_ns), rest("foreign", profiled.foreign_ns)])
        .collect()
}

pub(super) fn sample_counts(profiled: &Profiled, rate_hz: u32) -> SampleCounts {
    SampleCounts {
        rate_hz,
        all: profiled.samples,
        on_path: profiled.on_path,
        events: profiled.events,
        lost: profiled.lost,
        unmatched_share: profiled.unmatched_share,
        unmatched: profiled
            .unmatched
            .iter()
            .take(LISTED)
            .map(|unmatched| UnmatchedResult {
                function: unmatched.function.clone(),
                share: unmatched.share,
                ns_per_op: unmatched.ns_per_op,
            })
            .collect(),
    }
}

/// System calls of detailed phases, most time first.
pub(super) fn syscalls(repetitions: &[&Repetition]) -> Vec<SyscallResult> {
    let mut operations = 0;
    let mut calls: BTreeMap<(Role, &str), (u64, u64, Histogram)> = BTreeMap::new();
    let phases = repetitions.iter().flat_map(|repetition| of_kind(repetition, PhaseKind::Detailed));
    for probes in phases.filter_map(|phase| phase.probes.as_ref()) {
        operations += probes.counter(Counter::Operations);
        for call in &probes.calls {
            let sum = calls.entry((call.role, &call.name)).or_default();
            sum.0 += call.count;
            sum.1 += call.total_ns;
            sum.2.add(&call.buckets);
        }
    }
    let operations = operations.max(1) as f64;
    let mut found: Vec<SyscallResult> = calls
        .into_iter()
        .map(|((role, name), (count, ns, histogram))| SyscallResult {
            role,
            name: name.to_owned(),
            count_per_op: count as f64 / operations,
            ns_per_op: ns as f64 / operations,
            p50_ns: histogram.quantile_ns(0.5),
            p99_ns: histogram.quantile_ns(0.99),
        })
        .collect();
    found.sort_by(|a, b| a.role.cmp(&b.role).then(b.ns_per_op.total_cmp(&a.ns_per_op)));
    found
}

/// What every layer adds, paired by round, largest change first.
pub(super) fn layer_deltas(baseline: &Profiled, candidate: &Profiled) -> Vec<LayerDelta> {
    let samples = |name: &str| {
        let shares = [baseline, candidate].into_iter().flat_map(|profiled| profiled.stages.iter().flatten());
        let of_name: Vec<u64> = shares.filter(|share| share.layer == name).map(|share| share.samples).collect();
        of_name.iter().any(|count| *count > 0).then(|| of_name.iter().sum())
    };
    let pairs: Vec<_> = candidate
        .rounds
        .iter()
        .filter_map(|(round, of_candidate)| Some((baseline.rounds.get(round)?, of_candidate)))
        .collect();
    let names: BTreeSet<&String> = pairs.iter().flat_map(|(a, b)| a.keys().chain(b.keys())).collect();
    let rows: Vec<Vec<f64>> = names
        .iter()
        .map(|name| {
            let of = |layers: &BTreeMap<String, f64>| layers.get(*name).copied().unwrap_or(0.0);
            pairs.iter().map(|(a, b)| of(b) - of(a)).collect()
        })
        .collect();
    let mut deltas: Vec<LayerDelta> = names
        .into_iter()
        .zip(estimate(&rows))
        .map(|(layer, delta)| LayerDelta {
            layer: layer.clone(),
            delta_ns: delta.mean,
            ci95_ns: delta.simultaneous,
            significant: delta.differs_from_zero(),
            samples: samples(layer),
        })
        .collect();
    deltas.sort_by(|a, b| b.delta_ns.abs().total_cmp(&a.delta_ns.abs()));
    deltas
}
