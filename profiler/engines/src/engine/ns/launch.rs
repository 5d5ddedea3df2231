//! The way into namespaces: `virtax` starts itself once more with a [`Spec`], enters what that says, and becomes the
//! server.
//!
//! A process of its own, with one thread, because much of this is not allowed between fork and execution of a program
//! with many.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, execv, fork, pipe2, pivot_root},
};
use serde::{Deserialize, Serialize};

use super::{loops, seccomp};
use crate::{
    child::NOBODY,
    engine::{DATA, image::FILE_SYSTEM},
};
use virtax_model::error::{Error, Result};

/// Name of the hidden command that reads what to enter.
pub const COMMAND: &str = "enter";

/// What the server is to run in, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Files of control groups through which it joins them.
    pub cgroup_doors: Vec<PathBuf>,
    /// File of the network namespace; `None`: the host's.
    pub network: Option<PathBuf>,
    /// What it sees as the root of the file system; `None`: the host's.
    pub root: Option<Root>,
    /// Whether it is the first process of a process namespace.
    pub own_pids: bool,
    /// Whether it has a user namespace, in which nobody is nobody.
    pub own_users: bool,
    /// Whether the filter in the shape of Docker's is installed.
    pub filtered: bool,
    /// Filters that look at arguments, besides.
    pub loading_filters: u32,
    /// The program, as seen from inside.
    pub program: PathBuf,
    /// Arguments of the program.
    pub arguments: Vec<String>,
}

/// A root of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// This folder, bound.
    Bind {
        /// The folder.
        folder: PathBuf,
        /// The folder of the host that is bound into it for files that the server reads and writes.
        data: Option<PathBuf>,
        /// The image of a disk that is mounted there instead, behind a loop device.
        image: Option<PathBuf>,
    },
    /// overlayfs.
    Overlay {
        /// A layer above it, never written to either.
        first: Option<PathBuf>,
        /// The image's folder, never written to.
        lower: PathBuf,
        /// A folder for `upper`, `work` and the mount point.
        over: PathBuf,
    },
}

type Step<T> = std::result::Result<T, String>;

fn step<T, E: std::fmt::Display>(what: &str, result: std::result::Result<T, E>) -> Step<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Enters what the specification says and becomes its program; does not return unless something is refused, or the
/// program has ended in a namespace of its own.
///
/// # Errors
/// The step that was refused.
pub fn enter(spec: &str) -> Result<u8> {
    let refuse = |why: String| Error::unsupported("the server cannot be started in its namespaces", why, REMEDY);
    let spec: Spec = serde_json::from_str(spec).map_err(|error| Error::Usage(format!("no specification: {error}")))?;
    lead(&spec).map_err(refuse)
}

const REMEDY: &str = "leave out the key that the kernel forbids";

/// The part before the fork: what children inherit. Then waits for the child, as long as it lives.
fn lead(spec: &Spec) -> Step<u8> {
    // Execution of a program with capabilities of its own forgets what was said before it.
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    for door in &spec.cgroup_doors {
        step(&format!("join {}", door.display()), fs::write(door, "0"))?;
    }
    if spec.own_pids {
        step("own process namespace (pid=on)", unshare(CloneFlags::CLONE_NEWPID))?;
    }
    // The child reads the end of the first as this process's death, and says by the second that its user namespace is
    // there.
    let closed_later = || step("pipe", pipe2(OFlag::O_CLOEXEC));
    let (alive, life) = closed_later()?;
    let (asks, asked) = closed_later()?;
    let (told, tells) = closed_later()?;
    // SAFETY: this process has one thread.
    match step("fork", unsafe { fork() })? {
        ForkResult::Child => {
            drop((life, asks, tells));
            let failure = follow(spec, &alive, asked, told);
            eprintln!("{}", failure.err().unwrap_or_else(|| "the program was not executed".to_owned()));
            std::process::exit(1)
        }
        ForkResult::Parent { child } => {
            drop((alive, asked, told));
            if spec.own_users {
                map_users(child, asks, tells)?;
            }
            let status = step("wait", waitpid(child, None))?;
            drop(life);
            let WaitStatus::Exited(_, code) = status else { return Ok(1) };
            Ok(code as u8)
        }
    }
}

