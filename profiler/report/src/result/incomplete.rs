//! What keeps a result from being complete.

use std::time::Duration;

use profiler_common::Counter;

use super::ConfigurationResult;
use virtax_analysis::waterfall::Waterfall;
use virtax_model::{
    counts::{Accelerator, PhaseKind},
    header::Header,
    phases::phases,
};

/// Largest share of lost tokens of a complete result.
const LOSS_LIMIT: f64 = 0.001;
/// Largest residual of a complete result of a VM, share of the latency, where the workload's own is
/// smaller.
const RESIDUAL_OF_MACHINES: f64 = 0.07;
/// Largest deviation from conservation of a complete result, %.
const CONSERVATION_LIMIT_PERCENT: f64 = 0.5;

/// Requests that cross the ends of a phase are in the client's mean whole, in the stages by the part inside: with
/// phases that are short against the latency, the two differ.
fn phases_too_short(header: &Header, result: &ConfigurationResult) -> String {
    let latency = Duration::from_nanos(result.traced_latency.mean_ns as u64);
    let traced = phases(header.spec.duration(), header.spec.samples())
        .ok()
        .and_then(|phases| phases.into_iter().find(|(kind, _)| *kind == PhaseKind::Traced));
    match traced {
        Some((_, length)) if latency * 10 > length => format!(
            ": its phases of {} ms are short against a latency of {} ms, give a longer `--duration`",
            length.as_millis(),
            latency.as_millis()
        ),
        _ => String::new(),
    }
}

/// Share of the requests whose further segments make a result incomplete.
const SEGMENTS_LIMIT: f64 = 0.001;

/// Everything that keeps a result from being complete, by name.
pub(super) fn incomplete(header: &Header, waterfall: &Waterfall, result: &ConfigurationResult) -> Vec<String> {
    let mut reasons = Vec::new();
    sums_that_are_off(header, waterfall, result, &mut reasons);
    full_tables(waterfall, result, &mut reasons);
    not_followed(waterfall, result, &mut reasons);
    if let Some(first) = waterfall.contradictions.first() {
        let more = match waterfall.contradictions.len() {
            1 => String::new(),
            count => format!("; and {} more phases", count - 1),
        };
        reasons.push(format!("the counts of a phase contradict each other: {first}{more}"));
    }
    if waterfall.empty_rounds > 0 {
        reasons.push(format!(
            "{} rounds had no operation in their detached or traced phases and were left out: longer --duration",
            waterfall.empty_rounds
        ));
    }
    if waterfall.operations == 0 {
        reasons.push("the probes saw no operation".to_owned());
    }
    reasons
}

/// Requests that were lost, and sums that are not what they should be.
fn sums_that_are_off(header: &Header, waterfall: &Waterfall, result: &ConfigurationResult, reasons: &mut Vec<String>) {
    let lost = result.losses.lost_share();
    if lost > LOSS_LIMIT {
        reasons.push(format!(
            "{:.2} % of the followed requests were lost (limit {} %)",
            100.0 * lost,
            100.0 * LOSS_LIMIT
        ));
    }
    let residual = result.residual_share().abs();
    // One request that crosses the end of a phase weighs much where they are few and long.
    let in_vm = Accelerator::of_settings(&result.settings).is_some();
    let residual_limit = if in_vm { header.residual_limit.max(RESIDUAL_OF_MACHINES) } else { header.residual_limit };
    if residual > residual_limit && !waterfall.whole_runs {
        reasons.push(format!(
            "the residual is {:.1} % of the latency (limit {:.0} %){}",
            100.0 * residual,
            100.0 * residual_limit,
            phases_too_short(header, result)
        ));
    }
    if result.conservation_percent.abs() > CONSERVATION_LIMIT_PERCENT {
        reasons.push(format!(
            "stages deviate by {:.2} % from tokens × time (limit {CONSERVATION_LIMIT_PERCENT} %)",
            result.conservation_percent
        ));
    }
}

/// What found no place in the probes' tables, but for tokens, which are lost by name.
fn full_tables(waterfall: &Waterfall, result: &ConfigurationResult, reasons: &mut Vec<String>) {
    for (counter, what) in [
        (Counter::SocketTable, "sockets, or threads that make file operations, found no place in the probes' table"),
        (Counter::BioTable, "bios found no place in the probes' table"),
        (Counter::AtOnceMany, "calls began or ended more operations than are followed"),
    ] {
        let times = waterfall.counters.with_vmm(counter);
        if times > 0 {
            reasons.push(format!("{what} ({}, {times} times)", counter.name()));
        }
    }
    let details = waterfall.counter(Counter::DetailsTable);
    if details > 0 {
        reasons.push(format!("{details} times of parts and system calls found no place in the probes' table"));
    }
    let samples = &result.samples;
    let stacks_lost = samples.lost as f64 / (samples.events + samples.lost).max(1) as f64;
    if stacks_lost > LOSS_LIMIT {
        reasons.push(format!("{:.2} % of the stacks were lost (limit {} %)", 100.0 * stacks_lost, 100.0 * LOSS_LIMIT));
    }
}

/// Requests of kinds that are not followed.
fn not_followed(waterfall: &Waterfall, result: &ConfigurationResult, reasons: &mut Vec<String>) {
    for (counter, what) in [
        (
            Counter::UnknownSocket,
            "requests were delivered to a socket of no process of the run: a relay (docker-proxy?) stands on the path",
        ),
        (
            Counter::Pipelined,
            "requests were sent while others were under way on the same connection (pipelining): not built yet",
        ),
        (
            Counter::Unreceived,
            "the server answered what no call had received (splice, sendfile, zero-copy or io_uring): not built yet",
        ),
    ] {
        if waterfall.counter(counter) > 0 {
            reasons.push(what.to_owned());
        }
    }
    let segments = waterfall.counter(Counter::Segments) as f64 / result.losses.followed.max(1) as f64;
    if segments > SEGMENTS_LIMIT {
        reasons.push(format!(
            "messages had {segments:.2} further segments per request, and stages are those of the first: give messages that one \
             segment holds (smaller `request` and `response`, or the usual MTU and offloads)"
        ));
    }
}
