//! virtax's own clients: started in the wire's namespace, told its phases, asked for its counts.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use workloads::protocol::{PhaseReport, Reply, Request, Window};

use super::Client;
use crate::{
    agent::wire,
    child::{self, ChildLease},
    engine::Bench,
    error::{Error, Result},
    interrupt,
};

/// See the module.
pub struct Own {
    child: Child,
    requests: ChildStdin,
    replies: Receiver<Reply>,
    _lease: ChildLease,
}

impl Own {
    /// Starts it; [`Own::wait_ready`] waits until it works.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub fn start(bench: &Bench, arguments: &[String]) -> Result<Self> {
        let mut command = child::command(&bench.binary);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: the closure makes one async-signal-safe system call.
        unsafe { command.pre_exec(bench.wire.namespace.enter_before_exec()) };
        bench.client_group.as_ref().map_or(Ok(()), |group| group.is_joined_by(&mut command))?;
        child::at_highest_priority(&mut command);
        child::unprivileged(&mut command, None);
        let (mut child, lease) = child::spawn(&bench.ledger, command)?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::workload("cannot talk to the client", "it has no pipes"));
        };
        let (sender, replies) = channel();
        // Ends with the pipe, that is with the client.
        std::thread::spawn(move || {
            let mut answers = BufReader::new(answers);
            while let Some(reply) = next_reply(&mut answers) {
                if sender.send(reply).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, requests, replies, _lease: lease })
    }

    /// Waits until all connections work; `alive` may end the wait with a reason.
    ///
    /// # Errors
    /// If the client fails, `alive` does, or the time is over.
    pub fn wait_ready(&mut self, patience: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<u32> {
        match self.wait(patience, &mut alive)? {
            Reply::Ready { connections } => Ok(connections),
            other @ (Reply::Phase(_) | Reply::Failed { .. }) => Err(unexpected(&other)),
        }
    }

    fn say(&mut self, request: &Request) -> Result<()> {
        let mut line =
            serde_json::to_string(request).map_err(|error| Error::workload("cannot tell the client", error))?;
        line.push('\n');
        self.requests.write_all(line.as_bytes()).map_err(|error| {
            let words = self.last_words();
            Error::workload("the client ended", if words.is_empty() { error.to_string() } else { words })
        })
    }

    fn wait(&mut self, patience: Duration, alive: &mut dyn FnMut() -> Result<()>) -> Result<Reply> {
        let end = Instant::now() + patience;
        loop {
            interrupt::check()?;
            match self.replies.recv_timeout(Duration::from_millis(20)) {
                Ok(Reply::Failed { reason }) => {
                    alive()?;
                    return Err(Error::workload("the client failed", reason));
                }
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => alive()?,
                Err(RecvTimeoutError::Timeout) => {
                    let why = format!("no answer within {} s", patience.as_secs());
                    return Err(Error::workload("the client hangs", why));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::workload("the client ended", self.last_words()));
                }
            }
        }
    }

    fn last_words(&mut self) -> String {
        child::end(&mut self.child);
        let mut words = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut words);
        }
        words.trim().to_owned()
    }
}

impl Client for Own {
    fn pid(&self) -> u32 {
        self.child.id()
    }
    fn prepare(&mut self, _length: Duration) -> Result<()> {
        Ok(())
    }
    fn begin_phase(&mut self, open_ns: u64, close_ns: u64) -> Result<()> {
        self.say(&Request::Phase { open_ns, close_ns })
    }
    fn ask_in(&mut self, windows: &[Window]) -> Result<()> {
        self.say(&Request::Windows { windows: windows.to_vec() })
    }
    fn report(&mut self) -> Result<PhaseReport> {
        self.say(&Request::Report)?;
        match self.wait(Duration::from_secs(10), &mut || Ok(()))? {
            // It is told its phases.
            Reply::Phase(report) => Ok(PhaseReport { whole_run: false, ..report }),
            other @ (Reply::Ready { .. } | Reply::Failed { .. }) => Err(unexpected(&other)),
        }
    }
}

/// The next answer; `None`: there is none any more. It may come from a program in a guest: it is read as any file
/// from elsewhere is.
fn next_reply(answers: &mut impl BufRead) -> Option<Reply> {
    match wire::hear(answers) {
        Ok(reply) => Some(reply),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Some(Reply::Failed { reason: format!("unreadable answer: {error}") })
        }
        Err(_) => None,
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::workload("the client does not follow the protocol", format!("unexpected {reply:?}"))
}

impl Drop for Own {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_what_strangers_say() {
        let of = |said: &str| next_reply(&mut BufReader::new(said.as_bytes()));
        assert_eq!(of("{\"reply\":\"ready\",\"connections\":3}\n"), Some(Reply::Ready { connections: 3 }));
        let failed =
            |said: &str| matches!(of(said), Some(Reply::Failed { reason }) if reason.starts_with("unreadable"));
        assert!(failed("nonsense\n") && failed("{\"reply\":\"ready\"") && failed("{}\n"));
        // What would act on a terminal, and a count that wrapped around.
        assert!(failed("{\"reply\":\"failed\",\"reason\":\"\\u001b[2J\"}\n"));
        assert!(failed("{\"reply\":\"ready\",\"connections\":18446744073709551615}\n"));
        assert_eq!(of(""), None);
    }
}
