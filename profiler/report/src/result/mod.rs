//! `result.json`: the shapes. Names end in their unit; shares are 0–1; a table that is not built yet is an empty list.

pub mod bench;
mod build;
mod client;
mod details;
mod incomplete;
mod inputs;
mod labels;
pub mod precision;
mod profiled;
pub mod runs;
mod schema;
mod sentence;
mod shape;
mod vcpus;
mod warning;
mod warnings;
mod writeback;

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use build::{Built, build};
pub use details::{Details, RoundDetail};
pub use inputs::{Inputs, Told};
pub use schema::schema;
pub use vcpus::{AccessResult, ExitResult, VcpuResult, VcpuTimes};
pub use warning::Warning;
pub use writeback::WriteBackResult;

use virtax_analysis::comparison::{Scatter, Verdict};
use virtax_model::{
    counts::{Accelerator, Costs, Counters, DeviceInfo, Direction, Hooks, Place, Role},
    environment::Environment,
    error::Result,
    header::{self, Settings},
    input,
    placement::Placement,
    run_folder::RESULT,
    whole,
};

/// A run's result: everything shown anywhere is computed from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// Version of this shape: within one, fields are added, and none changes its meaning.
    pub schema_version: u32,
    /// Version of virtax that computed it.
    pub virtax_version: String,
    /// Five hexadecimal digits.
    pub run_id: String,
    /// Start, seconds since 1970.
    pub started_unix_s: u64,
    /// The command that repeats the run.
    pub command: String,
    /// What client and server did.
    pub workload: WorkloadResult,
    /// Where they ran.
    pub placement: Placement,
    /// Rounds that were asked for; each configuration says how many it has.
    pub rounds: u32,
    /// Measured time per configuration and round, seconds.
    pub duration_s: f64,
    /// Kernel memory of the probes' tables, bytes.
    #[serde(default)]
    pub tables_bytes: u64,
    /// The host.
    pub environment: Environment,
    /// What harms or limits the result, with remedies.
    pub warnings: Vec<Warning>,
    /// Name of the configuration that others are compared with.
    pub baseline: String,
    /// Configurations, in the order of `--in`.
    pub configurations: Vec<ConfigurationResult>,
    /// Every ordered pair, in the order of `--in`.
    pub comparisons: Vec<ComparisonResult>,
}

/// The workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadResult {
    /// Name of the workload.
    pub name: String,
    /// Settings of the workload, defaults included.
    pub settings: Settings,
}

/// Latencies as the client saw them, ns; with a rate, those that waited for an earlier operation of their connection
/// from the intended time on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Mean over the rounds' means.
    pub mean_ns: f64,
    /// Interval of 95 %; `null` below five rounds.
    pub ci95_ns: Option<[f64; 2]>,
    /// Median.
    pub p50_ns: f64,
    /// 90 % quantile.
    pub p90_ns: f64,
    /// 99 % quantile.
    pub p99_ns: f64,
    /// 99.9 % quantile.
    pub p999_ns: f64,
    /// Largest.
    pub max_ns: f64,
}

