//! Configurations that are alive at once, measured in turns: see [`super::windows`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use profiler_common::event;
use rand_pcg::Pcg64;
use workloads::{
    clock::now_ns,
    protocol::{PhaseReport, Window},
};

use super::{
    client::Client,
    measure::{
        ANNOUNCEMENT, COST_FLOOR, COST_FLOORS, COST_RUN, LONGEST_ANNOUNCEMENT, LONGEST_WAIT, TRIES, Taken, blamed,
        notes, sleep_until, whole_report,
    },
    parties::{Parties, Roles},
    quiet::{Accounts, Disturbed, Moment, Work},
    raw::RawPhase,
    windows::{Asked, Group, Lead, Pace, Place, Speed, groups, order, sequence, timeline},
};
use crate::{
    counts::{Costs, Phase, PhaseKind, Role, WindowCounts},
    engine::{Account, Server},
    error::{Error, Result},
    interrupt,
    probes::{
        Block, ConfigurationId, Expected, Following, Labels, Loaded, Names, Notes, Open, RawEvent, RawRecord, Ready,
        Sampler,
    },
    process,
    sampling::{RawSampled, Sampling},
};

/// How long each is asked before anything is measured, at first.
const WARM_UP: Duration = Duration::from_millis(60);
/// How long it is watched whether servers work although nobody asks, and once more where one seems to: it may have been
/// about something that comes once. And the share of a CPU from which on they do.
const QUIET: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];
const RESTLESS: f64 = 0.005;

/// One of the configurations that are alive at once.
pub struct Member {
    /// The configuration's name.
    pub name: String,
    /// Processes of client and server.
    pub parties: Parties,
    /// Labels of what is on its path.
    pub names: Names,
    // Before the server, so ended before it.
    /// The client, which rests while others are asked.
    pub client: Box<dyn Client>,
    /// The server.
    pub server: Box<dyn Server>,
}

impl Member {
    /// Why something of this member's failed: its server, if that has ended.
    fn blamed(&mut self, error: Error) -> Error {
        blamed(self.server.as_mut(), &self.name, error)
    }

    fn ask_in(&mut self, windows: &[Window]) -> Result<()> {
        self.client.ask_in(windows).map_err(|error| self.blamed(error))
    }

    /// What its client saw of its windows.
    fn report(&mut self) -> Result<PhaseReport> {
        let report = whole_report(self.client.as_mut()).map_err(|error| self.blamed(error))?;
        if report.operations == 0 && report.unfinished > 0 {
            let [server, client] = [self.parties.server, self.parties.client].map(process::doing);
            let what = format!("no operation of `{}` ended within {} s", self.name, LONGEST_WAIT.as_secs());
            return Err(self.blamed(Error::workload(what, format!("the server {server}, the client {client}"))));
        }
        Ok(report)
    }
}

/// Whether a phase's windows hold what they are to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Fits,
    /// Someone heard of one after it had begun.
    Late,
    /// Nothing ended in one.
    Short,
    /// The lead-in was too short for all connections to be seen.
    Unseen,
}

/// What windows gave.
struct Answers {
    reports: Vec<PhaseReport>,
    windows: Vec<Asked>,
    fit: Fit,
    /// What the host did meanwhile.
    disturbed: Disturbed,
}

/// The beginning, or the end, of a window's counted part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

/// Who is to be told of windows' edges; without, nobody has to be awake at their beginning.
type AtEdge<'a> = Option<&'a mut dyn FnMut(&Loaded, &Asked, Edge)>;

/// Measures phases of members that are alive at once, with the probes of one round.
pub struct Together<'a> {
    probes: &'a mut Loaded,
    members: &'a mut [Member],
    given: Given<'a>,
    groups: Vec<Group>,
    announcement: Duration,
    notes: Notes,
}

/// How members are measured.
pub struct Given<'a> {
    /// Labels of all that is on their paths.
    pub names: &'a Names,
    /// Members that are compared.
    pub pairs: Vec<[usize; 2]>,
    /// Connections of each member.
    pub connections: u32,
    /// Where and how often stacks are sampled.
    pub sampling: &'a Sampling,
    /// The shortest time of a window that counts.
    pub shortest: Duration,
    /// Source of the order.
    pub random: Pcg64,
    /// Accounts of the host's.
    pub accounts: Accounts,
    /// How long the same work took in the run so far.
    pub work: &'a mut Work,
}

/// Part of a phase's blocks that are measured again at most, because the host disturbed them: one half.
const AGAIN: usize = 2;

