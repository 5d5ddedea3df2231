//! The real thing: servers and clients under the probes.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    client::{self, Client},
    measure::{Measurement, Parties, RawPhase},
    plan::{Cpus, LARGER_STAGE, Plan, allowed_cpus, phases},
    sampling::{self, Sampling},
    schedule::{Brought, Repeater},
};
use crate::{
    analysis::statistics::samples_needed,
    artifact,
    configuration::Configuration,
    counts::{Phase, PhaseKind, Place, Repetition, Role},
    engine::{self, Bench, Host, Server, ServerFiles},
    environment::{
        hooks_in, hooks_of,
        load::{Load, Watched},
    },
    error::{Error, Result},
    interrupt,
    ledger::{Item, Lease, Ledger, PROGRAMS},
    net::Wire,
    probes::{Dispatch, Labels, Loaded, Names, Offsets, Preference},
    process,
};

const PORT: u16 = 7000;
const WARM_UP: Duration = Duration::from_millis(200);

/// How the probes are to be loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProbeOptions {
    /// Which alternatives may be used.
    pub preference: Preference,
    /// Whether their faults go to the terminal.
    pub debug: bool,
}

/// Everything that a run's repetitions share.
pub struct Lab<'a> {
    plan: &'a Plan,
    // Before the bench, so removed before it: what the engines made lies on top of the wire.
    hosts: BTreeMap<String, Box<dyn Host>>,
    bench: Bench,
    _programs: Lease,
    cpus: Cpus,
    offsets: Offsets,
    options: ProbeOptions,
    phases: Vec<(PhaseKind, Duration)>,
    sampling: Sampling,
    /// Samples of work so far, by configuration and by the role and place where the stage begins.
    sampled: BTreeMap<String, Stages>,
}

type Stages = BTreeMap<(Role, Place), u64>;

impl<'a> Lab<'a> {
    /// Builds the wire, prepares the engines, and tries the probes.
    ///
    /// # Errors
    /// If anything of it is impossible here; what was made is removed again.
    pub fn new(plan: &'a Plan, ledger: Ledger, run_id: &str, options: ProbeOptions) -> Result<Self> {
        let phases = phases(plan.duration, plan.sample_rate_hz > 0)?;
        let cpus = plan.placement.divide(&allowed_cpus()?)?;
        let sampling = sampling_of(plan, &cpus)?;
        // First what needs no trace to be left: a machine without probes ends here.
        let offsets = Offsets::of_running_kernel()?;
        drop(Loaded::new(&offsets, options.preference, options.debug)?);
        if !cpus.agent.is_empty() {
            process::pin(std::process::id(), &cpus.agent)?;
        }
        let workload = artifact::workload()?;
        let folder = Path::new(PROGRAMS).join(run_id);
        let programs = ledger.note(Item::Folder { path: folder.clone() })?;
        let binary = folder.join("virtax-workload");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&binary, workload))
            .and_then(|()| std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)))
            .map_err(|error| Error::file("write", &binary, error))?;
        let wire = Wire::create(&ledger, run_id)?;
        let server = ServerFiles::new(plan.workload, &plan.settings, PORT, &folder, &binary)?;
        let bench = Bench { run_id: run_id.to_owned(), ledger, wire, binary, server };
        let mut hosts = BTreeMap::new();
        for engine in engine::all() {
            let wanted: Vec<Configuration> =
                plan.configurations.iter().filter(|found| found.engine == engine.name()).cloned().collect();
            if !wanted.is_empty() {
                interrupt::check()?;
                hosts.insert(engine.name().to_owned(), engine.prepare(&bench, &wanted)?);
            }
        }
        let sampled = BTreeMap::new();
        Ok(Self { plan, hosts, bench, _programs: programs, cpus, offsets, options, phases, sampling, sampled })
    }

    /// What getting into a probe costs, on the CPU where the server will run: CPUs of a shared machine differ.
    fn dispatch_ns(&self, probes: &mut Loaded) -> Result<f64> {
        let cpus = &self.cpus;
        if cpus.server.is_empty() {
            return Dispatch::new()?.measure(probes);
        }
        process::pin(std::process::id(), &cpus.server)?;
        let measured = Dispatch::new().and_then(|loop_of_calls| loop_of_calls.measure(probes));
        process::pin(std::process::id(), &cpus.agent)?;
        measured
    }

    fn start_server(&mut self, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let host = self
            .hosts
            .get_mut(&configuration.engine)
            .ok_or_else(|| Error::Usage(format!("engine `{}` was not prepared", configuration.engine)))?;
        let server = host.start(&self.bench, configuration)?;
        if !self.cpus.server.is_empty() {
            for pid in process::family(server.pid()) {
                process::pin(pid, &self.cpus.server)?;
            }
        }
        Ok(server)
    }

    fn start_client(&self, configuration: &Configuration, server: &mut dyn Server) -> Result<Box<dyn Client>> {
        let (plan, name) = (self.plan, configuration.to_string());
        client::start(&self.bench, plan.workload, &plan.settings, &self.cpus.client, &name, server)
            .map_err(|error| explain_unreachable(configuration, error))
    }

    /// Names of the path's devices, and the processes with their roles.
    fn who_and_where(&self, server: &dyn Server, client: &dyn Client) -> Result<(Names, Parties)> {
        let mut names = self.bench.wire.names()?;
        server.label(&mut names)?;
        Ok((names, Parties { client: client.pid(), server: server.pid() }))
    }
}

