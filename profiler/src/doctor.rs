//! `virtax doctor`: what this kernel and machine have and lack, with remedies.

use std::{fmt::Write, path::Path};

use crate::{
    artifact,
    engine::{
        self, Engine,
        vm::{self, QEMU, TUN, check_kvm},
    },
    environment::{self, hooks_of},
    error::Result,
    guest::Kernel,
    pack,
    points::Hook,
    probes::{Support, support},
    process::allowed_cpus,
    symbols,
    workload::{FIO, REDIS_BENCHMARK},
};

/// A finding.
struct Finding {
    good: bool,
    text: String,
    remedy: Option<String>,
}

fn finding(good: bool, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { good, text: text.into(), remedy: (!good).then(|| remedy.into()) }
}

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
    for finding in machine() {
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

fn machine() -> Vec<Finding> {
    let environment = environment::read();
    let cpus: Result<Vec<usize>> = allowed_cpus();
    let cpus = cpus.map_or(0, |cpus| cpus.len());
    let hooks = hooks_of(std::process::id());
    let symbols = symbols::check_kernel_symbols(Path::new(symbols::KALLSYMS));
    let redis = pack::find_program("redis-server", "redis-server").and_then(|_| REDIS_BENCHMARK.find());
    let fio = FIO.find();
    let qemu = pack::find_program(QEMU.0, QEMU.1);
    let (mkfs, images) = (pack::find_program("mkfs.ext4", "e2fsprogs"), pack::find_program("qemu-img", "qemu-utils"));
    let (kernel, kvm) = (Kernel::find(), check_kvm());
    let clock = environment.clocksource.clone().unwrap_or_default();
    let mut found = vec![finding(cpus >= 2, format!("{cpus} CPUs"), "`--placement split` needs two")];
    found.extend(engine::all().iter().filter_map(|engine| driven(*engine)));
    found.extend([
        finding(
            hooks.unknown_because.is_empty(),
            if hooks.unknown_because.is_empty() {
                format!("netfilter: {} functions on the host's hooks", hooks.functions.len())
            } else {
                format!("netfilter hooks: {}", hooks.unknown_because)
            },
            "install nftables",
        ),
        finding(
            symbols.is_ok(),
            if symbols.is_ok() {
                "kernel functions have names"
            } else {
                "kernel functions have no names (kptr_restrict)"
            },
            "sysctl kernel.kptr_restrict=0; without, `--sample-rate 0`",
        ),
        finding(
            redis.is_ok(),
            if redis.is_ok() { "redis-server, redis-benchmark" } else { "no redis-server or redis-benchmark" },
            "apt-get install --no-install-recommends redis-server, for the Redis workloads",
        ),
        finding(
            fio.is_ok(),
            if fio.is_ok() { "fio" } else { "no fio" },
            "apt-get install --no-install-recommends fio, for the workloads of that name",
        ),
        finding(
            qemu.is_ok(),
            if qemu.is_ok() { "QEMU" } else { "no QEMU" },
            "apt-get install --no-install-recommends qemu-system-x86, for `tcg:` configurations",
        ),
        finding(
            mkfs.is_ok(),
            if mkfs.is_ok() { "mkfs.ext4" } else { "no mkfs.ext4" },
            "apt-get install --no-install-recommends e2fsprogs, for `ns:fs=loop` and the disks of virtual machines",
        ),
        finding(
            images.is_ok(),
            if images.is_ok() { "qemu-img" } else { "no qemu-img" },
            "apt-get install --no-install-recommends qemu-utils, for `image=qcow2`",
        ),
        finding(
            vm::has_libvirt(),
            match (vm::has_libvirt(), artifact::libvirt().is_ok()) {
                (true, _) => "libvirt's driver for QEMU",
                (false, true) => "no libvirt: virtax starts QEMU itself",
                (false, false) => "built without libvirt: virtax starts QEMU itself",
            },
            if artifact::libvirt().is_ok() {
                "install libvirt0 and libvirt-daemon-driver-qemu, to have virtual machines started by libvirt"
            } else {
                "install libvirt-dev and pkg-config, and build again, to have virtual machines started by libvirt"
            },
        ),
        finding(
            kernel.is_ok(),
            match &kernel {
                Ok(kernel) => format!("a kernel for guests, {}", kernel.release),
                Err(_) => "no kernel for guests".to_owned(),
            },
            "let VIRTAX_GUEST_KERNEL name a folder with boot/vmlinuz-* and lib/modules, for `tcg:` configurations",
        ),
        finding(
            kvm.is_ok(),
            match &kvm {
                Ok(()) => "KVM (whether it executes guests, a run finds out)".to_owned(),
                Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
            },
            "without, `tcg:` configurations: an emulated processor, no evidence of KVM's cost",
        ),
        finding(
            Path::new(TUN).exists(),
            if Path::new(TUN).exists() { "taps" } else { "no taps (/dev/net/tun)" },
            "modprobe tun; without, `tcg:net=user`",
        ),
        finding(
            matches!(clock.as_str(), "tsc" | "kvm-clock" | "arch_sys_counter"),
            format!("clock source {clock}"),
            "boot with clocksource=tsc",
        ),
        finding(
            environment.governor.as_deref().is_none_or(|governor| governor == "performance"),
            format!(
                "frequency governor {}",
                environment.governor.as_deref().unwrap_or("none (fixed, or the hypervisor's)")
            ),
            "cpupower frequency-set -g performance",
        ),
        finding(
            !environment.hypervisor,
            if environment.hypervisor { "a virtual machine: its speed is shared" } else { "bare metal" },
            "trust differences of interleaved rounds, not absolute times",
        ),
        finding(
            environment.other_bpf_programs.unwrap_or(0) == 0,
            format!("{} BPF programs of others", environment.other_bpf_programs.unwrap_or(0)),
            "those on the path count as its cost",
        ),
    ]);
    found
}

/// What an engine drives, if that is there.
fn driven(engine: &dyn Engine) -> Option<Finding> {
    let (product, version) = (engine.drives()?, engine.version());
    let what = match &version {
        Ok(version) => format!("{product} {}", version.as_deref().unwrap_or_default()),
        Err(error) => format!("{product}: {}", error.to_string().lines().next().unwrap_or_default()),
    };
    let remedy = format!("start the daemon for `{}:` configurations; others do not need it", engine.name());
    Some(finding(version.is_ok(), what, remedy))
}
