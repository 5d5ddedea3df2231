//! What a client sees in a phase: collected by its working threads, asked for line by line.

use std::{
    io::{self, BufRead, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hdrhistogram::Histogram;

use crate::{
    clock::now_ns,
    protocol::{PhaseReport, Reply, Request, encode_histogram, new_histogram},
};

/// What one thread saw of the current phase.
struct Seen {
    /// For each of its connections, when the last call returned; 0: none has.
    idle_since_ns: Vec<u64>,
    phase: u64,
    operations: u64,
    latency_sum_ns: u64,
    turnaround_sum_ns: u64,
    lateness_sum_ns: u64,
    histogram: Histogram<u64>,
}

/// What the main thread and one working thread share.
pub struct Worker {
    seen: Mutex<Seen>,
    /// For each of its connections, when the call was made that has not returned yet; 0: there is none. Cleared under the
    /// lock of `seen` only, so that whoever holds it finds both in agreement.
    called_ns: Vec<AtomicU64>,
}

/// The current phase, and what ends the work.
#[derive(Default)]
pub struct Shared {
    phase: AtomicU64,
    open_ns: AtomicU64,
    close_ns: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// Times of one operation, ns.
pub struct Times {
    /// When it was to be made.
    pub intended_ns: u64,
    /// When the one before it on the same connection returned.
    pub before_ns: u64,
    /// When it was made.
    pub called_ns: u64,
    /// When it returned.
    pub back_ns: u64,
}

/// A thread that panicked has counted nothing wrong: what it left is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of `[from_ns, to_ns]` lies in `[open_ns, close_ns)`.
fn inside(from_ns: u64, to_ns: u64, open_ns: u64, close_ns: u64) -> u64 {
    to_ns.min(close_ns).saturating_sub(from_ns.max(open_ns))
}

/// Says something to virtax.
///
/// # Errors
/// When standard output is closed.
pub fn say(reply: &Reply) -> io::Result<()> {
    say_to(&mut io::stdout().lock(), reply)
}

pub(crate) fn say_to(replies: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    replies.write_all(line.as_bytes()).and_then(|()| replies.flush())
}

impl Shared {
    /// Whether the work is to end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The client cannot go on; the first reason counts.
    pub fn fail(&self, reason: String) {
        lock(&self.failure).get_or_insert(reason);
    }

    /// Notes an operation that has returned.
    pub fn note(&self, worker: &Worker, connection: usize, times: &Times) {
        let phase = self.phase.load(Ordering::Acquire);
        let (open_ns, close_ns) = self.interval();
        let turnaround_ns = inside(times.before_ns, times.called_ns, open_ns, close_ns);
        let ended_inside = times.back_ns >= open_ns && times.back_ns < close_ns;
        let mut seen = lock(&worker.seen);
        worker.called_ns[connection].store(0, Ordering::Relaxed);
        seen.idle_since_ns[connection] = times.back_ns;
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

    fn interval(&self) -> (u64, u64) {
        (self.open_ns.load(Ordering::Relaxed), self.close_ns.load(Ordering::Relaxed))
    }

    fn report(&self, workers: &[Arc<Worker>], heard_ns: u64) -> Reply {
        if let Some(reason) = lock(&self.failure).take() {
            return Reply::Failed { reason };
        }
        let phase = self.phase.load(Ordering::Relaxed);
        let (open_ns, close_ns) = self.interval();
        let mut total = PhaseReport { heard_ns, ..PhaseReport::default() };
        let mut histogram = new_histogram();
        for worker in workers {
            let seen = lock(&worker.seen);
            total.turnaround_sum_ns += worker.pending_turnaround_ns(&seen, open_ns, close_ns);
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
        Reply::Phase(total)
    }

    /// Says that all connections work, and answers the requests until they end.
    ///
    /// # Errors
    /// When nobody reads the replies.
    pub fn answer(&self, workers: &[Arc<Worker>], requests: impl BufRead, replies: &mut impl Write) -> io::Result<()> {
        let connections = workers.iter().map(|worker| worker.called_ns.len() as u32).sum();
        say_to(replies, &Reply::Ready { connections })?;
        let mut heard_ns = 0;
        for line in requests.lines() {
            match serde_json::from_str(&line?) {
                Ok(Request::Phase { open_ns, close_ns }) => {
                    self.open_ns.store(open_ns, Ordering::Relaxed);
                    self.close_ns.store(close_ns, Ordering::Relaxed);
                    self.phase.fetch_add(1, Ordering::Release);
                    heard_ns = now_ns();
                }
                Ok(Request::Report) => say_to(replies, &self.report(workers, heard_ns))?,
                Err(error) => say_to(replies, &Reply::Failed { reason: format!("unknown request: {error}") })?,
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Worker {
    /// A thread with this many connections.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self {
            seen: Mutex::new(Seen {
                idle_since_ns: vec![0; connections],
                phase: 0,
                operations: 0,
                latency_sum_ns: 0,
                turnaround_sum_ns: 0,
                lateness_sum_ns: 0,
                histogram: new_histogram(),
            }),
            called_ns: (0..connections).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// An operation is being made.
    pub fn calls(&self, connection: usize, called_ns: u64) {
        self.called_ns[connection].store(called_ns, Ordering::Relaxed);
    }

    /// Connections on which an operation has returned.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        lock(&self.seen).idle_since_ns.iter().filter(|since_ns| **since_ns > 0).count()
    }

    /// The turn-arounds that the thread will note only when the operations end that it is about to make, or is making.
    fn pending_turnaround_ns(&self, seen: &Seen, open_ns: u64, close_ns: u64) -> u64 {
        seen.idle_since_ns
            .iter()
            .zip(&self.called_ns)
            .filter(|(since_ns, _)| **since_ns > 0)
            .map(|(since_ns, called_ns)| {
                let until_ns = match called_ns.load(Ordering::Relaxed) {
                    0 => now_ns(),
                    called_ns => called_ns,
                };
                inside(*since_ns, until_ns, open_ns, close_ns)
            })
            .sum()
    }
}

impl Seen {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn in_phase() -> Shared {
        let shared = Shared::default();
        shared.open_ns.store(100, Ordering::Relaxed);
        shared.close_ns.store(200, Ordering::Relaxed);
        shared.phase.store(1, Ordering::Relaxed);
        shared
    }

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
        let (shared, worker) = (in_phase(), Worker::new(1));
        shared.note(&worker, 0, &Times { intended_ns: 110, before_ns: 90, called_ns: 120, back_ns: 150 });
        shared.note(&worker, 0, &Times { intended_ns: 170, before_ns: 150, called_ns: 170, back_ns: 230 });
        let seen = lock(&worker.seen);
        assert_eq!((seen.operations, seen.latency_sum_ns, seen.lateness_sum_ns), (1, 30, 10));
        assert_eq!(seen.turnaround_sum_ns, 20 + 20);
    }

    #[test]
    fn a_turn_around_counts_before_its_operation_ends() {
        let (shared, worker) = (in_phase(), Worker::new(2));
        let pending = |worker: &Worker| worker.pending_turnaround_ns(&lock(&worker.seen), 100, 200);
        assert_eq!(pending(&worker), 0);
        worker.calls(1, 110);
        shared.note(&worker, 1, &Times { intended_ns: 110, before_ns: 90, called_ns: 110, back_ns: 120 });
        // Asleep: the clock is far beyond the phase.
        assert_eq!(pending(&worker), 80);
        // In a call.
        worker.calls(1, 150);
        assert_eq!(pending(&worker), 30);
    }
}
