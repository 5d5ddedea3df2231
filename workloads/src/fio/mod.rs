//! fio, the well-known program for storage: one process of it works from beginning to end, and is asked for its
//! counts around each phase.
//!
//! It answers SIGUSR1 with all that it has counted so far (fio(1), "status"): what a phase held is the difference of
//! two answers.

mod status;

use std::{
    io::{self, BufRead, BufReader, Read},
    net::{SocketAddrV4, TcpListener},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

pub use status::{Status, read_next};

use crate::{
    clock::{now_ns, sleep_until},
    file::make,
    phases::say_to,
    protocol::{PhaseReport, Reply, Request, encode_histogram},
};

/// What the server does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address and port to listen on for the client.
    #[arg(long)]
    pub listen: SocketAddrV4,
    /// Folder of the file, which has no name there.
    #[arg(long)]
    pub folder: PathBuf,
    /// MiB of the file.
    #[arg(long, default_value_t = 64)]
    pub size: u64,
    /// fio.
    #[arg(long)]
    pub program: PathBuf,
    /// Operations that are under way at once.
    #[arg(long)]
    pub at_once: u32,
    /// Seconds after which the server ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
    /// What it is to do: options of fio's.
    #[arg(last = true)]
    pub job: Vec<String>,
}

/// How long fio may take to answer. It needs its jobs for that, and they may wait for a slow disk.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long until it is asked again, while it is only starting.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const WAIT: Duration = Duration::from_millis(20);
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// Makes the file, lets fio read or write it, and tells the client, until that goes.
///
/// # Errors
/// When the file cannot be made, fio not be executed, or the port not be had.
pub fn serve(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let file = make(&options.folder, options.size)?;
    let listener = TcpListener::bind(options.listen)?;
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut replies = &stream;
    let mut fio = match Fio::start(options, file.as_raw_fd()) {
        Ok(fio) => fio,
        Err(error) => {
            say_to(&mut replies, &Reply::Failed { reason: error.to_string() })?;
            // Who ends before it was heard would be taken for lost.
            return io::copy(&mut &stream, &mut io::sink()).map(drop);
        }
    };
    say_to(&mut replies, &Reply::Ready { connections: options.at_once })?;
    let mut seen = Ok(PhaseReport::default());
    for line in BufReader::new(&stream).lines() {
        match serde_json::from_str(&line?) {
            Ok(Request::Phase { open_ns, close_ns }) => seen = fio.watch(open_ns, close_ns),
            Ok(Request::Report) => {
                let reply = match &seen {
                    Ok(report) => Reply::Phase(report.clone()),
                    Err(error) => Reply::Failed { reason: error.to_string() },
                };
                say_to(&mut replies, &reply)?;
            }
            Ok(Request::Windows { .. }) => say_to(&mut replies, &Reply::cannot_rest())?,
            Err(error) => say_to(&mut replies, &Reply::Failed { reason: format!("unknown request: {error}") })?,
        }
    }
    Ok(())
}

/// fio at work.
struct Fio {
    child: Child,
    answers: Receiver<io::Result<Status>>,
    /// How long it lately took to answer.
    takes_ns: u64,
}

impl Fio {
    /// Starts it, and waits until it works.
    fn start(options: &Options, file: RawFd) -> io::Result<Self> {
        let mut command = Command::new(&options.program);
        // By the descriptor that it inherits: the file has no name.
        command.args(arguments(options, &format!("/proc/self/fd/{file}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: the closure makes async-signal-safe system calls only.
        unsafe { command.pre_exec(move || inherit(file)) };
        let mut child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot execute {}: {error}", options.program.display()))
        })?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("its output is a pipe"))?;
        let (sender, answers) = channel();
        // Ends with the pipe, that is with fio.
        std::thread::spawn(move || {
            let mut from = BufReader::new(stdout);
            while let Some(answer) = read_next(&mut from).transpose() {
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        let mut fio = Self { child, answers, takes_ns: 0 };
        fio.wait_until_it_works()?;
        Ok(fio)
    }

    /// Waits until its jobs work: fio counts nothing before; of a signal before it has a handler, it dies; and before
    /// its thread for answers works, it forgets that it was asked.
    fn wait_until_it_works(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.check()?;
            // A late answer says that as well: where there is much to do, all may be.
            if self.has_handler() && self.ask_within(ASK_AGAIN, 0)?.is_some_and(|status| status.operations > 0) {
                break;
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!("fio has done nothing within {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(WAIT);
        }
        Ok(())
    }

    /// Whether it would survive the signal: by its mask of signals that it catches (proc(5), `SigCgt`).
    fn has_handler(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        caught & 1 << (libc::SIGUSR1 - 1) != 0
    }

    /// An error with its own words, if it has ended.
    fn check(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            return Ok(());
        }
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut said)?;
        }
        Err(io::Error::other(last_words(&said)))
    }

    /// All that it has counted so far.
    fn ask(&mut self) -> io::Result<Status> {
        let late = || io::Error::other(format!("fio has not answered within {} s", PATIENCE.as_secs()));
        let asked_ns = now_ns();
        let answer = self.ask_within(PATIENCE, real_ms())?.ok_or_else(late)?;
        self.takes_ns = (now_ns() - asked_ns).max(self.takes_ns * 7 / 8);
        Ok(answer)
    }

    /// Asks it within a time; `None`: it does not answer in time. What it began to say before `since_ms` is the late
    /// answer to another question.
    fn ask_within(&mut self, patience: Duration, since_ms: u64) -> io::Result<Option<Status>> {
        self.check()?;
        let end = Instant::now() + patience;
        self.signal();
        loop {
            match self.answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Ok(answer)) if answer.at_ms < since_ms => {}
                Ok(answer) => return answer.map(Some),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    self.child.wait()?;
                    self.check()?;
                    return Err(io::Error::other("fio has closed its output"));
                }
            }
        }
    }

    /// Asks its main thread, and no other: the thread for answers does not block the signal, and ends if it gets it
    /// (fio 3.33: its `select` fails). A signal to the process goes there while the main thread starts a job, since
    /// that blocks all signals meanwhile (pthread_create(3) of glibc).
    fn signal(&self) {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: no pointers; it has not been waited for, so the number is its own.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1) };
    }

    /// Asks it before a phase, and at its end.
    fn watch(&mut self, open_ns: u64, close_ns: u64) -> io::Result<PhaseReport> {
        // Not earlier than needed: what it counts before the phase is not the phase's.
        sleep_until(open_ns.saturating_sub(self.takes_ns * 3 / 2));
        let asked_ns = now_ns();
        let before = self.ask()?;
        let heard_ns = now_ns();
        sleep_until(close_ns);
        let after = self.ask()?;
        let (length_ns, elapsed_ns) = (close_ns - open_ns, now_ns() - asked_ns);
        // With its clock set meanwhile, nobody knows how long it counted: as if it had heard too late, which makes
        // virtax measure again.
        let heard_ns =
            if is_possible(&before, &after, length_ns, elapsed_ns) { heard_ns } else { heard_ns.max(close_ns) };
        Ok(PhaseReport { heard_ns, ..between(&before, &after, length_ns) })
    }
}

