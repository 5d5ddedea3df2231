//! Children of virtax: noted in the ledger, ended with virtax itself.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    error::{Error, Result},
    ledger::{Item, Lease, Ledger},
    process,
};

/// Held as long as the child is to be known to `virtax clean`.
pub type ChildLease = Lease;

/// A command that gets no signals from the terminal, reads nothing, says nothing, and dies with virtax.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    // SAFETY: one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
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

/// Ends a child, and waits for it.
pub fn end(child: &mut Child) {
    // Either fails only if the child is gone and reaped already.
    let _ = child.kill();
    let _ = child.wait();
}
