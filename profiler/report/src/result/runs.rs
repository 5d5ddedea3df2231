//! Configurations of different runs against each other: whether they can be compared, and how they differ.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Built, ConfigurationResult, Details, RunResult};
use virtax_analysis::statistics::{self, Estimate, apart::estimate_apart};
use virtax_model::{
    counts::Hooks,
    environment::Environment,
    error::{Error, Result},
};

/// A configuration of one run against one of another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunsDiff {
    /// Name of the first run.
    pub first: String,
    /// Name of the second run.
    pub second: String,
    /// Rounds of either.
    pub rounds: [usize; 2],
    /// Mean latency, nothing attached: the second's less the first's.
    pub latency: Change,
    /// Stages that either has, in the order of the first's.
    pub stages: Vec<Change>,
    /// What differs between the runs and may be the reason.
    pub notes: Vec<String>,
}

/// A number of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The stage.
    pub id: String,
    /// What it holds.
    pub label: String,
    /// Time in the first run, ns per operation; 0: it has none.
    pub first_ns: f64,
    /// Time in the second run.
    pub second_ns: f64,
    /// The second's less the first's, ns.
    pub delta_ns: f64,
    /// Interval of 95 %; `None` where either has too few rounds.
    pub ci95_ns: Option<[f64; 2]>,
    /// Whether it differs from 0, all rows considered at once.
    pub significant: bool,
}

/// What keeps two runs from being compared: they did other things, or another host did them.
fn obstacles(first: &RunResult, second: &RunResult) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, first: &str, second: &str| {
        if first != second {
            found.push(format!("{what}: {first} and {second}"));
        }
    };
    same("workload", &first.workload.name, &second.workload.name);
    same("placement", first.placement.name(), second.placement.name());
    let (of_first, of_second) = (&first.workload.settings, &second.workload.settings);
    for name in of_first.keys().chain(of_second.keys()).collect::<BTreeSet<_>>() {
        let value = |settings: &virtax_model::header::Settings| settings.get(name).cloned().unwrap_or_default();
        same(&format!("setting {name}"), &value(of_first), &value(of_second));
    }
    let processor = |result: &RunResult| result.environment.cpu_model.clone().unwrap_or_default();
    same("processor", &processor(first), &processor(second));
    found
}

/// A fact of a host, in words.
type Fact = fn(&Environment) -> String;

/// Facts of a host that change what operations cost.
const FACTS: &[(&str, Fact)] = &[
    ("kernel", |found| found.kernel.clone()),
    ("frequency governor", |found| told(found.governor.as_ref())),
    ("turbo", |found| told(found.turbo.as_ref())),
    ("idle governor", |found| told(found.cpuidle_governor.as_ref())),
    ("clock source", |found| told(found.clocksource.as_ref())),
    ("halt polling of KVM, ns", |found| told(found.kvm_halt_poll_ns.as_ref())),
    ("halt polling of this machine, ns", |found| told(found.guest_halt_poll_ns.as_ref())),
    ("io_uring_disabled", |found| told(found.io_uring_disabled.as_ref())),
    ("firewall", |found| told(found.firewall.as_ref())),
    ("bridge-nf-call-iptables", |found| told(found.bridge_calls_iptables.as_ref())),
    ("congestion control", |found| told(found.congestion_control.as_ref())),
    ("ip_forward", |found| told(found.ip_forward.as_ref())),
    ("Docker", |found| told(found.docker.as_ref())),
    ("mitigations", |found| {
        found.mitigations.iter().map(|(name, what)| format!("{name}: {what}")).collect::<Vec<_>>().join("; ")
    }),
];

fn told(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "not known".to_owned(), ToString::to_string)
}

