//! The client: one blocking connection per thread, latencies per phase.

use std::{
    io::{self, BufRead, Read, Write},
    net::{SocketAddrV4, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    clock::{now_ns, sleep_until},
    protocol::{PhaseReport, Reply, Request, encode_histogram, new_histogram},
};

/// What the client does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// The server.
    #[arg(long)]
    pub connect: SocketAddrV4,
    /// Connections, one thread each.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Operations per second over all connections (open loop); 0: as fast as responses come.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Bytes of a request.
    #[arg(long, default_value_t = 100)]
    pub request: usize,
    /// Bytes of a response.
    #[arg(long, default_value_t = 200)]
    pub response: usize,
    /// Milliseconds to try to connect for.
    #[arg(long, default_value_t = 10_000)]
    pub patience_ms: u64,
    /// Seconds after which the client ends by itself.
    #[arg(long, default_value_t = 3600)]
    pub lifetime: u32,
}

/// What one thread saw of the current phase.
struct Seen {
    phase: u64,
    operations: u64,
    latency_sum_ns: u64,
    turnaround_sum_ns: u64,
    lateness_sum_ns: u64,
    histogram: Histogram<u64>,
}

#[derive(Default)]
struct Shared {
    phase: AtomicU64,
    open_ns: AtomicU64,
    close_ns: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// Connects, works, and answers the requests on standard input until it ends.
///
/// # Errors
/// When the server cannot be reached in time, or standard output is closed.
pub fn drive(options: &Options) -> io::Result<()> {
    // SAFETY: alarm has no preconditions. The default action of its signal ends the process: the bound on the loops.
    unsafe { libc::alarm(options.lifetime) };
    let streams = match connect_all(options) {
        Ok(streams) => streams,
        Err(error) => {
            let reason = format!("cannot connect to {}: {error}", options.connect);
            return say(&Reply::Failed { reason });
        }
    };
    let shared = Arc::new(Shared::default());
    let seen: Vec<Arc<Mutex<Seen>>> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| {
            let seen = Arc::new(Mutex::new(Seen::new(0)));
            let (shared, mine, options) = (shared.clone(), seen.clone(), *options);
            std::thread::spawn(move || {
                if let Err(error) = work(&options, index, stream, &shared, &mine) {
                    let mut failure = lock(&shared.failure);
                    failure.get_or_insert(format!("connection {index} failed: {error}"));
                }
            });
            seen
        })
        .collect();
    say(&Reply::Ready { connections: options.connections })?;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?) {
            Ok(Request::Phase { open_ns, close_ns }) => {
                shared.open_ns.store(open_ns, Ordering::Relaxed);
                shared.close_ns.store(close_ns, Ordering::Relaxed);
                shared.phase.fetch_add(1, Ordering::Release);
            }
            Ok(Request::Report) => report(&shared, &seen)?,
            Err(error) => say(&Reply::Failed { reason: format!("unknown request: {error}") })?,
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    Ok(())
}

fn say(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

/// A thread that panicked has counted nothing wrong: what it left is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect_all(options: &Options) -> io::Result<Vec<TcpStream>> {
    let deadline = now_ns() + options.patience_ms * 1_000_000;
    let mut streams = Vec::new();
    while streams.len() < options.connections as usize {
        match TcpStream::connect_timeout(&options.connect.into(), Duration::from_secs(1)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A connection that hangs shows as an error, not as a run without end.
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                streams.push(stream);
            }
            Err(error) if now_ns() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    // A userland proxy accepts before the server does: one exchange shows that the server itself is there.
    for stream in &mut streams {
        exchange(stream, &vec![0; options.request], &mut vec![0; options.response])?;
    }
    Ok(streams)
}

fn exchange(stream: &mut TcpStream, request: &[u8], response: &mut [u8]) -> io::Result<()> {
    stream.write_all(request)?;
    stream.read_exact(response)
}

fn work(options: &Options, index: usize, mut stream: TcpStream, shared: &Shared, seen: &Mutex<Seen>) -> io::Result<()> {
    let (request, mut response) = (vec![0; options.request], vec![0; options.response]);
    // With a rate, every connection sends at an interval of its own, the connections evenly offset.
    let interval_ns = if options.rate > 0.0 { (1e9 * f64::from(options.connections) / options.rate) as u64 } else { 0 };
    let mut intended_ns = now_ns() + interval_ns * index as u64 / u64::from(options.connections).max(1);
    let mut returned_ns = now_ns();
    while !shared.stop.load(Ordering::Relaxed) {
        if interval_ns > 0 {
            sleep_until(intended_ns);
        }
        let called_ns = now_ns();
        exchange(&mut stream, &request, &mut response)?;
        let back_ns = now_ns();
        let times = Times {
            intended_ns: if interval_ns > 0 { intended_ns } else { called_ns },
            before_ns: returned_ns,
            called_ns,
            back_ns,
        };
        note(shared, seen, &times);
        returned_ns = back_ns;
        intended_ns += interval_ns;
    }
    Ok(())
}

struct Times {
    intended_ns: u64,
    before_ns: u64,
    called_ns: u64,
    back_ns: u64,
}

fn note(shared: &Shared, seen: &Mutex<Seen>, times: &Times) {
    let phase = shared.phase.load(Ordering::Acquire);
    let (open_ns, close_ns) = (shared.open_ns.load(Ordering::Relaxed), shared.close_ns.load(Ordering::Relaxed));
    if times.back_ns < open_ns || times.back_ns >= close_ns {
        return;
    }
    let mut seen = lock(seen);
    if seen.phase != phase {
        seen.begin(phase);
    }
    seen.operations += 1;
    seen.latency_sum_ns += times.back_ns - times.called_ns;
    seen.turnaround_sum_ns += times.called_ns.saturating_sub(times.before_ns);
    seen.lateness_sum_ns += times.called_ns.saturating_sub(times.intended_ns);
    // Recording cannot fail below the histogram's 100 s; a longer wait counts as that.
    seen.histogram.saturating_record(times.back_ns.saturating_sub(times.intended_ns));
}

impl Seen {
    fn new(phase: u64) -> Self {
        Self {
            phase,
            operations: 0,
            latency_sum_ns: 0,
            turnaround_sum_ns: 0,
            lateness_sum_ns: 0,
            histogram: new_histogram(),
        }
    }

    /// Forgets the phase before, without asking for memory in the middle of a measurement.
    fn begin(&mut self, phase: u64) {
        self.phase = phase;
        self.operations = 0;
        self.latency_sum_ns = 0;
        self.turnaround_sum_ns = 0;
        self.lateness_sum_ns = 0;
        self.histogram.reset();
    }
}

fn report(shared: &Shared, seen: &[Arc<Mutex<Seen>>]) -> io::Result<()> {
    if let Some(reason) = lock(&shared.failure).take() {
        return say(&Reply::Failed { reason });
    }
    let phase = shared.phase.load(Ordering::Relaxed);
    let mut total = PhaseReport::default();
    let mut histogram = new_histogram();
    for seen in seen {
        let seen = lock(seen);
        if seen.phase != phase {
            continue;
        }
        total.operations += seen.operations;
        total.latency_sum_ns += seen.latency_sum_ns;
        total.turnaround_sum_ns += seen.turnaround_sum_ns;
        total.lateness_sum_ns += seen.lateness_sum_ns;
        histogram.add(&seen.histogram).expect("all histograms have the same bounds");
    }
    total.histogram = encode_histogram(&histogram);
    say(&Reply::Phase(total))
}
