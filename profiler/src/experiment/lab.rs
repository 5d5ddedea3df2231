//! The real thing: servers and clients under the probes.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    client::Client,
    measure::Measurement,
    plan::{Cpus, Plan, allowed_cpus, phases},
    records::Record,
    schedule::Repeater,
};
use crate::{
    artifact,
    configuration::Configuration,
    counts::{Phase, PhaseKind, Repetition, Role},
    engine::{self, Bench, Host, Server, ServerSpec},
    environment::{
        hooks_of,
        load::{Load, Watched},
    },
    error::{Error, Result},
    interrupt,
    ledger::{Item, Lease, Ledger, PROGRAMS},
    net::Wire,
    probes::{Dispatch, Loaded, Names, Offsets, Preference},
    process,
};

const PORT: u16 = 7000;
const PATIENCE: Duration = Duration::from_secs(15);
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
}

impl<'a> Lab<'a> {
    /// Builds the wire, prepares the engines, and tries the probes.
    ///
    /// # Errors
    /// If anything of it is impossible here; what was made is removed again.
    pub fn new(plan: &'a Plan, ledger: Ledger, run_id: &str, options: ProbeOptions) -> Result<Self> {
        let phases = phases(plan.duration)?;
        let cpus = plan.placement.divide(&allowed_cpus()?)?;
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
        let bench = Bench { run_id: run_id.to_owned(), ledger, wire, binary };
        let mut hosts = BTreeMap::new();
        for engine in engine::all() {
            let wanted: Vec<Configuration> =
                plan.configurations.iter().filter(|found| found.engine == engine.name()).cloned().collect();
            if !wanted.is_empty() {
                interrupt::check()?;
                hosts.insert(engine.name().to_owned(), engine.prepare(&bench, &wanted)?);
            }
        }
        Ok(Self { plan, hosts, bench, _programs: programs, cpus, offsets, options, phases })
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
        let arguments = self.plan.workload.server_arguments(&self.plan.settings);
        let server = host.start(&self.bench, configuration, &ServerSpec { arguments, port: PORT })?;
        if !self.cpus.server.is_empty() {
            for pid in process::family(server.pid()) {
                process::pin(pid, &self.cpus.server)?;
            }
        }
        Ok(server)
    }

    fn start_client(&self, configuration: &Configuration, server: &mut dyn Server) -> Result<Client> {
        let mut client = Client::start(&self.bench, self.plan.workload, &self.plan.settings, server.address())?;
        if !self.cpus.client.is_empty() {
            process::pin(client.pid(), &self.cpus.client)?;
        }
        client
            .wait_ready(PATIENCE, || match server.failure() {
                Some(why) => Err(Error::workload(format!("the server of `{configuration}` failed"), why)),
                None => Ok(()),
            })
            .map_err(|error| explain_unreachable(configuration, error))?;
        Ok(client)
    }

    /// Names of the path's devices, and the processes with their roles.
    fn who_and_where(&self, server: &dyn Server, client: &Client) -> Result<(Names, BTreeMap<u32, Role>)> {
        let mut names = self.bench.wire.names()?;
        server.label(&mut names)?;
        let mut roles = BTreeMap::new();
        roles.extend(process::family(client.pid()).into_iter().map(|pid| (pid, Role::Client)));
        roles.extend(process::family(server.pid()).into_iter().map(|pid| (pid, Role::Server)));
        Ok((names, roles))
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
        let (names, roles) = self.who_and_where(server.as_ref(), &client)?;
        probes.follow(&roles)?;
        interrupt::sleep(WARM_UP)?;
        let connections = self.plan.workload.connections(&self.plan.settings);
        function(&mut Measurement::new(&mut probes, &mut client, &names, connections), dispatch_ns)
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
    fn repeat(
        &mut self,
        configuration: &Configuration,
        round: u32,
        position: u32,
    ) -> Result<(Repetition, Vec<Record>)> {
        let mut probes = Loaded::new(&self.offsets, self.options.preference, self.options.debug)?;
        let dispatch_ns = self.dispatch_ns(&mut probes)?;
        let mut server = self.start_server(configuration)?;
        let mut client = self.start_client(configuration, server.as_mut())?;
        let (names, roles) = self.who_and_where(server.as_ref(), &client)?;
        probes.follow(&roles)?;
        interrupt::sleep(WARM_UP)?;
        process::check_placement(client.pid(), &self.cpus.client)?;
        process::check_placement(server.pid(), &self.cpus.server)?;
        let connections = self.plan.workload.connections(&self.plan.settings);
        let watched = Watched { families: roles.keys().copied().collect(), cpus: self.cpus.clone() };
        let mut measurement = Measurement::new(&mut probes, &mut client, &names, connections);
        let costs = measurement.costs(dispatch_ns)?;
        let before = Load::now(&watched);
        let (agent_before, clock_before) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let raw = run_phases(&mut measurement, &self.phases, self.plan.records_per_s);
        let (agent_after, clock_after) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let raw = match (raw, server.failure()) {
            (Ok(raw), None) => raw,
            (_, Some(why)) => return Err(Error::workload(format!("the server of `{configuration}` failed"), why)),
            (Err(error), None) => return Err(error),
        };
        let disturbances = Load::now(&watched).disturbances_since(&before);
        let labels = probes.labels(&names);
        let (mut phases, mut records) = (Vec::new(), Vec::new());
        for phase in raw {
            let (phase, of_phase) = match phase {
                Either::Detached(phase) => (phase, Vec::new()),
                Either::Probed(raw) => raw.named(&labels, round),
            };
            phases.push(phase);
            records.extend(of_phase);
        }
        let repetition = Repetition {
            round,
            configuration: configuration.to_string(),
            position,
            connections,
            settings: engine::verified_settings(server.pid())?,
            devices: labels.devices().cloned().collect(),
            server_hooks: hooks_of(server.pid()),
            client_hooks: hooks_of(client.pid()),
            phases,
            costs,
            disturbances,
            agent_cpu_ns: agent_after - agent_before,
            agent_wall_ns: clock_after - clock_before,
        };
        Ok((repetition, records))
    }
}

enum Either {
    Detached(Phase),
    Probed(super::measure::RawPhase),
}

fn run_phases(
    measurement: &mut Measurement<'_>,
    phases: &[(PhaseKind, Duration)],
    records_per_s: f64,
) -> Result<Vec<Either>> {
    let mut done = Vec::with_capacity(phases.len());
    for (kind, length) in phases {
        done.push(if *kind == PhaseKind::Detached {
            let phase = measurement.detached(*length)?;
            let operations_per_s = phase.client.operations as f64 / length.as_secs_f64();
            measurement.aim_at(records_per_s, operations_per_s);
            Either::Detached(phase)
        } else {
            Either::Probed(measurement.probed(*kind, *length)?)
        });
    }
    Ok(done)
}
