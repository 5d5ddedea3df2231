//! How the kernel is set up where that changes what operations cost: of a server's process, of the disk below its
//! files.

use std::{fs, path::Path};

use super::line_of;
use virtax_probes::process;

/// Mitigations that a process runs with, by the kernel's own names in `/proc/PID/status`.
const SPECULATION: [(&str, &str); 2] = [
    ("Speculation_Store_Bypass", "speculation_store_bypass"),
    ("SpeculationIndirectBranch", "speculation_indirect_branch"),
];

/// What a server's process runs with: names and values.
#[must_use]
pub fn of_process(pid: u32) -> Vec<(String, String)> {
    let speculation =
        SPECULATION.iter().filter_map(|(field, name)| Some(((*name).to_owned(), process::status_field(pid, field)?)));
    speculation.chain(limits_of(pid).map(|limits| ("io_limits".to_owned(), limits))).collect()
}

/// What the disk with this number (`MAJOR:MINOR`) does with requests: names and values.
#[must_use]
pub fn of_disk(number: &str) -> Vec<(String, String)> {
    let folder = Path::new("/sys/dev/block").join(number);
    let found = |name: &str| {
        // A partition's are its disk's.
        let places = [folder.join("queue").join(name), folder.join("../queue").join(name)];
        places.iter().find_map(|path| fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
    };
    let scheduler = found("scheduler").map(|text| super::chosen(&text).unwrap_or(text));
    let throttling =
        found("wbt_lat_usec").map(|text| if text == "0" { "off".to_owned() } else { format!("{text} µs") });
    [("io_scheduler", scheduler), ("write_back_throttling", throttling)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// Files of either version of control groups that limit reads and writes (cgroup-v1/blkio-controller.rst,
/// cgroup-v2.rst).
const LIMITS: [&str; 5] = [
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
    "io.max",
];

/// The limits of reads and writes of a process's groups, and of those above them; `None`: there is none.
fn limits_of(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut found = Vec::new();
    for folder in folders(&groups, &mounts) {
        for name in LIMITS {
            let text = fs::read_to_string(Path::new(&folder).join(name)).unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim().is_empty() && !is_unlimited(line));
            found.extend(lines.map(|line| format!("{} {line}", name.trim_start_matches("blkio.throttle."))));
        }
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// A line of `io.max` without any limit.
fn is_unlimited(line: &str) -> bool {
    let limits: Vec<&str> =
        line.split_whitespace().skip(1).filter_map(|pair| pair.split_once('=').map(|(_, value)| value)).collect();
    !limits.is_empty() && limits.iter().all(|value| *value == "max")
}

/// The folders of the groups that a process is in by `/proc/PID/cgroup`, where `blkio` or version 2 is mounted, and
/// of all above them.
fn folders(groups: &str, mounts: &str) -> Vec<String> {
    let mounted = |controllers: &str| {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (path, kind, options) = (words.nth(1)?, words.next()?, words.next()?);
            let is_first = kind == "cgroup" && controllers.split(',').any(|name| name == "blkio");
            let has = options.split(',').any(|option| option == "blkio");
            let is_second = kind == "cgroup2" && controllers.is_empty();
            ((is_first && has) || is_second).then(|| path.to_owned())
        })
    };
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let Some(root) = mounted(controllers) else { continue };
        for above in Path::new(group).ancestors().filter(|above| *above != Path::new("/")) {
            found.push(format!("{root}{}", above.display()));
        }
    }
    found
}

/// Which of the kernel's firewalls `iptables` talks to.
#[must_use]
pub fn firewall() -> Option<String> {
    let said = std::process::Command::new("iptables").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let (_, backend) = text.trim().split_once('(')?;
    Some(backend.trim_end_matches(')').to_owned())
}

/// Polling of an idle guest's own kernel before it halts, ns; `None`: it does not poll.
#[must_use]
pub fn guest_halt_poll_ns() -> Option<u64> {
    line_of("/sys/module/haltpoll/parameters/guest_halt_poll_ns")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_are_looked_at_up_to_the_root() {
        let mounts = "cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let groups = "5:cpu,cpuacct:/docker/a\n4:blkio:/docker/a\n0::/x\n";
        assert_eq!(
            folders(groups, mounts),
            ["/sys/fs/cgroup/blkio/docker/a", "/sys/fs/cgroup/blkio/docker", "/sys/fs/cgroup/unified/x"]
        );
        assert!(is_unlimited("254:0 rbps=max wbps=max riops=max wiops=max"));
        assert!(!is_unlimited("254:0 rbps=max wbps=max riops=200 wiops=max") && !is_unlimited("254:0 200"));
    }
}
