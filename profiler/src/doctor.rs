//! `virtax doctor`: what this kernel and host have and lack, with remedies.

use std::{fmt::Write, path::Path};

use crate::{
    engine,
    environment::{self, Environment, hooks_of},
    finding::Finding,
    points::Hook,
    probes::{Support, support},
    process::allowed_cpus,
    symbols,
    workload::{self, Tool},
};

/// The findings as text, and whether `native` runs can work here.
#[must_use]
pub fn examine() -> (String, bool) {
    let mut text = String::new();
    let mut able = true;
    match support() {
        Ok(points) => {
            let _ = writeln!(text, "points:");
            for support in &points {
                able &= describe(support, &mut text);
            }
        }
        Err(error) => {
            able = false;
            let _ = writeln!(text, "points: none, {error}");
        }
    }
    let _ = writeln!(text, "machine:");
    for finding in host() {
        let mark = if finding.good { "ok  " } else { "lack" };
        let _ = writeln!(text, "  {mark} {}", finding.text);
        if let Some(remedy) = finding.remedy {
            let _ = writeln!(text, "       remedy: {remedy}");
        }
    }
    (text, able)
}

/// One probe; false if nothing works without it and it has no alternative.
fn describe(support: &Support, text: &mut String) -> bool {
    let used = support.tried.iter().find(|(_, result)| result.is_ok()).map(|(alternative, _)| alternative.hook);
    let all: Vec<String> = support
        .tried
        .iter()
        .map(|(alternative, result)| format!("{}{}", if result.is_ok() { "" } else { "no " }, alternative.hook.kind()))
        .collect();
    let mark = if used.is_some() { "ok  " } else { "lack" };
    let _ =
        writeln!(text, "  {mark} {:<12} {:<12} ({})", support.probe.name, used.map_or("", Hook::kind), all.join(", "));
    if used.is_some() {
        return true;
    }
    for (alternative, result) in &support.tried {
        if let Err(why) = result {
            let _ = writeln!(text, "       {}: {why}", alternative.hook.kind());
        }
    }
    let consequence = support.probe.without.unwrap_or("nothing can be traced");
    let _ = writeln!(
        text,
        "       consequence: {consequence}\n       remedy: a kernel with this tracepoint, or with fentry or kprobes"
    );
    support.probe.without.is_some()
}

fn host() -> Vec<Finding> {
    let environment = environment::read();
    let cpus = allowed_cpus().map_or(0, |cpus| cpus.len());
    let mut found = vec![Finding::new(cpus >= 2, format!("{cpus} CPUs"), "`--placement split` needs two")];
    found.extend(engine::all().iter().flat_map(|engine| engine.findings()));
    found.extend(tools());
    found.extend([hooks(), names_of_functions()]);
    found.extend(speed(&environment));
    found
}

/// Programs that workloads need, each with the workloads that do.
fn tools() -> Vec<Finding> {
    let mut users: Vec<(Tool, Vec<&str>)> = Vec::new();
    for workload in workload::all() {
        for tool in workload.tools() {
            match users.iter_mut().find(|(known, _)| *known == tool) {
                Some((_, names)) => names.push(workload.name()),
                None => users.push((tool, vec![workload.name()])),
            }
        }
    }
    users
        .into_iter()
        .map(|(tool, names)| Finding::program(tool, &tool.find(), &format!("for {}", names.join(", "))))
        .collect()
}

fn hooks() -> Finding {
    let hooks = hooks_of(std::process::id());
    let is_known = hooks.unknown_because.is_empty();
    let text = if is_known {
        format!("netfilter: {} functions on the host's hooks", hooks.functions.len())
    } else {
        format!("netfilter hooks: {}", hooks.unknown_because)
    };
    Finding::new(is_known, text, "install nftables")
}

fn names_of_functions() -> Finding {
    let have_names = symbols::check_kernel_symbols(Path::new(symbols::KALLSYMS)).is_ok();
    let text =
        if have_names { "kernel functions have names" } else { "kernel functions have no names (kptr_restrict)" };
    Finding::new(have_names, text, "sysctl kernel.kptr_restrict=0; without, `--sample-rate 0`")
}

/// What makes the host's speed, and the time that it takes for it, uncertain.
fn speed(environment: &Environment) -> Vec<Finding> {
    let clock = environment.clocksource.as_deref().unwrap_or_default();
    let governor = environment.governor.as_deref();
    let others = environment.other_bpf_programs.unwrap_or(0);
    vec![
        Finding::new(
            matches!(clock, "tsc" | "kvm-clock" | "arch_sys_counter"),
            format!("clock source {clock}"),
            "boot with clocksource=tsc",
        ),
        Finding::new(
            governor.is_none_or(|governor| governor == "performance"),
            format!("frequency governor {}", governor.unwrap_or("none (fixed, or the hypervisor's)")),
            "cpupower frequency-set -g performance",
        ),
        Finding::new(
            !environment.hypervisor,
            if environment.hypervisor { "a virtual machine: its speed is shared" } else { "bare metal" },
            "trust differences of interleaved rounds, not absolute times",
        ),
        Finding::new(others == 0, format!("{others} BPF programs of others"), "those on the path count as its cost"),
    ]
}