impl<'a> Together<'a> {
    /// Asks each for a while, which tells how long windows have to be.
    ///
    /// # Errors
    /// If a client or a server fails.
    pub fn warm_up(probes: &'a mut Loaded, members: &'a mut [Member], given: Given<'a>) -> Result<Self> {
        let pace = Pace { skip: WARM_UP / 2, counted: WARM_UP / 2, gap: Duration::ZERO, lead: Duration::ZERO };
        let groups = vec![Group { members: (0..members.len()).collect(), pace }];
        let (announcement, notes) = (ANNOUNCEMENT, Notes::default());
        let mut together = Self { probes, members, given, groups, announcement, notes };
        let once: Vec<Place> = (0..together.members.len()).map(|member| Place { member, block: 0, group: 0 }).collect();
        let speeds = together.until_it_fits(|together| {
            let counted = together.groups[0].pace.counted;
            let (_, windows) = timeline(&together.groups, together.start_ns(), None, &[counted], &once);
            together.announce(&[], &windows)?;
            sleep_until(windows.last().map_or(0, |last| last.window.close_ns), || ())?;
            let answers = together.answers(windows, 0, &BTreeMap::new())?;
            let speed = |report: &PhaseReport| Speed::of(report, counted, together.given.connections);
            let speeds: Option<Vec<Speed>> = answers.reports.iter().map(speed).collect();
            Ok(speeds.map_or((Fit::Short, Vec::new()), |speeds| (answers.fit, speeds)))
        })?;
        together.set_pace(&speeds);
        Ok(together)
    }

    /// Decides who shares blocks, and how long the windows of each group are.
    fn set_pace(&mut self, speeds: &[Speed]) {
        let cycles_ns: Vec<f64> = speeds.iter().map(|speed| speed.cycle_ns).collect();
        let of_group = |members: Vec<usize>| {
            let pace = Pace::of(members.iter().map(|member| speeds[*member]), self.given.shortest);
            log::debug!("step: the pace of {members:?} is {pace:?}");
            Group { members, pace }
        };
        self.groups = groups(&cycles_ns, &self.given.pairs).into_iter().map(of_group).collect();
    }

    /// Members whose servers work although nobody asks them, and the share of a CPU that they use then.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn restless(&mut self) -> Result<Vec<(usize, f64)>> {
        let servers: Vec<Vec<u32>> = self.members.iter().map(|member| process::family(member.parties.server)).collect();
        let cpu_ns = |pids: &Vec<u32>| pids.iter().map(|pid| process::cpu_ns(*pid)).sum::<u64>();
        let mut found = Vec::new();
        for quiet in QUIET {
            let before: Vec<u64> = servers.iter().map(cpu_ns).collect();
            interrupt::sleep(quiet)?;
            let used = |(pids, before): (&Vec<u32>, &u64)| cpu_ns(pids).saturating_sub(*before) as f64;
            let shares = servers.iter().zip(&before).map(|server| used(server) / quiet.as_nanos() as f64).enumerate();
            found = shares.filter(|(_, share)| *share > RESTLESS).collect();
            if found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// What each member's known cost amounted to so far, where somebody but the client can tell.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn accounts(&mut self) -> Result<Vec<Option<Account>>> {
        self.members.iter_mut().map(|member| member.server.account(member.parties.client)).collect()
    }

    /// Sets how much is noted, from the rate of the operations: the highest of all.
    pub fn aim_at(&mut self, records_per_s: f64, detached: &[Phase]) {
        let rate = |phase: &Phase| phase.client.operations as f64 / (phase.length_ns.max(1) as f64 / 1e9);
        self.notes = notes(records_per_s, detached.iter().map(rate).fold(0.0, f64::max));
    }

    /// Labels of the devices that the probes have met.
    pub fn labels(&self) -> Labels {
        self.probes.labels(self.given.names)
    }

    fn start_ns(&self) -> u64 {
        now_ns() + self.announcement.as_nanos() as u64
    }