/// An open loop, in detached phases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenLoop {
    /// Operations per second that were asked for.
    pub asked_per_s: f64,
    /// How long operations waited for earlier ones of their connection, from the time at which they were to be made,
    /// ns per operation: part of the latency.
    pub queued_ns_per_op: f64,
    /// Time by which the client itself made its calls later than it could have, ns per operation: no part of the
    /// latency.
    pub lateness_ns_per_op: f64,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationResult {
    /// Name of the configuration.
    pub name: String,
    /// What the server ran in, as verified from inside.
    pub settings: BTreeMap<String, String>,
    /// Rounds that it has.
    pub rounds: usize,
    /// Operations in detached phases.
    pub operations: u64,
    /// Operations per second in detached phases.
    pub throughput_per_s: f64,
    /// Detached phases.
    pub latency: Latency,
    /// Traced phases.
    pub traced_latency: Latency,
    /// Mean latency of the first, the second … the 200th request of a connection after a rest, nothing attached, ns;
    /// empty: it was asked all the time. The first ones of each window do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_rest_ns: Vec<f64>,
    /// Stages in path order, from the client's call to its return.
    pub stages: Vec<StageResult>,
    /// The client's own time between return and next call, traced, ns per operation: not part of the latency.
    pub turnaround_ns_per_op: f64,
    /// Time by which, with a rate, the client itself made its calls later than it could have, traced, ns per operation;
    /// else 0.
    pub lateness_ns_per_op: f64,
    /// Time that, with a rate, operations waited for earlier ones of their connection, traced, ns per operation; part
    /// of the latency.
    #[serde(default)]
    pub queued_ns_per_op: f64,
    /// What a rate that was asked for became; `null` in a closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    /// Busy share of the busiest CPU of client and server, 0–1; sampled phases.
    #[serde(default)]
    pub busiest_cpu_share: f64,
    /// CPU time of client and server beside the stages, ns per operation; sampled phases.
    #[serde(default)]
    pub off_path_ns_per_op: f64,
    /// Stages of the slowest hundredth of the records; empty if there are too few.
    pub tail_stages: Vec<TailStage>,
    /// Records.
    pub records: RecordCounts,
    /// The row `unfinished`: time since their last point of requests on their way at the end of a phase, ns per
    /// operation. Part of the conservation, not of the stages.
    pub unfinished_ns_per_op: f64,
    /// Mean traced latency, from the actual call, less the sum of the stages, ns.
    pub residual_ns_per_op: f64,
    /// Deviation of the stages from the requests' ends less their beginnings, by the probes' clock, %.
    pub conservation_percent: f64,
    /// Traced against detached latency, % of the detached.
    pub probe_effect_percent: f64,
    /// Interval of the effect.
    pub probe_effect_ci95_percent: Option<[f64; 2]>,
    /// CPU time by role and layer, on and off the path, largest first; sampled phases.
    pub cpu_layers: Vec<CpuLayerResult>,
    /// CPU time by role, by samples and by the scheduler's account.
    pub cpu_times: Vec<CpuTimeResult>,
    /// Samples, and what no rule names.
    pub samples: SampleCounts,
    /// System calls by role, most time first; detailed phases.
    pub syscalls: Vec<SyscallResult>,
    /// Virtual processors of KVM's VMs, and what they did; detailed phases.
    pub vcpus: Vec<VcpuResult>,
    /// Exits of virtual processors by reason, most time first; detailed phases.
    pub exits: Vec<ExitResult>,
    /// What the VM's process handled, by port or address, most time first; detailed phases.
    pub accesses: Vec<AccessResult>,
    /// Tokens, each counted at an event of its own.
    pub losses: Losses,
    /// What is no loss.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub counters: Counters,
    /// What operations left in the page cache, and the kernel's threads wrote back meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_back: Option<WriteBackResult>,
    /// What the probes cost.
    pub costs: Costs,
    /// Devices on the path.
    pub devices: Vec<DeviceInfo>,
    /// Netfilter hooks of the server's namespace.
    pub server_hooks: Hooks,
    /// Those of the client's.
    pub client_hooks: Hooks,
    /// Share of one core that virtax itself used during the phases.
    #[serde(rename = "agent_cpu_share")]
    pub virtax_cpu_share: f64,
    /// Why it is incomplete; empty: it is complete.
    pub incomplete: Vec<String>,
}

