//! Everything on a host that a run could leave behind.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::text;

/// Everything on this host that could have been left behind by a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    links: Vec<String>,
    namespaces: Vec<String>,
    containers: String,
    volumes: String,
    networks: String,
    images: String,
    rules: String,
    settings: Vec<(PathBuf, String)>,
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
    files: Vec<PathBuf>,
    processes: Vec<String>,
    bpf: Bpf,
}

impl Traces {
    pub fn now() -> Self {
        // A host that has no such program has none of its things either.
        let said = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).output().map_or_else(|_| String::new(), |output| text(&output.stdout))
        };
        let docker = |arguments: &[&str]| said("docker", arguments);
        // Counters and dates differ from one moment to the next.
        let rules = said("iptables-save", &[])
            .lines()
            .filter(|line| line.starts_with('-'))
            .map(|line| format!("{line}\n"))
            .collect();
        let mut links = profiler::net::links_here().expect("links");
        links.sort();
        Self {
            links,
            namespaces: profiler::net::namespaces_named("virtax-"),
            containers: docker(&["ps", "--all", "--quiet"]),
            volumes: docker(&["volume", "ls", "--quiet"]),
            networks: docker(&["network", "ls", "--quiet"]),
            images: docker(&["images", "--all", "--quiet"]),
            rules,
            settings: settings(),
            mounts: mounts(),
            cgroups: cgroups(),
            files: files(),
            processes: workload_processes(),
            bpf: settled_bpf(),
        }
    }
}

/// Control groups of runs, and of those whom runs ask for some: other programs of the host make theirs at any time.
fn cgroups() -> Vec<PathBuf> {
    const MAKERS: [&str; 5] = ["virtax", "docker", "libpod", "libvirt", "machine"];
    let is_of_runs = |path: &PathBuf| {
        let mut names = path.components().map(|name| name.as_os_str().to_string_lossy().into_owned());
        names.any(|name| MAKERS.iter().any(|maker| name.starts_with(maker)))
    };
    folders_below(Path::new("/sys/fs/cgroup"), 3).into_iter().filter(is_of_runs).collect()
}

/// The kernel's settings of networks, and those that VMs are tuned by: those of links come and go with
/// them.
fn settings() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for family in ["ipv4", "bridge", "netfilter"] {
        let folder = Path::new("/proc/sys/net").join(family);
        let mut folders = vec![folder.clone(), folder.join("conf/all"), folder.join("conf/default")];
        folders.retain(|folder| folder.is_dir());
        for path in folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("/proc/sys")).flatten() {
            let path = path.path();
            // The kernel's own counts and random numbers change by themselves.
            let moves = ["nf_conntrack_count", "nf_conntrack_buckets", "tcp_fastopen_key"];
            if path.is_file() && !moves.iter().any(|name| path.ends_with(name)) {
                // Some may only be written.
                found.extend(std::fs::read_to_string(&path).ok().map(|value| (path, value)));
            }
        }
    }
    for path in ["/proc/sys/vm/nr_hugepages", "/sys/module/kvm/parameters/halt_poll_ns"] {
        found.extend(std::fs::read_to_string(path).ok().map(|value| (path.into(), value)));
    }
    found.sort();
    found
}

/// Mount points and what is mounted there; Docker mounts per network namespace, and removes it late.
fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    // What a daemon keeps of the host's network from its first container there on is its own.
    let lines = text.lines().filter(|line| !line.contains(" /run/docker/netns/default "));
    let mut mounts: Vec<String> = lines.map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    // A daemon's first container takes mounts away and puts them back in another order.
    mounts.sort();
    mounts
}

/// Folders below this one, so many levels deep, but for Docker's own, which it removes when it likes.
fn folders_below(folder: &Path, levels: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !path.to_string_lossy().contains("docker") {
            if levels > 1 {
                found.extend(folders_below(&path, levels - 1));
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_below(&entry.path()),
        _ => vec![entry.path()],
    });
    below.collect()
}

/// Files and folders where runs keep theirs.
fn files() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["/run/virtax", "/var/lib/virtax", "/run/netns"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect();
    for folder in ["/run/netns", "/var/lib/virtax", "/run/virtax", "/sys/fs/bpf"] {
        found.extend(std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    for folder in [std::env::temp_dir(), "/var/tmp".into()] {
        let temporary = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(temporary.filter(|path| path.to_string_lossy().contains("virtax-")));
    }
    // Files behind loop devices: gone from their folder, they would still take its room.
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    found.extend(
        disks.filter_map(|disk| {
            Some(std::fs::read_to_string(disk.path().join("loop/backing_file")).ok()?.trim().into())
        }),
    );
    found.sort();
    found
}

/// Command lines of living workload processes.
fn workload_processes() -> Vec<String> {
    procfs::process::all_processes()
        .expect("/proc")
        .filter_map(|process| {
            let process = process.ok()?;
            let stat = process.stat().ok()?;
            // A dead one waits for its parent, which may be this host's first process.
            let of_a_run = ["virtax-workload", "redis-server", "redis-benchmark", "virtax-libvirt", "fio"];
            let line = process.cmdline().unwrap_or_default().join(" ");
            let is_one = of_a_run.contains(&stat.comm.as_str()) || line.contains("guest=virtax");
            (is_one && stat.state != 'Z').then_some(line)
        })
        .collect()
}

/// Numbers of BPF programs, maps and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bpf {
    programs: usize,
    maps: usize,
    links: usize,
}

impl Bpf {
    fn now() -> Self {
        Self {
            programs: aya::programs::loaded_programs().count(),
            maps: aya::maps::loaded_maps().count(),
            links: aya::programs::loaded_links().count(),
        }
    }
}

/// What there is of BPF, once the kernel has freed what nobody holds any more.
fn settled_bpf() -> Bpf {
    let (mut last, mut same) = (Bpf::now(), 0);
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = Bpf::now();
        same = if now == last { same + 1 } else { 0 };
        // It frees some things only after a grace period of its own.
        if same == 5 {
            return now;
        }
        last = now;
    }
    last
}
