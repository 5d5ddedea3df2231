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
    /// Bytes per receiving call; 0: as many as there are.
    #[arg(long, default_value_t = 0)]
    pub chunk: usize,
    /// Milliseconds to try to connect for.
    #[arg(long, default_value_t = 10_000)]
    pub patience_ms: u64,
    /// Seconds after which the client ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// What one thread saw of the current phase.
struct Seen {
    /// When the last call returned; 0: none has.
    idle_since_ns: u64,
    phase: u64,
    operations: u64,
    latency_sum_ns: u64,
    turnaround_sum_ns: u64,
    lateness_sum_ns: u64,
    histogram: Histogram<u64>,
}

/// What the main thread and one working thread share.
struct Worker {
    seen: Mutex<Seen>,
    /// When the call was made that has not returned yet; 0: there is none. Cleared under the lock of `seen` only, so
    /// that whoever holds it finds both in agreement.
    called_ns: AtomicU64,
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
    crate::clock::end_after(options.lifetime);
    let streams = match connect_all(options) {
        Ok(streams) => streams,
        Err(error) => {
            let reason = format!("cannot connect to {}: {error}", options.connect);
            return say(&Reply::Failed { reason });
        }
    };
    let shared = Arc::new(Shared::default());
    let workers: Vec<Arc<Worker>> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| {
            let worker = Arc::new(Worker { seen: Mutex::new(Seen::new()), called_ns: AtomicU64::new(0) });
            let (shared, mine, options) = (shared.clone(), worker.clone(), *options);
            std::thread::spawn(move || {
                if let Err(error) = work(&options, index, stream, &shared, &mine) {
                    let mut failure = lock(&shared.failure);
                    failure.get_or_insert(format!("connection {index} failed: {error}"));
                }
            });
            worker
        })
        .collect();
    say(&Reply::Ready { connections: options.connections })?;
    let mut heard_ns = 0;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?) {
            Ok(Request::Phase { open_ns, close_ns }) => {
                shared.open_ns.store(open_ns, Ordering::Relaxed);
                shared.close_ns.store(close_ns, Ordering::Relaxed);
                shared.phase.fetch_add(1, Ordering::Release);
                heard_ns = now_ns();
            }
            Ok(Request::Report) => report(&shared, &workers, heard_ns)?,
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
        exchange(stream, options, &vec![0; options.request], &mut vec![0; options.response])?;
    }
    Ok(streams)
}

