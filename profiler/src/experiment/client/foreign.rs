//! A client of others' making. It knows no phases: it runs once for each, around it, and what it says at its end is the
//! report. Runs with nothing attached are the control, against which the probes' effect is measured.

use std::{
    fs::{self, File},
    net::{SocketAddrV4, TcpStream},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Child,
    rc::Rc,
    time::{Duration, Instant},
};

use workloads::{
    clock::now_ns,
    protocol::{PhaseReport, encode_histogram},
};

use super::Client;
use crate::{
    cgroup::Cgroup,
    child::{self, ChildLease},
    engine::Bench,
    error::{Error, Result},
    interrupt,
    net::{self, Namespace},
    process,
    workload::{Foreign, Summary},
};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Requests of the first run, which tells the rate.
const FIRST_RUN: u64 = 20_000;
/// What a phase needs around it: attaching, the lead-in, the announcement, the lead-out.
const AROUND: Duration = Duration::from_millis(250);
/// How much longer than needed a run is to take, because the host's speed swings.
const RESERVE: f64 = 1.5;
/// Longest time for a run to end after its phase.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// See the module.
pub struct Runs {
    foreign: Foreign,
    program: PathBuf,
    ledger: crate::ledger::Ledger,
    group: Option<Rc<Cgroup>>,
    namespace: File,
    cpus: Vec<usize>,
    output: PathBuf,
    requests_per_s: f64,
    running: Option<(Child, ChildLease)>,
    pid: u32,
    interval: (u64, u64),
}

impl Runs {
    /// Waits for the server, fills it, and finds out the rate.
    ///
    /// # Errors
    /// If the program is missing, or does not get through.
    pub fn start(
        bench: &Bench,
        foreign: Foreign,
        server: SocketAddrV4,
        cpus: &[usize],
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let mut client = Self {
            program: foreign.tool.find()?,
            output: bench.ledger.folder().join(format!("{}.log", foreign.tool.name)),
            foreign,
            ledger: bench.ledger.clone(),
            group: bench.client_group.clone(),
            namespace: bench
                .wire
                .namespace
                .file()
                .try_clone()
                .map_err(|error| Error::file("open", bench.wire.namespace.path(), error))?,
            cpus: cpus.to_vec(),
            requests_per_s: 0.0,
            running: None,
            pid: 0,
            interval: (0, 0),
        };
        wait_for(&bench.wire.namespace, server, &mut alive)?;
        if let Some((arguments, requests)) = client.foreign.filling.take() {
            client.spawn(&arguments, requests)?;
            client.finish()?;
        }
        client.spawn(&client.foreign.arguments.clone(), FIRST_RUN)?;
        let first = client.finish()?;
        client.requests_per_s = first.requests_per_s;
        Ok(client)
    }

    fn spawn(&mut self, arguments: &[String], requests: u64) -> Result<()> {
        let fail = |error| Error::file("write", &self.output, error);
        let output = File::create(&self.output).map_err(fail)?;
        let errors = output.try_clone().map_err(fail)?;
        let mut command = child::command(&self.program);
        command.args(arguments).args([self.foreign.number, &requests.to_string()]).stdout(output).stderr(errors);
        // SAFETY: the closure makes one async-signal-safe system call.
        unsafe { command.pre_exec(net::enter_before_exec(&self.namespace)) };
        self.group.as_ref().map_or(Ok(()), |group| group.is_joined_by(&mut command))?;
        child::unprivileged(&mut command, None);
        let (child, lease) = child::spawn(&self.ledger, command)?;
        self.pid = child.id();
        // First, so that it is ended whatever comes.
        self.running = Some((child, lease));
        if self.cpus.is_empty() { Ok(()) } else { process::pin(self.pid, &self.cpus) }
    }

    /// Waits for the run's end, and reads what it said.
    fn finish(&mut self) -> Result<Summary> {
        let name = self.foreign.tool.name;
        let Some((mut child, lease)) = self.running.take() else {
            return Err(Error::workload(format!("{name} does not run"), "no phase was prepared"));
        };
        let end = Instant::now() + LONGEST_RUN;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < end => {}
                Ok(None) => {
                    child::end(&mut child);
                    let why = format!("it still runs after {} s", LONGEST_RUN.as_secs());
                    return Err(Error::workload(format!("{name} does not end"), why));
                }
                Err(error) => return Err(Error::workload(format!("{name} is lost"), error)),
            }
            if let Err(error) = interrupt::sleep(Duration::from_millis(5)) {
                child::end(&mut child);
                return Err(error);
            }
        };
        drop(lease);
        let text = fs::read_to_string(&self.output).map_err(|error| Error::file("read", &self.output, error))?;
        if !status.success() {
            let words: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = words.last().copied().unwrap_or("it said nothing");
            return Err(Error::workload("the client failed", format!("{name} ended ({status}): {last}")));
        }
        (self.foreign.parse)(&text).ok_or_else(|| {
            Error::workload(
                format!("cannot understand {name}"),
                "its summary has another shape than that of the version that is known",
            )
        })
    }
}

/// The program itself does not wait for a server that is only starting.
fn wait_for(namespace: &Namespace, server: SocketAddrV4, alive: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        alive()?;
        let connect = || Ok(TcpStream::connect_timeout(&server.into(), Duration::from_secs(1)).map(drop));
        let why = match namespace.run(connect)? {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() > end {
            return Err(Error::workload(format!("the client cannot connect to {server}"), why));
        }
        interrupt::sleep(Duration::from_millis(50))?;
    }
}

impl Client for Runs {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn prepare(&mut self, length: Duration) -> Result<()> {
        if self.running.is_some() {
            // Left over from a phase that was given up.
            self.finish()?;
        }
        let requests = self.requests_per_s * RESERVE * (length + AROUND).as_secs_f64();
        self.spawn(&self.foreign.arguments.clone(), (requests as u64).max(1000))
    }

    fn reports_whole_runs(&self) -> bool {
        true
    }

    fn begin_phase(&mut self, open_ns: u64, close_ns: u64) -> Result<()> {
        self.interval = (open_ns, close_ns);
        Ok(())
    }

    fn report(&mut self) -> Result<PhaseReport> {
        // One that ended before the phase did has not seen it: the next try asks more of it.
        let ended_early = match &mut self.running {
            Some((child, _)) => matches!(child.try_wait(), Ok(Some(_))),
            None => true,
        };
        let summary = self.finish()?;
        if ended_early {
            self.requests_per_s *= 1.5;
        }
        let (open_ns, close_ns) = self.interval;
        let operations = summary.requests_per_s * (close_ns - open_ns) as f64 / 1e9;
        let heard_ns = if ended_early { now_ns() } else { open_ns.saturating_sub(1) };
        Ok(PhaseReport {
            heard_ns,
            operations: operations as u64,
            latency_sum_ns: (operations.floor() * summary.mean_ns) as u64,
            histogram: encode_histogram(&summary.histogram),
            whole_run: true,
            ..PhaseReport::default()
        })
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            child::end(child);
        }
    }
}
