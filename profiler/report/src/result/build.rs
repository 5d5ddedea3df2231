//! From raw counts to the result.

use std::collections::BTreeMap;

use profiler_common::Counter;

use super::{
    ComparisonResult, ConfigurationResult, Details, LayerDelta, Losses, OpenLoop, PartResult, QuantileDelta,
    RecordCounts, RunResult, SaturatedResult, StageDelta, StageResult, WorkloadResult,
    client::client_sums,
    incomplete::incomplete,
    inputs::{Inputs, Told},
    labels::{label_of, labels, tail_stages},
    sentence::{Finding, NamedRow, Quantiles, Saturated},
    warnings,
};
use virtax_analysis::{
    comparison::{Comparison, RowDelta, compare, stage_id},
    describe::{direction, what_part},
    label::Label,
    layers::Rules,
    path::StageKey,
    profile::{self, LayerShare, Profiled},
    stacks::{self, Stacks},
    statistics::{Estimate, detectable, estimate, estimate_one, mean},
    tail,
    waterfall::{self, Waterfall},
};
use virtax_model::{
    counts::{PhaseKind, Repetition},
    error::Result,
    header::SCHEMA_VERSION,
    points,
    records::Record,
};

/// A result, and the stacks that its flame graphs are drawn from, by configuration.
pub struct Built {
    /// The result.
    pub result: RunResult,
    /// Stacks, in the order of the result's configurations.
    pub stacks: Vec<Stacks>,
    /// Details, in the same order.
    pub details: Vec<Details>,
}

/// Computes a result. Configurations of which nothing was measured are left out.
///
/// # Errors
/// If a stored histogram, or a file of records or stacks, cannot be read.
pub fn build(inputs: &Inputs<'_>) -> Result<Built> {
    let Inputs { header, told, repetitions, .. } = *inputs;
    let rules = Rules::own();
    let (mut waterfalls, mut profiled, mut stacks, mut details) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut configurations = Vec::new();
    for name in &header.configurations {
        let mut of_name: Vec<&Repetition> =
            repetitions.iter().filter(|repetition| repetition.configuration == *name).collect();
        if of_name.is_empty() {
            continue;
        }
        of_name.sort_by_key(|repetition| repetition.round);
        let waterfall = waterfall::build(name, &of_name);
        // Records are written first: without its repetition, which a killed run never wrote, a record counts nothing.
        let mut of_requests = (inputs.records)(name)?;
        of_requests.retain(|record| of_name.iter().any(|repetition| repetition.round == record.round));
        let mut profiles = (inputs.profiles)(name)?;
        profiles.retain(|profile| waterfall.rounds.iter().any(|round| round.round == profile.round));
        let of_stacks = profile::build(rules, &profiles, &waterfall);
        stacks.push(stacks::build(rules, &profiles, &waterfall, &of_stacks.stages));
        details.push(Details::of(&waterfall, &of_name, &of_requests, &labels(&waterfall, &of_stacks))?);
        configurations.push(configuration(inputs, &waterfall, &of_name, &of_requests, &of_stacks)?);
        waterfalls.push(waterfall);
        profiled.push(of_stacks);
    }
    let complete = |name: &str| {
        configurations.iter().any(|configuration: &ConfigurationResult| {
            configuration.name == name && configuration.incomplete.is_empty()
        })
    };
    let mut comparisons = Vec::new();
    for (baseline, of_baseline) in waterfalls.iter().zip(&profiled) {
        for (candidate, of_candidate) in waterfalls.iter().zip(&profiled) {
            if candidate.configuration == baseline.configuration {
                continue;
            }
            let both = complete(&baseline.configuration) && complete(&candidate.configuration);
            let compared = compare(baseline, candidate, both, header.spec.equivalent_within);
            let of_either = Sides { waterfalls: [baseline, candidate], profiled: [of_baseline, of_candidate] };
            comparisons.push(of_either.comparison(told, repetitions, &compared)?);
        }
    }
    let result = RunResult {
        schema_version: SCHEMA_VERSION,
        virtax_version: header.virtax_version.clone(),
        run_id: header.run_id.clone(),
        started_unix_s: header.started_unix_s,
        command: header.command.clone(),
        workload: WorkloadResult { name: header.workload.clone(), settings: header.settings.clone() },
        placement: header.spec.placement,
        rounds: header.spec.rounds,
        duration_s: header.spec.duration_s,
        tables_bytes: header.tables_bytes,
        environment: header.environment.clone(),
        warnings: warnings::of(inputs, &configurations),
        baseline: header.baseline.clone(),
        configurations,
        comparisons,
    };
    Ok(Built { result, stacks, details })
}

