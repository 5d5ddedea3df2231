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
    protocol::{AFTER_REST, AfterRest, PhaseReport, Reply, Request, WindowSeen, encode_histogram, new_histogram},
    speed,
    turns::{Bell, Turns},
};

/// What one thread saw of the current phase.
struct Seen {
    /// Connections on which a call has returned.
    #[cfg(test)]
    used: std::collections::BTreeSet<usize>,
    phase: u64,
    turns: Arc<Turns>,
    operations: u64,
    latency_sum_ns: u64,
    turnaround_sum_ns: u64,
    lateness_sum_ns: u64,
    queued_sum_ns: u64,
    histogram: Histogram<u64>,
    windows: Vec<WindowSeen>,
    after_rest: Vec<AfterRest>,
    /// For each connection, the window of its last operation, and how many it has had there.
    places: Vec<(usize, usize)>,
}

/// When the same work is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Before a window's operations.
    Before,
    /// After them.
    After,
}

/// What the main thread and one working thread share.
pub struct Worker {
    seen: Mutex<Seen>,
    /// For each of its connections, when the call was made that has not returned yet; 0: there is none. Cleared under
    /// the lock of `seen` only, so that whoever holds it finds both in agreement.
    called_ns: Vec<AtomicU64>,
    /// Whether its thread rests between windows.
    rests: bool,
    /// What wakes it when there is a new phase.
    pub(crate) bell: Bell,
}

/// The current phase, and what ends the work.
#[derive(Default)]
pub struct Shared {
    phase: AtomicU64,
    turns: Mutex<Arc<Turns>>,
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

impl Times {
    /// How long it waited for an earlier request on its connection, from the time at which it was to be made.
    const fn queued_ns(&self) -> u64 {
        self.before_ns.saturating_sub(self.intended_ns)
    }
    /// Time by which the client itself made it later than it could have.
    const fn lateness_ns(&self) -> u64 {
        let due_ns = if self.intended_ns > self.before_ns { self.intended_ns } else { self.before_ns };
        self.called_ns.saturating_sub(due_ns)
    }
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

    /// Notes an operation that has returned: it belongs to the phase, and to the window, in which it was made.
    pub fn note(&self, worker: &Worker, connection: usize, times: &Times) {
        let phase = self.phase.load(Ordering::Acquire);
        let mut seen = lock(&worker.seen);
        worker.called_ns[connection].store(0, Ordering::Relaxed);
        #[cfg(test)]
        seen.used.insert(connection);
        if seen.phase != phase {
            seen.begin(phase, self.turns());
        }
        seen.note_after_rest(connection, times);
        let Some(window) = seen.turns.counts_at(times.called_ns) else { return };
        let (latency_ns, queued_ns) = (times.back_ns - times.called_ns, times.queued_ns());
        seen.operations += 1;
        seen.turnaround_sum_ns += times.called_ns.saturating_sub(times.before_ns);
        seen.latency_sum_ns += latency_ns;
        seen.queued_sum_ns += queued_ns;
        seen.lateness_sum_ns += times.lateness_ns();
        // Recording cannot fail below the histogram's 100 s; a longer wait counts as that.
        seen.histogram.saturating_record(latency_ns + queued_ns);
        if let Some(window) = seen.windows.get_mut(window) {
            window.operations += 1;
            window.latency_sum_ns += latency_ns;
        }
    }

    /// Times the same work before or after the operations of a window: by the only thread of those that are asked.
    pub(crate) fn time_work(&self, worker: &Worker, turns: &Turns, phase: u64, beside: Beside) {
        let window = match beside {
            Beside::Before => turns.open_at(now_ns()),
            Beside::After => turns.last_over_at(now_ns()),
        };
        let Some(window) = window else { return };
        let work_ns = speed::measure_ns();
        let mut seen = lock(&worker.seen);
        if seen.phase != phase {
            if phase != self.phase() {
                return;
            }
            seen.begin(phase, self.turns());
        }
        if let Some(window) = seen.windows.get_mut(window) {
            window.work_ns[usize::from(beside == Beside::After)] = work_ns;
        }
    }

    /// The turns of the current phase.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        lock(&self.turns).clone()
    }

    /// The number of the current phase.
    pub(crate) fn phase(&self) -> u64 {
        self.phase.load(Ordering::Acquire)
    }

    /// Begins a phase, and wakes whoever rests.
    fn begin(&self, turns: Turns, workers: &[Arc<Worker>]) {
        *lock(&self.turns) = Arc::new(turns);
        self.phase.fetch_add(1, Ordering::Release);
        workers.iter().for_each(|worker| worker.bell.ring());
    }

