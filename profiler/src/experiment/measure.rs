//! One phase after another on a client at work.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use profiler_common::Counter;
use workloads::{clock::now_ns, protocol::PhaseReport};

use super::{
    client::Client,
    parties::{Parties, Roles},
    raw::RawPhase,
};
use crate::{
    counts::{Costs, Matched, OtherSide, Phase, PhaseKind, Role, Side},
    engine::{Server, vm::Agent},
    error::{Error, Result},
    interrupt,
    probes::{
        Closed, ConfigurationId, Expected, Following, LEAD_IN, LEAD_OUT, Labels, Loaded, Names, Notes, Open, RawEvent,
        RawRecord, Ready, Sampler, Window,
    },
    process,
    sampling::{self, RawSampled, Sampling},
};

/// How long before its start a phase is announced to the client: at first, and twice as long with each time that this
/// was too late.
pub(super) const ANNOUNCEMENT: Duration = Duration::from_millis(5);
pub(super) const LONGEST_ANNOUNCEMENT: Duration = Duration::from_millis(640);
/// How long what began in a phase may go on after it. What still waits then counts with its age so far.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A phase in which nothing began, because all connections waited, is measured again, for so many times the longest
/// wait that was seen.
const WAITS_IN_A_PHASE: u32 = 4;
/// A phase is at least so many times as long as what a client that only counts on counts around it: at the rate that
/// it has there, which may be another one.
const TIMES_WHAT_IS_AROUND: u32 = 10;
/// The longest phase for that reason.
const LONGEST_FOR_COUNTS: Duration = Duration::from_secs(2);
/// How often a phase is tried that does not fit.
pub(super) const TRIES: u32 = 8;
/// How long, and how often, it is waited for the statistics' floor; and how long for the costs.
pub(super) const COST_FLOORS: u32 = 20;
pub(super) const COST_FLOOR: Duration = Duration::from_millis(20);
pub(super) const COST_RUN: Duration = Duration::from_millis(60);
/// What the agent's own takes, more or less: attaching is most of it.
const GUEST_COSTS: Duration = Duration::from_secs(3);

/// How long no operation may end.
const STALL: Duration = LONGEST_WAIT;

/// Waits per second that leave their stacks in sampled phases.
const WAITS_PER_S: f64 = 1000.0;

/// Measures phases, with the probes of one repetition.
pub struct Measurement<'a> {
    /// The probes, loaded and told whom to follow.
    pub probes: &'a mut Loaded,
    /// The client at work.
    pub client: &'a mut dyn Client,
    /// Labels of devices.
    pub names: &'a Names,
    /// Whose processes are followed.
    pub parties: Parties,
    sampling: Sampling,
    agent: Option<&'a mut Agent>,
    /// What is to be added to the host's clock for that of whoever times operations.
    shift_ns: i64,
    connections: u32,
    record_every: u32,
    wait_every: u32,
    attached: Duration,
    /// Shortest phase in which something is expected to begin, or to be counted well enough.
    shortest: Duration,
    announcement: Duration,
}

/// Whether a phase holds what it is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Fits,
    /// Someone heard of it after it had begun.
    Late,
    /// Nothing began in it, or too little for how its client counts.
    Short,
}

impl<'a> Measurement<'a> {
    /// Nothing is attached yet.
    pub fn new(
        probes: &'a mut Loaded,
        client: &'a mut dyn Client,
        names: &'a Names,
        parties: Parties,
        connections: u32,
        sampling: &Sampling,
    ) -> Self {
        let sampling = sampling.clone();
        Self {
            probes,
            client,
            names,
            parties,
            sampling,
            agent: None,
            shift_ns: 0,
            connections,
            record_every: 0,
            wait_every: 1,
            attached: Duration::ZERO,
            shortest: Duration::ZERO,
            announcement: ANNOUNCEMENT,
        }
    }

    /// Requests are followed in the server's VM as well.
    #[must_use]
    pub fn with_agent(mut self, agent: Option<&'a mut Agent>) -> Self {
        self.agent = agent;
        self
    }

    /// Sets how many requests go between two records, and about how many waits between two that leave their stacks,
    /// from the rate of the operations.
    pub fn aim_at(&mut self, records_per_s: f64, operations_per_s: f64) {
        Notes { record_every: self.record_every, wait_every: self.wait_every } = notes(records_per_s, operations_per_s);
    }