impl Lab<'_> {
    /// The run's ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.bench.ledger.clone()
    }

    /// Starts client and server of the first configuration, and hands over the measurement and the cost of dispatch.
    ///
    /// # Errors
    /// The function's, or if client, server or probes fail.
    pub fn with_measurement<T>(&mut self, function: impl FnOnce(&mut Measurement<'_>, f64) -> Result<T>) -> Result<T> {
        let mut probes = Loaded::new(&self.offsets, self.options.preference, self.options.debug)?;
        let dispatch_ns = self.dispatch_ns(&mut probes)?;
        let configuration = self.plan.configurations[0].clone();
        let mut server = self.start_server(&configuration)?;
        let mut client = self.start_client(&configuration, server.as_mut())?;
        let (names, parties) = self.who_and_where(server.as_ref(), client.as_ref())?;
        interrupt::sleep(WARM_UP)?;
        let connections = self.plan.workload.connections(&self.plan.settings);
        let mut measurement =
            Measurement::new(&mut probes, client.as_mut(), &names, parties, connections, &self.sampling);
        function(&mut measurement, dispatch_ns)
    }
}

/// What most likely stands between a client and a container that it cannot reach.
fn explain_unreachable(configuration: &Configuration, error: Error) -> Error {
    match error {
        Error::Workload { why, .. } if why.contains("cannot connect") && configuration.key("net") == "bridge" => {
            Error::engine(
                format!("`{configuration}` cannot be reached"),
                why,
                "the forward policy blocks it although a rule in DOCKER-USER lets it through; leave this configuration out",
            )
        }
        other => other,
    }
}

