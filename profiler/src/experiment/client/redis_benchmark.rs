//! `redis-benchmark`, the well-known client. It knows no phases: it runs once for each, around it, and what it says
//! at its end is the report. Runs with nothing attached are the control, against which the probes' effect is
//! measured.

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
    protocol::{PhaseReport, encode_histogram, new_histogram},
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
    workload::REDIS_BENCHMARK,
};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Requests of the first run, which tells the rate.
const FIRST_RUN: u64 = 20_000;
/// What a phase needs around it: attaching, the lead-in, the announcement, the lead-out.
const AROUND: Duration = Duration::from_millis(250);
/// How much longer than needed a run is to take, because the machine's speed swings.
const RESERVE: f64 = 1.5;
/// Longest time for a run to end after its phase.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// See the module.
pub struct RedisBenchmark {
    program: PathBuf,
    arguments: Vec<String>,
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

impl RedisBenchmark {
    /// Waits for the server, fills its keys, and finds out the rate.
    ///
    /// # Errors
    /// If the program is missing, or does not get through.
    pub fn start(
        bench: &Bench,
        arguments: Vec<String>,
        keyspace: u64,
        server: SocketAddrV4,
        cpus: &[usize],
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let mut client = Self {
            program: REDIS_BENCHMARK.find()?,
            arguments,
            ledger: bench.ledger.clone(),
            group: bench.client_group.clone(),
            namespace: bench
                .wire
                .namespace
                .file()
                .try_clone()
                .map_err(|error| Error::file("open", bench.wire.namespace.path(), error))?,
            cpus: cpus.to_vec(),
            output: bench.ledger.folder().join("redis-benchmark.log"),
            requests_per_s: 0.0,
            running: None,
            pid: 0,
            interval: (0, 0),
        };
        wait_for(&bench.wire.namespace, server, &mut alive)?;
        client.fill(keyspace)?;
        client.spawn(&client.arguments.clone(), FIRST_RUN)?;
        let first = client.finish()?;
        client.requests_per_s = first.requests_per_s;
        Ok(client)
    }

    /// Gives nearly every key a value before reads: it writes at random, seven times as often as there are keys,
    /// which leaves e⁻⁷ of them, less than one in a thousand.
    fn fill(&mut self, keyspace: u64) -> Result<()> {
        let mut arguments = self.arguments.clone();
        let Some(reads) = arguments.iter_mut().find(|argument| *argument == "get") else { return Ok(()) };
        "set".clone_into(reads);
        arguments.extend(["-P".to_owned(), "100".to_owned()]);
        self.spawn(&arguments, 7 * keyspace)?;
        self.finish().map(drop)
    }

    fn spawn(&mut self, arguments: &[String], requests: u64) -> Result<()> {
        let fail = |error| Error::file("write", &self.output, error);
        let output = File::create(&self.output).map_err(fail)?;
        let errors = output.try_clone().map_err(fail)?;
        let mut command = child::command(&self.program);
        command.args(arguments).args(["-n", &requests.to_string()]).stdout(output).stderr(errors);
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
        let Some((mut child, lease)) = self.running.take() else {
            return Err(Error::workload("redis-benchmark does not run", "no phase was prepared"));
        };
        let end = Instant::now() + LONGEST_RUN;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < end => {}
                Ok(None) => {
                    child::end(&mut child);
                    let why = format!("it still runs after {} s", LONGEST_RUN.as_secs());
                    return Err(Error::workload("redis-benchmark does not end", why));
                }
                Err(error) => return Err(Error::workload("redis-benchmark is lost", error)),
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
            return Err(Error::workload("the client failed", format!("redis-benchmark ended ({status}): {last}")));
        }
        parse(&text).ok_or_else(|| {
            Error::workload("cannot understand redis-benchmark", "its summary has another shape than version 7's")
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

impl Client for RedisBenchmark {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn prepare(&mut self, length: Duration) -> Result<()> {
        if self.running.is_some() {
            // Left over from a phase that was given up.
            self.finish()?;
        }
        let requests = self.requests_per_s * RESERVE * (length + AROUND).as_secs_f64();
        self.spawn(&self.arguments.clone(), (requests as u64).max(1000))
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

impl Drop for RedisBenchmark {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            child::end(child);
        }
    }
}

/// What a run says at its end.
struct Summary {
    requests_per_s: f64,
    mean_ns: f64,
    histogram: hdrhistogram::Histogram<u64>,
}

/// Whether it is a summary.
pub fn understand(text: &str) -> bool {
    parse(text).is_some()
}

/// Reads the summary and the percentiles, whose counts are cumulative.
fn parse(text: &str) -> Option<Summary> {
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name).map(str::trim));
    let requests_per_s: f64 = after("throughput summary:")?.split_whitespace().next()?.parse().ok()?;
    let mut lines = text.lines().skip_while(|line| !line.trim().starts_with("latency summary"));
    let mean_ms: f64 = lines.nth(2)?.split_whitespace().next()?.parse().ok()?;
    let mut histogram = new_histogram();
    let mut before = 0;
    let percentiles = text
        .lines()
        .skip_while(|line| !line.starts_with("Latency by percentile distribution"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty());
    for line in percentiles {
        let (_, rest) = line.split_once("<= ")?;
        let (ms, rest) = rest.split_once(" milliseconds (cumulative count ")?;
        let cumulative: u64 = rest.trim_end_matches(')').parse().ok()?;
        histogram.saturating_record_n((ms.parse::<f64>().ok()? * 1e6) as u64, cumulative.saturating_sub(before));
        before = cumulative;
    }
    let sane = requests_per_s > 0.0 && requests_per_s.is_finite() && mean_ms >= 0.0 && mean_ms.is_finite();
    sane.then_some(Summary { requests_per_s, mean_ns: mean_ms * 1e6, histogram })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 7.0.15, shortened.
    const SAID: &str = "\
====== SET ======
  20000 requests completed in 0.25 seconds
  50 parallel clients
  multi-thread: no

Latency by percentile distribution:
0.000% <= 0.127 milliseconds (cumulative count 3)
50.000% <= 0.263 milliseconds (cumulative count 10034)
100.000% <= 1.503 milliseconds (cumulative count 20000)

Cumulative distribution of latencies:
0.000% <= 0.103 milliseconds (cumulative count 0)

Summary:
  throughput summary: 80321.29 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        0.312     0.120     0.263     0.327     0.415     1.503
";

    #[test]
    fn its_summary_is_understood() {
        let summary = parse(SAID).unwrap();
        assert_eq!((summary.requests_per_s, summary.mean_ns), (80_321.29, 312_000.0));
        assert_eq!(summary.histogram.len(), 20_000);
        let median = summary.histogram.value_at_quantile(0.5) as f64;
        assert!((median - 263_000.0).abs() < 300.0, "{median}");
    }

    #[test]
    fn another_shape_is_none() {
        for broken in ["", "ERROR: connection refused", &SAID[..SAID.len() - 60], &SAID.replace("80321.29", "nan")] {
            assert!(parse(broken).is_none(), "{broken}");
        }
    }
}