fn configuration(
    inputs: &Inputs<'_>,
    waterfall: &Waterfall,
    repetitions: &[&Repetition],
    records: &[Record],
    profiled: &Profiled,
) -> Result<ConfigurationResult> {
    let detached = client_sums(repetitions, PhaseKind::Detached)?;
    let traced = client_sums(repetitions, PhaseKind::Traced)?;
    let effect = estimate_one(
        waterfall.rounds.iter().map(|round| 100.0 * (round.traced_ns / round.detached_all_ns - 1.0)).collect(),
    );
    let last = repetitions[repetitions.len() - 1];
    let losses = Losses {
        followed: waterfall.tokens.followed,
        completed: waterfall.tokens.completed,
        unfinished: waterfall.tokens.unfinished,
        lost: waterfall.lost(),
    };
    let labels = labels(waterfall, profiled);
    let own = [Counter::Followed, Counter::Completed, Counter::Unfinished, Counter::Operations];
    let mut result = ConfigurationResult {
        name: waterfall.configuration.clone(),
        settings: last.settings.clone(),
        rounds: waterfall.rounds.len(),
        operations: detached.operations,
        throughput_per_s: detached.operations as f64 / (detached.length_ns as f64 / 1e9).max(1e-9),
        latency: detached
            .latency(waterfall.rounds.iter().map(|round| round.detached_ns + round.detached_queued_ns).collect()),
        traced_latency: traced
            .latency(waterfall.rounds.iter().map(|round| round.traced_ns + round.traced_queued_ns).collect()),
        after_rest_ns: after_rest_ns(repetitions),
        stages: stages(waterfall, profiled, &labels),
        turnaround_ns_per_op: waterfall.mean_of(|round| round.turnaround_ns),
        lateness_ns_per_op: waterfall.mean_of(|round| round.traced_lateness_ns),
        queued_ns_per_op: waterfall.mean_of(|round| round.traced_queued_ns),
        open_loop: inputs.told.rate_per_s.map(|asked_per_s| OpenLoop {
            asked_per_s,
            queued_ns_per_op: waterfall.mean_of(|round| round.detached_queued_ns),
            lateness_ns_per_op: waterfall.mean_of(|round| round.detached_lateness_ns),
        }),
        busiest_cpu_share: profiled.busiest,
        off_path_ns_per_op: mean(&profiled.off_path.values().copied().collect::<Vec<_>>()),
        tail_stages: tail::slowest(records).map_or_else(Vec::new, |tail| tail_stages(&tail, &labels)),
        records: record_counts(waterfall, records),
        unfinished_ns_per_op: waterfall.unfinished_ns_per_op,
        residual_ns_per_op: waterfall.mean_of(|round| round.residual_ns),
        conservation_percent: waterfall.conservation_percent,
        probe_effect_percent: effect.mean,
        probe_effect_ci95_percent: effect.ci95,
        cpu_layers: super::profiled::cpu_layers(profiled),
        cpu_times: super::profiled::cpu_times(profiled),
        samples: super::profiled::sample_counts(profiled, inputs.header.spec.sample_rate_hz),
        syscalls: super::profiled::syscalls(repetitions),
        vcpus: super::vcpus::vcpus(repetitions),
        exits: super::vcpus::exits(repetitions),
        accesses: super::vcpus::accesses(repetitions),
        losses,
        counters: waterfall.counters.clone().without(|counter| counter.is_loss() || own.contains(&counter)),
        write_back: super::writeback::write_back(repetitions),
        costs: waterfall.costs.clone(),
        devices: last.devices.clone(),
        server_hooks: last.server_hooks.clone(),
        client_hooks: last.client_hooks.clone(),
        virtax_cpu_share: repetitions.iter().map(|repetition| repetition.virtax_cpu_ns).sum::<u64>() as f64
            / (repetitions.iter().map(|repetition| repetition.virtax_wall_ns).sum::<u64>() as f64).max(1.0),
        incomplete: Vec::new(),
    };
    result.incomplete = incomplete(inputs.header, waterfall, &result);
    Ok(result)
}

