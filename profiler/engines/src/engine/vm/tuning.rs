//! What VMs are tuned by: which processors and what memory of the host they have, and how KVM waits for them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    engine::Bench,
    engine::configuration::Configuration,
    ledger::{self, Item, Lease},
};
use virtax_model::error::{Error, Result};

const HALT_POLL: &str = "/sys/module/kvm/parameters/halt_poll_ns";
/// Size of the huge pages that a VM's memory is made of, MiB: the smallest of x86, whatever the host's default is.
const HUGE_PAGE_MB: u64 = 2;
/// The kernel's folder of them (`Documentation/admin-guide/mm/hugetlbpage.rst`).
const HUGE_PAGES: &str = "hugepages/hugepages-2048kB/nr_hugepages";

/// The shape of a VM, as QEMU and libvirt are told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Sockets, cores of a socket, threads of a core.
    pub processors: [u32; 3],
    /// Whether the guest sees the host's caches.
    pub caches: bool,
    /// Whether its memory is of huge pages.
    pub huge_pages: bool,
    /// The host's nodes that its memory has to lie on; empty: any.
    pub nodes: Vec<u32>,
}

impl Layout {
    /// The layout of a configuration whose VM runs on these CPUs of the host.
    #[must_use]
    pub fn of(configuration: &Configuration, cpus: &[usize]) -> Self {
        let first = cpus.first().copied().unwrap_or(0);
        let is_like_host = configuration.key("topology") == "host";
        let vcpus = configuration.key("vcpus").parse().unwrap_or(1);
        let processors = if is_like_host { like_host(vcpus, threads_of_core(first)) } else { [vcpus, 1, 1] };
        let nodes = if configuration.key("numa") == "bind" { nodes_of(cpus) } else { BTreeSet::new() };
        let caches = is_like_host && configuration.engine == "kvm";
        let huge_pages = configuration.key("hugepages") == "on";
        Self { processors, caches, huge_pages, nodes: nodes.into_iter().collect() }
    }

    /// The nodes in libvirt's and QEMU's notation.
    #[must_use]
    pub fn node_list(&self) -> String {
        self.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }
}

/// One socket, as many threads a core as on the host; fewer where its processors do not fill cores of so many.
fn like_host(vcpus: u32, threads: u32) -> [u32; 3] {
    let threads = (1..=threads).rev().find(|threads| vcpus.is_multiple_of(*threads)).unwrap_or(1);
    [1, vcpus / threads, threads]
}

fn cpu_folder(cpu: usize) -> PathBuf {
    Path::new("/sys/devices/system/cpu").join(format!("cpu{cpu}"))
}

/// How many processors a core of the host shows (`Documentation/ABI/stable/sysfs-devices-system-cpu`).
fn threads_of_core(cpu: usize) -> u32 {
    let list = fs::read_to_string(cpu_folder(cpu).join("topology/thread_siblings_list")).unwrap_or_default();
    count_of_list(&list).max(1)
}

/// How many numbers `0-1,4` names.
fn count_of_list(list: &str) -> u32 {
    let count = |range: &str| -> Option<u32> {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        to.parse::<u32>().ok()?.checked_sub(from.parse().ok()?)?.checked_add(1)
    };
    list.trim().split(',').filter_map(count).sum()
}

/// The nodes of these CPUs: folders beside their other properties.
fn nodes_of(cpus: &[usize]) -> BTreeSet<u32> {
    let node_of = |cpu: &usize| {
        let names = fs::read_dir(cpu_folder(*cpu)).ok()?.flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.strip_prefix("node")?.parse().ok()).next()
    };
    cpus.iter().filter_map(node_of).collect()
}