    /// How long any probes of phases have been attached so far.
    #[must_use]
    pub const fn attached(&self) -> Duration {
        self.attached
    }

    /// Labels of the devices that the probes have met.
    #[must_use]
    pub fn labels(&self) -> Labels {
        self.probes.labels(self.names)
    }

    /// Announces an interval to the client.
    fn window(&mut self, length: Duration) -> Result<Window> {
        if let Some(agent) = self.agent.as_mut().filter(|_| self.parties.primary == Side::Guest) {
            let shift_ns = agent.clock_shift_ns();
            self.shift_ns = shift_ns.ok_or_else(|| self.blind())?;
        }
        let open_ns = now_ns() + self.announcement.as_nanos() as u64;
        let close_ns = open_ns + length.as_nanos() as u64;
        self.client.begin_phase(self.to_guest(open_ns), self.to_guest(close_ns))?;
        Ok(Window { configuration: ConfigurationId::FIRST, open_ns, close_ns })
    }

    /// A time of the host's, by the clock of whoever times operations.
    const fn to_guest(&self, host_ns: u64) -> u64 {
        host_ns.wrapping_add_signed(self.shift_ns)
    }

    /// What the client saw of the last phase, once all that began in it has ended, or has waited for too long.
    fn report(&mut self) -> Result<PhaseReport> {
        let mut report = whole_report(self.client)?;
        report.heard_ns = report.heard_ns.wrapping_sub(self.shift_ns as u64);
        if report.operations == 0 && report.unfinished > 0 {
            return Err(self.hangs());
        }
        if is_empty(&report) {
            let waited = self.wait_for_progress()?;
            self.shortest = (waited * WAITS_IN_A_PHASE).clamp(self.shortest, LONGEST_WAIT);
        }
        Ok(report)
    }

    /// Whether a phase holds what it is to hold; if it is too short, the next one is longer.
    fn fit(&mut self, report: &PhaseReport, window: &Window) -> Fit {
        let (length, around) = (Duration::from_nanos(window.length_ns()), Duration::from_nanos(report.around_ns));
        if report.heard_ns >= window.open_ns {
            Fit::Late
        } else if is_empty(report) && length < LONGEST_WAIT {
            Fit::Short
        } else if around * TIMES_WHAT_IS_AROUND > length && length < LONGEST_FOR_COUNTS {
            // Somewhat longer than would just do: what is around is not always the same.
            self.shortest = (around * TIMES_WHAT_IS_AROUND * 3 / 2).min(LONGEST_FOR_COUNTS).max(self.shortest);
            Fit::Short
        } else {
            Fit::Fits
        }
    }

    /// Measures a phase again until it fits.
    fn until_it_fits<T>(&mut self, mut phase: impl FnMut(&mut Self) -> Result<(Fit, T)>) -> Result<T> {
        let mut why = "";
        for _ in 0..TRIES {
            why = match phase(self)? {
                (Fit::Fits, done) => return Ok(done),
                (Fit::Late, _) => {
                    self.announcement = (self.announcement * 2).min(LONGEST_ANNOUNCEMENT);
                    "the client, or the guest's agent, is too late for its phases"
                }
                (Fit::Short, _) => "the client completes too little in a phase to be measured",
            };
        }
        Err(Error::workload(why, format!("{TRIES} times in a row")))
    }

    fn hangs(&self) -> Error {
        Error::workload(
            format!("no operation ended within {} s", STALL.as_secs()),
            format!(
                "the server {}, the client {}",
                process::doing(self.parties.server),
                process::doing(self.parties.client)
            ),
        )
    }

