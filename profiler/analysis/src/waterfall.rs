//! The waterfall of a configuration: its stages in path order, per round, with everything that says how far they can
//! be trusted.

mod edges;
mod inside;
mod parts;
pub mod quiet;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use profiler_common::Counter;

use super::{
    correction::probe_time,
    path::{self, StageKey},
};
use crate::statistics::mean;
use virtax_model::{
    counts::{Costs, Counters, Phase, PhaseKind, Place, ProbeCost, ProbeCounts, Repetition, Role, Side, StageTotal},
    histogram::Histogram,
    points::{self, ProbeName},
};

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is.
    pub key: StageKey,
    /// Time per operation in each round, ns.
    pub rounds_ns: Vec<f64>,
    /// Time of the probes themselves within it, by round, as estimated, ns.
    pub probes_ns: Vec<f64>,
    /// Time per operation in the sampled phases of each round, ns: what their samples are to be held against. `None`:
    /// there are none, or they saw no operation.
    pub sampled_ns: Vec<Option<f64>>,
    /// How often it occurs per operation in each round.
    pub rounds_count: Vec<f64>,
    /// How often it occurs per operation.
    pub count_per_op: f64,
    /// Durations.
    pub histogram: Histogram,
    /// The side that saw it.
    pub side: Side,
    /// Whether the server's control group limits reads or writes.
    pub is_limited: bool,
    /// Parts, as shares of the row's time.
    pub parts: Vec<Part>,
}

/// A part of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Where it begins.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
    /// Share of the row's time, 0–1.
    pub share: f64,
    /// Interval of 95 % over the rounds; `None` below eight.
    pub ci95: Option<[f64; 2]>,
    /// The share in each round; `None` where the row had no parts.
    pub rounds_share: Vec<Option<f64>>,
    /// How often it occurs per operation.
    pub count_per_op: f64,
}

/// One round's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// Number of the round.
    pub round: u32,
    /// Mean latency without probes, from the actual call, ns.
    pub detached_ns: f64,
    /// That over all windows, also those that the host disturbed: what latencies with probes are held against, which
    /// are disturbed as often, ns.
    pub detached_all_ns: f64,
    /// Time from one operation to the next without probes, over all connections, ns: the inverse of the throughput.
    pub detached_interval_ns: f64,
    /// Mean latency with the core probes attached, from the actual call, ns.
    pub traced_ns: f64,
    /// Time, with a rate, that operations waited for earlier ones of their connection, from the intended time on,
    /// without probes, ns.
    pub detached_queued_ns: f64,
    /// That time with the core probes attached.
    pub traced_queued_ns: f64,
    /// Time by which, with a rate, the client itself made its calls later than it could have, without probes, ns.
    pub detached_lateness_ns: f64,
    /// That time with the core probes attached.
    pub traced_lateness_ns: f64,
    /// The client's own time between two operations, traced, ns.
    pub turnaround_ns: f64,
    /// Traced latency less the sum of the rows, ns.
    pub residual_ns: f64,
}

/// A configuration's waterfall.
#[derive(Debug, Clone)]
pub struct Waterfall {
    /// Name of the configuration.
    pub configuration: String,
    /// Rounds, in order, as far as every kind of phase saw operations.
    pub rounds: Vec<Round>,
    /// Blocks of every round's phases without probes; none where the round was asked as a whole. As many as rounds.
    pub blocks: Vec<RoundBlocks>,
    /// Rounds left out because a phase saw none.
    pub empty_rounds: usize,
    /// Rows, in path order.
    pub rows: Vec<Row>,
    /// Operations in traced phases, by the probes.
    pub operations: u64,
    /// Deviation of stages and unfinished time from tokens × time, %: the phases' deviations without their signs.
    pub conservation_percent: f64,
    /// Time since their last point of the requests that are on their way at the end of traced phases, ns per operation:
    /// the row `unfinished`.
    pub unfinished_ns_per_op: f64,
    /// Phases whose counts contradict each other, each with what does.
    pub contradictions: Vec<String>,
    /// Tokens: followed, completed, unfinished.
    pub tokens: Tokens,
    /// Whether the client reports whole runs around phases: then latencies and stages are not over the same operations.
    pub whole_runs: bool,
    /// All counters, summed over the phases with probes.
    pub counters: Counters,
    /// Records under way at the end of their phase.
    pub records_unfinished: u64,
    /// What the probes cost: medians over the repetitions.
    pub costs: Costs,
}