/// Settings of the host that hold as long as this does.
pub struct Settings(#[expect(dead_code, reason = "held as long as the machine is")] Vec<Lease>);

impl Settings {
    /// Makes those of a configuration.
    ///
    /// # Errors
    /// If the host has not got them to give.
    pub fn make(bench: &Bench, configuration: &Configuration, layout: &Layout) -> Result<Self> {
        let mut leases = Vec::new();
        if layout.huge_pages {
            leases.push(reserve_huge_pages(bench, configuration, &layout.nodes)?);
        }
        if let Ok(ns) = configuration.key("halt-poll").parse::<u32>() {
            leases.push(change_halt_polling(bench, ns)?);
        }
        Ok(Self(leases))
    }
}

fn refuse(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::unsupported(
        "a setting that a virtual machine was to have cannot be made",
        format!("{}: {error}", path.display()),
        "run as root on a kernel that has it, or leave its key out",
    )
}

/// There is one for the whole host: two runs cannot both have it their way.
fn change_halt_polling(bench: &Bench, ns: u32) -> Result<Lease> {
    let path = Path::new(HALT_POLL);
    if let Some(run_id) = ledger::changer_of(Path::new(ledger::RUNS), path) {
        return Err(Error::unsupported(
            format!("{HALT_POLL} cannot be changed"),
            format!("run {run_id} has changed it"),
            "wait for that run's end; if it was killed: `virtax clean`",
        ));
    }
    let before = fs::read_to_string(path).map_err(|error| refuse(path, error))?;
    let lease = bench.ledger.note(Item::Sysctl { path: path.into(), before })?;
    fs::write(path, ns.to_string()).map_err(|error| refuse(path, error))?;
    Ok(lease)
}

/// Adds as many huge pages as the VM's memory is long, on the node that it is bound to, if it is bound to one.
fn reserve_huge_pages(bench: &Bench, configuration: &Configuration, nodes: &[u32]) -> Result<Lease> {
    let path = match nodes {
        [node] => Path::new("/sys/devices/system/node").join(format!("node{node}")).join(HUGE_PAGES),
        _ => Path::new("/sys/kernel/mm").join(HUGE_PAGES),
    };
    let have = || -> Result<u64> {
        let text = fs::read_to_string(&path).map_err(|error| refuse(&path, error))?;
        text.trim().parse().map_err(|error| refuse(&path, error))
    };
    let megabytes: u64 = configuration.key("memory").parse().unwrap_or(0);
    let (before, pages) = (have()?, megabytes.div_ceil(HUGE_PAGE_MB));
    let lease = bench.ledger.note(Item::HugePages { path: path.clone(), pages })?;
    fs::write(&path, (before + pages).to_string()).map_err(|error| refuse(&path, error))?;
    let got = have()?;
    if got < before + pages {
        // Of what the kernel did not give, nothing is to be taken off again.
        drop(lease);
        let _ = fs::write(&path, before.to_string());
        return Err(Error::unsupported(
            format!("there are no huge pages for `{configuration}`"),
            format!("the kernel found {} of {pages} in one piece", got.saturating_sub(before)),
            "free memory, reserve them at boot (hugepages=N on the kernel's command line), or give the guest less",
        ));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::configuration::parse;

    #[test]
    fn processors_are_sockets_or_arranged_as_on_the_host() {
        let found = [(4, 1), (4, 2), (1, 2), (3, 2), (6, 4)].map(|(vcpus, threads)| like_host(vcpus, threads));
        assert_eq!(found, [[1, 4, 1], [1, 2, 2], [1, 1, 1], [1, 3, 1], [1, 2, 3]]);
        assert_eq!(["0-1", "0,4", "3", "", "x-2", "5-2"].map(count_of_list), [2, 2, 1, 0, 0, 0]);
    }

    #[test]
    fn memory_is_bound_to_the_nodes_of_its_cpus() {
        let (bound, _) = parse("kvm:numa=bind,hugepages=on,vcpus=2").unwrap();
        let layout = Layout::of(&bound, &[0]);
        assert_eq!((layout.processors, layout.huge_pages, layout.caches), ([2, 1, 1], true, false));
        // A VM without nodes has nothing to bind to.
        let has_nodes = Path::new("/sys/devices/system/node/node0").exists();
        assert_eq!(layout.nodes.len(), usize::from(has_nodes));
        assert!(Layout::of(&parse("kvm").unwrap().0, &[0]).nodes.is_empty());
    }
}
