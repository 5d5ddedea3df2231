//! Control groups of a run, in whichever hierarchies this host has.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::ledger::{Item, Lease, Ledger};
use virtax_model::error::{Error, Result};

/// Where the hierarchies are mounted.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// Beginning of every group's name.
const PREFIX: &str = "virtax-";
/// Controllers of version 1 that a container engine puts its containers under, and that need nothing to be set first.
const FIRST: [&str; 8] = ["cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer", "perf_event"];

/// A group, in all hierarchies at once.
pub struct Cgroup {
    folders: Vec<(String, PathBuf)>,
    is_second: bool,
    _leases: Vec<Lease>,
}

/// A mounted hierarchy: its controllers, and where it is. Version 2 alone: the controllers that its groups get.
fn hierarchies(mounts: &str, enabled: &str) -> (Vec<(String, PathBuf)>, bool) {
    let of_type = |wanted: &str| -> Vec<(&str, &str)> {
        mounts
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let (path, kind, options) = (words.nth(1)?, words.next()?, words.next()?);
                (kind == wanted && path.starts_with(CGROUPS)).then_some((path, options))
            })
            .collect()
    };
    let mut found: Vec<(String, PathBuf)> = of_type("cgroup")
        .into_iter()
        .filter_map(|(path, options)| {
            let names: Vec<&str> = options.split(',').filter(|option| FIRST.contains(option)).collect();
            (!names.is_empty()).then(|| (names.join(","), PathBuf::from(path)))
        })
        .collect();
    let is_second = found.is_empty();
    if let Some((path, _)) = of_type("cgroup2").first() {
        let names = if is_second { enabled.trim().replace(' ', ",") } else { String::new() };
        found.push((names, PathBuf::from(*path)));
    }
    (found, is_second)
}

/// Limits of a process's control groups, and of those above them, that are restored while it rests: CPU time, and what
/// is read and written. Those that virtax has itself, as all that it starts, are left out. Empty: there are none, or
/// nobody says so.
#[must_use]
pub fn limits_restored(pid: u32) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mounts = read("/proc/self/mounts");
    let of = |groups: &str| limits_in(&read(groups), &mounts, |path| fs::read_to_string(path).ok());
    let own = of("/proc/self/cgroup");
    let theirs = of(&format!("/proc/{pid}/cgroup")).into_iter().filter(|(path, _)| !own.contains_key(path));
    theirs.map(|(path, said)| format!("{} is {said}", path.display())).collect()
}

/// Whether what a file says is a limit.
type IsLimit = fn(&str) -> bool;

/// Files of limits.
const LIMITS: [(&str, IsLimit); 7] = [
    ("cpu.max", |said| !said.starts_with("max")),
    ("io.max", |said| !said.is_empty()),
    ("cpu.cfs_quota_us", |said| !said.starts_with('-')),
    ("blkio.throttle.read_bps_device", |said| !said.is_empty()),
    ("blkio.throttle.write_bps_device", |said| !said.is_empty()),
    ("blkio.throttle.read_iops_device", |said| !said.is_empty()),
    ("blkio.throttle.write_iops_device", |said| !said.is_empty()),
];

/// Files that set a limit, and what they say. `groups`: `/proc/PID/cgroup`, lines of `number:controllers:path`
/// (cgroups(7)).
fn limits_in(groups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> BTreeMap<PathBuf, String> {
    let roots: Vec<&str> = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let mut found = BTreeMap::new();
    for path in groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        for (root, above) in roots.iter().flat_map(|root| Path::new(path).ancestors().map(move |above| (root, above))) {
            let folder = Path::new(root).join(above.strip_prefix("/").unwrap_or(above));
            for (name, is_limit) in LIMITS {
                let file = folder.join(name);
                if let Some(said) = read(&file).filter(|said| is_limit(said.trim())) {
                    found.insert(file, said.trim().to_owned());
                }
            }
        }
    }
    found
}

