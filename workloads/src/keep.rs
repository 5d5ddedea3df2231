//! Keeps a server: the first process of a container that outlives its servers, so that each of a run's rounds has a
//! fresh server without a container of its own. It is told by signals, which reach it from outside.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
};

use clap::Args;

/// What is kept.
#[derive(Args)]
pub struct Options {
    /// The server and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Starts a server where there is none.
pub const START: i32 = libc::SIGUSR1;
/// Ends the server.
pub const END: i32 = libc::SIGUSR2;

/// All that it hears.
const HEARD: [i32; 5] = [START, END, libc::SIGCHLD, libc::SIGTERM, libc::SIGINT];

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: the set is a local, and emptied before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        signals.iter().for_each(|signal| {
            libc::sigaddset(&raw mut set, *signal);
        });
        set
    }
}

fn mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set outlives the call; the old one is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn start(command: &[String]) -> io::Result<Child> {
    let [program, arguments @ ..] = command else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut command = Command::new(program);
    command.args(arguments);
    let none = set_of(&[]);
    // SAFETY: one async-signal-safe system call. A mask is inherited.
    unsafe { command.pre_exec(move || mask(&none)) };
    command.spawn()
}

fn end(child: &mut Option<Child>) -> io::Result<()> {
    let Some(mut child) = child.take() else { return Ok(()) };
    child.kill()?;
    child.wait().map(drop)
}

/// Starts a server, and others as it is told, until one ends by itself.
///
/// # Errors
/// If a server cannot be started, or has failed.
pub fn keep(options: &Options) -> io::Result<()> {
    let heard = set_of(&HEARD);
    mask(&heard)?;
    let mut server = Some(start(&options.command)?);
    loop {
        let mut signal = 0;
        // SAFETY: both are locals.
        unsafe { libc::sigwait(&raw const heard, &raw mut signal) };
        match signal {
            START if server.is_none() => server = Some(start(&options.command)?),
            END => end(&mut server)?,
            libc::SIGTERM | libc::SIGINT => return end(&mut server),
            libc::SIGCHLD => {
                if let Some(status) = ended(&mut server)? {
                    return ending(status);
                }
            }
            _ => {}
        }
    }
}

fn ended(server: &mut Option<Child>) -> io::Result<Option<ExitStatus>> {
    server.as_mut().map_or(Ok(None), Child::try_wait)
}

fn ending(status: ExitStatus) -> io::Result<()> {
    match (status.success(), status.signal()) {
        (true, _) => Ok(()),
        (_, Some(signal)) => Err(io::Error::other(format!("the server was ended by signal {signal}"))),
        (_, None) => Err(io::Error::other(format!("the server ended: {status}"))),
    }
}
