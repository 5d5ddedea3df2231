//! What harms or limits a result, by name and with a remedy.

use profiler_common::Counter;

use super::{
    ConfigurationResult, StageResult,
    inputs::Inputs,
    precision, shape,
    warning::{Warning, warning},
};
use virtax_analysis::{
    profile::LARGER_STAGE,
    statistics::{ROUNDS_FOR_VERDICTS, samples_needed},
    tail::FEWEST_RECORDS,
};
use virtax_model::{
    counts::{Repetition, Role},
    environment::Environment,
    header::Header,
    points,
};

/// Whose latency is known less well than was wished for, and the rounds that it would take.
fn too_few_rounds(configuration: &ConfigurationResult, wished: f64, found: &mut Vec<Warning>) {
    let text = match precision::precision(configuration) {
        Some(known) if known <= wished => return,
        Some(known) => format!(
            "the mean latency of {} is known to ± {:.1} %, not to {:.1} %: that takes some {} rounds",
            configuration.name,
            100.0 * known,
            100.0 * wished,
            precision::rounds_needed(configuration.rounds, known, wished)
        ),
        None => format!(
            "how well the mean latency of {} is known, {} rounds do not say",
            configuration.name, configuration.rounds
        ),
    };
    found.push(warning("precision-not-reached", text, "a larger --budget"));
}

/// All warnings of a run.
pub fn of(inputs: &Inputs<'_>, configurations: &[ConfigurationResult]) -> Vec<Warning> {
    let Inputs { header, told, repetitions, .. } = *inputs;
    let mut found = Vec::new();
    host(&header.environment, &mut found);
    netfilter(&header.environment, configurations, &mut found);
    differences(configurations, &mut found);
    virtual_machines(&header.environment, configurations, &mut found);
    amount(header, configurations, repetitions, &mut found);
    configurations.iter().for_each(|configuration| profile(configuration, &mut found));
    configurations.iter().for_each(|configuration| open_loop(configuration, &mut found));
    configurations.iter().for_each(|configuration| given_up(configuration, &mut found));
    if let Some(until) = header.spec.samples_until {
        configurations.iter().for_each(|configuration| too_few_samples(configuration, until, &mut found));
    }
    if let Some(wished) = header.spec.until_precision {
        configurations.iter().for_each(|configuration| too_few_rounds(configuration, wished, &mut found));
    }
    if repetitions.iter().flat_map(|repetition| &repetition.phases).any(|phase| phase.client.whole_run) {
        found.push(warning(
            "client-without-phases",
            "this client knows no phases: its latencies are those of whole runs, and all of its time between two requests \
             counts as turn-around, also what its thread spent on other connections; it tells its mean to a microsecond",
            "--set client=virtax",
        ));
    }
    found.extend(shape::of(header, configurations, repetitions));
    configurations.iter().for_each(|configuration| workers(configuration, &mut found));
    if let Some(smaller) = &told.scaled {
        found.push(warning("scaled", smaller.as_str(), "a larger `--set size=`"));
    }
    again(header, &mut found);
    let disturbed: Vec<&Repetition> =
        repetitions.iter().filter(|repetition| !repetition.disturbances.is_empty()).collect();
    if let Some(first) = disturbed.first() {
        found.push(warning(
            "disturbed-rounds",
            format!(
                "{} of {} repetitions were disturbed, such as round {} of {}: {}",
                disturbed.len(),
                repetitions.len(),
                first.round + 1,
                first.configuration,
                first.disturbances.join(", ")
            ),
            "stop other work on this machine, or add rounds",
        ));
    }
    found
}

/// What is not the same in a run and in those that went on with it.
fn again(header: &Header, found: &mut Vec<Warning>) {
    let facts = |environment: &Environment| {
        let cpu = environment.cpu_model.clone().unwrap_or_default();
        [("kernel", environment.kernel.clone()), ("CPU", cpu)]
    };
    let first = facts(&header.environment);
    for again in &header.again {
        let others = std::iter::zip(&first, facts(&again.environment)).filter(|(before, now)| before.1 != now.1);
        for ((what, before), (_, now)) in others {
            let from = again.first_round + 1;
            found.push(warning(
                "several-environments",
                format!(
                    "from round {from} on, the {what} is {now}; before, it was {before}: differences are within rounds"
                ),
                "nothing, if that is what is to be averaged over; else, one run for each, and `virtax diff`",
            ));
        }
    }
}

