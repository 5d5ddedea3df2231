//! What watching costs, as `virtax bench` measured it.

use virtax_model::counts::Costs;

/// What was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The core probes, told to do nothing: what getting into them and out again costs.
    Idle,
    /// The core probes, with records.
    Traced,
    /// The core probes, without records.
    TracedNoRecords,
    /// All probes, with records.
    Detailed,
    /// The core probes, those of threads and softirqs, and the sampler.
    Sampled,
    /// The phases of a run, one after another, with the time between them.
    Run,
    /// The script.
    Script,
}

impl Variant {
    /// Name of the variant, as shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "core probes, returning at once",
            Self::Traced => "core probes, totals and records",
            Self::TracedNoRecords => "core probes, totals only",
            Self::Detailed => "all probes, totals, records and parts",
            Self::Sampled => "core and schedule probes, stacks",
            Self::Run => "a run's phases, averaged",
            Self::Script => "the bpftrace script",
        }
    }
}

/// One round: mean latency with nothing attached before and after, and with each variant, ns.
#[derive(Debug, Clone)]
pub struct BenchRound {
    /// Nothing attached.
    pub detached_ns: f64,
    /// Each variant.
    pub variants: Vec<(Variant, f64)>,
}

/// What a benchmark brought.
#[derive(Debug, Clone)]
pub struct Benchmark {
    /// Round by round.
    pub rounds: Vec<BenchRound>,
    /// ns per hit, of what is attached in traced and in detailed phases.
    pub costs: [Costs; 2],
}

impl Benchmark {
    /// Effects of a variant, ns, sorted.
    #[must_use]
    pub fn effects_ns(&self, variant: Variant) -> Vec<f64> {
        let mut effects: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| {
                let (_, ns) = round.variants.iter().find(|(of, _)| *of == variant)?;
                Some(ns - round.detached_ns)
            })
            .collect();
        effects.sort_by(f64::total_cmp);
        effects
    }
}
