//! The machine that a run ran on: recorded, and warned about where it harms or differs.

mod hooks;
pub mod load;
pub mod setup;

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use hooks::{hooks_in, hooks_of};

use crate::counts::Hooks;

/// Facts about the machine. `None`: this machine does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Release of the running kernel.
    pub kernel: String,
    /// Instruction set.
    pub architecture: String,
    /// Model name of the first CPU.
    pub cpu_model: Option<String>,
    /// CPUs online.
    pub cpus_online: usize,
    /// CPUs of client, server and virtax; empty: any.
    pub cpus_client: Vec<usize>,
    /// See above.
    pub cpus_server: Vec<usize>,
    /// See above.
    pub cpus_agent: Vec<usize>,
    /// Whether the machine itself is virtual.
    pub hypervisor: bool,
    /// Frequency governor of the first CPU.
    pub governor: Option<String>,
    /// Whether CPUs may go above their base frequency.
    pub turbo: Option<bool>,
    /// Whether cores run two threads.
    pub smt: Option<bool>,
    /// Setting of transparent huge pages.
    pub transparent_huge_pages: Option<String>,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
    /// CPU vulnerabilities and what the kernel does about them.
    pub mitigations: Vec<(String, String)>,
    /// Whether pressure-stall information is on.
    pub pressure_information: bool,
    /// BPF programs that others have loaded.
    pub other_bpf_programs: Option<usize>,
    /// Longest halt polling of KVM, ns.
    pub kvm_halt_poll_ns: Option<u64>,
    /// Longest polling of an idle CPU of this machine, which is itself virtual, before it halts, ns.
    #[serde(default)]
    pub guest_halt_poll_ns: Option<u64>,
    /// How idle states of CPUs are chosen.
    #[serde(default)]
    pub cpuidle_governor: Option<String>,
    /// Whether io_uring is forbidden: 0 to nobody, 1 to those without privileges, 2 to all.
    #[serde(default)]
    pub io_uring_disabled: Option<String>,
    /// Which of the kernel's firewalls `iptables` talks to: `nf_tables` or `legacy`.
    #[serde(default)]
    pub firewall: Option<String>,
    /// Whether what crosses a bridge passes iptables as well (`net.bridge.bridge-nf-call-iptables`).
    #[serde(default)]
    pub bridge_calls_iptables: Option<bool>,
    /// TCP's congestion control.
    #[serde(default)]
    pub congestion_control: Option<String>,
    /// Version of the Docker daemon, if the run uses it.
    pub docker: Option<String>,
    /// Whether forwarding between links is on, in the host's namespace.
    pub ip_forward: Option<bool>,
    /// Netfilter hooks of the host's network namespace.
    pub host_hooks: Hooks,
}

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

impl Environment {
    /// Reads it.
    #[must_use]
    pub fn read() -> Self {
        Self { other_bpf_programs: other_programs(), ..Self::read_beside_programs() }
    }

    /// The same without the BPF programs of others: once virtax has loaded its own, these cannot be told apart.
    #[must_use]
    pub fn read_beside_programs() -> Self {
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
        Self {
            kernel: line_of("/proc/sys/kernel/osrelease").unwrap_or_default(),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu_model: field("model name"),
            cpus_online: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            hypervisor: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            governor: line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            turbo,
            smt: switch("/sys/devices/system/cpu/smt/active"),
            transparent_huge_pages: line_of("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| chosen(&text)),
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
            ..Self::default()
        }
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
    fn every_machine_has_a_kernel_and_cpus() {
        let environment = Environment::read();
        assert!(!environment.kernel.is_empty());
        assert!(environment.cpus_online > 0);
    }
}