    /// All connections waited through a whole phase, for retransmissions, perhaps: how long they still did. If it
    /// goes on, something hangs.
    fn wait_for_progress(&mut self) -> Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < STALL {
            let window = self.window(STALL / 50)?;
            sleep_until(window.close_ns, || ())?;
            if !is_empty(&self.client.report()?) {
                return Ok(start.elapsed());
            }
        }
        Err(self.hangs())
    }

    /// A phase with nothing attached.
    ///
    /// # Errors
    /// If the client fails, or the user interrupts.
    pub fn detached(&mut self, length: Duration) -> Result<Phase> {
        log::debug!("step: detached phase of {} ms", length.as_millis());
        self.until_it_fits(|measurement| {
            let length = length.max(measurement.shortest);
            measurement.client.prepare(length)?;
            let window = measurement.window(length)?;
            sleep_until(window.close_ns, || ())?;
            let client = measurement.report()?;
            let fit = measurement.fit(&client, &window);
            let (open_ns, length_ns) = (window.open_ns, window.length_ns());
            let kind = PhaseKind::Detached;
            let windows = Vec::new();
            Ok((fit, Phase { kind, open_ns, length_ns, client, probes: None, guest: None, account: None, windows }))
        })
    }

    /// A phase with probes attached that return at once.
    ///
    /// # Errors
    /// As [`Measurement::detached`], and if the probes cannot be attached.
    pub fn idle(&mut self, kind: PhaseKind, length: Duration) -> Result<Phase> {
        let _ready = self.attach(kind)?;
        self.detached(length)
    }
    /// A phase with probes attached.
    ///
    /// # Errors
    /// As [`Measurement::detached`], and if the probes cannot be attached or read.
    pub fn probed(&mut self, kind: PhaseKind, length: Duration) -> Result<RawPhase> {
        log::debug!("step: {} phase of {} ms", kind.name(), length.as_millis());
        self.until_it_fits(|measurement| measurement.try_probed(kind, length.max(measurement.shortest)))
    }

    fn try_probed(&mut self, kind: PhaseKind, length: Duration) -> Result<(Fit, RawPhase)> {
        if self.client.reports_whole_runs() {
            // Its connections are new in every phase, and may lie at old ones' addresses.
            self.probes.forget_sockets();
        }
        // First in the guest: that takes long.
        if let Some(agent) = &mut self.agent {
            agent.begin(kind, self.connections, self.sampling.rate_hz, self.wait_every);
        }
        let attached_at = Instant::now();
        let ready = self.attach(kind)?;
        // In this order: a run of its own is to be under the probes as a whole.
        self.client.prepare(length)?;
        let (following, roles) = self.follow(ready)?;
        let window = self.window(length)?;
        let open = following.open(self.probes, window);
        if let Some(agent) = &mut self.agent {
            let is_primary = self.parties.primary == Side::Guest;
            let at_ns = is_primary.then(|| window.open_ns.wrapping_add_signed(self.shift_ns));
            agent.record(window.open_ns.saturating_sub(now_ns()), at_ns, window.length_ns());
        }
        let mut taken = Taken::default();
        let waited = self.wait(&open, &roles, &mut taken);
        // While the processes live.
        let users = if kind == PhaseKind::Sampled && self.client.reports_whole_runs() {
            sampling::UserNames::look_up(taken.events.iter())
        } else {
            sampling::UserNames::default()
        };
        // While the probes are at work: what is counted around the phase is counted under them, too.
        let waited = waited.and_then(|schedstat_ns| Ok((schedstat_ns, self.report()?)));
        let closed = open.close(self.probes);
        let guest = self.end_in_guest(&closed, waited.is_ok());
        self.attached += attached_at.elapsed();
        let (schedstat_ns, client) = waited?;
        taken.finish(self.probes, &closed);
        let counts = closed.first_counts(self.probes, &self.probes.labels(self.names))?;
        let Taken { records, events, .. } = taken;
        let length_ns = window.length_ns();
        let mut sampled = (kind == PhaseKind::Sampled).then(|| RawSampled {
            users,
            schedstat_ns,
            ..RawSampled::new(&counts, events, length_ns)
        });
        let mut fit = if closed.is_late() { Fit::Late } else { self.fit(&client, &window) };
        let (counts, guest) = if self.parties.primary == Side::Guest {
            let guest = guest.ok_or_else(|| self.blind())?;
            // Operations are the guest's.
            fit = if guest.late { Fit::Late } else { fit };
            let operations = guest.probes.counter(Counter::Operations);
            sampled.iter_mut().for_each(|sampled| sampled.operations = operations);
            let (counts, host) = guest.into_primary(counts);
            (counts, Some(host))
        } else {
            (counts, guest)
        };
        let open_ns = window.open_ns;
        let (probes, windows) = (Some(counts), Vec::new());
        let phase = Phase { kind, open_ns, length_ns, client, probes, guest, account: None, windows };
        Ok((fit, RawPhase { phase, records, sampled }))
    }

    /// Waits until the window is over, and all that began in it has ended, or has waited for too long. Returns the
    /// roles' CPU time within the window, by the scheduler's account, ns.
    fn wait(&mut self, open: &Open, roles: &Roles, taken: &mut Taken) -> Result<BTreeMap<Role, u64>> {
        let Window { open_ns, close_ns, .. } = open.window();
        sleep_until(open_ns, || ())?;
        let mut cpu_ns = roles.schedstat_ns();
        sleep_until(close_ns, || taken.take_meanwhile(self.probes))?;
        for (role, ns) in roles.schedstat_ns() {
            let before = cpu_ns.entry(role).or_default();
            *before = ns.saturating_sub(*before);
        }
        open.drain(self.probes, LONGEST_WAIT, |probes| taken.take_meanwhile(probes))?;
        Ok(cpu_ns)
    }

    /// What the guest's agent counted; requests that both sides saw are put together.
    fn end_in_guest(&mut self, closed: &Closed, is_whole: bool) -> Option<OtherSide> {
        let mut guest = self.agent.as_mut().filter(|_| is_whole)?.end()?;
        let of_guest = std::mem::take(&mut guest.crossings);
        guest.matched = (!of_guest.is_empty()).then(|| Matched::of(&closed.crossings(self.probes), &of_guest));
        Some(guest)
    }

    fn blind(&self) -> Error {
        let state = self.agent.as_ref().map_or_else(|| "no agent".to_owned(), |agent| agent.state());
        Error::workload("operations in the machine cannot be seen", state)
    }

    /// Attaches what a kind of phase needs.
    fn attach(&mut self, kind: PhaseKind) -> Result<Ready> {
        let sampler = Sampler { cpus: &self.sampling.cpus, rate_hz: self.sampling.rate_hz };
        Ready::attach(self.probes, kind, sampler)
    }

    /// Begins to follow requests, and waits until every connection's token has been seen. Returns whose processes are
    /// followed, too: children may have come since the phase before, in which nobody looked.
    fn follow(&mut self, ready: Ready) -> Result<(Following, Roles)> {
        self.parties.client = self.client.pid();
        let roles = self.parties.roles();
        let (record_every, expected) = match self.parties.primary {
            Side::Host => (self.record_every, Expected::Connections(self.connections)),
            // The agent has seen all that begin; what a VM's process does has no records.
            Side::Guest => (0, Expected::Nothing),
        };
        let notes = Notes { record_every, wait_every: self.wait_every };
        let following = ready.follow(self.probes, self.parties.followed(&roles).into(), notes)?;
        following.lead_in(self.probes, expected)?;
        Ok((following, roles))
    }

    /// What each probe of a kind of phase costs and how often it runs, by the kernel's statistics: first with the
    /// probes told to do nothing, for the statistics' own cost, then at work.
    ///
    /// # Errors
    /// As [`Measurement::probed`].
    pub fn costs(&mut self, kind: PhaseKind, dispatch_ns: f64) -> Result<Costs> {
        log::debug!("step: costs of the probes");
        self.until_it_fits(|measurement| measurement.try_costs(kind, dispatch_ns))
    }

    /// Costs of the agent's probes, in the guest; `None`: there is none.
    ///
    /// # Errors
    /// If the client fails.
    pub fn guest_costs(&mut self) -> Result<Option<Costs>> {
        if self.agent.is_none() {
            return Ok(None);
        }
        log::debug!("step: costs of the probes in the guest");
        self.client.prepare(GUEST_COSTS)?;
        Ok(self.agent.as_mut().and_then(|agent| agent.costs(self.connections)))
    }

    fn try_costs(&mut self, kind: PhaseKind, dispatch_ns: f64) -> Result<(Fit, Costs)> {
        if self.client.reports_whole_runs() {
            self.probes.forget_sockets();
        }
        let ready = self.attach(kind)?;
        self.client.prepare(COST_FLOOR * COST_FLOORS + LEAD_IN + COST_RUN.max(self.shortest))?;
        let _statistics = Loaded::keep_run_times()?;
        let (_, floor_ns) = self.probes.statistics_floor(kind, COST_FLOOR, COST_FLOORS)?;
        let (following, _) = self.follow(ready)?;
        let window = self.window(COST_RUN.max(self.shortest))?;
        let open = following.open(self.probes, window);
        sleep_until(window.open_ns, || ())?;
        let opened = self.probes.run_times(kind);
        sleep_until(window.close_ns, || ())?;
        let ended = self.probes.run_times(kind);
        let report = self.report();
        let _ = open.close(self.probes);
        let report = report?;
        let fit = self.fit(&report, &window);
        // A phase in which nothing ended tells nothing of the costs of an operation.
        let fit = if report.operations == 0 && fit == Fit::Fits { Fit::Short } else { fit };
        let probes = self.probes.costs(kind, &[[opened, ended]], report.operations, floor_ns);
        Ok((fit, Costs { probes, dispatch_ns, floor_ns }))
    }
}