/// A row of the waterfall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageResult {
    /// Direction and points: the same in every configuration that has it.
    pub id: String,
    /// Between which hops it lies, in words, and the layers that surely have a tenth of it.
    pub label: String,
    /// Whether it is a request's, or a response's.
    pub direction: Direction,
    /// Where it begins.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
    /// Role of the holder.
    pub role: Role,
    /// Time per operation, ns.
    pub ns_per_op: f64,
    /// Interval of 95 %; `null` below five rounds.
    pub ci95_ns: Option<[f64; 2]>,
    /// Less the probes' own time, ns.
    pub corrected_ns_per_op: f64,
    /// Part of its time in which somebody worked for the operation, ns of CPU time: what it costs. `null` without
    /// samples.
    #[serde(default)]
    pub service_ns_per_op: Option<f64>,
    /// Part of its time that was waiting for other operations, and for a CPU that the run itself had, ns: it grows with
    /// what is under way at once.
    #[serde(default)]
    pub queueing_ns_per_op: Option<f64>,
    /// How often it occurs per operation.
    pub count_per_op: f64,
    /// Median, ns; `null` if the row has no histogram.
    pub p50_ns: Option<f64>,
    /// 99 % quantile, ns.
    pub p99_ns: Option<f64>,
    /// What it consists of; not to be summed again.
    pub parts: Vec<PartResult>,
    /// Layers, largest first: waits by what was waited for, work by the sampled phases, and what neither explains
    /// (`unaccounted`, or `waiting` where that is too much for chance). They sum to 1; empty without samples.
    pub layers: Vec<LayerResult>,
}

/// A layer of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerResult {
    /// Name of the layer.
    pub layer: String,
    /// Share of the stage's time, 0–1.
    pub share: f64,
    /// Interval of 95 %: of a sampled share, and of what no sample has seen, by the number of samples; of a wait
    /// over the rounds (`null` below eight).
    pub ci95: Option<[f64; 2]>,
    /// Samples; 0 for a wait, which is measured.
    pub samples: u64,
}

/// CPU time of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CpuLayerResult {
    /// `client`, `server`, or `softirq`: on whatever thread it ran.
    pub role: String,
    /// Name of the layer.
    pub layer: String,
    /// CPU time per operation, ns.
    pub ns_per_op: f64,
    /// Interval of 95 %, by the number of samples.
    pub ci95_ns: Option<[f64; 2]>,
}

/// CPU time of a role's threads in the sampled phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CpuTimeResult {
    /// Whose; `idle` and `foreign` are the rest of the CPUs with a timer.
    pub role: String,
    /// CPU time by the scheduler's points (`foreign`: by samples; `idle`: what is left), softirqs on top of the threads
    /// included, ns per operation. The role's layers and its share of `softirq` sum to it.
    pub running_ns_per_op: f64,
    /// Part of it in softirqs, by samples.
    pub softirq_ns_per_op: f64,
    /// CPU time by samples alone, each for its timer's period, ns per operation: less exact, and from another source.
    pub sampled_ns_per_op: f64,
    /// CPU time by `/proc/PID/task/TID/schedstat`, ns per operation; `null` where that has no such account.
    pub schedstat_ns_per_op: Option<f64>,
}

/// Samples of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleCounts {
    /// Samples a second on each CPU.
    pub rate_hz: u32,
    /// All, idle CPUs included.
    pub all: u64,
    /// Those that met work on the path of a request.
    pub on_path: u64,
    /// Samples and waits noted.
    pub events: u64,
    /// Samples and waits lost.
    pub lost: u64,
    /// Share of the samples in the kernel that no rule of the layers matches, 0–1.
    pub unmatched_share: f64,
    /// Where those are, largest first, ten at most.
    pub unmatched: Vec<UnmatchedResult>,
}

/// A function that no rule of the layers matches, nor any of its callers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnmatchedResult {
    /// Name of the function.
    pub function: String,
    /// Share of the samples in the kernel, 0–1.
    pub share: f64,
    /// CPU time, ns per operation.
    pub ns_per_op: f64,
}

/// A system call of a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SyscallResult {
    /// `client` or `server`.
    pub role: Role,
    /// Name of the system call.
    pub name: String,
    /// Calls per operation.
    pub count_per_op: f64,
    /// Time from entry to return, waits included, ns per operation.
    pub ns_per_op: f64,
    /// Median of a call, ns.
    pub p50_ns: Option<f64>,
    /// 99 % quantile of a call, ns.
    pub p99_ns: Option<f64>,
}

/// A part of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "SavedPart")]
pub struct PartResult {
    /// Where it begins.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
    /// What it holds, in words; empty where the two points say it.
    #[serde(default)]
    pub label: String,
    /// Share of the stage, 0–1, as detailed phases divide it.
    pub share: f64,
    /// Interval of 95 %; `null` below five rounds.
    pub ci95: Option<[f64; 2]>,
    /// That share of the stage's time, ns per operation.
    pub ns_per_op: f64,
    /// How often it occurs per operation.
    pub count_per_op: f64,
}