    fn report(&self, workers: &[Arc<Worker>], heard_ns: u64) -> Reply {
        if let Some(reason) = lock(&self.failure).take() {
            return Reply::Failed { reason };
        }
        let phase = self.phase.load(Ordering::Relaxed);
        let turns = self.turns();
        let windows = vec![WindowSeen::default(); turns.windows().len()];
        let mut total = PhaseReport { heard_ns, queued_sum_ns: Some(0), windows, ..PhaseReport::default() };
        let mut histogram = new_histogram();
        for worker in workers {
            let seen = lock(&worker.seen);
            for age_ns in worker.ages_ns(|called_ns| turns.counts_at(called_ns).is_some()) {
                total.unfinished += 1;
                total.unfinished_sum_ns += age_ns;
            }
            if seen.phase != phase {
                continue;
            }
            total.operations += seen.operations;
            total.latency_sum_ns += seen.latency_sum_ns;
            total.turnaround_sum_ns += seen.turnaround_sum_ns;
            total.lateness_sum_ns += seen.lateness_sum_ns;
            total.queued_sum_ns = total.queued_sum_ns.map(|sum| sum + seen.queued_sum_ns);
            histogram.add(&seen.histogram).expect("all histograms have the same bounds");
            for (sum, window) in total.windows.iter_mut().zip(&seen.windows) {
                sum.operations += window.operations;
                sum.latency_sum_ns += window.latency_sum_ns;
                // That of the slowest thread.
                std::iter::zip(&mut sum.work_ns, window.work_ns).for_each(|(sum, ns)| *sum = (*sum).max(ns));
            }
            total.after_rest.resize(total.after_rest.len().max(seen.after_rest.len()), AfterRest::default());
            for (sum, seen) in total.after_rest.iter_mut().zip(&seen.after_rest) {
                sum.operations += seen.operations;
                sum.latency_sum_ns += seen.latency_sum_ns;
            }
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
                    self.begin(Turns::Always { open_ns, close_ns }, workers);
                    heard_ns = now_ns();
                }
                Ok(Request::Windows { .. }) if !workers.iter().all(|worker| worker.rests) => {
                    say_to(replies, &Reply::cannot_rest())?;
                }
                Ok(Request::Windows { windows }) => {
                    self.begin(Turns::Windows(windows), workers);
                    heard_ns = now_ns();
                }
                Ok(Request::Report) => say_to(replies, &self.report(workers, heard_ns))?,
                Err(error) => say_to(replies, &Reply::Failed { reason: format!("unknown request: {error}") })?,
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        workers.iter().for_each(|worker| worker.bell.ring());
        Ok(())
    }
}

impl Worker {
    /// A thread with this many connections, which rests between windows.
    #[must_use]
    pub fn resting(connections: usize) -> Self {
        Self { rests: true, ..Self::new(connections) }
    }

    /// A thread with this many connections, which makes operations all the time.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        Self {
            rests: false,
            seen: Mutex::new(Seen {
                #[cfg(test)]
                used: std::collections::BTreeSet::new(),
                phase: 0,
                turns: Arc::default(),
                operations: 0,
                latency_sum_ns: 0,
                turnaround_sum_ns: 0,
                lateness_sum_ns: 0,
                queued_sum_ns: 0,
                histogram: new_histogram(),
                windows: Vec::new(),
                after_rest: Vec::new(),
                places: vec![(usize::MAX, 0); connections],
            }),
            called_ns: (0..connections).map(|_| AtomicU64::new(0)).collect(),
            bell: Bell::default(),
        }
    }

    /// How many connections its thread has.
    pub(crate) fn connections(&self) -> usize {
        self.called_ns.len()
    }

    /// An operation is being made.
    pub fn calls(&self, connection: usize, called_ns: u64) {
        self.called_ns[connection].store(called_ns, Ordering::Relaxed);
    }

    /// Connections on which an operation has returned.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        lock(&self.seen).used.len()
    }

    /// The ages, ns, of the operations that are under way and were made at a time that is wanted. For whoever holds
    /// the lock of `seen`.
    fn ages_ns(&self, is_wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
        let called = self.called_ns.iter().map(|called_ns| called_ns.load(Ordering::Relaxed));
        called
            .filter(move |called_ns| *called_ns != 0 && is_wanted(*called_ns))
            .map(|called_ns| now_ns().saturating_sub(called_ns))
    }
}

impl Seen {
    /// Forgets the phase before.
    fn begin(&mut self, phase: u64, turns: Arc<Turns>) {
        self.phase = phase;
        self.windows.clear();
        self.windows.resize(turns.windows().len(), WindowSeen::default());
        self.turns = turns;
        self.operations = 0;
        self.latency_sum_ns = 0;
        self.turnaround_sum_ns = 0;
        self.lateness_sum_ns = 0;
        self.queued_sum_ns = 0;
        self.histogram.reset();
        self.after_rest.clear();
        self.places.fill((usize::MAX, 0));
    }