/// Mean latency of the first, the second … request of a connection after a rest, without probes, ns.
fn after_rest_ns(repetitions: &[&Repetition]) -> Vec<f64> {
    let phases = repetitions.iter().flat_map(|repetition| waterfall::of_kind(repetition, PhaseKind::Detached));
    let mut sums: Vec<(u64, u64)> = Vec::new();
    for phase in phases {
        sums.resize(sums.len().max(phase.client.after_rest.len()), (0, 0));
        for (sum, seen) in sums.iter_mut().zip(&phase.client.after_rest) {
            *sum = (sum.0 + seen.operations, sum.1 + seen.latency_sum_ns);
        }
    }
    sums.into_iter().map(|(operations, ns)| ns as f64 / operations.max(1) as f64).collect()
}

/// CPU time of a row, by its index, ns per operation; `None` where nothing was sampled.
fn service(profiled: &Profiled, index: usize) -> Option<f64> {
    let of_rounds: Vec<f64> = profiled.services.values().filter_map(|rows| rows.get(index).copied()).collect();
    (!of_rounds.is_empty()).then(|| mean(&of_rounds))
}

fn stages(waterfall: &Waterfall, profiled: &Profiled, labels: &[(StageKey, Label)]) -> Vec<StageResult> {
    let rows: Vec<Vec<f64>> = waterfall.rows.iter().map(|row| row.rounds_ns.clone()).collect();
    waterfall
        .rows
        .iter()
        .zip(estimate(&rows))
        .zip(&profiled.stages)
        .zip(labels)
        .enumerate()
        .map(|(index, (((row, estimate), layers), (_, label)))| StageResult {
            id: stage_id(&row.key),
            label: label.to_string(),
            direction: direction(row.key.role, row.key.from.point),
            from: row.key.from.clone(),
            to: row.key.to.clone(),
            role: row.key.role,
            ns_per_op: estimate.mean,
            ci95_ns: estimate.ci95,
            corrected_ns_per_op: estimate.mean - row.probes_mean_ns(),
            service_ns_per_op: service(profiled, index),
            queueing_ns_per_op: share_of(layers, |layer| profile::is_queueing(&layer.layer))
                .map(|share| share * estimate.mean),
            count_per_op: row.count_per_op,
            p50_ns: row.histogram.quantile_ns(0.5),
            p99_ns: row.histogram.quantile_ns(0.99),
            parts: row
                .parts
                .iter()
                .map(|part| PartResult {
                    from: part.from.clone(),
                    to: part.to.clone(),
                    label: what_part(&row.key, &part.from, &part.to),
                    share: part.share,
                    ci95: part.ci95,
                    ns_per_op: part.share * estimate.mean,
                    count_per_op: part.count_per_op,
                })
                .collect(),
            layers: super::profiled::layers(layers),
        })
        .collect()
}

/// The share of the layers that are meant; `None` without samples.
fn share_of(layers: &[LayerShare], is_meant: impl Fn(&LayerShare) -> bool) -> Option<f64> {
    let meant = layers.iter().filter(|layer| is_meant(layer));
    (!layers.is_empty()).then(|| meant.map(|layer| layer.share).sum())
}

fn record_counts(waterfall: &Waterfall, records: &[Record]) -> RecordCounts {
    let lost = [Counter::RecordsRingFull, Counter::RecordsTooLong, Counter::RecordsAbandoned];
    RecordCounts {
        started: waterfall.counter(Counter::RecordsStarted),
        committed: waterfall.counter(Counter::RecordsCommitted),
        lost: lost.iter().map(|cause| waterfall.counter(*cause)).sum(),
        unfinished: waterfall.records_unfinished,
        illegal_transitions: tail::illegal_transitions(records).values().sum(),
    }
}

