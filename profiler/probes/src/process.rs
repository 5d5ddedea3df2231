//! Processes that a run starts: pinned, bounded, and ended with it.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::{Signal, kill as send_signal},
    unistd::Pid,
};
use procfs::process::Process;

use virtax_model::error::{Error, Result};

/// CPUs that this process may use, in order.
///
/// # Errors
/// If the kernel does not tell.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| Error::unsupported("cannot read the CPU affinity", error, "report this"))?;
    Ok((0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Start of a process in ticks since boot, if it lives.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    let stat = Process::new(pid as i32).ok()?.stat().ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}

/// What a process does, for a person: the word after "the server".
#[must_use]
pub fn doing(pid: u32) -> &'static str {
    match Process::new(pid as i32).and_then(|process| process.stat()).map(|stat| stat.state) {
        Ok('R') => "runs",
        Ok('S' | 'I') => "sleeps",
        Ok('D') => "waits for a device",
        Ok('T' | 't') => "is stopped (by a signal or a debugger)",
        _ => "has ended",
    }
}

/// Kills a process, if it still is the one that started then.
///
/// # Errors
/// If it cannot be signalled.
pub fn kill(pid: u32, started_at: u64) -> Result<()> {
    if started(pid) != Some(started_at) {
        return Ok(());
    }
    match send_signal(Pid::from_raw(pid as i32), Signal::SIGKILL) {
        Ok(()) => {}
        Err(nix::errno::Errno::ESRCH) => return Ok(()),
        Err(error) => return Err(Error::workload(format!("cannot end process {pid}"), error)),
    }
    // It ends when the kernel has taken it apart: what it held is in use until then.
    let deadline = Instant::now() + Duration::from_secs(5);
    while started(pid) == Some(started_at) {
        if Instant::now() > deadline {
            return Err(Error::workload(format!("cannot end process {pid}"), "it is still there after 5 s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends a process a signal, if it still is the one that started then.
///
/// # Errors
/// If it cannot be signalled.
pub fn tell(pid: u32, started_at: u64, signal: i32) -> Result<()> {
    if started(pid) != Some(started_at) {
        return Ok(());
    }
    // SAFETY: no pointers.
    match unsafe { libc::kill(pid as libc::pid_t, signal) } {
        0 => Ok(()),
        _ => match std::io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(Error::workload(format!("cannot signal process {pid}"), error)),
        },
    }
}

/// This thread runs before all others: on a CPU that it shares with a thousand busy threads, a phase would be over
/// before it is announced. Refused, phases are repeated until they are in time.
pub fn go_first() {
    // SAFETY: no pointers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// The end of [`go_first`].
pub fn go_ordinarily() {
    // SAFETY: no pointers. Lowering one's own priority is always allowed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
}

/// Pins all threads of a process to these CPUs; threads that it starts later inherit it.
///
/// # Errors
/// If the kernel refuses a CPU.
pub fn pin(pid: u32, cpus: &[usize]) -> Result<()> {
    // Threads may start while the list is read: twice catches those.
    for _ in 0..2 {
        let threads = threads(pid).map_err(|error| cannot_place(pid, cpus, error))?;
        threads.into_iter().try_for_each(|thread| pin_thread(thread, cpus))?;
    }
    Ok(())
}

/// Pins one thread; one that has ended is no error.
///
/// # Errors
/// If the kernel refuses a CPU.
pub fn pin_thread(thread: u32, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).map_err(|error| cannot_place(thread, cpus, error))?;
    }
    match sched_setaffinity(Pid::from_raw(thread as i32), &set) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(cannot_place(thread, cpus, error)),
    }
}

fn cannot_place(pid: u32, cpus: &[usize], why: impl std::fmt::Display) -> Error {
    Error::unsupported(
        format!("cannot place process {pid} on CPU {cpus:?}"),
        why,
        "use `--placement free`, or a cgroup that allows these CPUs",
    )
}

/// Checks from inside that all threads of a process may run on these CPUs only; empty: anywhere.
///
/// # Errors
/// If one may run elsewhere: something else set its affinity.
pub fn check_placement(pid: u32, cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let wrong = |why: String| {
        Error::unsupported(
            format!("process {pid} does not stay on CPU {cpus:?}"),
            why,
            "use `--placement free`, or stop what moves it",
        )
    };
    let threads = match threads(pid) {
        Ok(threads) => threads,
        // A process that ended meanwhile is nowhere; whoever needs it will notice.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(wrong(error.to_string())),
    };
    for thread in threads {
        // So is a thread that did.
        let Ok(allowed) = sched_getaffinity(Pid::from_raw(thread as i32)) else { continue };
        let found: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
        if found != cpus {
            return Err(wrong(format!("thread {thread} may run on {found:?}")));
        }
    }
    Ok(())
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// A process and all its descendants, as far as they live.
#[must_use]
pub fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = procfs::process::all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| {
            let stat = process.ok()?.stat().ok()?;
            Some((stat.pid as u32, stat.ppid as u32))
        })
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// The inode number of a process's network namespace.
///
/// # Errors
/// If the process is gone.
pub fn network_namespace(pid: u32) -> Result<u32> {
    namespace_inode(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// The inode number of a namespace's file.
///
/// # Errors
/// If it cannot be looked at.
pub fn namespace_inode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|metadata| metadata.ino() as u32).map_err(|error| Error::file("look at", path, error))
}

/// A field of `/proc/PID/status`.
#[must_use]
pub fn status_field(pid: u32, field: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()?
        .lines()
        .find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// Kinds of namespaces in which a process is alone, or at least not with this one.
#[must_use]
pub fn own_namespaces(pid: u32) -> Vec<String> {
    let at = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|kind| at(&pid.to_string(), kind) != at("self", kind))
        .map(str::to_owned)
        .collect()
}

/// Kind of the file system that a process sees as its root.
#[must_use]
pub fn root_file_system(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
    text.lines().filter_map(root_kind).next_back()
}

/// The kind of file system that a line of `mountinfo` (proc_pid_mountinfo(5)) gives for `/`.
fn root_kind(line: &str) -> Option<String> {
    let (mount, system) = line.split_once(" - ")?;
    (mount.split(' ').nth(4)? == "/").then(|| system.split(' ').next().unwrap_or_default().to_owned())
}

/// Time that all threads of a process have waited on run queues so far, by the scheduler's account, ns.
#[must_use]
pub fn run_queue_ns(pid: u32) -> u64 {
    schedstat(pid, 1)
}

/// Sum of a column of `/proc/PID/task/*/schedstat`.
fn schedstat(pid: u32, column: usize) -> u64 {
    threads(pid).unwrap_or_default().into_iter().filter_map(|thread| schedstat_of(pid, thread, column)).sum()
}

fn schedstat_of(pid: u32, thread: u32, column: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().nth(column)?.parse::<u64>().ok()
}

/// CPU time of a process so far, all of its threads together, ns: the sum of what the scheduler accounts to each
/// (clock_getcpuclockid(3)).
#[must_use]
pub fn cpu_ns(pid: u32) -> u64 {
    /// `CPUCLOCK_SCHED` of the whole process (`include/linux/posix-timers.h`).
    const SCHEDULERS: i32 = 2;
    let clock = (!(pid as i32) << 3) | SCHEDULERS;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local; a process that is gone is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } < 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU time of each thread of a process so far, by the scheduler's account, ns.
#[must_use]
pub fn thread_schedstats_ns(pid: u32) -> Vec<(u32, u64)> {
    let of_thread = |thread: u32| Some((thread, schedstat_of(pid, thread, 0)?));
    threads(pid).unwrap_or_default().into_iter().filter_map(of_thread).collect()
}

/// Whether QEMU (`debug-threads=on`) calls a thread so that executes guests' code: one for each processor, or one for
/// all.
#[must_use]
pub fn is_processor(name: &str) -> bool {
    let number = name.strip_prefix("CPU ").and_then(|rest| rest.split_once('/')).map(|(number, _)| number);
    name == "ALL CPUs/TCG"
        || number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Threads of a process and their names.
#[must_use]
pub fn named_threads(pid: u32) -> Vec<(u32, String)> {
    let name = |thread: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm")).ok()?;
        Some((thread, name.trim_end().to_owned()))
    };
    threads(pid).unwrap_or_default().into_iter().filter_map(name).collect()
}

/// Processes with exactly this name.
#[must_use]
pub fn processes_named(name: &str) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim_end() == name))
        .collect()
}

