//! The real thing: servers and clients under the probes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    time::Duration,
};

use virtax_model::{phases::phases, profile::Profile};

use super::{
    client::{self, Client},
    measure::{Measurement, blamed},
    parties::Parties,
    plan::Plan,
    quiet::Work,
    raw::{Either, Named, RawPhase},
    schedule::{Repeater, Turn},
    store::Brought,
};
use crate::{
    analysis::{
        profile::{self, LARGER_STAGE},
        statistics::samples_needed,
    },
    artifact,
    cgroup::Cgroup,
    counts::{Accelerator, AccountTotal, PhaseKind, Place, Repetition, Role, Side},
    engine::configuration::Configuration,
    engine::{self, Account, Bench, Host, Server, ServerFiles, vm::Agent},
    environment::{
        hooks_in, hooks_of,
        load::{Load, Watched},
        setup,
    },
    error::{Error, Result},
    interrupt,
    ledger::{Item, Lease, Ledger, PROGRAMS},
    net::{
        Wire,
        refusals::{self, Reached},
        verdicts,
    },
    placement::Cpus,
    probes::{Alive, Dispatch, Labels, Limits, Loaded, Names, Offsets, Options},
    process::{self, allowed_cpus},
    sampling::{self, RawSampled, Sampling},
    workload::{Follows, follows},
};

const WARM_UP: Duration = Duration::from_millis(200);

/// Everything that a run's repetitions share.
pub struct Lab<'a> {
    pub(super) plan: &'a Plan,
    // Before the bench, so removed before it: what the engines made lies on top of the wire.
    hosts: BTreeMap<String, Box<dyn Host>>,
    pub(super) bench: Bench,
    _programs: Lease,
    pub(super) cpus: Cpus,
    /// Those that virtax itself might use before.
    allowed: Vec<usize>,
    offsets: Offsets,
    options: Options,
    /// Loaded once, because the verifier takes a second for them; `None` while they are lent out, or after a failure.
    pub(super) probes: Option<Loaded>,
    pub(super) phases: Vec<(PhaseKind, Duration)>,
    pub(super) sampling: Sampling,
    /// Samples of work so far, by configuration and by the role and place where the stage begins.
    pub(super) sampled: BTreeMap<String, Stages>,
    /// Configurations that may be alive at once and asked in turns.
    pub(super) resting: BTreeSet<String>,
    /// How long the same work took in the run so far.
    pub(super) work: Work,
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        // What comes after the measurements is ordinary work, anywhere.
        process::go_ordinarily();
        if !self.allowed.is_empty() {
            let _ = process::pin(std::process::id(), &self.allowed);
        }
    }
}

pub(super) type Stages = BTreeMap<(Role, Place), u64>;

