//! The host that a run ran on: recorded, and warned about where it harms or differs.

mod hooks;
pub mod load;
pub mod setup;

use std::fs;

pub use hooks::{hooks_in, hooks_of};

pub use virtax_model::environment::Environment;

fn line_of(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
fn switch(path: &str) -> Option<bool> {
    line_of(path).map(|text| text == "1")
}

/// The word in brackets, as in `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Reads what this host says.
#[must_use]
pub fn read() -> Environment {
    Environment { other_bpf_programs: other_programs(), ..read_beside_programs() }
}

/// Reads it without the BPF programs of others: once virtax has loaded its own, these cannot be told apart.
#[must_use]
pub fn read_beside_programs() -> Environment {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let turbo = switch("/sys/devices/system/cpu/intel_pstate/no_turbo")
        .map(|off| !off)
        .or_else(|| switch("/sys/devices/system/cpu/cpufreq/boost"));
    Environment {
        kernel: line_of("/proc/sys/kernel/osrelease").unwrap_or_default(),
        architecture: std::env::consts::ARCH.to_owned(),
        cpu_model: field("model name"),
        cpus_online: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        hypervisor: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        governor: line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo,
        smt: switch("/sys/devices/system/cpu/smt/active"),
        transparent_huge_pages: line_of("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| chosen(&text)),
        clocksource: line_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        mitigations: mitigations(),
        pressure_information: fs::metadata("/proc/pressure/cpu").is_ok(),
        kvm_halt_poll_ns: line_of("/sys/module/kvm/parameters/halt_poll_ns").and_then(|text| text.parse().ok()),
        guest_halt_poll_ns: setup::guest_halt_poll_ns(),
        cpuidle_governor: line_of("/sys/devices/system/cpu/cpuidle/current_governor"),
        io_uring_disabled: line_of("/proc/sys/kernel/io_uring_disabled"),
        firewall: setup::firewall(),
        bridge_calls_iptables: switch("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        congestion_control: line_of("/proc/sys/net/ipv4/tcp_congestion_control"),
        ip_forward: switch("/proc/sys/net/ipv4/ip_forward"),
        host_hooks: hooks_of(std::process::id()),
        ..Environment::default()
    }
}

fn mitigations() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir("/sys/devices/system/cpu/vulnerabilities")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = line_of(entry.path().to_str()?)?;
            (text != "Not affected").then(|| (entry.file_name().to_string_lossy().into_owned(), text))
        })
        .collect();
    found.sort();
    found
}

/// Programs of anyone, before virtax loads its own.
#[must_use]
pub fn other_programs() -> Option<usize> {
    let mut count = 0;
    for program in aya::programs::loaded_programs() {
        program.ok()?;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_mark_the_choice() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise".to_owned()));
        assert_eq!(chosen("nothing"), None);
    }

    #[test]
    fn every_host_has_a_kernel_and_cpus() {
        let environment = read();
        assert!(!environment.kernel.is_empty());
        assert!(environment.cpus_online > 0);
    }
}