impl Cgroup {
    /// Makes it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if no hierarchy is mounted, or the kernel refuses.
    pub fn create(ledger: &Ledger, name: &str) -> Result<Self> {
        let refuse = |why: &dyn std::fmt::Display| {
            Error::unsupported(
                format!("cannot create control group {name}"),
                why,
                "mount a cgroup hierarchy below /sys/fs/cgroup, writable for root; or give native:cgroup=root, ns:cgroup=off",
            )
        };
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| refuse(&error))?;
        let enabled = fs::read_to_string(Path::new(CGROUPS).join("cgroup.subtree_control")).unwrap_or_default();
        let (roots, is_second) = hierarchies(&mounts, &enabled);
        if roots.is_empty() {
            return Err(refuse(&"no hierarchy is mounted"));
        }
        let (mut folders, mut leases) = (Vec::new(), Vec::new());
        for (controllers, root) in roots {
            let path = root.join(format!("{PREFIX}{name}"));
            if folders.iter().any(|(_, known)| *known == path) {
                continue;
            }
            leases.push(ledger.note(Item::Cgroup { path: path.clone() })?);
            fs::create_dir(&path).map_err(|error| refuse(&format!("{}: {error}", path.display())))?;
            folders.push((controllers, path));
        }
        Ok(Self { folders, is_second, _leases: leases })
    }

    /// Files into which a process writes `0` to join.
    #[must_use]
    pub fn doors(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|(_, path)| path.join("cgroup.procs")).collect()
    }

    /// The command joins it before it is executed; to be called before it gives up its privileges.
    ///
    /// # Errors
    /// If a path cannot be one.
    pub fn is_joined_by(&self, command: &mut Command) -> Result<()> {
        let doors: Vec<CString> = self
            .doors()
            .into_iter()
            .map(|door| CString::new(door.as_os_str().as_bytes()).map_err(|error| Error::file("open", &door, error)))
            .collect::<Result<_>>()?;
        let join = move || doors.iter().try_for_each(|door| enter(door));
        // SAFETY: async-signal-safe system calls only.
        unsafe { command.pre_exec(join) };
        Ok(())
    }

    /// Version and controllers, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let names: Vec<&str> = self.folders.iter().map(|(names, _)| names.as_str()).filter(|n| !n.is_empty()).collect();
        format!("version {}: {}", if self.is_second { 2 } else { 1 }, names.join(","))
    }

    fn folder_of(&self, controller: &str) -> Result<&Path> {
        let has = |names: &str| names.split(',').any(|name| name == controller);
        self.folders.iter().find(|(names, _)| has(names)).map(|(_, path)| path.as_path()).ok_or_else(|| {
            Error::unsupported(
                format!("no control group with the {controller} controller"),
                self.describe(),
                format!("enable it in {CGROUPS}/cgroup.subtree_control"),
            )
        })
    }

    /// Limits CPU time to `quota` in every `period`.
    ///
    /// # Errors
    /// If the kernel has no quotas.
    pub fn limit_cpu(&self, quota: Duration, period: Duration) -> Result<()> {
        let folder = self.folder_of("cpu")?;
        let write = |name: &str, value: String| {
            let path = folder.join(name);
            fs::write(&path, value).map_err(|error| {
                Error::unsupported(
                    format!("cannot limit CPU time by {}", path.display()),
                    error,
                    "a kernel with CONFIG_CFS_BANDWIDTH",
                )
            })
        };
        let (quota, period) = (quota.as_micros(), period.as_micros());
        if self.is_second {
            return write("cpu.max", format!("{quota} {period}"));
        }
        write("cpu.cfs_period_us", period.to_string())?;
        write("cpu.cfs_quota_us", quota.to_string())
    }

    /// Lets it read from the disk that a folder lies on only so many times a second.
    ///
    /// # Errors
    /// If the kernel limits no disk.
    pub fn limit_reads(&self, folder: &Path, per_s: u32) -> Result<()> {
        let number = fs::metadata(folder).map_err(|error| Error::file("look at", folder, error))?.dev();
        let disk = whole_disk(&format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number)));
        let (controller, file, line) = if self.is_second {
            ("io", "io.max", format!("{disk} riops={per_s}"))
        } else {
            ("blkio", "blkio.throttle.read_iops_device", format!("{disk} {per_s}"))
        };
        let path = self.folder_of(controller)?.join(file);
        fs::write(&path, line).map_err(|error| {
            let what = format!("cannot limit reads of {disk} by {}", path.display());
            Error::unsupported(what, error, "a kernel with CONFIG_BLK_DEV_THROTTLING, and a folder on a disk")
        })
    }

    /// How often it was throttled so far, and for how long, ns.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn throttled(&self) -> Result<(u64, u64)> {
        let path = self.folder_of("cpu")?.join("cpu.stat");
        let text = fs::read_to_string(&path).map_err(|error| Error::file("read", &path, error))?;
        let value = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        let ns = value("throttled_time").or_else(|| value("throttled_usec").map(|us| us * 1000));
        Ok((value("nr_throttled").unwrap_or(0), ns.unwrap_or(0)))
    }
}