impl Repeater for Lab<'_> {
    fn repeat(&mut self, configuration: &Configuration, round: u32, position: u32) -> Result<Brought> {
        let mut probes = Loaded::new(&self.offsets, self.options.preference, self.options.debug)?;
        let dispatch_ns = self.dispatch_ns(&mut probes)?;
        let mut server = self.start_server(configuration)?;
        let mut client = self.start_client(configuration, server.as_mut())?;
        let (names, parties) = self.who_and_where(server.as_ref(), client.as_ref())?;
        interrupt::sleep(WARM_UP)?;
        process::check_placement(client.pid(), &self.cpus.client)?;
        process::check_placement(server.pid(), &self.cpus.server)?;
        let connections = self.plan.workload.connections(&self.plan.settings);
        let watched = Watched { families: parties.roles().keys().copied().collect(), cpus: self.cpus.clone() };
        let mut measurement =
            Measurement::new(&mut probes, client.as_mut(), &names, parties, connections, &self.sampling);
        let costs = measurement.costs(dispatch_ns)?;
        let before = Load::now(&watched);
        let (agent_before, clock_before) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let rounds = f64::from(self.plan.rounds);
        let so_far = self.sampled.entry(configuration.to_string()).or_default();
        let quota = SampleQuota { so_far, needed: self.sampling.until.map(|until| needed(until, round, rounds)) };
        let raw = run_phases(&mut measurement, &self.phases, self.plan.records_per_s, quota);
        let (agent_after, clock_after) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let raw = match (raw, server.failure()) {
            (Ok(raw), None) => raw,
            (_, Some(why)) => return Err(Error::workload(format!("the server of `{configuration}` failed"), why)),
            (Err(error), None) => return Err(error),
        };
        let disturbances = Load::now(&watched).disturbances_since(&before);
        let labels = probes.labels(&names);
        let (mut phases, mut records, mut sampled) = (Vec::new(), Vec::new(), Vec::new());
        for phase in raw {
            let (phase, of_phase, stacks) = match phase {
                Either::Detached(phase) => (phase, Vec::new(), None),
                Either::Probed(raw) => raw.named(&labels, round),
            };
            phases.push(phase);
            records.extend(of_phase);
            sampled.extend(stacks);
        }
        let profile = match sampled.is_empty() {
            true => None,
            false => Some(sampling::profile(&sampled, &labels, round, &self.sampling)?),
        };
        let repetition = Repetition {
            round,
            configuration: configuration.to_string(),
            position,
            connections,
            settings: engine::verified_settings(server.pid())?,
            devices: labels.devices().cloned().collect(),
            server_hooks: hooks_of(server.pid()),
            client_hooks: hooks_in(self.bench.wire.namespace.path()),
            phases,
            costs,
            disturbances,
            agent_cpu_ns: agent_after - agent_before,
            agent_wall_ns: clock_after - clock_before,
        };
        Ok(Brought { repetition, records, profile })
    }
}

enum Either {
    Detached(Phase),
    Probed(RawPhase),
}

/// How many samples the larger stages are to have.
struct SampleQuota<'a> {
    so_far: &'a mut Stages,
    needed: Option<u64>,
}

/// Most phases that a repetition is prolonged by.
const MOST_PHASES: usize = 100;

/// Samples of a stage until the end of a round for its layers' shares to be known to ± `until` at the end of the run.
fn needed(until: f64, round: u32, rounds: f64) -> u64 {
    (samples_needed(until) * f64::from(round + 1) / rounds).ceil() as u64
}

impl SampleQuota<'_> {
    fn add(&mut self, phase: &RawPhase, labels: &Labels) {
        for (stage, count) in phase.samples_by_stage(labels) {
            *self.so_far.entry(stage).or_default() += count;
        }
    }

    fn is_met(&self) -> bool {
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
) -> Result<Vec<Either>> {
    let mut done = Vec::with_capacity(phases.len());
    for (kind, length) in phases {
        done.push(if *kind == PhaseKind::Detached {
            let phase = measurement.detached(*length)?;
            let operations_per_s = phase.client.operations as f64 / length.as_secs_f64();
            measurement.aim_at(records_per_s, operations_per_s);
            Either::Detached(phase)
        } else {
            let phase = measurement.probed(*kind, *length)?;
            quota.add(&phase, &measurement.labels());
            Either::Probed(phase)
        });
    }
    let sampled = phases.iter().find(|(kind, _)| *kind == PhaseKind::Sampled);
    for _ in 0..MOST_PHASES {
        let Some((kind, length)) = sampled.filter(|_| !quota.is_met()) else { break };
        let phase = measurement.probed(*kind, *length)?;
        quota.add(&phase, &measurement.labels());
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
    Ok(Sampling { rate_hz: plan.sample_rate_hz, cpus: timers, until: plan.samples_until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_stages_prolong_a_run_and_small_ones_do_not() {
        assert_eq!(needed(0.03, 9, 10.0), 1068);
        assert_eq!(needed(0.03, 0, 10.0), 107);
        let stage = |role, point| (role, Place::fixed(point));
        let mut so_far = Stages::from([
            (stage(Role::Client, "send"), 500),
            (stage(Role::Client, "xmit"), 90),
            (stage(Role::Server, "send"), 10),
        ]);
        assert!(SampleQuota { so_far: &mut so_far, needed: None }.is_met());
        assert!(SampleQuota { so_far: &mut so_far, needed: Some(90) }.is_met());
        assert!(!SampleQuota { so_far: &mut so_far, needed: Some(91) }.is_met());
        assert!(SampleQuota { so_far: &mut Stages::new(), needed: Some(91) }.is_met());
    }
}
