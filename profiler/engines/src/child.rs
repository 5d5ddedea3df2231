//! Children of virtax: noted in the ledger, ended with virtax itself.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::ledger::{Item, Lease, Ledger};
use virtax_model::error::{Error, Result};
use virtax_probes::process;

/// Held as long as the child is to be known to `virtax clean`.
pub type ChildLease = Lease;

/// The user and group of servers and clients: `nobody`, by the kernel's own number for users that it has no name for.
pub const NOBODY: libc::uid_t = 65534;

/// A command that gets no signals from the terminal, reads nothing, says nothing, runs at the usual priority, and
/// dies with virtax.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let parent = own_pid();
    // SAFETY: async-signal-safe system calls.
    unsafe {
        command.pre_exec(move || {
            // What virtax gave itself is not for its children; without the right to, it gave itself nothing.
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
            die_with_parent(parent)
        });
    }
    command
}

/// The command's main thread runs before all others: with a thousand busy threads beside it, it would answer after
/// seconds. Its other threads have to see to themselves.
pub fn at_highest_priority(command: &mut Command) {
    // SAFETY: one async-signal-safe system call; refused, it answers late.
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
            Ok(())
        });
    }
}

/// The command runs as [`NOBODY`], without any privilege, for good. To be called after everything else that happens
/// before it is executed: that may need privileges. `group`: one that it belongs to besides.
pub fn unprivileged(command: &mut Command, group: Option<libc::gid_t>) {
    let parent = own_pid();
    // SAFETY: async-signal-safe system calls.
    unsafe {
        command.pre_exec(move || {
            let groups = group.unwrap_or(NOBODY);
            check(libc::setgroups(usize::from(group.is_some()), &raw const groups))?;
            check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // The kernel forgets it with a change of user.
            die_with_parent(parent)
        });
    }
}

/// Lets a child of `parent` that is about to execute die with it.
fn die_with_parent(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // It may have died before.
    // SAFETY: no preconditions.
    if unsafe { libc::getppid() } == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

fn own_pid() -> libc::pid_t {
    std::process::id() as libc::pid_t
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts it, and notes it. Between the two, its death with virtax protects it.
///
/// # Errors
/// If it cannot be started or noted.
pub fn spawn(ledger: &Ledger, mut command: Command) -> Result<(Child, ChildLease)> {
    let mut child = command
        .spawn()
        .map_err(|error| Error::workload(format!("cannot execute {}", command.get_program().display()), error))?;
    let pid = child.id();
    let noted = process::started(pid)
        .ok_or_else(|| Error::workload("a process ended at once", format!("process {pid}")))
        .and_then(|started| ledger.note(Item::Process { pid, started }));
    match noted {
        Ok(lease) => Ok((child, lease)),
        Err(error) => {
            end(&mut child);
            Err(error)
        }
    }
}

/// Ends a child, and waits for it; not for ever: a process that cannot be killed (by a virtax without `CAP_KILL`,
/// say) stays in the ledger.
pub fn end(child: &mut Child) {
    // It fails only if the child is gone and reaped already, or may not be killed: then the wait below ends in vain.
    let _ = child.kill();
    let deadline = Instant::now() + Duration::from_secs(5);
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            log::warn!("process {} does not end", child.id());
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
