//! The agent's side.

use std::{
    fs::{self, OpenOptions},
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use profiler_common::Counter;
use workloads::clock::now_ns;

use super::wire::{self, PORT, Reply, Request, VERSION};
use virtax_model::{
    counts::{Costs, OtherSide, PhaseKind, Role, Side},
    error::{Error, Result},
    points::PROBES,
    profile::Profile,
};
use virtax_probes::{
    Border, BorderKind, Boundary, ConfigurationId, Expected, Followed, Following, Loaded, Names, Notes, Offsets, Open,
    Options, Ready, Sampler, Task, Window, interrupt,
    process::{self, allowed_cpus},
    sampling::{self, RawSampled, Sampling},
};

/// Where the kernel lists the VM's ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// How long the port may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what began in a phase may go on after it. The host waits for this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long the probes are told to do nothing, and then are at work, to learn what they cost; so often: what another
/// thread, or the host, interrupts stands in one reading, and the median has none of it.
const COST_WINDOW: Duration = Duration::from_millis(40);
const COST_WINDOWS: u32 = 7;
/// How many windows are waited for what the statistics themselves cost.
const COST_FLOORS: u32 = 10;
/// The guest's only network card.
const CARD: &str = "eth0";

struct Agent {
    probes: Loaded,
    server: u32,
    port: u16,
    options: Options,
    names: Names,
    namespace: u32,
    phase: Phase,
    /// What sampled phases brought.
    sampled: Vec<RawSampled>,
    sampling: Sampling,
}

/// A phase under way, by what the host has asked for so far.
#[derive(Default)]
enum Phase {
    #[default]
    None,
    Following(Following),
    Open(Open),
}

/// Does what the host says, as long as it says something.
///
/// # Errors
/// If there is no port, or the probes cannot be loaded; the host is told the latter.
pub fn serve(server: u32, port: u16, of_files: bool) -> Result<()> {
    let path = find_port()?;
    let fail = |error| Error::file("use", &path, error);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
    let mut lines = BufReader::new(file.try_clone().map_err(fail)?);
    let mut agent = Agent::new(server, port, of_files);
    loop {
        let request = wire::hear(&mut lines).map_err(fail)?;
        let done = match &mut agent {
            Ok(agent) => agent.answer(&request),
            Err(error) => Err(Error::unsupported("the probes do not load in the guest", &*error, "take agent=off")),
        };
        match done {
            Ok(None) => {}
            Ok(Some(reply)) => wire::say(&mut file, &reply).map_err(fail)?,
            Err(error) => wire::say(&mut file, &Reply::Failed { why: error.to_string() }).map_err(fail)?,
        }
    }
}

/// The device of the port with our name: it comes some time after its driver.
fn find_port() -> Result<PathBuf> {
    let start = Instant::now();
    loop {
        let ports = fs::read_dir(PORTS).into_iter().flatten().flatten();
        let ours = |folder: &Path| fs::read_to_string(folder.join("name")).is_ok_and(|name| name.trim() == PORT);
        if let Some(port) = ports.into_iter().find(|port| ours(&port.path())) {
            return Ok(Path::new("/dev").join(port.file_name()));
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::unsupported(
                "there is no port to the host",
                format!("none in {PORTS} is called {PORT}"),
                "report this",
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Agent {
    fn new(server: u32, port: u16, of_files: bool) -> Result<Self> {
        let options = Options { files: of_files, ..Options::default() };
        let probes = Loaded::new(&Offsets::of_running_kernel()?, &options)?;
        let namespace = process::network_namespace(std::process::id())?;
        let sampling = Sampling { rate_hz: 0, cpus: allowed_cpus()?, until: None };
        let mut names = Names::default();
        // Disks are in no namespace.
        [namespace, 0].into_iter().for_each(|namespace| names.namespace(namespace, Side::GUEST));
        let (phase, sampled) = (Phase::None, Vec::new());
        Ok(Self { probes, server, port, options, names, namespace, phase, sampled, sampling })
    }

    fn answer(&mut self, request: &Request) -> Result<Option<Reply>> {
        match request {
            Request::Hello { .. } => Ok(Some(self.hello())),
            Request::Begin { kind, connections, rate_hz, wait_every } => {
                self.sampling.rate_hz = *rate_hz;
                self.begin(*kind, *connections, *wait_every).map(|()| Some(Reply::Begun))
            }
            Request::Clock => Ok(Some(Reply::Clock { now_ns: now_ns() })),
            Request::Record { in_ns, at_ns, length_ns } => {
                self.record(at_ns.unwrap_or_else(|| now_ns().saturating_add(*in_ns)), *length_ns);
                Ok(None)
            }
            Request::End => self.end().map(|counts| Some(Reply::Counted(Box::new(counts)))),
            Request::Costs { connections } => self.costs(*connections).map(|costs| Some(Reply::Costs(costs))),
            Request::Profile => self.profile().map(|profile| Some(Reply::Profiled(Box::new(profile)))),
        }
    }

    fn hello(&self) -> Reply {
        let loaded: Vec<&str> = self.probes.chosen().map(|(probe, _)| probe.name).collect();
        let wanted = PROBES.iter().filter(|probe| self.options.wants(probe.set)).map(|probe| probe.name);
        Reply::Hello {
            version: VERSION,
            release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            lacks: wanted.filter(|name| !loaded.contains(name)).map(str::to_owned).collect(),
        }
    }

    /// Follows requests from the card to the server and back to the card.
    fn begin(&mut self, kind: PhaseKind, connections: u32, wait_every: u32) -> Result<()> {
        self.phase = Phase::None;
        let sampler = Sampler { cpus: &self.sampling.cpus, rate_hz: self.sampling.rate_hz };
        let ready = Ready::attach(&mut self.probes, kind, sampler)?;
        self.phase = Phase::Following(self.follow(ready, connections, wait_every)?);
        Ok(())
    }

    /// Begins to follow requests, and waits until every connection's token has been seen.
    fn follow(&mut self, ready: Ready, connections: u32, wait_every: u32) -> Result<Following> {
        let server = process::family(self.server).into_iter();
        let device = Boundary { ifindex: card_number(), namespace: self.namespace };
        let followed = Followed {
            tasks: server.map(|id| Task { id, role: Role::Server, port: None }).collect(),
            borders: vec![Border { device, kind: BorderKind::Card { port: self.port } }],
        };
        let notes = Notes { record_every: 0, wait_every };
        let following = ready.follow(&mut self.probes, followed.into(), notes)?;
        let expected = match self.options.files {
            true => Expected::Tokens(connections),
            false => Expected::Servers(connections),
        };
        following.lead_in(&self.probes, expected)?;
        Ok(following)
    }

    fn record(&mut self, open_ns: u64, length_ns: u64) {
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Following(following) => {
                let close_ns = open_ns.saturating_add(length_ns);
                let window = Window { configuration: ConfigurationId::FIRST, open_ns, close_ns };
                Phase::Open(following.open(&self.probes, window))
            }
            other @ (Phase::None | Phase::Open(_)) => other,
        };
    }

    fn end(&mut self) -> Result<OtherSide> {
        let Phase::Open(open) = std::mem::take(&mut self.phase) else {
            return Err(Error::workload("no phase was recorded in the guest", "the host asked for its counts"));
        };
        interrupt::sleep(Duration::from_nanos(open.window().close_ns.saturating_sub(now_ns())))?;
        open.drain(&mut self.probes, LONGEST_WAIT, |_| ())?;
        let closed = open.close(&self.probes);
        let labels = self.probes.labels(&self.names);
        let probes = closed.first_counts(&self.probes, &labels)?;
        // One that came too late is measured again.
        if closed.kind() == PhaseKind::Sampled && !closed.is_late() {
            let mut events = Vec::new();
            let unreadable = self.probes.take_events(&mut events);
            events.retain(|event| closed.is_own(event.head.epoch));
            let mut sampled = RawSampled::new(&probes, events, closed.window().length_ns());
            sampled.noted.1 += unreadable;
            self.sampled.push(sampled);
        }
        let is_traced = closed.kind() == PhaseKind::Traced;
        let crossings = if is_traced { closed.crossings(&self.probes) } else { Vec::new() };
        let devices = labels.devices().cloned().collect();
        Ok(OtherSide { probes, devices, crossings, late: closed.is_late(), ..OtherSide::default() })
    }

    /// Measures, as on the host, the statistics' own cost, with the probes told to do nothing, then theirs. What
    /// getting into them takes is not measured: each turn attaches one, which takes an emulated processor long, and one
    /// turn tells nothing.
    fn costs(&mut self, connections: u32) -> Result<Costs> {
        let kind = PhaseKind::Traced;
        let _statistics = Loaded::keep_run_times()?;
        let sampler = Sampler { cpus: &[], rate_hz: 0 };
        let ready = Ready::attach(&mut self.probes, kind, sampler)?;
        let (runs, floor_ns) = self.probes.statistics_floor(kind, COST_WINDOW, COST_FLOORS)?;
        self.phase = Phase::Following(self.follow(ready, connections, 0)?);
        let length = COST_WINDOW * COST_WINDOWS;
        self.record(now_ns(), length.as_nanos() as u64);
        let mut before = self.probes.run_times(kind);
        let mut readings = Vec::new();
        let began = Instant::now();
        for _ in 0..COST_WINDOWS {
            std::thread::sleep(COST_WINDOW);
            let after = self.probes.run_times(kind);
            readings.push([std::mem::replace(&mut before, after.clone()), after]);
        }
        // A slow processor takes its time to sleep and to read: hits were counted for longer than operations.
        let longer = began.elapsed().as_secs_f64() / length.as_secs_f64();
        let operations = (self.end()?.probes.counter(Counter::Operations) as f64 * longer).round() as u64;
        if operations == 0 || runs == 0 {
            return Err(Error::workload("what the probes cost is not known", "too few requests came meanwhile"));
        }
        let probes = self.probes.costs(kind, &readings, operations, floor_ns);
        Ok(Costs { probes, dispatch_ns: 0.0, floor_ns })
    }

    /// Names are looked up once, when nothing is measured any more.
    fn profile(&mut self) -> Result<Profile> {
        let sampled = std::mem::take(&mut self.sampled);
        let mut profile = sampling::profile(&sampled, &self.probes.labels(&self.names), 0, &self.sampling)?;
        // What the host does not use need not travel.
        profile.cpus.clear();
        Ok(profile)
    }
}

fn card_number() -> u32 {
    let text = fs::read_to_string(format!("/sys/class/net/{CARD}/ifindex")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