/// Share of the latency by which a client may be late itself, and of a rate that was asked for that may be missing.
const LATE: f64 = 0.05;
const MISSING: f64 = 0.05;

/// What an open loop's own client did not do.
fn open_loop(configuration: &ConfigurationResult, found: &mut Vec<Warning>) {
    let Some(open) = &configuration.open_loop else { return };
    if open.lateness_ns_per_op > LATE * configuration.latency.mean_ns {
        found.push(warning(
            "client-late",
            format!(
                "{}: the client itself sent requests {:.1} µs later than they were due, {:.0} % of the latency; that is in no latency, but \
                 requests come less evenly than was asked for",
                configuration.name,
                open.lateness_ns_per_op / 1000.0,
                100.0 * open.lateness_ns_per_op / configuration.latency.mean_ns.max(1.0)
            ),
            "--placement split with a CPU to spare, or a lower `rate`: on one CPU, the client is late because the server works",
        ));
    }
    if configuration.throughput_per_s < (1.0 - MISSING) * open.asked_per_s {
        found.push(warning(
            "overload",
            format!(
                "{}: asked for {:.0} operations per second, had {:.0}: requests wait for earlier ones longer and longer, and the latency is \
                 that of this duration",
                configuration.name, open.asked_per_s, configuration.throughput_per_s
            ),
            "a lower `rate`, or more `connections`",
        ));
    }
}

/// Requests that still waited when their phase was given up.
fn given_up(configuration: &ConfigurationResult, found: &mut Vec<Warning>) {
    let count = configuration.losses.unfinished;
    if count > 0 && configuration.counters.has(Counter::Resent) {
        found.push(warning(
            "still-waiting",
            format!(
                "{}: {count} requests were still under way 10 s after their phase, and count with their age until then",
                configuration.name
            ),
            "see the rows `dropped` and `refused`: what loses segments on the path?",
        ));
    }
}

/// Share of operations from which on it is said that io_uring's workers make them.
const BY_WORKERS: f64 = 0.01;

fn workers(configuration: &ConfigurationResult, found: &mut Vec<Warning>) {
    // Also by those of a VM's process.
    let counters = &configuration.counters;
    let made = counters.with_vmm(Counter::ByWorkers).saturating_sub(counters.with_vmm(Counter::InWorkers));
    let share = made as f64 / configuration.losses.followed.max(1) as f64;
    if share >= BY_WORKERS {
        found.push(warning(
            "io-workers",
            format!(
                "{:.0} % of the operations of `{}` were made by io_uring's workers in its thread's stead, through the page cache, \
                 or by direct I/O of which this kernel does not say when it begins: each is one row",
                100.0 * share.min(1.0),
                configuration.name
            ),
            "--set engine=libaio, or engine=sync",
        ));
    }
}

fn host(environment: &Environment, found: &mut Vec<Warning>) {
    if environment.hypervisor {
        found.push(warning(
            "virtual-machine",
            "this machine is itself virtual: other tenants change its speed, and waking an idle CPU costs an exit",
            "trust differences of interleaved rounds, not absolute times",
        ));
    }
    if let Some(governor) = environment.governor.as_deref().filter(|governor| *governor != "performance") {
        found.push(warning(
            "governor",
            format!("the CPU frequency governor is `{governor}`"),
            "cpupower frequency-set -g performance",
        ));
    }
    if environment.turbo == Some(true) {
        found.push(warning(
            "turbo",
            "turbo is on: CPU speed depends on temperature and load",
            "switch it off in sysfs",
        ));
    }
    if let Some(clock) =
        environment.clocksource.as_deref().filter(|clock| !matches!(*clock, "tsc" | "arch_sys_counter" | "kvm-clock"))
    {
        found.push(warning(
            "clocksource",
            format!("the clock source `{clock}` is slow to read: probes cost more"),
            "boot with clocksource=tsc",
        ));
    }
    if let Some(programs) = environment.other_bpf_programs.filter(|programs| *programs > 0) {
        found.push(warning(
            "other-bpf-programs",
            format!("{programs} BPF programs of others are loaded: those on the path count as its cost"),
            "stop them, or compare with the same set",
        ));
    }
}

/// Settings of the server, as verified from inside, that are not the mechanism under test by their names.
const COMPARED: &[&str] = &[
    "seccomp",
    "cpus_allowed",
    "io_scheduler",
    "write_back_throttling",
    "io_limits",
    "speculation_store_bypass",
    "speculation_indirect_branch",
];