/// Mean latencies by the number of a phase and of a block in it, ns.
pub type Blocks = BTreeMap<(usize, u32), f64>;

/// A round's mean latencies by block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoundBlocks {
    /// Means over all windows.
    pub all: Blocks,
    /// Means over those windows that the host did not disturb, by its own accounts.
    pub quiet: Blocks,
}

impl RoundBlocks {
    fn of(repetition: &Repetition) -> Self {
        let [quiet, all] = [true, false].map(|quiet_alone| quiet::means(repetition, quiet_alone));
        Self { all, quiet }
    }
}

/// Counts of tokens, each taken at an event of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Started inside a phase.
    pub followed: u64,
    /// Completed inside it.
    pub completed: u64,
    /// Under way at its end.
    pub unfinished: u64,
}

/// Share of the operations by which a client that is asked around a phase may be off, if it does not say how long it
/// counted around it.
const ASKED_AROUND_OFF: f64 = 0.1;

/// Sums of the phases of one kind in one repetition.
#[derive(Default)]
pub(super) struct Sums {
    pub length_ns: u64,
    pub operations: u64,
    pub client_operations: u64,
    pub latency_ns: u64,
    pub lateness_ns: u64,
    pub queued_ns: u64,
    pub turnaround_ns: u64,
    pub idle_ns: u64,
    pub unfinished_ns: u64,
    /// Latency per operation over all windows, whatever the host did, ns.
    pub all_ns_per_op: f64,
    /// Part of it that the client's latencies hold as well: requests that were given up count with their age.
    pub given_up_ns: u64,
    /// The client does not know its turn-around.
    pub lacks_turnaround: bool,
    pub stages: HashMap<StageKey, (u64, u64)>,
    pub parts: HashMap<StageKey, (u64, u64)>,
}

impl Sums {
    /// Adds what a client saw in a phase's windows that the host did not disturb. What is known of the phase only as a
    /// whole is shared out by their operations.
    fn add_quiet(&mut self, phase: &Phase) {
        let mut operations = 0;
        for window in phase.windows.iter().filter(|window| window.disturbed.is_none()) {
            operations += window.operations;
            self.length_ns += window.length_ns;
            self.latency_ns += window.latency_sum_ns;
        }
        let share = operations as f64 / (phase.client.operations as f64).max(1.0);
        let of_whole = |ns: u64| (ns as f64 * share) as u64;
        self.client_operations += operations;
        self.queued_ns += of_whole(phase.client.queued_sum_ns.unwrap_or(0));
        self.lateness_ns += of_whole(phase.client.lateness_sum_ns);
        self.turnaround_ns += of_whole(phase.client.turnaround_sum_ns);
    }

    /// The time of a stage per operation, ns; `None`: there was no operation.
    pub fn ns_per_op(&self, key: &StageKey) -> Option<f64> {
        (self.operations > 0).then(|| per(self.stages.get(key).map_or(0, |sum| sum.1), self.operations))
    }
}

/// The phases of a kind.
pub fn of_kind(repetition: &Repetition, kind: PhaseKind) -> impl Iterator<Item = &Phase> {
    repetition.phases.iter().filter(move |phase| phase.kind == kind)
}

/// Latency of a kind's phases per operation, ns, by the client.
fn latency_of_all(repetition: &Repetition, kind: PhaseKind) -> f64 {
    let begun = of_kind(repetition, kind).map(|phase| phase.client.begun());
    let (operations, latency_ns) = begun.fold((0, 0), |sum, begun| (sum.0 + begun.0, sum.1 + begun.1));
    per(latency_ns, operations)
}