/// A baseline and a candidate.
struct Sides<'a> {
    waterfalls: [&'a Waterfall; 2],
    profiled: [&'a Profiled; 2],
}

/// Busy share of a CPU from which on it counts as having no time left.
const SATURATED: f64 = 0.95;

impl Sides<'_> {
    /// What each row's work adds, ns of CPU time per operation, in the order of a comparison's rows; and what is
    /// beside the rows.
    fn services(&self, keys: &[&StageKey]) -> Option<(Vec<f64>, f64)> {
        let [baseline, candidate] = self.profiled;
        let rounds: Vec<u32> =
            candidate.services.keys().copied().filter(|round| baseline.services.contains_key(round)).collect();
        if rounds.is_empty() {
            return None;
        }
        let of = |side: usize, key: &StageKey| {
            let row = self.waterfalls[side].rows.iter().position(|row| row.key == *key);
            let values = rounds.iter().map(|round| row.map_or(0.0, |row| self.profiled[side].services[round][row]));
            mean(&values.collect::<Vec<_>>())
        };
        let off =
            |side: usize| mean(&rounds.iter().map(|round| self.profiled[side].off_path[round]).collect::<Vec<_>>());
        Some((keys.iter().map(|key| of(1, key) - of(0, key)).collect(), off(1) - off(0)))
    }

    /// Whether a CPU of either has no time left while several requests are under way in a closed loop; with how many.
    fn in_flight(&self, told: &Told<'_>, repetitions: &[Repetition]) -> Option<u32> {
        let connections = repetitions.iter().map(|repetition| repetition.connections).max()?;
        let of_files =
            self.waterfalls.iter().flat_map(|found| &found.rows).any(|row| points::is_of_files(row.key.from.point));
        let busy = self.profiled.iter().all(|profiled| profiled.busiest >= SATURATED);
        (busy && connections > 1 && !of_files && told.rate_per_s.is_none()).then_some(connections)
    }

    /// The 99 % quantiles, paired by round.
    fn p99(&self, repetitions: &[Repetition]) -> Result<Option<Quantiles>> {
        let of_side = |side: usize| -> Result<(f64, BTreeMap<u32, f64>)> {
            let waterfall = self.waterfalls[side];
            let of_name: Vec<&Repetition> =
                repetitions.iter().filter(|found| found.configuration == waterfall.configuration).collect();
            let quantile = |repetitions: &[&Repetition]| {
                client_sums(repetitions, PhaseKind::Detached).map(|sums| sums.histogram.value_at_quantile(0.99) as f64)
            };
            let rounds = of_name.iter().map(|found| Ok((found.round, quantile(&[*found])?))).collect::<Result<_>>()?;
            Ok((quantile(&of_name)?, rounds))
        };
        let ((baseline_ns, of_baseline), (candidate_ns, of_candidate)) = (of_side(0)?, of_side(1)?);
        let deltas: Vec<f64> = self.waterfalls[1]
            .rounds
            .iter()
            .filter_map(|round| Some(of_candidate.get(&round.round)? - of_baseline.get(&round.round)?))
            .collect();
        let of = [baseline_ns, candidate_ns];
        Ok((baseline_ns > 0.0 && candidate_ns > 0.0).then(|| Quantiles { of, delta: estimate_one(deltas) }))
    }

    fn comparison(
        &self,
        told: &Told<'_>,
        repetitions: &[Repetition],
        compared: &Comparison,
    ) -> Result<ComparisonResult> {
        let [baseline, candidate] = self.waterfalls;
        let layers = super::profiled::layer_deltas(self.profiled[0], self.profiled[1]);
        let keys: Vec<&StageKey> = compared.rows.iter().map(|row| &row.key).collect();
        let services = self.services(&keys);
        let named = self.named_rows(compared, services.as_ref().map(|(services, _)| services.as_slice()));
        let p99 = self.p99(repetitions)?;
        let interval = |found: &Waterfall| found.mean_of(|round| round.detached_interval_ns);
        let saturated =
            self.in_flight(told, repetitions).zip(services.as_ref()).map(|(in_flight, (_, off_path_ns))| Saturated {
                in_flight,
                cpu_ns: [interval(baseline), interval(candidate)],
                off_path_ns: *off_path_ns,
            });
        let finding = Finding {
            names: [&baseline.configuration, &candidate.configuration].map(|name| (told.phrase)(name)),
            compared,
            base_ns: baseline.mean_of(|round| round.detached_ns),
            rows: &named,
            layers: &layers,
            p99,
            saturated,
        };
        let sentence = finding.sentence();
        let saturated = saturated.map(|found| SaturatedResult {
            in_flight: found.in_flight,
            baseline_cpu_ns_per_op: found.cpu_ns[0],
            candidate_cpu_ns_per_op: found.cpu_ns[1],
            cpu_delta_ns: compared.interval.mean,
            cpu_ci95_ns: compared.interval.ci95,
            service_delta_ns: named.iter().map(|row| row.service_ns).sum(),
            off_path_delta_ns: found.off_path_ns,
        });
        let p99 = p99.map(|found| QuantileDelta {
            baseline_ns: found.of[0],
            candidate_ns: found.of[1],
            delta_ns: found.delta.mean,
            ci95_ns: found.delta.ci95,
        });
        let stages = stage_deltas(compared, &named, services.is_some());
        Ok(comparison(self.waterfalls, compared, sentence, Tables { stages, layers, p99, saturated }))
    }

    /// The rows with their labels, and what each costs in CPU time, where that is known.
    fn named_rows(&self, compared: &Comparison, services: Option<&[f64]>) -> Vec<NamedRow> {
        let [baseline, candidate] = self.waterfalls;
        let all_labels = [labels(candidate, self.profiled[1]), labels(baseline, self.profiled[0])];
        let named = |(index, row): (usize, &RowDelta)| NamedRow {
            label: label_of(&[&all_labels[0], &all_labels[1]], &row.key),
            corrected_ns: row.corrected_ns,
            service_ns: services.map_or(0.0, |services| services[index]),
            significant: row.delta.differs_from_zero(),
        };
        compared.rows.iter().enumerate().map(named).collect()
    }
}