impl<'a> Lab<'a> {
    /// Builds the wire, prepares the engines, and tries the probes.
    ///
    /// # Errors
    /// If anything of it is impossible here; what was made is removed again.
    pub fn new(plan: &'a Plan, ledger: Ledger, run_id: &str, options: Options) -> Result<Self> {
        let phases = phases(plan.spec.duration(), plan.spec.samples())?;
        let allowed = allowed_cpus()?;
        let cpus = plan.spec.placement.divide(&allowed)?;
        let sampling = sampling_of(plan, &cpus)?;
        // First what needs no trace to be left: a host without probes ends here.
        let offsets = Offsets::of_running_kernel()?;
        let accelerator = |found: &Configuration| engine::by_name(&found.engine)?.accelerator();
        let accelerators: Vec<Accelerator> = plan.configurations.iter().filter_map(accelerator).collect();
        let vms = accelerators.contains(&Accelerator::Kvm);
        // A VM's process makes operations as it is told, whatever its guest's are.
        let follows = follows(plan.workload)?;
        let files = match follows {
            Follows::Requests(_) => None,
            Follows::Operations(operations) => Some(operations),
        };
        let is_synchronous = files.is_some_and(|files| files.is_synchronous(&plan.settings));
        let synchronous = is_synchronous && accelerators.is_empty();
        let (connections, threads) = (follows.tokens(&plan.settings), plan.workload.threads(&plan.settings));
        let knows_windows = client::knows_windows(plan.workload, &plan.settings);
        let can_rest =
            |found: &&Configuration| engine::by_name(&found.engine).is_some_and(|known| known.can_rest(found));
        let resting = plan.configurations.iter().filter(can_rest).map(ToString::to_string);
        let takes_turns = knows_windows && plan.spec.turns.window().is_some();
        let resting: BTreeSet<String> = if takes_turns { resting.collect() } else { BTreeSet::new() };
        let together = resting.len().max(1) as u32;
        let alive = Alive {
            configurations: together,
            tokens: connections.saturating_mul(together),
            threads: threads.saturating_mul(together),
        };
        let limits = Limits::for_plan(alive).starved_by(&options.limits);
        let options = Options { vms, files: files.is_some(), synchronous, limits, ..options };
        let probes = Loaded::new(&offsets, &options)?;
        if !cpus.virtax.is_empty() {
            process::pin(std::process::id(), &cpus.virtax)?;
        }
        if cpus.virtax.iter().any(|cpu| cpus.client.contains(cpu) || cpus.server.contains(cpu)) {
            process::go_first();
        }
        let (bench, programs) = build_bench(plan, ledger, run_id, cpus.of_server(&allowed).to_vec())?;
        let mut hosts = BTreeMap::new();
        for engine in engine::all() {
            let wanted: Vec<Configuration> =
                plan.configurations.iter().filter(|found| found.engine == engine.name()).cloned().collect();
            if !wanted.is_empty() {
                interrupt::check()?;
                log::debug!("step: engine {}", engine.name());
                hosts.insert(engine.name().to_owned(), engine.prepare(&bench, &wanted)?);
            }
        }
        Ok(Self {
            plan,
            hosts,
            bench,
            _programs: programs,
            cpus,
            allowed,
            offsets,
            options,
            probes: Some(probes),
            phases,
            sampling,
            sampled: BTreeMap::new(),
            resting,
            work: Work::default(),
        })
    }

    /// The probes, knowing nobody.
    pub(super) fn take_probes(&mut self) -> Result<Loaded> {
        match self.probes.take() {
            Some(mut probes) => probes.forget_all().map(|()| probes),
            None => Loaded::new(&self.offsets, &self.options),
        }
    }

    /// What getting into a probe costs, on the CPU where the server will run: CPUs of a shared host differ.
    pub(super) fn dispatch_ns(&self, probes: &mut Loaded) -> Result<f64> {
        let cpus = &self.cpus;
        if cpus.server.is_empty() {
            return Dispatch::new()?.measure(probes);
        }
        process::pin(std::process::id(), &cpus.server)?;
        let measured = Dispatch::new().and_then(|loop_of_calls| loop_of_calls.measure(probes));
        process::pin(std::process::id(), &cpus.virtax)?;
        measured
    }

    pub(super) fn start_server(&mut self, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let host = self
            .hosts
            .get_mut(&configuration.engine)
            .ok_or_else(|| Error::Usage(format!("engine `{}` was not prepared", configuration.engine)))?;
        let server = host.start(&self.bench, configuration)?;
        if self.cpus.server.is_empty() {
            server.place_freely(&self.allowed)?;
        } else {
            server.pin(&self.cpus.server)?;
        }
        Ok(server)
    }

    pub(super) fn start_client(
        &self,
        configuration: &Configuration,
        server: &mut dyn Server,
    ) -> Result<Box<dyn Client>> {
        let (plan, name) = (self.plan, configuration.to_string());
        check_reach(&self.bench, configuration, server)?;
        let place = (self.cpus.client.as_slice(), self.cpus.client_has_its_own());
        client::start(&self.bench, plan.workload, &plan.settings, place, &name, server)
    }