/// QEMU's process of a VM with this name.
#[must_use]
pub fn qemu(name: &str) -> Option<u32> {
    let wanted = format!("guest={name},");
    let numbers = fs::read_dir("/proc").ok()?.flatten();
    numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let is_qemu = words.next().is_some_and(|program| String::from_utf8_lossy(program).contains("qemu"));
        is_qemu && words.any(|word| word.starts_with(wanted.as_bytes()))
    })
}

/// CPU time of this process so far, ns.
#[must_use]
pub fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_in_its_own_family() {
        let me = std::process::id();
        assert!(started(me).is_some());
        assert_eq!(family(me)[0], me);
        assert!(network_namespace(me).unwrap() > 0);
        assert_eq!(status_field(me, "Tgid"), Some(me.to_string()));
        assert_eq!(own_namespaces(me), Vec::<String>::new());
        assert!(root_file_system(me).is_some_and(|kind| !kind.is_empty()));
        let line = "29 1 0:25 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a";
        assert_eq!(root_kind(line).as_deref(), Some("overlay"));
        assert_eq!(root_kind(&line.replace(" / rw", " /proc rw")), None);
    }

    #[test]
    fn a_pinned_process_is_found_where_it_was_put() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let allowed = super::allowed_cpus().unwrap();
        pin(child.id(), &allowed[..1]).unwrap();
        check_placement(child.id(), &allowed[..1]).unwrap();
        let elsewhere = [allowed[0] + 1];
        assert_eq!(check_placement(child.id(), &elsewhere).unwrap_err().exit_code(), 3);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn only_the_process_that_was_meant_is_killed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start = started(child.id()).unwrap();
        kill(child.id(), start + 1).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        kill(child.id(), start).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