/// A [`PartResult`] as it is written.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "PartResult")]
struct SavedPart {
    from: Place,
    to: Place,
    #[serde(default)]
    label: String,
    share: f64,
    ci95: Option<[f64; 2]>,
    ns_per_op: f64,
    count_per_op: f64,
}

impl From<SavedPart> for PartResult {
    fn from(saved: SavedPart) -> Self {
        let SavedPart { from, to, label, share, ci95, ns_per_op, count_per_op } = saved;
        let to = to.as_end_after(&from);
        Self { from, to, label, share, ci95, ns_per_op, count_per_op }
    }
}

/// A row of the slowest requests' waterfall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TailStage {
    /// Id of the stage, as in [`StageResult`].
    pub id: String,
    /// Label of the stage, as in [`StageResult`].
    pub label: String,
    /// Direction of the message, as in [`StageResult`].
    pub direction: Direction,
    /// Time per slow request, ns.
    pub ns_per_op: f64,
    /// Records it is made of.
    pub n: usize,
}

/// Records of single requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordCounts {
    /// Begun.
    pub started: u64,
    /// Written.
    pub committed: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Under way at the end of their phase.
    pub unfinished: u64,
    /// Transitions that the table of points does not allow.
    pub illegal_transitions: u64,
}

/// Tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Losses {
    /// Requests that started inside a phase.
    pub followed: u64,
    /// Those that ended, whenever that was.
    pub completed: u64,
    /// Those that were given up: they count with their age.
    pub unfinished: u64,
    /// Those lost, by cause; zeros too.
    pub lost: BTreeMap<String, u64>,
}

/// One configuration against another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComparisonResult {
    /// Name of the baseline.
    pub baseline: String,
    /// Name of the candidate.
    pub candidate: String,
    /// The finding in words.
    pub sentence: String,
    /// Rounds that both have.
    pub rounds: usize,
    /// Difference of the detached mean latencies, from the actual call, ns.
    pub latency_delta_ns: f64,
    /// Interval of 95 %.
    pub ci95_ns: Option<[f64; 2]>,
    /// Bound, with the verdicts `not_told` and `equivalent`, on the two's difference, % of the baseline's latency, by
    /// the interval's far end.
    pub equal_within_percent: Option<f64>,
    /// The smallest difference of latencies that as many rounds find four times in five, ns.
    #[serde(default)]
    pub detectable_ns: Option<f64>,
    /// What can be said about the difference.
    pub verdict: Verdict,
    /// Difference of the traced mean latencies, ns.
    pub traced_delta_ns: f64,
    /// Interval of the traced difference.
    pub traced_ci95_ns: Option<[f64; 2]>,
    /// Traced less detached difference, ns: from the traced delta to the detached one.
    pub probe_effect_difference_ns: f64,
    /// Interval of that difference.
    pub probe_effect_difference_ci95_ns: Option<[f64; 2]>,
    /// Difference of the residuals, ns: with the stages it sums to the traced delta.
    pub residual_delta_ns: f64,
    /// Sum of the corrected deltas, ns: to be held against the detached delta.
    pub corrected_sum_ns: f64,
    /// Interval of the sum.
    pub corrected_sum_ci95_ns: Option<[f64; 2]>,
    /// That sum less the detached delta, paired by round, ns: what the attribution is off by.
    pub gap_ns: f64,
    /// Interval of the gap.
    pub gap_ci95_ns: Option<[f64; 2]>,
    /// Where the scatter of the rounds comes from; missing where a round is not made of blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scatter: Option<Scatter>,
    /// The 99 % quantiles; `null` where either has no latencies.
    #[serde(default)]
    pub p99: Option<QuantileDelta>,
    /// Where a CPU of both is busy all the time: what that costs; `null`: it is not.
    #[serde(default)]
    pub saturated: Option<SaturatedResult>,
    /// Rows, largest change first.
    pub stages: Vec<StageDelta>,
    /// Differences by layer: with the residuals' difference they sum to the traced delta. Empty without samples.
    pub layers: Vec<LayerDelta>,
}