    /// Tells every client its windows: none in the first ones counts.
    fn announce(&mut self, lead: &[Asked], windows: &[Asked]) -> Result<()> {
        for (index, member) in self.members.iter_mut().enumerate() {
            let own = lead.iter().chain(windows).filter(|asked| asked.place.member == index);
            member.ask_in(&own.map(|asked| asked.window).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// What the clients saw of windows that are over; of each, so many of a lead-in came before. `moments`: accounts of
    /// the host's before and after blocks.
    fn answers(&mut self, windows: Vec<Asked>, leads: usize, moments: &BTreeMap<u32, [Moment; 2]>) -> Result<Answers> {
        let mut fit = Fit::Fits;
        let mut reports = Vec::with_capacity(self.members.len());
        for (index, member) in self.members.iter_mut().enumerate() {
            let mut report = member.report()?;
            report.windows.drain(..leads.min(report.windows.len()));
            let own = || windows.iter().filter(|asked| asked.place.member == index);
            if report.windows.len() != own().count() {
                let why = format!("it reports {} windows of {}", report.windows.len(), own().count());
                return Err(Error::workload("the client does not follow the protocol", why));
            }
            if own().next().is_some_and(|first| report.heard_ns >= first.window.open_ns) {
                fit = Fit::Late;
            } else if report.windows.iter().any(|window| window.operations == 0) && fit == Fit::Fits {
                fit = Fit::Short;
            }
            reports.push(report);
        }
        let disturbed = self.given.work.disturbed(&windows, &reports, moments);
        Ok(Answers { reports, windows, fit, disturbed })
    }

    /// Measures again until it fits.
    fn until_it_fits<T>(&mut self, mut phase: impl FnMut(&mut Self) -> Result<(Fit, T)>) -> Result<T> {
        let mut why = "";
        for _ in 0..TRIES {
            why = match phase(self)? {
                (Fit::Fits, done) => return Ok(done),
                (Fit::Late, _) => {
                    self.announcement = (self.announcement * 2).min(LONGEST_ANNOUNCEMENT);
                    log::debug!("step: too late, again");
                    "virtax, or a client, is too late for its windows"
                }
                (Fit::Short, _) => {
                    self.groups.iter_mut().for_each(|group| group.pace.stretch());
                    log::debug!("step: too short, again with {:?}", self.groups);
                    "a client completes too little in a window to be measured"
                }
                (Fit::Unseen, _) => {
                    self.groups.iter_mut().for_each(|group| group.pace.lead *= 2);
                    log::debug!("step: not all connections were seen, again with {:?}", self.groups);
                    "not all connections were at work before the first window"
                }
            };
        }
        Err(Error::workload(why, format!("{TRIES} times in a row")))
    }

    /// A phase with nothing attached, of so much counted time for each member, in the members' order; and others, of as
    /// many blocks as the host disturbed.
    ///
    /// # Errors
    /// If a client or a server fails, or the user interrupts.
    pub fn detached(&mut self, length: Duration) -> Result<Vec<Vec<Phase>>> {
        log::debug!("step: detached phase of {} ms each", length.as_millis());
        let (mut sequence, counted) = self.sequence(length);
        let mut spare = sequence.len() / AGAIN;
        let mut done = Vec::new();
        loop {
            let answers = self.ask_detached(&sequence, &counted)?;
            done.push(answers.phases(PhaseKind::Detached));
            let again = answers.disturbed.blocks.iter().map(|block| sequence[*block as usize]);
            let again: Vec<usize> = again.take(spare).collect();
            if again.is_empty() {
                return Ok(done);
            }
            log::debug!("step: {} of {} blocks were disturbed", answers.disturbed.blocks.len(), sequence.len());
            spare -= again.len();
            sequence = again;
        }
    }

    fn ask_detached(&mut self, sequence: &[usize], counted: &[Duration]) -> Result<Answers> {
        self.until_it_fits(|together| {
            let order = order(&together.groups, sequence, &mut together.given.random);
            let (_, windows) = timeline(&together.groups, together.start_ns(), None, counted, &order);
            together.announce(&[], &windows)?;
            let mut moments = BTreeMap::new();
            let mut before = together.given.accounts.now();
            for block in windows.chunk_by(|one, next| one.place.block == next.place.block) {
                sleep_until(block.last().map_or(0, |last| last.window.close_ns), || ())?;
                let after = together.given.accounts.now();
                moments.extend(block.first().map(|first| (first.place.block, [before, after])));
                before = after;
            }
            let answers = together.answers(windows, 0, &moments)?;
            Ok((answers.fit, answers))
        })
    }

    /// The groups in the order of their blocks, and the time of their windows that counts, for so much of it for each
    /// member.
    fn sequence(&self, length: Duration) -> (Vec<usize>, Vec<Duration>) {
        let (blocks, counted): (Vec<u32>, Vec<Duration>) =
            self.groups.iter().map(|group| group.pace.divide(length)).unzip();
        (sequence(&blocks), counted)
    }

    /// A phase with probes attached, of so much counted time for each member; in the members' order.
    ///
    /// # Errors
    /// As [`Together::detached`], and if the probes cannot be attached or read.
    pub fn probed(&mut self, kind: PhaseKind, length: Duration) -> Result<Vec<RawPhase>> {
        log::debug!("step: {} phase of {} ms each", kind.name(), length.as_millis());
        self.until_it_fits(|together| together.try_probed(kind, length))
    }

    fn try_probed(&mut self, kind: PhaseKind, length: Duration) -> Result<(Fit, Vec<RawPhase>)> {
        let roles = self.roles();
        let following = self.follow(kind, &roles)?;
        let (sequence, counted) = self.sequence(length);
        let order = order(&self.groups, &sequence, &mut self.given.random);
        let mut cpu = CpuTimes::new(&roles);
        let mut taken = Taken::default();
        let is_sampled = kind == PhaseKind::Sampled;
        let mut note = |_: &Loaded, asked: &Asked, edge| cpu.note(asked, edge);
        let at_edge: AtEdge<'_> = if is_sampled { Some(&mut note) } else { None };
        let Some((open, windows)) = self.ask(following, &order, &counted, &mut taken, at_edge)? else {
            return Ok((Fit::Unseen, Vec::new()));
        };
        let drained = open.drain(self.probes, LONGEST_WAIT, |probes| taken.take_meanwhile(probes));
        let answers = drained.and_then(|()| self.answers(windows, 1, &BTreeMap::new()));
        let closed = open.close(self.probes);
        let answers = answers?;
        taken.finish(self.probes, &closed);
        let fit = if closed.is_late() { Fit::Late } else { answers.fit };
        let counts = closed.counts(self.probes, &self.probes.labels(self.given.names))?;
        let Taken { records, events, .. } = taken;
        let mut records = split_records(records, self.members.len());
        let mut sampled = is_sampled.then(|| answers.split_events(events, &roles));
        let phases = answers.phases(kind).into_iter().zip(counts).enumerate().map(|(member, (phase, counts))| {
            let sampled = sampled.as_mut().map(|events| RawSampled {
                schedstat_ns: cpu.of(member),
                ..RawSampled::new(&counts, std::mem::take(&mut events[member]), phase.length_ns)
            });
            RawPhase {
                phase: Phase { probes: Some(counts), ..phase },
                records: std::mem::take(&mut records[member]),
                sampled,
            }
        });
        Ok((fit, phases.collect()))
    }

    /// The members' processes, their children included: some may have come since they were looked at.
    fn roles(&self) -> Vec<Roles> {
        self.members.iter().map(|member| member.parties.roles()).collect()
    }

    /// Attaches what a kind of phase needs, and follows all members' requests.
    fn follow(&mut self, kind: PhaseKind, roles: &[Roles]) -> Result<Following> {
        let sampler = Sampler { cpus: &self.given.sampling.cpus, rate_hz: self.given.sampling.rate_hz };
        let ready = Ready::attach(self.probes, kind, sampler)?;
        ready.follow(self.probes, self.block(roles)?, self.notes)
    }

    fn block(&self, roles: &[Roles]) -> Result<Block> {
        let mut followed = self.members.iter().zip(roles).map(|(member, roles)| member.parties.followed(roles));
        let too_many = || Error::Usage("more configurations at once than the probes tell apart".to_owned());
        let mut block = Block::from(followed.next().ok_or_else(too_many)?);
        followed.try_for_each(|followed| block.add(followed).map(drop).ok_or_else(too_many))?;
        Ok(block)
    }

    /// Asks the members in this order, after a lead-in of all; `None`: that was too short for all connections to be
    /// seen.
    fn ask(
        &mut self,
        following: Following,
        order: &[Place],
        counted: &[Duration],
        taken: &mut Taken,
        mut at_edge: AtEdge<'_>,
    ) -> Result<Option<(Open, Vec<Asked>)>> {
        let (lead, windows) = timeline(&self.groups, self.start_ns(), Some(Lead), counted, order);
        self.announce(&lead, &windows)?;
        sleep_until(lead.last().map_or(0, |last| last.window.close_ns), || ())?;
        let first_ns = windows.first().map_or(0, |first| first.window.from_ns);
        if !self.are_all_seen(&following, first_ns)? {
            // What is attached next is to do nothing until it is told.
            self.probes.stop();
            return Ok(None);
        }
        let ids: Vec<ConfigurationId> = following.configurations().collect();
        let recorded = |asked: &Asked| crate::probes::Window {
            configuration: ids[asked.place.member],
            open_ns: asked.window.from_ns,
            close_ns: asked.window.close_ns,
        };
        let mut next = windows.iter();
        let Some(mut current) = next.next() else { return Ok(None) };
        let mut open = following.open(self.probes, recorded(current));
        loop {
            if let Some(at_edge) = &mut at_edge {
                sleep_until(current.window.from_ns, || ())?;
                at_edge(self.probes, current, Edge::Begin);
            }
            sleep_until(current.window.close_ns, || taken.take_meanwhile(self.probes))?;
            if let Some(at_edge) = &mut at_edge {
                at_edge(self.probes, current, Edge::End);
            }
            let Some(following) = next.next() else { break };
            current = following;
            open = open.next(self.probes, recorded(current));
        }
        Ok(Some((open, windows)))
    }

    /// Whether all connections of all members have been seen. One look may miss a token that goes from one holder to
    /// another meanwhile, so there are several, until shortly before the first window counts.
    fn are_all_seen(&self, following: &Following, first_ns: u64) -> Result<bool> {
        const LOOK: Duration = Duration::from_micros(200);
        let connections = self.given.connections.saturating_mul(self.members.len() as u32);
        while now_ns() + 3 * (LOOK.as_nanos() as u64) < first_ns {
            if following.has_seen(self.probes, Expected::Connections(connections)) {
                return Ok(true);
            }
            interrupt::sleep(LOOK)?;
        }
        Ok(false)
    }

    /// What each probe of a kind of phase costs, and how often it runs for each member, by the kernel's statistics.
    ///
    /// # Errors
    /// As [`Together::probed`].
    pub fn costs(&mut self, kind: PhaseKind, dispatch_ns: f64) -> Result<Vec<Costs>> {
        log::debug!("step: costs of the probes");
        self.until_it_fits(|together| together.try_costs(kind, dispatch_ns))
    }

    fn try_costs(&mut self, kind: PhaseKind, dispatch_ns: f64) -> Result<(Fit, Vec<Costs>)> {
        let roles = self.roles();
        let sampler = Sampler { cpus: &[], rate_hz: 0 };
        let ready = Ready::attach(self.probes, kind, sampler)?;
        let _statistics = Loaded::keep_run_times()?;
        // Told to do nothing, while one is asked: what the statistics themselves cost.
        let open_ns = now_ns();
        let close_ns = open_ns + (COST_FLOOR * (COST_FLOORS + 1)).as_nanos() as u64;
        self.members[0].ask_in(&[Window { open_ns, from_ns: open_ns, close_ns }])?;
        let (_, floor_ns) = self.probes.statistics_floor(kind, COST_FLOOR, COST_FLOORS)?;
        let following = ready.follow(self.probes, self.block(&roles)?, Notes::default())?;
        let counted: Vec<Duration> = self.groups.iter().map(|group| group.pace.counted.max(COST_RUN / 2)).collect();
        let order = order(&self.groups, &sequence(&vec![1; counted.len()]), &mut self.given.random);
        let mut readings = vec![Vec::new(); self.members.len()];
        let mut begun = None;
        let mut read = |probes: &Loaded, asked: &Asked, edge| match edge {
            Edge::Begin => begun = Some(probes.run_times(kind)),
            Edge::End => {
                if let Some(begun) = begun.take() {
                    readings[asked.place.member].push([begun, probes.run_times(kind)]);
                }
            }
        };
        let asked = self.ask(following, &order, &counted, &mut Taken::default(), Some(&mut read))?;
        let Some((open, windows)) = asked else { return Ok((Fit::Unseen, Vec::new())) };
        let answers = self.answers(windows, 1, &BTreeMap::new());
        let _ = open.close(self.probes);
        let answers = answers?;
        let costs = answers.reports.iter().zip(&readings).map(|(report, readings)| Costs {
            probes: self.probes.costs(kind, readings, report.operations, floor_ns),
            dispatch_ns,
            floor_ns,
        });
        Ok((answers.fit, costs.collect()))
    }
}

impl Answers {
    /// The members' phases, as their clients saw them.
    fn phases(&self, kind: PhaseKind) -> Vec<Phase> {
        let phase = |(member, report): (usize, &PhaseReport)| {
            let own = || self.windows.iter().filter(|asked| asked.place.member == member);
            let open_ns = own().next().map_or(0, |first| first.window.from_ns);
            let disturbed = self.disturbed.of(&self.windows, member);
            let windows = own().zip(&report.windows).zip(disturbed).map(|((asked, seen), disturbed)| WindowCounts {
                block: asked.place.block,
                at_ns: asked.window.from_ns - open_ns,
                length_ns: asked.length_ns(),
                operations: seen.operations,
                latency_sum_ns: seen.latency_sum_ns,
                work_ns: seen.work_ns,
                disturbed,
            });
            let windows: Vec<WindowCounts> = windows.collect();
            let length_ns = windows.iter().map(|window| window.length_ns).sum();
            let mut client = PhaseReport { windows: Vec::new(), ..report.clone() };
            if kind != PhaseKind::Detached {
                client.after_rest.clear();
            }
            Phase { kind, open_ns, length_ns, client, probes: None, guest: None, account: None, windows }
        };
        self.reports.iter().enumerate().map(phase).collect()
    }

    /// Events by member: a wait's by whose thread waits, a sample's by whose window it fell into. There, threads of
    /// another are as foreign as any.
    fn split_events(&self, events: Vec<RawEvent>, roles: &[Roles]) -> Vec<Vec<RawEvent>> {
        let threads: BTreeMap<u32, usize> = roles
            .iter()
            .enumerate()
            .flat_map(|(member, roles)| roles.threads().into_iter().map(move |thread| (thread, member)))
            .collect();
        let at = |at_ns: u64| {
            let index = self.windows.partition_point(|asked| asked.window.close_ns <= at_ns);
            self.windows.get(index).filter(|asked| asked.window.from_ns <= at_ns).map(|asked| asked.place.member)
        };
        let mut split: Vec<Vec<RawEvent>> = roles.iter().map(|_| Vec::new()).collect();
        for mut event in events {
            let is_sample = event.head.kind <= event::FOREIGN;
            let of_thread = threads.get(&event.head.tid).copied();
            let Some(member) = (if is_sample { at(event.head.at_ns) } else { of_thread }) else { continue };
            if event.head.kind == event::SAMPLE && of_thread.is_some_and(|other| other != member) {
                event.head.kind = event::FOREIGN;
            }
            split[member].push(event);
        }
        split
    }
}

/// Records by member.
fn split_records(records: Vec<RawRecord>, members: usize) -> Vec<Vec<RawRecord>> {
    let mut split: Vec<Vec<RawRecord>> = (0..members).map(|_| Vec::new()).collect();
    for record in records {
        if let Some(own) = split.get_mut(usize::from(record.turn.configuration())) {
            own.push(record);
        }
    }
    split
}

/// CPU times of members within their windows, by the scheduler's account.
struct CpuTimes<'a> {
    roles: &'a [Roles],
    begun: BTreeMap<Role, u64>,
    begun_ns: u64,
    sums: Vec<BTreeMap<Role, u64>>,
}

impl<'a> CpuTimes<'a> {
    fn new(roles: &'a [Roles]) -> Self {
        Self { roles, begun: BTreeMap::new(), begun_ns: 0, sums: vec![BTreeMap::new(); roles.len()] }
    }

    /// Who wakes for the beginning of a window comes a tenth of a millisecond late, which its end does not make up for:
    /// nobody works after that. So what was seen is taken for the whole of the window.
    fn note(&mut self, asked: &Asked, edge: Edge) {
        let (now, now_ns) = (self.roles[asked.place.member].schedstat_ns(), now_ns());
        match edge {
            Edge::Begin => (self.begun, self.begun_ns) = (now, now_ns),
            Edge::End => {
                let seen_ns = asked.window.close_ns.saturating_sub(self.begun_ns).max(1);
                let whole = asked.length_ns() as f64 / seen_ns as f64;
                for (role, ns) in now {
                    let before = self.begun.get(&role).copied().unwrap_or(ns);
                    let used_ns = ns.saturating_sub(before) as f64 * whole.max(1.0);
                    *self.sums[asked.place.member].entry(role).or_default() += used_ns as u64;
                }
            }
        }
    }

    fn of(&self, member: usize) -> BTreeMap<Role, u64> {
        self.sums[member].clone()
    }
}

/// Labels of devices that requests met in these phases.
pub fn devices_met(phases: &[Phase]) -> BTreeSet<String> {
    let stages = phases.iter().filter_map(|phase| phase.probes.as_ref()).flat_map(|counts| &counts.stages);
    let places = stages.flat_map(|stage| [&stage.from, &stage.to]);
    places.filter_map(|place| Some(place.device.as_ref()?.to_string())).collect()
}