    /// Names of the path's devices, and the processes with their roles.
    pub(super) fn who_and_where(&self, server: &dyn Server, client: &dyn Client) -> Result<(Names, Parties)> {
        let mut names = self.bench.wire.names()?;
        server.label(&mut names)?;
        let (proxy, port) = (server.relay(), server.address().port());
        let is_inside = server.is_vm() && self.plan.workload.files().is_some();
        let primary = if is_inside { Side::Guest } else { Side::Host };
        // Files' operations do not come by its network.
        let boundary = server.boundary().filter(|_| !is_inside);
        Ok((
            names,
            Parties {
                client: client.pid(),
                server: server.pid(),
                is_vm: server.is_vm(),
                primary,
                proxy,
                boundary,
                port,
            },
        ))
    }
}

impl Lab<'_> {
    /// The run's ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.bench.ledger.clone()
    }

    /// Kernel memory of the probes' tables, bytes; 0: they are lent out.
    #[must_use]
    pub fn tables_bytes(&self) -> u64 {
        self.probes.as_ref().map_or(0, |_| Loaded::memory_bytes())
    }

    /// Where client, server and virtax run.
    #[must_use]
    pub const fn cpus(&self) -> &Cpus {
        &self.cpus
    }

    /// A repetition's phases.
    #[must_use]
    pub fn phases(&self) -> &[(PhaseKind, Duration)] {
        &self.phases
    }

    /// Starts client and server of the first configuration, and hands over the measurement and the cost of dispatch.
    ///
    /// # Errors
    /// The function's, or if client, server or probes fail.
    pub fn with_measurement<T>(&mut self, function: impl FnOnce(&mut Measurement<'_>, f64) -> Result<T>) -> Result<T> {
        let mut probes = self.take_probes()?;
        let dispatch_ns = self.dispatch_ns(&mut probes)?;
        let configuration = self.plan.configurations[0].clone();
        let mut server = self.start_server(&configuration)?;
        let mut client = self.start_client(&configuration, server.as_mut())?;
        let (names, parties) = self.who_and_where(server.as_ref(), client.as_ref())?;
        interrupt::sleep(WARM_UP)?;
        let connections = follows(self.plan.workload)?.tokens(&self.plan.settings);
        let mut measurement =
            Measurement::new(&mut probes, client.as_mut(), &names, parties, connections, &self.sampling);
        function(&mut measurement, dispatch_ns).map_err(|error| self.bench.wire.explain(error))
    }
}

/// The wire and the programs of a run.
fn build_bench(plan: &Plan, ledger: Ledger, run_id: &str, server_cpus: Vec<usize>) -> Result<(Bench, Lease)> {
    let workload = artifact::workload()?;
    let folder = Path::new(PROGRAMS).join(run_id);
    let programs = ledger.note(Item::Folder { path: folder.clone() })?;
    let binary = folder.join("virtax-workload");
    // Servers and clients are nobody: whatever the user's umask, they have to get there.
    let opened = |path: &Path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&binary, workload))
        .and_then(|()| [Path::new(PROGRAMS), &folder, &binary].into_iter().try_for_each(opened))
        .map_err(|error| Error::file("write", &binary, error))?;
    let wire = Wire::create(&ledger, run_id)?;
    let server = ServerFiles::new(plan.workload, &plan.settings, &folder, &binary)?;
    let segments_taken = std::cell::Cell::new(0);
    let vms = plan.vms.clone();
    let run_id = run_id.to_owned();
    let client_group = match Cgroup::create(&ledger, &format!("{run_id}-client")) {
        Ok(group) => Some(Rc::new(group)),
        Err(error) => {
            log::warn!("the client is in no control group of its own: {error}");
            None
        }
    };
    let configurations = plan.configurations.clone();
    let bench =
        Bench { run_id, ledger, wire, binary, server, configurations, segments_taken, vms, server_cpus, client_group };
    Ok((bench, programs))
}