/// Nobody of the host is nobody inside. Written by the parent, which has the right to.
fn map_users(child: Pid, asks: OwnedFd, tells: OwnedFd) -> Step<()> {
    let mut byte = [0];
    if step("read", File::from(asks).read(&mut byte))? == 0 {
        // It has failed already, and said why.
        return Ok(());
    }
    for map in ["uid_map", "gid_map"] {
        let path = format!("/proc/{child}/{map}");
        step(&format!("write {path} (user=on)"), fs::write(&path, format!("{NOBODY} {NOBODY} 1")))?;
    }
    step("write", File::from(tells).write_all(b"!"))
}

/// The child: enters everything else, gives up all rights, and becomes the program.
fn follow(spec: &Spec, alive: &OwnedFd, asked: OwnedFd, told: OwnedFd) -> Step<()> {
    die_with_parent(alive)?;
    if let Some(path) = &spec.network {
        let file = step(&format!("open {}", path.display()), File::open(path))?;
        step("enter the network namespace", setns(file, CloneFlags::CLONE_NEWNET))?;
    }
    if let Some(root) = &spec.root {
        change_root(root, spec.own_pids)?;
    }
    if spec.own_users {
        step("own user namespace (user=on)", unshare(CloneFlags::CLONE_NEWUSER))?;
        step("write", File::from(asked).write_all(b"?"))?;
        step("read", File::from(told).read_exact(&mut [0]))?;
    }
    become_nobody()?;
    // The kernel forgets it with a change of user.
    die_with_parent(alive)?;
    if spec.filtered {
        let filter = step("filter", seccomp::docker())?;
        step("install the filter (seccomp=docker)", seccompiler::apply_filter(&filter))?;
    }
    if spec.loading_filters > 0 {
        let filter = step("filter", seccomp::loading())?;
        for _ in 0..spec.loading_filters {
            step("install a filter", seccompiler::apply_filter(&filter))?;
        }
    }
    let word = |bytes: &[u8]| step("argument", CString::new(bytes));
    let program = word(spec.program.as_os_str().as_bytes())?;
    let mut words = vec![program.clone()];
    for argument in &spec.arguments {
        words.push(word(argument.as_bytes())?);
    }
    step(&format!("execute {}", spec.program.display()), execv(&program, &words)).map(|_| ())
}