/// A text without what is different in every run: ids of containers, and of runs.
fn without_ids(text: &str) -> String {
    /// Fewest hexadecimal digits in a row that are an id.
    const SHORTEST: usize = 12;
    let is_id = |word: &str| {
        let is_run = word.strip_prefix("virtax-").is_some_and(|rest| rest.len() >= 5 && rest.is_char_boundary(5));
        is_run || (word.len() >= SHORTEST && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    text.split('/').map(|word| if is_id(word) { "ID" } else { word }).collect::<Vec<_>>().join("/")
}

/// What may be why they differ.
fn notes(first: &RunResult, second: &RunResult, of: [&ConfigurationResult; 2]) -> Vec<String> {
    let mut notes =
        vec!["the runs were not made in turns: what else changed between them is part of the difference".to_owned()];
    let mut same = |what: &str, first: &str, second: &str| {
        if first != second {
            notes.push(format!("{what}: {first} and {second}"));
        }
    };
    same("virtax", &first.virtax_version, &second.virtax_version);
    for (what, of) in FACTS {
        same(what, &of(&first.environment), &of(&second.environment));
    }
    let names: BTreeSet<&String> = of.iter().flat_map(|found| found.settings.keys()).collect();
    for name in names {
        let value =
            |found: &ConfigurationResult| found.settings.get(name).map_or_else(String::new, |text| without_ids(text));
        same(&format!("setting {name}"), &value(of[0]), &value(of[1]));
    }
    let hooks = |hooks: &Hooks| hooks.functions.clone();
    let on_paths = [
        ("the host's", [&first.environment.host_hooks, &second.environment.host_hooks]),
        ("the server's", of.map(|found| &found.server_hooks)),
        ("the client's", of.map(|found| &found.client_hooks)),
    ];
    for (whose, pair) in on_paths {
        let [a, b] = pair.map(hooks);
        for (which, has, lacks) in [("first", &a, &b), ("second", &b, &a)] {
            let only: Vec<&str> = has.iter().filter(|hook| !lacks.contains(hook)).map(String::as_str).collect();
            if !only.is_empty() {
                notes.push(format!(
                    "netfilter hooks of {whose} namespace that only the {which} has: {}",
                    only.join(", ")
                ));
            }
        }
    }
    for (which, found) in ["first", "second"].into_iter().zip(of) {
        notes.extend(found.incomplete.iter().map(|reason| format!("the {which} is incomplete: {reason}")));
    }
    notes
}

/// Compares a configuration of each run.
///
/// # Errors
/// [`Error::Usage`] if they cannot be compared, with all that keeps them from it; if either has no such configuration.
pub fn diff(first: &Built, second: &Built, names: [&str; 2]) -> Result<RunsDiff> {
    let obstacles = obstacles(&first.result, &second.result);
    if !obstacles.is_empty() {
        return Err(Error::Usage(format!("these runs cannot be compared: {}", obstacles.join("; "))));
    }
    let (of_first, details_first) = find(first, names[0], "first")?;
    let (of_second, details_second) = find(second, names[1], "second")?;
    let mut ids: Vec<(&str, &str)> = Vec::new();
    for stage in of_first.stages.iter().chain(&of_second.stages) {
        if !ids.iter().any(|(id, _)| *id == stage.id) {
            ids.push((&stage.id, &stage.label));
        }
    }
    let rows = |found: &ConfigurationResult, details: &Details| -> Vec<Vec<f64>> {
        let none = vec![0.0; details.rounds.len()];
        let of = |id: &str| found.stages.iter().position(|stage| stage.id == id);
        ids.iter().map(|(id, _)| of(id).map_or_else(|| none.clone(), |at| details.stage_rounds[at].clone())).collect()
    };
    let detached = |details: &Details| vec![details.rounds.iter().map(|round| round.detached_ns).collect::<Vec<f64>>()];
    let (rows_first, rows_second) = (rows(of_first, details_first), rows(of_second, details_second));
    let estimates = estimate_apart(&rows_first, &rows_second);
    let latency = estimate_apart(&detached(details_first), &detached(details_second));
    let mean = statistics::mean;
    let change = |id: &str, label: &str, of: [&[f64]; 2], estimate: &Estimate| Change {
        id: id.to_owned(),
        label: label.to_owned(),
        first_ns: mean(of[0]),
        second_ns: mean(of[1]),
        delta_ns: estimate.mean,
        ci95_ns: estimate.ci95,
        significant: estimate.differs_from_zero(),
    };
    Ok(RunsDiff {
        first: format!("{} ({})", of_first.name, first.result.run_id),
        second: format!("{} ({})", of_second.name, second.result.run_id),
        rounds: [details_first.rounds.len(), details_second.rounds.len()],
        latency: change(
            "latency",
            "mean, nothing attached",
            [&detached(details_first)[0], &detached(details_second)[0]],
            &latency[0],
        ),
        stages: ids
            .iter()
            .zip(rows_first.iter().zip(&rows_second))
            .zip(&estimates)
            .map(|(((id, label), (a, b)), estimate)| change(id, label, [a, b], estimate))
            .collect(),
        notes: notes(&first.result, &second.result, [of_first, of_second]),
    })
}

fn find<'a>(built: &'a Built, name: &str, which: &str) -> Result<(&'a ConfigurationResult, &'a Details)> {
    let all = &built.result.configurations;
    all.iter().zip(&built.details).find(|(found, _)| found.name == name).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|found| found.name.as_str()).collect();
        Error::Usage(format!("the {which} run has no configuration `{name}`; it has {}", known.join(", ")))
    })
}