fn exchange(stream: &mut TcpStream, options: &Options, request: &[u8], response: &mut [u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let chunk = if options.chunk == 0 { response.len() } else { options.chunk };
    response.chunks_mut(chunk).try_for_each(|piece| stream.read_exact(piece))
}

fn work(options: &Options, index: usize, mut stream: TcpStream, shared: &Shared, worker: &Worker) -> io::Result<()> {
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
        worker.called_ns.store(called_ns, Ordering::Relaxed);
        exchange(&mut stream, options, &request, &mut response)?;
        let back_ns = now_ns();
        let intended_ns_or_call = if interval_ns > 0 { intended_ns } else { called_ns };
        note(shared, worker, &Times { intended_ns: intended_ns_or_call, before_ns: returned_ns, called_ns, back_ns });
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

/// How much of `[from_ns, to_ns]` lies in `[open_ns, close_ns)`.
fn inside(from_ns: u64, to_ns: u64, open_ns: u64, close_ns: u64) -> u64 {
    to_ns.min(close_ns).saturating_sub(from_ns.max(open_ns))
}

fn note(shared: &Shared, worker: &Worker, times: &Times) {
    let phase = shared.phase.load(Ordering::Acquire);
    let (open_ns, close_ns) = (shared.open_ns.load(Ordering::Relaxed), shared.close_ns.load(Ordering::Relaxed));
    let turnaround_ns = inside(times.before_ns, times.called_ns, open_ns, close_ns);
    let ended_inside = times.back_ns >= open_ns && times.back_ns < close_ns;
    let mut seen = lock(&worker.seen);
    worker.called_ns.store(0, Ordering::Relaxed);
    seen.idle_since_ns = times.back_ns;
    if turnaround_ns == 0 && !ended_inside {
        return;
    }
    if seen.phase != phase {
        seen.begin(phase);
    }
    seen.turnaround_sum_ns += turnaround_ns;
    if !ended_inside {
        return;
    }
    seen.operations += 1;
    seen.latency_sum_ns += times.back_ns - times.called_ns;
    seen.lateness_sum_ns += times.called_ns.saturating_sub(times.intended_ns);
    // Recording cannot fail below the histogram's 100 s; a longer wait counts as that.
    seen.histogram.saturating_record(times.back_ns.saturating_sub(times.intended_ns));
}

impl Seen {
    fn new() -> Self {
        Self {
            idle_since_ns: 0,
            phase: 0,
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

/// The turn-around that its thread will note only when the operation ends that it is about to make, or is making.
fn pending_turnaround_ns(worker: &Worker, seen: &Seen, open_ns: u64, close_ns: u64) -> u64 {
    if seen.idle_since_ns == 0 {
        return 0;
    }
    let until_ns = match worker.called_ns.load(Ordering::Relaxed) {
        0 => now_ns(),
        called_ns => called_ns,
    };
    inside(seen.idle_since_ns, until_ns, open_ns, close_ns)
}

fn report(shared: &Shared, workers: &[Arc<Worker>], heard_ns: u64) -> io::Result<()> {
    if let Some(reason) = lock(&shared.failure).take() {
        return say(&Reply::Failed { reason });
    }
    let phase = shared.phase.load(Ordering::Relaxed);
    let (open_ns, close_ns) = (shared.open_ns.load(Ordering::Relaxed), shared.close_ns.load(Ordering::Relaxed));
    let mut total = PhaseReport { heard_ns, ..PhaseReport::default() };
    let mut histogram = new_histogram();
    for worker in workers {
        let seen = lock(&worker.seen);
        total.turnaround_sum_ns += pending_turnaround_ns(worker, &seen, open_ns, close_ns);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_phase_counts() {
        assert_eq!(inside(0, 10, 5, 20), 5);
        assert_eq!(inside(15, 30, 5, 20), 5);
        assert_eq!(inside(0, 30, 5, 20), 15);
        assert_eq!(inside(0, 4, 5, 20), 0);
        assert_eq!(inside(25, 30, 5, 20), 0);
    }

    #[test]
    fn operations_count_where_they_end_and_turn_arounds_where_they_lie() {
        let shared = Shared::default();
        shared.open_ns.store(100, Ordering::Relaxed);
        shared.close_ns.store(200, Ordering::Relaxed);
        shared.phase.store(1, Ordering::Relaxed);
        let worker = Worker { seen: Mutex::new(Seen::new()), called_ns: AtomicU64::new(0) };
        note(&shared, &worker, &Times { intended_ns: 110, before_ns: 90, called_ns: 120, back_ns: 150 });
        note(&shared, &worker, &Times { intended_ns: 170, before_ns: 150, called_ns: 170, back_ns: 230 });
        let seen = lock(&worker.seen);
        assert_eq!((seen.operations, seen.latency_sum_ns, seen.lateness_sum_ns), (1, 30, 10));
        assert_eq!(seen.turnaround_sum_ns, 20 + 20);
    }

    #[test]
    fn a_turn_around_counts_before_its_operation_ends() {
        let shared = Shared::default();
        shared.open_ns.store(100, Ordering::Relaxed);
        shared.close_ns.store(200, Ordering::Relaxed);
        let worker = Worker { seen: Mutex::new(Seen::new()), called_ns: AtomicU64::new(0) };
        assert_eq!(pending_turnaround_ns(&worker, &lock(&worker.seen), 100, 200), 0);
        worker.called_ns.store(110, Ordering::Relaxed);
        note(&shared, &worker, &Times { intended_ns: 110, before_ns: 90, called_ns: 110, back_ns: 120 });
        // Asleep: the clock is far beyond the phase.
        assert_eq!(pending_turnaround_ns(&worker, &lock(&worker.seen), 100, 200), 80);
        // In a call.
        worker.called_ns.store(150, Ordering::Relaxed);
        assert_eq!(pending_turnaround_ns(&worker, &lock(&worker.seen), 100, 200), 30);
    }
}