fn become_nobody() -> Step<()> {
    let done = |what: &str, result: libc::c_int| {
        step(what, if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) })
    };
    // SAFETY: no pointers but a null one that belongs to a length of 0.
    unsafe {
        // In a user namespace that denies it there are no groups to give up: the map has one only.
        let _ = libc::setgroups(0, std::ptr::null());
        done("setresgid", libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        done("setresuid", libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        done("no new privileges", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

/// The parent's number says nothing in a namespace of its own: a pipe tells whether it died before.
fn die_with_parent(alive: &OwnedFd) -> Step<()> {
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
        return step("prctl", Err(std::io::Error::last_os_error()));
    }
    let mut watched = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
    match step("poll", poll(&mut watched, PollTimeout::ZERO))? {
        0 => Ok(()),
        _ => Err("the parent has ended".to_owned()),
    }
}

/// Devices that programs expect.
const DEVICES: [&str; 3] = ["null", "zero", "urandom"];

fn change_root(root: &Root, own_pids: bool) -> Step<()> {
    let none = None::<&str>;
    step("own mount namespace", unshare(CloneFlags::CLONE_NEWNS))?;
    step("keep mounts to itself", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    let at = match root {
        Root::Bind { folder, data, image } => {
            step("bind the root (fs=bind)", mount(Some(folder), folder, none, MsFlags::MS_BIND, none))?;
            if let Some(data) = data {
                let there = folder.join(DATA.trim_start_matches('/'));
                step("bind the folder of files (fs=bind)", mount(Some(data), &there, none, MsFlags::MS_BIND, none))?;
            }
            if let Some(image) = image {
                let there = folder.join(DATA.trim_start_matches('/'));
                let (device, _open) = step("attach a loop device (fs=loop)", loops::attach(image))?;
                let mounted = mount(Some(&device), &there, Some(FILE_SYSTEM), MsFlags::empty(), none);
                step("mount the loop device (fs=loop)", mounted)?;
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
                step("open its folder", fs::set_permissions(&there, open))?;
            }
            folder.clone()
        }
        Root::Overlay { first, lower, over } => {
            let at = over.join("root");
            let (upper, work) = (over.join("upper"), over.join("work"));
            let first = first.as_ref().map(|first| format!("{}:", first.display())).unwrap_or_default();
            // Each name of a file is to be copied for itself, and as a whole, whatever this kernel does by default.
            let copies = if first.is_empty() { "" } else { ",index=off,metacopy=off" };
            let options = format!(
                "lowerdir={first}{},upperdir={},workdir={}{copies}",
                lower.display(),
                upper.display(),
                work.display()
            );
            let mounted = mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
            step("mount overlayfs (fs=overlay)", mounted)?;
            at
        }
    };
    for device in DEVICES {
        let (here, there) = (Path::new("/dev").join(device), at.join("dev").join(device));
        step(&format!("bind {}", here.display()), mount(Some(&here), &there, none, MsFlags::MS_BIND, none))?;
    }
    let proc = at.join("proc");
    if own_pids {
        step("mount /proc", mount(Some("proc"), &proc, Some("proc"), MsFlags::empty(), none))?;
    } else {
        // In a user namespace, only with all that others have mounted below it.
        step("bind /proc", mount(Some("/proc"), &proc, none, MsFlags::MS_BIND | MsFlags::MS_REC, none))?;
    }
    step("enter the root", std::env::set_current_dir(&at))?;
    step("change the root", pivot_root(".", "."))?;
    step("leave the old root", umount2(".", MntFlags::MNT_DETACH))?;
    step("enter the root", std::env::set_current_dir("/"))
}

/// Folders and files that a root has besides what is packed, for [`DEVICES`] and mounts.
pub(super) fn furnish(root: &Path) -> std::io::Result<()> {
    for folder in ["dev", "proc", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    DEVICES.into_iter().try_for_each(|device| File::create(root.join("dev").join(device)).map(drop))
}

/// What a process is doing that was started by [`COMMAND`], for its starter: the server's process, once it is the
/// program.
#[must_use]
pub(super) fn find_server(launcher: u32) -> Option<u32> {
    let own = fs::read_link(format!("/proc/{launcher}/exe")).ok()?;
    let child = *virtax_probes::process::family(launcher).get(1)?;
    let its = fs::read_link(format!("/proc/{child}/exe")).ok()?;
    (its != own).then_some(child)
}

/// A process's end, for a person.
#[must_use]
pub(super) fn ending(status: std::process::ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit code {}", status.code().unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_survives_the_command_line() {
        let spec = Spec {
            cgroup_doors: vec!["/sys/fs/cgroup/virtax-x/cgroup.procs".into()],
            network: Some("/run/netns/virtax-x".into()),
            root: Some(Root::Overlay { first: None, lower: "/a".into(), over: "/b".into() }),
            own_pids: true,
            own_users: false,
            filtered: true,
            loading_filters: 2,
            program: "/program".into(),
            arguments: vec!["a b".to_owned()],
        };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
        assert_eq!(enter("{").unwrap_err().exit_code(), 2);
    }
}