/// Starts and ends a server of every configuration, one after another: why each of them cannot be, if it cannot.
///
/// # Errors
/// If there is no wire, or on a signal.
pub fn try_out(plan: &Plan, ledger: Ledger, run_id: &str) -> Result<Vec<Option<Error>>> {
    let allowed = allowed_cpus()?;
    let server_cpus = plan.spec.placement.divide(&allowed)?.of_server(&allowed).to_vec();
    let (bench, _programs) = build_bench(plan, ledger, run_id, server_cpus)?;
    let try_one = |configuration: &Configuration| -> Result<()> {
        interrupt::check()?;
        let engine = engine::by_name(&configuration.engine)
            .ok_or_else(|| Error::Usage(format!("there is no engine `{}`", configuration.engine)))?;
        let mut host = engine.prepare(&bench, std::slice::from_ref(configuration))?;
        let mut server = host.start(&bench, configuration)?;
        // A client that has had its first answers: what is in the way shows here.
        let name = configuration.to_string();
        check_reach(&bench, configuration, server.as_ref())?;
        client::start(&bench, plan.workload, &plan.settings, (&[], false), &name, server.as_mut()).map(drop)
    };
    let try_one = |configuration: &Configuration| try_one(configuration).map_err(|error| bench.wire.explain(error));
    let mut found = Vec::new();
    for configuration in &plan.configurations {
        match try_one(configuration) {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            tried => found.push(tried.err()),
        }
    }
    Ok(found)
}

/// A server behind rules that others have put into the host's namespace can be reached; if not, which of them refuses.
fn check_reach(bench: &Bench, configuration: &Configuration, server: &dyn Server) -> Result<()> {
    let is_forwarded = engine::by_name(&configuration.engine).is_some_and(|engine| engine.is_forwarded(configuration));
    if !is_forwarded {
        return Ok(());
    }
    let of_server = format!("/proc/{}/ns/net", server.pid());
    let through = [Path::new("/proc/self/ns/net"), Path::new(&of_server)];
    let (client, address) = (bench.wire.namespace.path(), server.address());
    let rules = match refusals::try_connection(client, address, &through) {
        None | Some(Reached::Yes) => return Ok(()),
        Some(Reached::No(rules)) => rules,
    };
    let traced = if rules.is_empty() { verdicts::refusing(client, address, &through) } else { None };
    let why = match (rules.as_slice(), traced.as_deref()) {
        ([], None) => format!("nothing answers at {address}, and no rule with a counter has dropped or rejected it"),
        ([], Some([])) => format!("nothing answers at {address}, and no rule of a firewall drops or rejects it"),
        ([], Some(rules)) | (rules, _) => format!("dropped or rejected by {}", rules.join("; and by ")),
    };
    Err(Error::engine(
        format!("`{configuration}` cannot be reached"),
        why,
        "change what refuses it, or leave this configuration out",
    ))
}

impl Repeater for Lab<'_> {
    fn can_rest(&self, configuration: &Configuration) -> bool {
        self.resting.contains(&configuration.to_string())
    }
    fn repeat(&mut self, turns: &[Turn<'_>], round: u32) -> Result<Vec<Brought>> {
        let brought = match turns {
            [alone] => self.repetition(alone.configuration, round, alone.position).map(|brought| vec![brought]),
            _ => self.together(turns, round),
        };
        brought.map_err(|error| self.bench.wire.explain(error))
    }
}