/// `has_inside`: the rows have a guest's. Then steps of a VM that hold the guest's time are none of theirs, nor
/// the other way round.
fn sums(repetition: &Repetition, kind: PhaseKind, has_inside: bool) -> Sums {
    let mut sums = Sums::default();
    let leaves_out = kind == PhaseKind::Detached && quiet::leaves_out(repetition);
    sums.all_ns_per_op = latency_of_all(repetition, kind);
    for phase in of_kind(repetition, kind) {
        if leaves_out {
            sums.add_quiet(phase);
            continue;
        }
        let (operations, latency_ns) = phase.client.begun();
        sums.length_ns += phase.length_ns;
        sums.client_operations += operations;
        sums.latency_ns += latency_ns;
        // Before they were told apart, all that a rate made late counted as latency.
        match phase.client.queued_sum_ns {
            Some(queued_ns) => {
                sums.queued_ns += queued_ns;
                sums.lateness_ns += phase.client.lateness_sum_ns;
            }
            None => sums.queued_ns += phase.client.lateness_sum_ns,
        }
        sums.turnaround_ns += phase.client.turnaround_sum_ns;
        sums.lacks_turnaround |= phase.client.whole_run || phase.client.asked_around;
        let Some(probes) = &phase.probes else { continue };
        sums.operations += operations_of(probes);
        sums.idle_ns += probes.idle_ns;
        sums.unfinished_ns += probes.unfinished_ns.saturating_sub(probes.idle_ns);
        sums.given_up_ns += probes.lives_ns.map_or(0, |_| probes.unfinished_ns);
        let inside = inside::stages(phase);
        for stage in probes.stages.iter().chain(&inside.stages) {
            let has_other = inside.boundary.is_some() != has_inside;
            if stage.part && has_other && parts::is_of_vm(&key_of(stage)) {
                continue;
            }
            let table = if stage.part { &mut sums.parts } else { &mut sums.stages };
            let sum = table.entry(key_of(stage)).or_default();
            sum.0 += stage.count;
            sum.1 += stage.total_ns;
        }
        for (key, ns) in &inside.of_guest {
            if let Some(sum) = sums.stages.get_mut(key) {
                sum.1 = sum.1.saturating_sub(*ns);
            }
        }
        let of_host = inside.of_guest.is_empty();
        if let Some(sum) =
            inside.boundary.as_ref().filter(|_| of_host).and_then(|boundary| sums.stages.get_mut(boundary))
        {
            sum.1 -= inside.residence_ns;
            parts::take_residence(&mut sums.parts, phase, &inside);
        }
    }
    sums
}

/// Operations that a phase's stages are of, by the probes: those that are still under way have stages, too, where
/// requests count from their beginning.
fn operations_of(probes: &ProbeCounts) -> u64 {
    probes.counter(Counter::Operations) + probes.lives_ns.map_or(0, |_| probes.unfinished)
}

fn key_of(stage: &StageTotal) -> StageKey {
    StageKey { role: stage.role, from: stage.from.clone(), to: stage.to.clone() }
}