/// How many requests go between two records, and about how many waits between two that leave their stacks, at this rate
/// of operations.
pub(super) fn notes(records_per_s: f64, operations_per_s: f64) -> Notes {
    // A prime, so that it is in step with nothing that happens to one request in so many.
    let one_in = |every: f64| next_prime(every.ceil().clamp(1.0, 1e9) as u32);
    Notes {
        record_every: if records_per_s > 0.0 { one_in(operations_per_s / records_per_s) } else { 0 },
        // Client and server may wait once an operation each.
        wait_every: one_in(2.0 * operations_per_s / WAITS_PER_S),
    }
}

/// An error of a configuration's, or why its server has ended, if that is behind it: sockets are closed before their
/// process is gone.
pub(super) fn blamed(server: &mut dyn Server, configuration: &str, error: Error) -> Error {
    const LOOKS: u32 = 50;
    // Nobody waits for what a signal has ended.
    let looks = if matches!(error, Error::Interrupted) { 1 } else { LOOKS };
    for look in 0..looks {
        if look > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(why) = server.failure() {
            return Error::workload(format!("the server of `{configuration}` failed"), why);
        }
    }
    error
}

/// The smallest prime that is no smaller; 1 stays.
fn next_prime(number: u32) -> u32 {
    let is_prime =
        |number: u32| (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor));
    (number..).find(|number| is_prime(*number)).unwrap_or(number)
}