impl Lab<'_> {
    fn repetition(&mut self, configuration: &Configuration, round: u32, position: u32) -> Result<Brought> {
        log::debug!("step: probes for `{configuration}`, round {}", round + 1);
        let mut probes = self.take_probes()?;
        let dispatch_ns = self.dispatch_ns(&mut probes)?;
        log::debug!("step: server");
        let mut server = self.start_server(configuration)?;
        log::debug!("step: client");
        let mut client = self.start_client(configuration, server.as_mut())?;
        let (names, parties) = self.who_and_where(server.as_ref(), client.as_ref())?;
        log::debug!("step: warm-up");
        interrupt::sleep(WARM_UP)?;
        process::check_placement(client.pid(), &self.cpus.client)?;
        process::check_placement(server.pid(), &self.cpus.server)?;
        let file_facts = match self.plan.workload.files().is_some() && parties.primary == Side::Host {
            true => crate::engine::files::facts(server.pid(), configuration)?,
            false => Vec::new(),
        };
        let connections = follows(self.plan.workload)?.tokens(&self.plan.settings);
        let mut agent = server.take_agent();
        let families = parties.roles().processes().chain(server.companions()).collect();
        let watched = Watched { families, cpus: self.cpus.clone() };
        let mut measurement =
            Measurement::new(&mut probes, client.as_mut(), &names, parties, connections, &self.sampling)
                .with_agent(agent.as_mut());
        let name = configuration.to_string();
        let costs = measurement
            .costs(PhaseKind::Traced, dispatch_ns)
            .and_then(|costs| Ok((costs, measurement.guest_costs()?)))
            .map_err(|error| blamed(server.as_mut(), &name, error));
        let (costs, guest_costs) = costs?;
        let before = Load::now(&watched);
        let (own_before, clock_before) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let rounds = f64::from(self.plan.spec.rounds);
        let so_far = self.sampled.entry(configuration.to_string()).or_default();
        let quota = SampleQuota { so_far, needed: self.sampling.until.map(|until| needed(until, round, rounds)) };
        let account = &mut || server.account(parties.client);
        let raw = run_phases(&mut measurement, &self.phases, self.plan.spec.records_per_s, quota, account);
        let (own_after, clock_after) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let raw = raw.map_err(|error| blamed(server.as_mut(), &name, error))?;
        if let Some(why) = server.failure() {
            return Err(Error::workload(format!("the server of `{configuration}` failed"), why));
        }
        let disturbances = Load::now(&watched).disturbances_since(&before);
        let labels = probes.labels(&names);
        let Named { phases, records, sampled } = Named::of(raw, &labels, round)?;
        let profile = self.profile(&sampled, &labels, round, agent.as_mut())?;
        let guests = phases.iter().rev().filter_map(|phase| phase.guest.as_ref());
        let guest_devices = guests.take(1).flat_map(|guest| guest.devices.clone()).collect::<Vec<_>>();
        let repetition = Repetition {
            round,
            configuration: name,
            position,
            connections,
            settings: engine::verified_settings(server.pid())?
                .into_iter()
                .chain(server.facts())
                .chain(file_facts)
                .chain(setup::of_process(server.pid()))
                .chain(agent.map(|agent| ("guest_agent".to_owned(), agent.state())))
                .collect(),
            devices: labels.devices().cloned().chain(guest_devices).collect(),
            server_hooks: hooks_of(server.pid()),
            client_hooks: hooks_in(self.bench.wire.namespace.path()),
            phases,
            costs,
            guest_costs,
            disturbances,
            virtax_cpu_ns: own_after - own_before,
            virtax_wall_ns: clock_after - clock_before,
        };
        self.probes = Some(probes);
        Ok(Brought { repetition, records, profile })
    }

    /// What the sampled phases of a repetition sum up to, the guest's part included; `None`: there were none.
    pub(super) fn profile(
        &self,
        sampled: &[RawSampled],
        labels: &Labels,
        round: u32,
        agent: Option<&mut Agent>,
    ) -> Result<Option<Profile>> {
        if sampled.is_empty() {
            return Ok(None);
        }
        let mut profile = sampling::profile(sampled, labels, round, &self.sampling)?;
        if let Some(guest) = agent.and_then(Agent::profile) {
            profile.add_guest(&guest, profile::scales(&guest));
        }
        Ok(Some(profile))
    }
}

/// What a known cost amounted to in between.
pub(super) fn account_since(before: Option<Account>, after: Option<Account>, wall_ns: u64) -> Option<AccountTotal> {
    let (before, after) = (before?, after?);
    let (events, ns) = (after.events.saturating_sub(before.events), after.ns.saturating_sub(before.ns));
    Some(AccountTotal { events, ns, wall_ns })
}

/// How many samples the larger stages are to have.
pub(super) struct SampleQuota<'a> {
    pub(super) so_far: &'a mut Stages,
    pub(super) needed: Option<u64>,
}