fn per(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

/// Builds the waterfall of one configuration from its repetitions.
#[must_use]
pub fn build(configuration: &str, repetitions: &[&Repetition]) -> Waterfall {
    // A round in which a phase saw no operation has no mean: it is left out, and said to be.
    let full: Vec<&Repetition> = repetitions.iter().copied().filter(|repetition| saw_operations(repetition)).collect();
    let has_inside = !inside::keys(&full).is_empty();
    let all_sums = |kind| full.iter().map(|repetition| sums(repetition, kind, has_inside)).collect::<Vec<Sums>>();
    let traced = all_sums(PhaseKind::Traced);
    let detailed = all_sums(PhaseKind::Detailed);
    let detached = all_sums(PhaseKind::Detached);
    let sampled = all_sums(PhaseKind::Sampled);

    let mut rows = stage_rows(&traced, &sampled, &full);
    charge_probes(&mut rows, &full);
    parts::attach(&mut rows, &traced, &detailed);
    let turnarounds = edges::replace_turnaround(&mut rows, &traced, &detailed, &sampled, &full);
    let round = |(index, repetition): (usize, &&Repetition)| {
        let turnaround_ns = turnarounds.as_ref().map(|turnarounds| turnarounds[index]);
        round_of(repetition, [&detached[index], &traced[index]], turnaround_ns, &rows, index)
    };
    let rounds = full.iter().enumerate().map(round).collect();
    let (tokens, counters, records_unfinished) = count_tokens(repetitions);
    Waterfall {
        configuration: configuration.to_owned(),
        rounds,
        blocks: full.iter().map(|repetition| RoundBlocks::of(repetition)).collect(),
        empty_rounds: repetitions.len() - full.len(),
        rows,
        operations: traced.iter().map(|sums| sums.operations).sum(),
        conservation_percent: conservation_percent(repetitions),
        unfinished_ns_per_op: per(
            traced.iter().map(|sums| sums.unfinished_ns).sum(),
            traced.iter().map(|sums| sums.operations).sum(),
        ),
        contradictions: contradictions(repetitions),
        tokens,
        whole_runs: full.iter().flat_map(|repetition| &repetition.phases).any(|phase| phase.client.whole_run),
        counters,
        records_unfinished,
        costs: median_costs(repetitions),
    }
}

/// Notes in each row what of it is the probes' own time, by round. Host and guest have probes of their own.
fn charge_probes(rows: &mut [Row], repetitions: &[&Repetition]) {
    for (round, repetition) in repetitions.iter().enumerate() {
        rows.iter_mut().for_each(|row| row.probes_ns.push(0.0));
        let of_sides = [(Side::Host, Some(&repetition.costs)), (Side::Guest, repetition.guest_costs.as_ref())];
        for (side, costs) in of_sides {
            let Some(costs) = costs else { continue };
            let of_side = || rows.iter().enumerate().filter(|(_, row)| row.side == side);
            let indices: Vec<usize> = of_side().map(|(index, _)| index).collect();
            let stages: Vec<(StageKey, f64)> =
                of_side().map(|(_, row)| (row.key.clone(), row.rounds_count[round])).collect();
            for (index, ns) in indices.into_iter().zip(probe_time(&stages, costs)) {
                // Nothing that a guest says makes less than nothing of a row.
                let believed = if ns.is_finite() { ns.clamp(0.0, rows[index].rounds_ns[round].max(0.0)) } else { 0.0 };
                rows[index].probes_ns[round] = match side {
                    Side::Host => ns,
                    Side::Guest => believed,
                };
            }
        }
    }
}

/// The means of one round, which is the one of this index in the rows.
fn round_of(
    repetition: &Repetition,
    [detached, traced]: [&Sums; 2],
    turnaround_ns: Option<f64>,
    rows: &[Row],
    index: usize,
) -> Round {
    let (of_detached, of_traced) =
        (|sum| per(sum, detached.client_operations), |sum| per(sum, traced.client_operations));
    let traced_ns = of_traced(traced.latency_ns);
    let stages_ns: f64 = rows.iter().map(|row| row.rounds_ns[index]).sum();
    Round {
        round: repetition.round,
        detached_ns: of_detached(detached.latency_ns),
        detached_all_ns: detached.all_ns_per_op,
        traced_ns,
        detached_interval_ns: of_detached(detached.length_ns),
        detached_queued_ns: of_detached(detached.queued_ns),
        traced_queued_ns: of_traced(traced.queued_ns),
        detached_lateness_ns: of_detached(detached.lateness_ns),
        traced_lateness_ns: of_traced(traced.lateness_ns),
        turnaround_ns: turnaround_ns.unwrap_or_else(|| of_traced(traced.turnaround_ns)),
        residual_ns: traced_ns - stages_ns - per(traced.given_up_ns, traced.operations),
    }
}

/// Whether client and probes saw operations in the phases that latencies and stages are of.
fn saw_operations(repetition: &Repetition) -> bool {
    [PhaseKind::Detached, PhaseKind::Traced].into_iter().all(|kind| {
        let by_client: u64 = of_kind(repetition, kind).map(|phase| phase.client.begun().0).sum();
        let by_probes: u64 = of_kind(repetition, kind).flat_map(|phase| &phase.probes).map(operations_of).sum();
        by_client > 0 && (kind == PhaseKind::Detached || by_probes > 0)
    })
}

/// Phases whose counts do not fit together, each with what does not.
fn contradictions(repetitions: &[&Repetition]) -> Vec<String> {
    let phases = repetitions.iter().flat_map(|repetition| {
        repetition.phases.iter().enumerate().map(move |(index, phase)| (repetition, index, phase))
    });
    phases
        .filter_map(|(repetition, index, phase)| {
            let what = contradiction(repetition, phase)?;
            Some(format!("round {}, phase {} ({}): {what}", repetition.round + 1, index + 1, phase.kind.name()))
        })
        .collect()
}

/// What does not fit together: followed = completed + unfinished + lost, one token a connection, and as many
/// operations by the probes as by the client, but for those that begin at an end of a window.
fn contradiction(repetition: &Repetition, phase: &Phase) -> Option<String> {
    let probes = phase.probes.as_ref()?;
    let lost: u64 = Counter::losses().map(|cause| probes.counter(cause)).sum();
    let ended = probes.counter(Counter::Completed) + probes.counter(Counter::Unfinished) + probes.unfinished + lost;
    let (followed, operations) = (probes.counter(Counter::Followed), operations_of(probes));
    let connections = u64::from(repetition.connections);
    // A client that knows no phases cannot say how many there were in one, and one that only counts on not exactly.
    let told = (!phase.client.whole_run).then_some(phase.client.begun().0);
    let slack = (told.unwrap_or(0) as f64 * off_by_counting_around(phase)) as u64;
    if followed != ended {
        return Some(format!("{followed} requests followed, {ended} accounted for"));
    }
    // One a connection may begin just at an end of each window, by the one clock before it, and by the other after.
    let at_ends = connections * phase.windows.len().max(1) as u64;
    if let Some(told) = told.filter(|told| operations.abs_diff(*told) > at_ends + slack) {
        return Some(format!("{operations} operations by the probes, {told} by the client, {connections} connections"));
    }
    (lost == 0 && told.is_some() && probes.tokens != connections)
        .then(|| format!("{} tokens for {connections} connections", probes.tokens))
}

/// The share of operations by which a client may be off that counts longer than the phase is, and scales what it
/// counted to the phase: what it counted around it is at most that, if the rate there was between none and twice the
/// phase's.
fn off_by_counting_around(phase: &Phase) -> f64 {
    match (phase.client.asked_around, phase.client.around_ns) {
        (false, _) => 0.0,
        (true, 0) => ASKED_AROUND_OFF,
        (true, around_ns) => around_ns as f64 / phase.length_ns as f64,
    }
}

/// Rows for all stages seen in traced phases, in path order.
fn stage_rows(traced: &[Sums], sampled: &[Sums], repetitions: &[&Repetition]) -> Vec<Row> {
    let keys: BTreeSet<&StageKey> = traced.iter().flat_map(|sums| sums.stages.keys()).collect();
    let inside = inside::keys(repetitions);
    let primary = inside::primary_side(repetitions);
    let stages: Vec<(StageKey, u64)> = keys
        .into_iter()
        .map(|key| (key.clone(), traced.iter().filter_map(|sums| sums.stages.get(key)).map(|sum| sum.0).sum()))
        .collect();
    let operations: u64 = traced.iter().map(|sums| sums.operations).sum();
    let is_limited = repetitions.iter().any(|repetition| repetition.settings.contains_key("io_limits"));
    path::order(&stages)
        .into_iter()
        .map(|index| {
            let (key, count) = &stages[index];
            Row {
                rounds_ns: traced
                    .iter()
                    .map(|sums| per(sums.stages.get(key).map_or(0, |sum| sum.1), sums.operations))
                    .collect(),
                probes_ns: Vec::new(),
                sampled_ns: sampled.iter().map(|sums| sums.ns_per_op(key)).collect(),
                rounds_count: traced
                    .iter()
                    .map(|sums| per(sums.stages.get(key).map_or(0, |sum| sum.0), sums.operations))
                    .collect(),
                count_per_op: per(*count, operations),
                histogram: histogram_of(repetitions, PhaseKind::Traced, false, key),
                side: if inside.contains(key) { primary.other() } else { primary },
                is_limited,
                parts: Vec::new(),
                key: key.clone(),
            }
        })
        .collect()
}

pub(super) fn histogram_of(repetitions: &[&Repetition], kind: PhaseKind, part: bool, key: &StageKey) -> Histogram {
    let mut histogram = Histogram::default();
    for phase in repetitions.iter().flat_map(|repetition| of_kind(repetition, kind)) {
        // Of a boundary whose inside is known, what is left is known of the requests that both sides saw.
        let whole = phase.guest.is_some() && path::is_boundary(key);
        if whole && !part {
            histogram.add(inside::toll(phase));
        }
        let in_guest = phase.guest.iter().flat_map(|guest| &guest.probes.stages);
        for stage in phase.probes.iter().filter(|_| !whole).flat_map(|probes| &probes.stages).chain(in_guest) {
            if stage.part == part && stage.role == key.role && stage.from == key.from && stage.to == key.to {
                histogram.add(&stage.buckets);
            }
        }
    }
    histogram
}

/// Whether it is the client's time between two operations, which is part of neither.
fn is_between(stage: &StageTotal) -> bool {
    points::is_turnaround(stage.from.point, stage.to.point)
        && (stage.role == Role::Client || points::is_of_files(stage.from.point))
}

fn conservation_percent(repetitions: &[&Repetition]) -> f64 {
    let (mut off, mut expected) = (0.0, 0.0);
    for repetition in repetitions {
        for phase in &repetition.phases {
            let Some(probes) = &phase.probes else { continue };
            let is_counted = |stage: &&StageTotal| !(stage.part || probes.lives_ns.is_some() && is_between(stage));
            let stages: u64 = probes.stages.iter().filter(is_counted).map(|stage| stage.total_ns).sum();
            let (found, whole) = match probes.lives_ns {
                Some(lives_ns) => (stages, lives_ns as f64),
                // Of a version in which stages were clipped to the phase: tokens × time.
                None => (
                    stages.saturating_add(probes.unfinished_ns),
                    f64::from(repetition.connections) * phase.length_ns as f64,
                ),
            };
            off += (found as f64 - whole).abs();
            expected += whole;
        }
    }
    if expected == 0.0 { 0.0 } else { 100.0 * off / expected }
}

fn count_tokens(repetitions: &[&Repetition]) -> (Tokens, Counters, u64) {
    let mut tokens = Tokens::default();
    let mut counters = Counters::default();
    let mut records_unfinished = 0;
    for phase in repetitions.iter().flat_map(|repetition| &repetition.phases) {
        let Some(probes) = &phase.probes else { continue };
        tokens.followed += probes.counter(Counter::Followed);
        tokens.completed += probes.counter(Counter::Completed);
        tokens.unfinished += probes.counter(Counter::Unfinished) + probes.unfinished;
        records_unfinished += probes.records_unfinished;
        counters.add(&probes.counters);
    }
    (tokens, counters, records_unfinished)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => mean(&values[count / 2 - 1..=count / 2]),
    }
}