    /// Notes an operation by its number since its connection rested, of the first ones.
    fn note_after_rest(&mut self, connection: usize, times: &Times) {
        let Some(window) = self.turns.open_at(times.called_ns) else { return };
        let Some(place) = self.places.get_mut(connection) else { return };
        let number = if place.0 == window { place.1 + 1 } else { 0 };
        *place = (window, number);
        if number >= AFTER_REST {
            return;
        }
        if self.after_rest.len() <= number {
            self.after_rest.resize(number + 1, AfterRest::default());
        }
        self.after_rest[number].operations += 1;
        self.after_rest[number].latency_sum_ns += times.back_ns - times.called_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Window;

    fn in_phase() -> Shared {
        let shared = Shared::default();
        shared.begin(Turns::Always { open_ns: 100, close_ns: 200 }, &[]);
        shared
    }

    #[test]
    fn operations_count_where_they_begin() {
        let (shared, worker) = (in_phase(), Worker::new(1));
        let note = |before_ns, called_ns, back_ns| {
            shared.note(&worker, 0, &Times { intended_ns: called_ns, before_ns, called_ns, back_ns });
        };
        note(80, 90, 150);
        note(150, 170, 230);
        note(230, 240, 250);
        let seen = lock(&worker.seen);
        assert_eq!((seen.operations, seen.latency_sum_ns, seen.turnaround_sum_ns), (1, 60, 20));
    }

    /// What waits for an earlier request is queued; what the client itself loses is no latency.
    #[test]
    fn the_clients_own_lateness_is_no_latency() {
        let (shared, worker) = (in_phase(), Worker::new(1));
        // Idle when it was due: late by 9.
        shared.note(&worker, 0, &Times { intended_ns: 101, before_ns: 95, called_ns: 110, back_ns: 130 });
        // Busy when it was due: queued for 20, and late by 2 after that.
        shared.note(&worker, 0, &Times { intended_ns: 110, before_ns: 130, called_ns: 132, back_ns: 150 });
        let seen = lock(&worker.seen);
        assert_eq!((seen.latency_sum_ns, seen.queued_sum_ns, seen.lateness_sum_ns), (20 + 18, 20, 9 + 2));
        assert_eq!((seen.histogram.min(), seen.histogram.max()), (20, 38));
    }

    /// An operation belongs to the window in which it was made, and none is made to count before its counted part.
    #[test]
    fn windows_are_told_apart() {
        let (shared, worker) = (Shared::default(), Arc::new(Worker::new(2)));
        let window = |open_ns, from_ns, close_ns| Window { open_ns, from_ns, close_ns };
        shared.begin(Turns::Windows(vec![window(100, 120, 200), window(300, 300, 400)]), &[]);
        let note = |connection, called_ns, back_ns| {
            shared.note(&worker, connection, &Times { intended_ns: called_ns, before_ns: 0, called_ns, back_ns });
        };
        // Skipped; counted; begun before another window's and ended after; beside all; in the second.
        [(0, 110, 130), (0, 130, 140), (1, 310, 350), (0, 190, 360), (0, 200, 370), (0, 399, 450)]
            .into_iter()
            .for_each(|(connection, called_ns, back_ns)| note(connection, called_ns, back_ns));
        let Reply::Phase(report) = shared.report(std::slice::from_ref(&worker), 1) else { panic!("no report") };
        let seen = |operations, latency_sum_ns| WindowSeen { operations, latency_sum_ns, work_ns: [0; 2] };
        // Three of the first connection in the first window; one of each in the second.
        let after_rest: Vec<(u64, u64)> =
            report.after_rest.iter().map(|seen| (seen.operations, seen.latency_sum_ns)).collect();
        assert_eq!(after_rest, [(3, 20 + 40 + 51), (1, 10), (1, 170)]);
        assert_eq!(report.windows, [seen(2, 10 + 170), seen(2, 40 + 51)]);
        assert_eq!((report.operations, report.latency_sum_ns), (4, 271));
        shared.begin(Turns::Windows(Vec::new()), &[]);
        let Reply::Phase(report) = shared.report(&[worker], 1) else { panic!("no report") };
        assert_eq!((report.operations, report.windows), (0, Vec::new()));
    }

    #[test]
    fn what_is_under_way_has_its_age() {
        let (shared, worker) = (in_phase(), Arc::new(Worker::new(3)));
        worker.calls(0, 150);
        worker.calls(1, 250);
        let Reply::Phase(report) = shared.report(std::slice::from_ref(&worker), 1) else { panic!("no report") };
        assert_eq!((report.operations, report.unfinished), (0, 1));
        assert!(report.unfinished_sum_ns > 1_000_000, "the clock is far beyond the phase");
        shared.note(&worker, 0, &Times { intended_ns: 150, before_ns: 140, called_ns: 150, back_ns: 900 });
        let Reply::Phase(report) = shared.report(&[worker], 1) else { panic!("no report") };
        assert_eq!(report.begun(), (1, 750));
    }
}