/// Most phases that a repetition is prolonged by, and their length.
pub(super) const MOST_PHASES: usize = 100;
pub(super) const PROLONGED: Duration = Duration::from_millis(200);

/// Samples of a stage until the end of a round for its layers' shares to be known to ± `until` at the end of the run.
pub(super) fn needed(until: f64, round: u32, rounds: f64) -> u64 {
    (samples_needed(until) * f64::from(round + 1) / rounds).ceil() as u64
}

impl SampleQuota<'_> {
    pub(super) fn add(&mut self, phase: &RawPhase, labels: &Labels) -> Result<()> {
        for (stage, count) in phase.samples_by_stage(labels)? {
            *self.so_far.entry(stage).or_default() += count;
        }
        Ok(())
    }

    pub(super) fn is_met(&self) -> bool {
        let Some(needed) = self.needed else { return true };
        let all: u64 = self.so_far.values().sum();
        // A share that no sampling can find: nothing is on the path, as with an idle client.
        all == 0 || self.so_far.values().all(|count| *count >= needed || (*count as f64) < LARGER_STAGE * all as f64)
    }
}

fn run_phases(
    measurement: &mut Measurement<'_>,
    phases: &[(PhaseKind, Duration)],
    records_per_s: f64,
    mut quota: SampleQuota<'_>,
    account: &mut dyn FnMut() -> Result<Option<Account>>,
) -> Result<Vec<Either>> {
    let mut done = Vec::with_capacity(phases.len());
    for (kind, length) in phases {
        let (before, began_ns) = (account()?, workloads::clock::now_ns());
        let mut phase = if *kind == PhaseKind::Detached {
            let phase = measurement.detached(*length)?;
            let operations_per_s = phase.client.operations as f64 / length.as_secs_f64();
            measurement.aim_at(records_per_s, operations_per_s);
            Either::Detached(phase)
        } else {
            let phase = measurement.probed(*kind, *length)?;
            quota.add(&phase, &measurement.labels())?;
            Either::Probed(phase)
        };
        let wall_ns = workloads::clock::now_ns() - began_ns;
        phase.set_account(account_since(before, account()?, wall_ns));
        done.push(phase);
    }
    let has_sampled = phases.iter().any(|(kind, _)| *kind == PhaseKind::Sampled);
    for _ in 0..MOST_PHASES {
        if !has_sampled || quota.is_met() {
            break;
        }
        let phase = measurement.probed(PhaseKind::Sampled, PROLONGED)?;
        quota.add(&phase, &measurement.labels())?;
        done.push(Either::Probed(phase));
    }
    Ok(done)
}

/// Where the sampler's timers are: on the CPUs of client and server; wherever they may run, on all.
fn sampling_of(plan: &Plan, cpus: &Cpus) -> Result<Sampling> {
    let mut timers: Vec<usize> = cpus.client.iter().chain(&cpus.server).copied().collect();
    timers.sort_unstable();
    timers.dedup();
    if timers.is_empty() {
        timers = allowed_cpus()?;
    }
    Ok(Sampling { rate_hz: plan.spec.sample_rate_hz, cpus: timers, until: plan.spec.samples_until })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Point;

    #[test]
    fn larger_stages_prolong_a_run_and_small_ones_do_not() {
        assert_eq!(needed(0.03, 9, 10.0), 1068);
        assert_eq!(needed(0.03, 0, 10.0), 107);
        let stage = |role, point| (role, Place::fixed(point));
        let mut so_far = Stages::from([
            (stage(Role::Client, Point::Send), 500),
            (stage(Role::Client, Point::Xmit), 90),
            (stage(Role::Server, Point::Send), 10),
        ]);
        assert!(SampleQuota { so_far: &mut so_far, needed: None }.is_met());
        assert!(SampleQuota { so_far: &mut so_far, needed: Some(90) }.is_met());
        assert!(!SampleQuota { so_far: &mut so_far, needed: Some(91) }.is_met());
        assert!(SampleQuota { so_far: &mut Stages::new(), needed: Some(91) }.is_met());
    }
}