fn median_costs(repetitions: &[&Repetition]) -> Costs {
    let all =
        |value: &dyn Fn(&Costs) -> f64| median(repetitions.iter().map(|repetition| value(&repetition.costs)).collect());
    let names: BTreeSet<ProbeName> =
        repetitions.iter().flat_map(|repetition| &repetition.costs.probes).map(|cost| cost.probe).collect();
    let probes = names
        .into_iter()
        .map(|name| {
            let of = |value: fn(&ProbeCost) -> f64| {
                all(&move |costs: &Costs| costs.probes.iter().find(|cost| cost.probe == name).map_or(0.0, value))
            };
            ProbeCost { probe: name, hits_per_op: of(|cost| cost.hits_per_op), ns_per_hit: of(|cost| cost.ns_per_hit) }
        })
        .collect();
    Costs { probes, dispatch_ns: all(&|costs| costs.dispatch_ns), floor_ns: all(&|costs| costs.floor_ns) }
}

impl Waterfall {
    /// Whether an agent saw the inside of the server's VM.
    #[must_use]
    pub fn has_inside(&self) -> bool {
        self.rows.iter().any(|row| row.side == Side::Guest)
    }

    /// Mean of a number over the rounds.
    #[must_use]
    pub fn mean_of(&self, value: fn(&Round) -> f64) -> f64 {
        mean(&self.rounds.iter().map(value).collect::<Vec<_>>())
    }

    /// Lost tokens by cause.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<String, u64> {
        Counter::losses().map(|cause| (cause.name().to_owned(), self.counter(cause))).collect()
    }

    /// A counter's sum.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.of(counter)
    }
}

impl Row {
    /// Mean of the probes' own time, ns per operation.
    #[must_use]
    pub fn probes_mean_ns(&self) -> f64 {
        mean(&self.probes_ns)
    }

    /// Whether it is the client's turn-around, of which only the ends belong to the latency.
    pub(super) fn is_turnaround(&self) -> bool {
        self.key.role == Role::Client && points::is_turnaround(self.key.from.point, self.key.to.point)
    }
}

#[cfg(test)]
mod tests;