/// What a client saw of its last phase, once all that began in it has ended, or has waited for too long.
pub(super) fn whole_report(client: &mut dyn Client) -> Result<PhaseReport> {
    let since = Instant::now();
    let mut report = client.report()?;
    while report.unfinished > 0 && since.elapsed() < LONGEST_WAIT {
        interrupt::sleep(LEAD_OUT.max(since.elapsed() / 10))?;
        report = client.report()?;
    }
    Ok(report)
}

/// Whether no operation began in a phase: all connections waited, from end to end, for what had begun before.
const fn is_empty(report: &PhaseReport) -> bool {
    report.operations == 0 && report.unfinished == 0 && !report.whole_run && !report.asked_around
}

/// What came through the ring buffers.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) records: Vec<RawRecord>,
    pub(super) events: Vec<RawEvent>,
    unreadable: u64,
}
impl Taken {
    pub(super) fn take_meanwhile(&mut self, probes: &mut Loaded) {
        if probes.reads_meanwhile() {
            self.take(probes);
        }
    }

    /// The last of a phase; what is of earlier ones goes.
    pub(super) fn finish(&mut self, probes: &mut Loaded, phase: &Closed) {
        self.take(probes);
        if self.unreadable > 0 {
            log::warn!("{} records could not be read", self.unreadable);
        }
        self.records.retain(|record| phase.is_own(record.turn.epoch()));
        self.events.retain(|event| phase.is_own(event.head.epoch));
    }

    fn take(&mut self, probes: &mut Loaded) {
        self.unreadable += probes.take_records(&mut self.records);
        self.unreadable += probes.take_events(&mut self.events);
        probes.show_faults();
    }
}

pub(super) fn sleep_until(at_ns: u64, meanwhile: impl FnMut()) -> Result<()> {
    interrupt::sleep_with(Duration::from_nanos(at_ns.saturating_sub(now_ns())), meanwhile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_in_step_with_nothing() {
        assert_eq!([1, 2, 4, 25, 50, 90].map(next_prime), [1, 2, 5, 29, 53, 97]);
        // 50,000 operations a second, of which 2,000 are to be noted.
        let Notes { record_every, wait_every } = notes(2_000.0, 50_000.0);
        assert_eq!((record_every, wait_every), (29, 101));
        assert_eq!(notes(0.0, 50_000.0).record_every, 0);
    }
}