/// Rows of a comparison, largest change first.
fn stage_deltas(compared: &Comparison, named: &[NamedRow], has_services: bool) -> Vec<StageDelta> {
    let delta = |(row, named): (&RowDelta, &NamedRow)| StageDelta {
        id: stage_id(&row.key),
        label: named.label.to_string(),
        delta_ns: row.delta.mean,
        ci95_ns: row.delta.simultaneous,
        detectable_ns: detectable(row.delta.ci95),
        corrected_delta_ns: row.corrected_ns,
        service_delta_ns: has_services.then_some(named.service_ns),
        significant: row.delta.differs_from_zero(),
    };
    let mut stages: Vec<StageDelta> = compared.rows.iter().zip(named).map(delta).collect();
    stages.sort_by(|a, b| b.delta_ns.abs().total_cmp(&a.delta_ns.abs()));
    stages
}

/// What a comparison's result has beside its heads.
struct Tables {
    stages: Vec<StageDelta>,
    layers: Vec<LayerDelta>,
    p99: Option<QuantileDelta>,
    saturated: Option<SaturatedResult>,
}

fn comparison(
    [baseline, candidate]: [&Waterfall; 2],
    compared: &Comparison,
    sentence: String,
    Tables { stages, layers, p99, saturated }: Tables,
) -> ComparisonResult {
    let pair = |estimate: &Estimate| (estimate.mean, estimate.ci95);
    let (latency_delta_ns, ci95_ns) = pair(&compared.latency);
    let (traced_delta_ns, traced_ci95_ns) = pair(&compared.traced);
    let (probe_effect_difference_ns, probe_effect_difference_ci95_ns) = pair(&compared.probe_effect);
    let (corrected_sum_ns, corrected_sum_ci95_ns) = pair(&compared.corrected_sum);
    ComparisonResult {
        baseline: baseline.configuration.clone(),
        candidate: candidate.configuration.clone(),
        sentence,
        rounds: compared.rounds,
        latency_delta_ns,
        ci95_ns,
        equal_within_percent: compared.equal_within_percent,
        detectable_ns: detectable(ci95_ns),
        verdict: compared.verdict,
        traced_delta_ns,
        traced_ci95_ns,
        probe_effect_difference_ns,
        probe_effect_difference_ci95_ns,
        residual_delta_ns: compared.residual.mean,
        corrected_sum_ns,
        corrected_sum_ci95_ns,
        gap_ns: compared.gap.mean,
        gap_ci95_ns: compared.gap.ci95,
        scatter: compared.scatter,
        p99,
        saturated,
        stages,
        layers,
    }
}