fn differences(configurations: &[ConfigurationResult], found: &mut Vec<Warning>) {
    for setting in COMPARED {
        let value =
            |configuration: &ConfigurationResult| configuration.settings.get(*setting).cloned().unwrap_or_default();
        let values: Vec<String> = configurations
            .iter()
            .map(|configuration| format!("{} in {}", value(configuration), configuration.name))
            .collect();
        if configurations.windows(2).any(|pair| value(&pair[0]) != value(&pair[1])) {
            found.push(warning(
                "settings-differ",
                format!("{setting} differs, and is part of what is compared: {}", values.join(", ")),
                "read the difference as that of all mechanisms together",
            ));
        }
    }
}

/// VMs: what their results are no evidence of.
fn virtual_machines(environment: &Environment, configurations: &[ConfigurationResult], found: &mut Vec<Warning>) {
    for configuration in configurations {
        let setting = |name: &str| configuration.settings.get(name).map(String::as_str);
        if let Some(caveat) = configuration.caveat() {
            found.push(warning(
                "emulated",
                format!("{}: {caveat}", configuration.name),
                "take it for the path through tap and QEMU only, not for the guest's speed",
            ));
        }
        let is_inside = |stage: &StageResult| stage.to.is_in_guest();
        if let Some(agent) = setting("guest_agent").filter(|_| !configuration.stages.iter().any(is_inside)) {
            found.push(warning(
                "guest-inside-unknown",
                format!("{}: nothing is told of the guest's inside; its agent: {agent}", configuration.name),
                "the machine is one row; an agent that is `on` has seen other requests than the host, or lost some: longer --duration",
            ));
        }
        if let Some(kernel) = setting("guest_kernel").filter(|kernel| *kernel != environment.kernel) {
            found.push(warning(
                "guest-kernel-differs",
                format!("{}: the guest's kernel is {kernel}, the host's {}", configuration.name, environment.kernel),
                "let VIRTAX_GUEST_KERNEL name a folder with the host's kernel and its modules",
            ));
        }
    }
}

/// Largest share of samples in the kernel that no rule names, and of CPU time by which two accounts of it differ.
const UNMATCHED_LIMIT: f64 = 0.05;
const ACCOUNTS_LIMIT: f64 = 0.05;

fn profile(configuration: &ConfigurationResult, found: &mut Vec<Warning>) {
    let samples = &configuration.samples;
    if samples.unmatched_share > UNMATCHED_LIMIT {
        let listed: Vec<String> = samples
            .unmatched
            .iter()
            .map(|unmatched| format!("{} {:.1} %", unmatched.function, 100.0 * unmatched.share))
            .collect();
        found.push(warning(
            "unmatched-functions",
            format!(
                "{}: {:.1} % of the samples in the kernel match no rule of the layers: {}",
                configuration.name,
                100.0 * samples.unmatched_share,
                listed.join(", ")
            ),
            "report these functions, with the kernel's version",
        ));
    }
    // Of both roles together: which of two threads a switch is charged to is a matter of the kernel's taste.
    let (mut points, mut account) = (0.0, 0.0);
    for time in &configuration.cpu_times {
        if let Some(schedstat) = time.schedstat_ns_per_op {
            points += time.running_ns_per_op;
            account += schedstat;
        }
    }
    if account > 0.0 && (points / account - 1.0).abs() > ACCOUNTS_LIMIT {
        found.push(warning(
            "cpu-accounts-differ",
            format!(
                "{}: the CPU time of client and server by the scheduler's points is {:+.1} % off the scheduler's own account",
                configuration.name,
                100.0 * (points / account - 1.0)
            ),
            "threads that start or end within phases can do this: longer --duration; if it stays, report this",
        ));
    }
}

fn too_few_samples(configuration: &ConfigurationResult, until: f64, found: &mut Vec<Warning>) {
    let of_stage = |stage: &StageResult| stage.layers.iter().map(|layer| layer.samples).sum::<u64>();
    let all: u64 = configuration.stages.iter().map(of_stage).sum();
    let needed = samples_needed(until);
    let larger = configuration.stages.iter().filter(|stage| of_stage(stage) as f64 >= LARGER_STAGE * all as f64);
    // A few may be missing: the quota of a round counts what is set aside later.
    let short: Vec<&str> = larger
        .filter(|stage| !points::is_ended(stage.from.point) && (of_stage(stage) as f64) < 0.9 * needed)
        .map(|stage| stage.id.as_str())
        .collect();
    if !short.is_empty() {
        found.push(warning(
            "too-few-samples",
            format!(
                "{}: {} have fewer samples than ± {:.1} % of their layers needs ({needed:.0})",
                configuration.name,
                short.join(", "),
                100.0 * until
            ),
            "more rounds, a higher --sample-rate, or a wider --samples-until",
        ));
    }
}

