//! What machines are tuned by: which processors and what memory of the host they have, and how KVM waits for them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    configuration::Configuration,
    engine::Bench,
    error::{Error, Result},
    ledger::{Item, Lease},
};

const HALT_POLL: &str = "/sys/module/kvm/parameters/halt_poll_ns";
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Size of the huge pages that a machine's memory is made of, MiB: x86's default.
const HUGE_PAGE_MB: u64 = 2;

/// The shape of a machine, as QEMU and libvirt are told it.
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
    /// Of a configuration whose machine runs on these CPUs of the host; none: on any.
    ///
    /// # Errors
    /// [`Error::Usage`] if the guest cannot be like the host.
    pub fn of(configuration: &Configuration, cpus: &[usize]) -> Result<Self> {
        let first = cpus.first().copied().unwrap_or(0);
        let is_like_host = configuration.key("topology") == "host";
        let processors = arrange(configuration.key("vcpus"), if is_like_host { threads_of_core(first) } else { 1 }, is_like_host)
            .ok_or_else(|| {
                Error::Usage(format!(
                    "`{configuration}`: a core of this machine has {} threads: vcpus has to be a multiple, or topology=flat",
                    threads_of_core(first)
                ))
            })?;
        let nodes = if configuration.key("numa") == "bind" { nodes_of(cpus) } else { BTreeSet::new() };
        let caches = is_like_host && configuration.engine == "kvm";
        let huge_pages = configuration.key("hugepages") == "on";
        Ok(Self { processors, caches, huge_pages, nodes: nodes.into_iter().collect() })
    }

    /// The nodes in libvirt's and QEMU's notation.
    #[must_use]
    pub fn node_list(&self) -> String {
        self.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Sockets, cores, threads.
fn arrange(vcpus: &str, threads: u32, is_like_host: bool) -> Option<[u32; 3]> {
    let vcpus: u32 = vcpus.parse().ok()?;
    match is_like_host {
        false => Some([vcpus, 1, 1]),
        true if vcpus.is_multiple_of(threads) => Some([1, vcpus / threads, threads]),
        true => None,
    }
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
    pub fn make(bench: &Bench, configuration: &Configuration) -> Result<Self> {
        let mut leases = Vec::new();
        if configuration.key("hugepages") == "on" {
            leases.push(reserve_huge_pages(bench, configuration)?);
        }
        if let Ok(ns) = configuration.key("halt-poll").parse::<u32>() {
            leases.push(change(bench, HALT_POLL, &ns.to_string())?);
        }
        Ok(Self(leases))
    }
}

fn refuse(path: &str, error: impl std::fmt::Display) -> Error {
    Error::unsupported(
        "a setting that a virtual machine was to have cannot be made",
        format!("{path}: {error}"),
        "run as root on a kernel that has it, or leave its key out",
    )
}

/// Changes a setting until the lease ends.
fn change(bench: &Bench, path: &str, value: &str) -> Result<Lease> {
    let before = fs::read_to_string(path).map_err(|error| refuse(path, error))?;
    let lease = bench.ledger.note(Item::Sysctl { path: path.into(), before })?;
    fs::write(path, value).map_err(|error| refuse(path, error))?;
    Ok(lease)
}

/// Adds as many huge pages as the machine's memory is long.
fn reserve_huge_pages(bench: &Bench, configuration: &Configuration) -> Result<Lease> {
    let have = || -> Result<u64> {
        let text = fs::read_to_string(HUGE_PAGES).map_err(|error| refuse(HUGE_PAGES, error))?;
        text.trim().parse().map_err(|error| refuse(HUGE_PAGES, error))
    };
    let megabytes: u64 = configuration.key("memory").parse().unwrap_or(0);
    let wanted = have()? + megabytes.div_ceil(HUGE_PAGE_MB);
    let lease = change(bench, HUGE_PAGES, &wanted.to_string())?;
    let got = have()?;
    if got < wanted {
        return Err(Error::unsupported(
            format!("there are no huge pages for `{configuration}`"),
            format!("the kernel found {got} of {wanted} in one piece"),
            "free memory, reserve them at boot (hugepages=N on the kernel's command line), or give the guest less",
        ));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::parse;

    #[test]
    fn processors_are_sockets_or_arranged_as_on_the_host() {
        assert_eq!(arrange("4", 1, false), Some([4, 1, 1]));
        assert_eq!(arrange("4", 2, true), Some([1, 2, 2]));
        assert_eq!(arrange("3", 2, true), None);
        assert_eq!(["0-1", "0,4", "3", "", "x-2", "5-2"].map(count_of_list), [2, 2, 1, 0, 0, 0]);
    }

    #[test]
    fn memory_is_bound_to_the_nodes_of_its_cpus() {
        let (bound, _) = parse("kvm:numa=bind,hugepages=on,vcpus=2").unwrap();
        let layout = Layout::of(&bound, &[0]).unwrap();
        assert_eq!((layout.processors, layout.huge_pages, layout.caches), ([2, 1, 1], true, false));
        // A machine without nodes has nothing to bind to.
        let has_nodes = Path::new("/sys/devices/system/node/node0").exists();
        assert_eq!(layout.nodes.len(), usize::from(has_nodes));
        assert!(Layout::of(&parse("kvm").unwrap().0, &[0]).unwrap().nodes.is_empty());
    }
}
