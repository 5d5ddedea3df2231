//! One phase after another on a client at work.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use profiler_common::{Control, Counter, ON, PARTS, STACKS, TOTALS};
use workloads::{clock::now_ns, protocol::PhaseReport};

use super::{
    client::Client,
    parties::{Parties, Roles},
    raw::RawPhase,
};
use crate::{
    counts::{Costs, Matched, Phase, PhaseKind},
    engine::vm::Agent,
    error::{Error, Result},
    interrupt,
    probes::{Attached, Drain, Labels, Loaded, Names, RawEvent, RawRecord, Totals, floor},
    process,
    sampling::{self, RawSampled, Sampling},
};

/// Requests are followed at least this long before anything is recorded, and until every connection's token was seen.
const LEAD_IN: Duration = Duration::from_millis(20);
/// A token that was not seen by then is missing for good: that shows in the conservation.
const LONGEST_LEAD_IN: Duration = Duration::from_secs(2);
/// Long enough for the client to hear of a phase before it begins; twice as long with every try.
const ANNOUNCEMENT: Duration = Duration::from_millis(5);
/// How often it is looked after a phase whether what began in it has ended; the probes go on until then.
const LEAD_OUT: Duration = Duration::from_millis(2);
/// How long what began in a phase may go on after it. What still waits then counts with its age so far.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A phase in which nothing began, because all connections waited, is measured again, for so many times the longest
/// wait that was seen.
const WAITS_IN_A_PHASE: u32 = 4;
/// How often a phase is tried of which the client hears too late.
const TRIES: u32 = 7;
/// Runs that make the statistics' floor.
const FLOOR_RUNS: u64 = 100;
const COST_FLOORS: u32 = 20;
const COST_FLOOR: Duration = Duration::from_millis(20);
const COST_RUN: Duration = Duration::from_millis(60);
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
    epoch: u32,
    record_every: u32,
    wait_every: u32,
    attached: Duration,
    /// Shortest phase in which something is expected to begin.
    shortest: Duration,
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
            epoch: 0,
            record_every: 0,
            wait_every: 1,
            attached: Duration::ZERO,
            shortest: Duration::ZERO,
        }
    }

    /// Requests are followed in the server's machine as well.
    #[must_use]
    pub fn with_agent(mut self, agent: Option<&'a mut Agent>) -> Self {
        self.agent = agent;
        self
    }

    /// Sets how many requests go between two records, and about how many waits between two that leave their stacks,
    /// from the rate of the operations.
    pub fn aim_at(&mut self, records_per_s: f64, operations_per_s: f64) {
        // Client and server may wait once an operation each.
        self.wait_every = (2.0 * operations_per_s / WAITS_PER_S).ceil().clamp(1.0, 1e9) as u32;
        self.record_every =
            if records_per_s > 0.0 { (operations_per_s / records_per_s).ceil().clamp(1.0, 1e9) as u32 } else { 0 };
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
    fn window(&mut self, length: Duration, tried: u32) -> Result<(u64, u64)> {
        if let Some(agent) = self.agent.as_mut().filter(|_| self.parties.inside_out) {
            let blind = |agent: &Agent| Error::workload("operations in the machine cannot be seen", agent.state());
            self.shift_ns = agent.clock_shift_ns().ok_or_else(|| blind(agent))?;
        }
        let open_ns = now_ns() + (ANNOUNCEMENT * (1 << tried)).as_nanos() as u64;
        let close_ns = open_ns + length.as_nanos() as u64;
        self.client.begin_phase(self.to_guest(open_ns), self.to_guest(close_ns))?;
        Ok((open_ns, close_ns))
    }

    /// A time of the host's, by the clock of whoever times operations.
    const fn to_guest(&self, host_ns: u64) -> u64 {
        host_ns.wrapping_add_signed(self.shift_ns)
    }

    /// What the client saw of the last phase, once all that began in it has ended, or has waited for too long.
    fn report(&mut self) -> Result<PhaseReport> {
        let since = Instant::now();
        let mut report = self.client.report()?;
        while report.unfinished > 0 && since.elapsed() < LONGEST_WAIT {
            interrupt::sleep(LEAD_OUT.max(since.elapsed() / 10))?;
            report = self.client.report()?;
        }
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
            let (_, close_ns) = self.window(STALL / 50, 0)?;
            sleep_until(close_ns, || ())?;
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
        in_time(|tried| {
            let length = length.max(self.shortest);
            self.client.prepare(length)?;
            let (open_ns, close_ns) = self.window(length, tried)?;
            sleep_until(close_ns, || ())?;
            let length_ns = length.as_nanos() as u64;
            let client = self.report()?;
            // As if the client had heard of it too late.
            let open_ns = if is_empty(&client) && length < LONGEST_WAIT { 0 } else { open_ns };
            Ok((
                open_ns,
                Phase {
                    kind: PhaseKind::Detached,
                    open_ns,
                    length_ns,
                    client,
                    probes: None,
                    guest: None,
                    account: None,
                },
            ))
        })
    }

    /// A phase with probes attached that return at once.
    ///
    /// # Errors
    /// As [`Measurement::detached`], and if the probes cannot be attached.
    pub fn idle(&mut self, kind: PhaseKind, length: Duration) -> Result<Phase> {
        self.probes.stop();
        let _attached = self.attach(kind)?;
        self.detached(length)
    }
    /// A phase with probes attached.
    ///
    /// # Errors
    /// As [`Measurement::detached`], and if the probes cannot be attached or read.
    pub fn probed(&mut self, kind: PhaseKind, length: Duration) -> Result<RawPhase> {
        log::debug!("step: {} phase of {} ms", kind.name(), length.as_millis());
        in_time(|tried| self.try_probed(kind, length.max(self.shortest), tried))
    }

    fn try_probed(&mut self, kind: PhaseKind, length: Duration, tried: u32) -> Result<(u64, RawPhase)> {
        if self.client.reports_whole_runs() {
            // Its connections are new in every phase, and may lie at old ones' addresses.
            self.probes.forget_sockets();
        }
        // First in the machine: that takes long.
        if let Some(agent) = &mut self.agent {
            agent.begin(kind, self.connections, self.sampling.rate_hz, self.wait_every);
        }
        // Nothing counts while nothing is attached: what is read now is not read on the workload's time.
        let before = self.probes.totals()?;
        // In this order: a run of its own is to be under the probes as a whole.
        let attached_at = Instant::now();
        let attached = self.attach(kind)?;
        self.client.prepare(length)?;
        let roles = self.follow(kind)?;
        let (open_ns, close_ns) = self.window(length, tried)?;
        self.probes.record(open_ns, close_ns);
        if let Some(agent) = &mut self.agent {
            let at_ns = self.parties.inside_out.then(|| open_ns.wrapping_add_signed(self.shift_ns));
            agent.record(open_ns.saturating_sub(now_ns()), at_ns, close_ns - open_ns);
        }
        // Late ourselves: the phase counts as one of which the client heard too late.
        let mut open_ns = if now_ns() < open_ns { open_ns } else { 0 };
        let control = Control { epoch: self.epoch, open_ns, close_ns, ..Control::default() };
        let mut taken = Taken::default();
        let mut cpu_ns = BTreeMap::new();
        let waited = sleep_until(open_ns, || ())
            .and_then(|()| {
                cpu_ns = roles.schedstat_ns();
                sleep_until(close_ns, || taken.take_meanwhile(self.probes))
            })
            .and_then(|()| {
                for (role, ns) in roles.schedstat_ns() {
                    let before = cpu_ns.entry(role).or_default();
                    *before = ns.saturating_sub(*before);
                }
                self.drain(&before, &mut taken)
            });
        // While the processes live.
        let users = if kind == PhaseKind::Sampled && self.client.reports_whole_runs() {
            sampling::UserNames::look_up(taken.events.iter())
        } else {
            sampling::UserNames::default()
        };
        let whole_run = match (&waited, self.client.reports_whole_runs()) {
            (Ok(()), true) => Some(self.client.report()),
            _ => None,
        };
        let until_ns = now_ns();
        self.probes.stop();
        drop(attached);
        let mut guest = self.agent.as_mut().filter(|_| waited.is_ok()).and_then(|agent| agent.end());
        if let Some(guest) = &mut guest {
            let of_guest = std::mem::take(&mut guest.crossings);
            guest.matched = (!of_guest.is_empty()).then(|| Matched::of(&self.probes.crossings(&control), &of_guest));
        }
        self.attached += attached_at.elapsed();
        waited?;
        taken.take(self.probes);
        if taken.unreadable > 0 {
            log::warn!("{} records could not be read", taken.unreadable);
        }
        let Taken { mut records, mut events, .. } = taken;
        records.retain(|record| record.epoch == self.epoch);
        events.retain(|event| event.head.epoch == self.epoch);
        let labels = self.probes.labels(self.names);
        let counts = self.probes.counts_since(&before, &labels, &control, until_ns)?;
        let length_ns = length.as_nanos() as u64;
        let sampled = (kind == PhaseKind::Sampled).then(|| RawSampled {
            events,
            users,
            operations: match &guest {
                Some(guest) if self.parties.inside_out => guest.probes.counter(Counter::Operations),
                _ => counts.counter(Counter::Operations),
            },
            length_ns,
            schedstat_ns: cpu_ns,
            states: counts.states.clone(),
            noted: (counts.counter(Counter::Events), counts.counter(Counter::EventsRingFull)),
        });
        let client = whole_run.unwrap_or_else(|| self.report())?;
        if is_empty(&client) && length < LONGEST_WAIT {
            open_ns = 0;
        }
        let (counts, guest) = if self.parties.inside_out {
            let guest = guest.ok_or_else(|| {
                let state = self.agent.as_ref().map_or_else(|| "no agent".to_owned(), |agent| agent.state());
                Error::workload("operations in the machine cannot be seen", state)
            })?;
            // As late as if the client had been: operations are the guest's.
            open_ns = if guest.late { 0 } else { open_ns };
            let (counts, host) = guest.inside_out(counts);
            (counts, Some(host))
        } else {
            (counts, guest)
        };
        let phase = Phase { kind, open_ns, length_ns, client, probes: Some(counts), guest, account: None };
        Ok((open_ns, RawPhase { phase, records, sampled }))
    }

    /// Goes on until all that began in the phase has ended, or has waited for too long.
    fn drain(&mut self, before: &Totals, taken: &mut Taken) -> Result<()> {
        let (since, mut drain) = (Instant::now(), Drain::default());
        loop {
            interrupt::sleep_with(LEAD_OUT.max(since.elapsed() / 10), || taken.take_meanwhile(self.probes))?;
            if drain.is_over(self.probes, before, self.epoch)? || since.elapsed() > LONGEST_WAIT {
                return Ok(());
            }
        }
    }

    /// Attaches what a kind of phase needs.
    fn attach(&mut self, kind: PhaseKind) -> Result<Vec<Attached>> {
        let mut attached = vec![self.probes.attach(kind)?];
        if kind == PhaseKind::Sampled {
            attached.push(self.probes.attach_sampler(&self.sampling.cpus, self.sampling.rate_hz)?);
        }
        Ok(attached)
    }

    /// Begins to follow requests, and waits until every connection's token has been seen. Returns whose processes are
    /// followed: children may have come since the phase before, in which nobody looked.
    fn follow(&mut self, kind: PhaseKind) -> Result<Roles> {
        self.parties.client = self.client.pid();
        let roles = self.parties.roles();
        self.probes.follow(roles.iter())?;
        self.epoch += 1;
        let mode = match kind {
            PhaseKind::Detailed => PARTS,
            PhaseKind::Sampled => STACKS,
            PhaseKind::Detached | PhaseKind::Traced => TOTALS,
        };
        self.probes.control(Control {
            state: ON,
            epoch: self.epoch,
            open_ns: u64::MAX,
            close_ns: u64::MAX,
            // Requests of sampled phases are disturbed more than a record should be; what a machine's process does is
            // none.
            record_every: if mode == STACKS || self.parties.inside_out { 0 } else { self.record_every },
            mode,
            wait_every: if mode == STACKS { self.wait_every } else { 0 },
            proxy_port: self.parties.proxy.map_or(0, |_| u32::from(self.parties.port)),
            boundary_ifindex: self.parties.boundary.map_or(0, |boundary| boundary.ifindex),
            boundary_namespace: self.parties.boundary.map_or(0, |boundary| boundary.namespace),
            inside_port: 0,
            reserved: 0,
        });
        let start = Instant::now();
        loop {
            interrupt::sleep(LEAD_IN)?;
            // The token of a socket that is not known yet would be lost at its delivery.
            let connections = self.connections as usize;
            if self.parties.inside_out {
                // The agent has seen all that begin.
                return Ok(roles);
            }
            let all_seen = self.probes.tokens_seen(self.epoch) >= connections
                && self.probes.sockets_seen(self.epoch) >= connections;
            if all_seen || start.elapsed() > LONGEST_LEAD_IN {
                return Ok(roles);
            }
        }
    }

    /// What each probe of a kind of phase costs and how often it runs, by the kernel's statistics: first with the
    /// probes told to do nothing, for the statistics' own cost, then at work.
    ///
    /// # Errors
    /// As [`Measurement::probed`].
    pub fn costs(&mut self, kind: PhaseKind, dispatch_ns: f64) -> Result<Costs> {
        log::debug!("step: costs of the probes");
        in_time(|tried| self.try_costs(kind, dispatch_ns, tried)).map(|timed| timed.costs)
    }

    /// The same of the agent's, in the guest; `None`: there is none.
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

    fn try_costs(&mut self, kind: PhaseKind, dispatch_ns: f64, tried: u32) -> Result<(u64, TimedCosts)> {
        if self.client.reports_whole_runs() {
            self.probes.forget_sockets();
        }
        let attached = self.probes.attach(kind)?;
        self.client.prepare(COST_FLOOR * COST_FLOORS + LEAD_IN + COST_RUN.max(self.shortest))?;
        let _statistics = Loaded::keep_run_times()?;
        let start = self.probes.run_times(kind);
        let mut idle = start.clone();
        for _ in 0..COST_FLOORS {
            interrupt::sleep(COST_FLOOR)?;
            idle = self.probes.run_times(kind);
            if floor(&start, &idle).0 >= FLOOR_RUNS {
                break;
            }
        }
        self.follow(kind)?;
        let (open_ns, close_ns) = self.window(COST_RUN.max(self.shortest), tried)?;
        self.probes.record(open_ns, close_ns);
        sleep_until(open_ns, || ())?;
        let opened = self.probes.run_times(kind);
        sleep_until(close_ns, || ())?;
        let closed = self.probes.run_times(kind);
        self.probes.stop();
        drop(attached);
        let report = self.report()?;
        // A phase in which nothing ended tells nothing of the costs of an operation: as if the client had heard of it
        // too late.
        let heard_ns = if report.operations == 0 { u64::MAX } else { report.heard_ns };
        let (_, floor_ns) = floor(&start, &idle);
        let probes = self.probes.costs(kind, &[opened, closed], report.operations, floor_ns);
        Ok((open_ns, TimedCosts { costs: Costs { probes, dispatch_ns, floor_ns }, heard_ns }))
    }
}

