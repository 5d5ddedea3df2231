//! The host that a run ran on.

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::counts::Hooks;

/// Facts about the host. `None`: this host does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
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
    #[serde(rename = "cpus_agent")]
    pub cpus_virtax: Vec<usize>,
    /// Whether the host itself is virtual.
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
    /// Longest polling of an idle CPU of this host, which is itself virtual, before it halts, ns.
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