/// Whether two answers are as far apart as they can be: at least the phase's length, and at most the time in which both
/// were asked for and heard. Their clock can be set, that of the phases cannot.
fn is_possible(before: &Status, after: &Status, length_ns: u64, elapsed_ns: u64) -> bool {
    let between_ns = after.at_ms.saturating_sub(before.at_ms) * MS;
    (length_ns..=elapsed_ns + 2 * MS).contains(&(between_ns + MS))
}

/// What a phase of this length held, between two answers.
fn between(before: &Status, after: &Status, length_ns: u64) -> PhaseReport {
    let counted = after.operations.saturating_sub(before.operations);
    let latency_sum_ns = (after.latency_sum_ns - before.latency_sum_ns).max(0.0);
    // By the answers' own times, whose unit is a millisecond: when they arrive says little.
    let between_ns = after.at_ms.saturating_sub(before.at_ms) * MS;
    let share = length_ns as f64 / between_ns.max(1) as f64;
    PhaseReport {
        operations: (counted as f64 * share).round() as u64,
        latency_sum_ns: (latency_sum_ns * share).round() as u64,
        asked_around: true,
        around_ns: between_ns.saturating_sub(length_ns) + MS,
        histogram: encode_histogram(&after.histogram_since(before)),
        ..PhaseReport::default()
    }
}

/// The clock that fio's answers bear, ms.
fn real_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Drop for Fio {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For a child about to execute: it has the file, and ends with us, also if we are killed.
fn inherit(file: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    let done =
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 && libc::fcntl(file, libc::F_SETFD, 0) == 0 };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The job's own options, and what makes them ours to follow.
fn arguments(options: &Options, file: &str) -> Vec<String> {
    let mut arguments = vec!["--name=virtax".to_owned(), format!("--filename={file}")];
    arguments.extend([format!("--size={}M", options.size), format!("--runtime={}", options.lifetime)]);
    arguments.extend(
        ["--thread", "--time_based", "--allow_file_create=0", "--group_reporting", "--eta=never"].map(str::to_owned),
    );
    // Latencies from submission to completion, as histograms.
    arguments.extend(
        ["--output-format=json+", "--lat_percentiles=1", "--clat_percentiles=0", "--slat_percentiles=0"]
            .map(str::to_owned),
    );
    // It would change what it writes within what it counts as latency.
    arguments.push("--scramble_buffers=0".to_owned());
    arguments.extend(options.job.iter().cloned());
    arguments
}

/// What it said of its end: the last line that has words.
fn last_words(said: &str) -> String {
    let line = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
    format!("fio ended: {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_around_a_phase_is_scaled_and_said() {
        let status = |at_ms, operations: u64| {
            let mut status = Status::default();
            (status.at_ms, status.operations) = (at_ms, operations);
            status.latency_sum_ns = operations as f64 * 100.0;
            status
        };
        // 30 of 130 ms are around it.
        let report = between(&status(1000, 5000), &status(1130, 18_000), 100 * MS);
        assert_eq!((report.operations, report.latency_sum_ns), (10_000, 1_000_000));
        assert!(report.asked_around);
        assert_eq!(report.around_ns, 31 * MS);
        // A clock that was set back, or on.
        let possible = |until_ms| is_possible(&status(1000, 5000), &status(until_ms, 18_000), 100 * MS, 140 * MS);
        assert!(possible(1130) && possible(1100) && possible(1140));
        assert!(!possible(900) && !possible(1090) && !possible(4000));
    }
    #[test]
    fn it_is_asked_while_it_starts_its_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("starting");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/fio/starting.c");
        let compiled =
            Command::new("gcc").args(["-Wall", "-Werror", "-pthread", "-o"]).arg(&program).arg(source).status();
        assert!(compiled.unwrap().success());
        let file = std::fs::File::create(folder.path().join("file")).unwrap();
        let options = Options {
            listen: SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0),
            folder: folder.path().to_owned(),
            size: 1,
            program,
            at_once: 1,
            lifetime: 60,
            job: Vec::new(),
        };
        let mut fio = Fio::start(&options, file.as_raw_fd()).unwrap();
        assert_eq!(fio.ask_within(PATIENCE, 0).unwrap().unwrap().operations, 7);
    }
}