/// Costs, and when the client heard of the phase that they are from.
struct TimedCosts {
    costs: Costs,
    heard_ns: u64,
}
impl Reported for TimedCosts {
    fn heard_ns(&self) -> u64 {
        self.heard_ns
    }
}

/// Whether no operation began in a phase: all connections waited, from end to end, for what had begun before.
const fn is_empty(report: &PhaseReport) -> bool {
    report.operations == 0 && report.unfinished == 0 && !report.whole_run && !report.asked_around
}

/// What came through the ring buffers.
#[derive(Default)]
struct Taken {
    records: Vec<RawRecord>,
    events: Vec<RawEvent>,
    unreadable: u64,
}
impl Taken {
    fn take_meanwhile(&mut self, probes: &mut Loaded) {
        if probes.reads_meanwhile() {
            self.take(probes);
        }
    }

    fn take(&mut self, probes: &mut Loaded) {
        self.unreadable += probes.take_records(&mut self.records);
        self.unreadable += probes.take_events(&mut self.events);
        probes.show_faults();
    }
}

/// Something of which the client's report is a part.
trait Reported {
    fn heard_ns(&self) -> u64;
}
impl Reported for Phase {
    fn heard_ns(&self) -> u64 {
        self.client.heard_ns
    }
}
impl Reported for RawPhase {
    fn heard_ns(&self) -> u64 {
        self.phase.client.heard_ns
    }
}

/// A phase that the client heard of too late lacks its beginning: it is measured again.
fn in_time<T: Reported>(mut phase: impl FnMut(u32) -> Result<(u64, T)>) -> Result<T> {
    for tried in 0..TRIES {
        let (open_ns, done) = phase(tried)?;
        if done.heard_ns() < open_ns {
            return Ok(done);
        }
    }
    Err(Error::workload(
        "the client, or the guest's agent, is too late for its phases",
        format!("{TRIES} times in a row"),
    ))
}

fn sleep_until(at_ns: u64, meanwhile: impl FnMut()) -> Result<()> {
    interrupt::sleep_with(Duration::from_nanos(at_ns.saturating_sub(now_ns())), meanwhile)
}