fn netfilter(environment: &Environment, configurations: &[ConfigurationResult], found: &mut Vec<Warning>) {
    // File operations cross none.
    if configurations.iter().any(|configuration| configuration.settings.contains_key("filesystem")) {
        return;
    }
    let host = &environment.host_hooks;
    let on_host = |configuration: &&ConfigurationResult| {
        configuration.settings.get("network_namespace").is_some_and(|namespace| namespace == "host")
    };
    // By what was there while it was measured.
    let is_tracked = |configuration: &&ConfigurationResult| configuration.server_hooks.tracks_connections();
    let hosts: Vec<&str> =
        configurations.iter().filter(on_host).filter(is_tracked).map(|found| found.name.as_str()).collect();
    if !host.unknown_because.is_empty() {
        found.push(warning(
            "hooks-unknown",
            format!("the netfilter hooks on the path are not known: {}", host.unknown_because),
            "install nftables",
        ));
    } else if !hosts.is_empty() {
        found.push(warning(
            "native-path-has-netfilter",
            format!(
                "the path of {} crosses netfilter hooks, connection tracking among them, that others (Docker) put into the host's namespace",
                hosts.join(" and ")
            ),
            "for a path without them, stop Docker and measure `native` alone",
        ));
    }
}

fn amount(
    header: &Header,
    configurations: &[ConfigurationResult],
    repetitions: &[Repetition],
    found: &mut Vec<Warning>,
) {
    // A run that goes on until something is known has more than were asked for.
    let most = configurations.iter().map(|configuration| configuration.rounds).max().unwrap_or(0);
    let rounds = most.max(header.spec.rounds as usize);
    if rounds < ROUNDS_FOR_VERDICTS {
        let text = format!("{rounds} rounds give no intervals and no verdicts");
        found.push(warning("few-rounds", text, "--rounds 5"));
    }
    for configuration in configurations {
        let saved = repetitions.iter().filter(|repetition| repetition.configuration == configuration.name).count();
        if saved < rounds {
            found.push(warning(
                "rounds-missing",
                format!("{} has {} of {} rounds: the run ended early", configuration.name, saved, rounds),
                "run it again",
            ));
        }
        // Single operations in a VM are not recorded.
        let in_vm = configuration.stages.iter().any(|stage| stage.role == Role::Vmm);
        if configuration.tail_stages.is_empty() && !in_vm {
            found.push(warning(
                "no-tail",
                format!(
                    "{} has fewer than {FEWEST_RECORDS} traced records: no waterfall of its slowest requests",
                    configuration.name
                ),
                "more rounds, or a longer --duration",
            ));
        }
        if configuration.records.illegal_transitions > 0 {
            found.push(warning(
                "illegal-transitions",
                format!(
                    "{}: {} steps in records are in no legal order",
                    configuration.name, configuration.records.illegal_transitions
                ),
                "report this, with the records file",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtax_model::counts::Hooks;

    #[test]
    fn a_host_with_everything_wrong_says_so() {
        let environment = Environment {
            hypervisor: true,
            governor: Some("powersave".to_owned()),
            turbo: Some(true),
            clocksource: Some("hpet".to_owned()),
            other_bpf_programs: Some(3),
            host_hooks: Hooks { tracked_connections: Some(4), ..Hooks::default() },
            ..Environment::default()
        };
        let mut found = Vec::new();
        host(&environment, &mut found);
        let names: Vec<&str> = found.iter().map(|warning| warning.name.as_str()).collect();
        assert_eq!(names, ["virtual-machine", "governor", "turbo", "clocksource", "other-bpf-programs"]);
        assert!(found.iter().all(|warning| !warning.remedy.is_empty()));
    }

    #[test]
    fn a_quiet_host_is_not_warned_about() {
        let mut found = Vec::new();
        host(&Environment { clocksource: Some("tsc".to_owned()), ..Environment::default() }, &mut found);
        assert_eq!(found, []);
    }
}
