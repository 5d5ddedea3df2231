//! Counts for tests: what a test says nothing about is nothing, and a new field is set here alone.

use crate::counts::{Costs, Hooks, OtherSide, Phase, PhaseKind, Place, ProbeCounts, Repetition, Role, StageTotal};

/// A phase of so many ns in which nothing was attached.
#[must_use]
pub fn phase(kind: PhaseKind, length_ns: u64) -> Phase {
    let client = Default::default();
    Phase { kind, open_ns: 0, length_ns, client, probes: None, guest: None, account: None, windows: Vec::new() }
}

impl Phase {
    /// This phase, in which the probes have seen these counts.
    #[must_use]
    pub fn with_probes(self, probes: ProbeCounts) -> Self {
        Self { probes: Some(probes), ..self }
    }
    /// This phase, in which the probes have seen these stages and nothing else.
    #[must_use]
    pub fn with_stages(self, stages: Vec<StageTotal>) -> Self {
        self.with_probes(ProbeCounts { stages, ..ProbeCounts::default() })
    }
    /// This phase, in which the other side has seen these counts.
    #[must_use]
    pub fn with_other_side(self, probes: ProbeCounts) -> Self {
        Self { guest: Some(OtherSide { probes, ..OtherSide::default() }), ..self }
    }
}

/// A stage that so many tokens went through, in so many ns together.
#[must_use]
pub const fn stage(role: Role, from: Place, to: Place, count: u64, total_ns: u64) -> StageTotal {
    StageTotal { part: false, role, from, to, count, total_ns, buckets: Vec::new() }
}

impl StageTotal {
    /// This total as a part of a stage.
    #[must_use]
    pub fn as_part(self) -> Self {
        Self { part: true, ..self }
    }
}

/// A repetition of one connection, with these phases.
#[must_use]
pub fn repetition(configuration: &str, round: u32, position: u32, phases: Vec<Phase>) -> Repetition {
    Repetition {
        round,
        configuration: configuration.to_owned(),
        position,
        connections: 1,
        settings: Default::default(),
        devices: Vec::new(),
        server_hooks: Hooks::default(),
        client_hooks: Hooks::default(),
        phases,
        costs: Costs::default(),
        guest_costs: None,
        disturbances: Vec::new(),
        virtax_cpu_ns: 0,
        virtax_wall_ns: 1,
    }
}