/// The current process joins a group by its door.
fn enter(door: &CStr) -> std::io::Result<()> {
    // SAFETY: async-signal-safe system calls on a path and a constant; the descriptor is closed in any case.
    unsafe {
        let file = libc::open(door.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let written = libc::write(file, c"0".as_ptr().cast(), 1);
        let error = std::io::Error::last_os_error();
        libc::close(file);
        if written == 1 { Ok(()) } else { Err(error) }
    }
}

/// Removes a group; one that is gone is no error. Its last process may be leaving yet.
///
/// # Errors
/// If it is still there after five seconds, or was none of virtax's.
pub fn delete(path: &Path) -> Result<()> {
    let ours = path.starts_with(CGROUPS)
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        && !path.components().any(|part| part.as_os_str() == "..");
    if !ours {
        return Err(Error::file("remove", path, "it is no control group of a run"));
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(Error::file("remove", path, error)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Groups of runs that stand in any hierarchy, with the runs' ids.
#[must_use]
pub fn of_runs() -> Vec<(String, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let (roots, _) = hierarchies(&mounts, "");
    let entries = roots.iter().flat_map(|(_, root)| fs::read_dir(root).into_iter().flatten().flatten());
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let run_id = name.strip_prefix(PREFIX)?.split('-').next()?.to_owned();
            Some((run_id, entry.path()))
        })
        .collect()
}

/// The disk on which a partition lies, by their numbers: only whole ones have limits.
fn whole_disk(number: &str) -> String {
    let device = Path::new("/sys/dev/block").join(number);
    let of_partition = || fs::read_to_string(fs::canonicalize(&device).ok()?.parent()?.join("dev")).ok();
    let is_partition = device.join("partition").exists();
    is_partition.then(of_partition).flatten().map_or_else(|| number.to_owned(), |found| found.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_MOUNTS: &str = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
";

    #[test]
    fn hierarchies_of_both_versions() {
        let (found, is_second) = hierarchies(FIRST_MOUNTS, "");
        assert!(!is_second);
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(
            found,
            [
                ("cpu,cpuacct".to_owned(), path("/sys/fs/cgroup/cpu,cpuacct")),
                (String::new(), path("/sys/fs/cgroup/unified"))
            ]
        );
        let (found, is_second) = hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n", "cpu memory pids\n");
        assert!(is_second);
        assert_eq!(found, [("cpu,memory,pids".to_owned(), path("/sys/fs/cgroup"))]);
        assert!(hierarchies("proc /proc proc rw 0 0\n", "").0.is_empty());
    }

    #[test]
    fn nothing_else_is_removed() {
        for path in ["/sys/fs/cgroup/system.slice", "/tmp/virtax-x", "/sys/fs/cgroup/../virtax-x"] {
            assert!(delete(Path::new(path)).unwrap_err().to_string().contains("no control group of a run"), "{path}");
        }
        delete(Path::new("/sys/fs/cgroup/virtax-none-such")).unwrap();
    }

    #[test]
    fn limits_are_found_in_every_group_above() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let of = |groups: &str, files: &[(&str, &str)]| -> Vec<(String, String)> {
            let read = |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path);
            let found = limits_in(groups, mounts, |path| read(path).map(|(_, said)| format!("{said}\n")));
            found.into_iter().map(|(path, said)| (path.display().to_string(), said)).collect()
        };
        let said = |files: &[(&str, &str)]| -> Vec<(String, String)> {
            files.iter().map(|(path, said)| ((*path).to_owned(), (*said).to_owned())).collect()
        };
        let free =
            [("/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1"), ("/sys/fs/cgroup/unified/a/b/cpu.max", "max 100000")];
        assert!(of("3:cpu:/a/b\n0::/a/b\n", &free).is_empty());
        let first = [("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "35000")];
        assert_eq!(of("3:cpu:/a/b\n", &first), said(&first));
        // In the order of their paths.
        let second =
            [("/sys/fs/cgroup/unified/a/b/cpu.max", "50000 100000"), ("/sys/fs/cgroup/unified/a/io.max", "8:0 rbps=1")];
        assert_eq!(of("0::/a/b\n", &second), said(&second));
        assert!(of("0::/\n", &second).is_empty());
    }
}