/// A quantile's change, without probes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuantileDelta {
    /// The baseline's, ns.
    pub baseline_ns: f64,
    /// The candidate's, ns.
    pub candidate_ns: f64,
    /// The mean difference of the rounds' quantiles, ns.
    pub delta_ns: f64,
    /// Interval of 95 %.
    pub ci95_ns: Option<[f64; 2]>,
}

/// What a difference costs where a CPU has no time left. Latency is then what queues: requests under way at once ×
/// CPU time per request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SaturatedResult {
    /// Requests under way at once.
    pub in_flight: u32,
    /// CPU time per operation on the busy CPU, without probes, by the throughput, ns: the baseline's.
    pub baseline_cpu_ns_per_op: f64,
    /// The candidate's.
    pub candidate_cpu_ns_per_op: f64,
    /// Their difference, ns.
    pub cpu_delta_ns: f64,
    /// Interval of 95 %.
    pub cpu_ci95_ns: Option<[f64; 2]>,
    /// What the stages' work adds, with probes, ns of CPU time per operation.
    pub service_delta_ns: f64,
    /// What work beside the stages adds, ns of CPU time per operation.
    pub off_path_delta_ns: f64,
}

/// A layer's change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerDelta {
    /// Name of the layer.
    pub layer: String,
    /// Candidate less baseline, ns of latency per operation.
    pub delta_ns: f64,
    /// Interval of 95 %, all layers considered at once.
    pub ci95_ns: Option<[f64; 2]>,
    /// Whether it differs from 0, all layers considered at once.
    pub significant: bool,
    /// Samples of it in both configurations; `null`: it is no sampled layer.
    #[serde(default)]
    pub samples: Option<u64>,
}

/// A row of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageDelta {
    /// Id of the stage, as in [`StageResult`].
    pub id: String,
    /// Label of the stage, as in [`StageResult`].
    pub label: String,
    /// Candidate less baseline, ns per operation.
    pub delta_ns: f64,
    /// Interval of 95 %, all rows considered at once: `significant` says whether it leaves 0 out.
    pub ci95_ns: Option<[f64; 2]>,
    /// Less the probes' own time, ns.
    pub corrected_delta_ns: f64,
    /// What its work adds, ns of CPU time per operation; `null` without samples.
    #[serde(default)]
    pub service_delta_ns: Option<f64>,
    /// The smallest change that as many rounds find four times in five, ns.
    #[serde(default)]
    pub detectable_ns: Option<f64>,
    /// Whether it differs from 0, all rows considered at once.
    pub significant: bool,
}

impl RunResult {
    /// Writes it into a run's directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        whole::write_json(&folder.join(RESULT), self)
    }

    /// Reads it from a run's directory.
    ///
    /// # Errors
    /// If there is none, it is broken, or of another version.
    pub fn load(folder: &Path) -> Result<Self> {
        input::document(&folder.join(RESULT), header::SCHEMA_VERSION)
    }

    /// The configuration with this name.
    #[must_use]
    pub fn configuration(&self, name: &str) -> Option<&ConfigurationResult> {
        self.configurations.iter().find(|configuration| configuration.name == name)
    }
}

impl ConfigurationResult {
    /// The residual as a share of the traced latency from the actual call.
    #[must_use]
    pub fn residual_share(&self) -> f64 {
        self.residual_ns_per_op / (self.traced_latency.mean_ns - self.queued_ns_per_op).max(1.0)
    }

    /// What stands beside it wherever it is shown: what it is no evidence of.
    #[must_use]
    pub fn caveat(&self) -> Option<&'static str> {
        Accelerator::of_settings(&self.settings)?.caveat()
    }
}

impl Losses {
    /// Lost tokens, share of the followed.
    #[must_use]
    pub fn lost_share(&self) -> f64 {
        self.lost.values().sum::<u64>() as f64 / self.followed.max(1) as f64
    }
}
