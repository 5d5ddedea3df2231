//! The agent's side.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use profiler_common::{Control, Counter, ON, PARTS, STACKS, TOTALS};
use workloads::clock::now_ns;

use super::wire::{self, PORT, Reply, Request, VERSION};
use crate::{
    counts::{Costs, GuestCounts, PhaseKind, Role},
    error::{Error, Result},
    points::PROBES,
    probes::{Attached, Drain, Loaded, Names, Offsets, Options, Totals, floor},
    process::{self, allowed_cpus},
    profile::Profile,
    sampling::{self, RawSampled, Sampling, UserNames},
};

/// Where the kernel lists the machine's ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// How long the port may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
/// As on the host: what is on its way at the beginning of a phase has been seen before.
const LEAD_IN: Duration = Duration::from_millis(20);
const LONGEST_LEAD_IN: Duration = Duration::from_secs(2);
/// As on the host: how often it is looked whether what began in a phase has ended.
const LEAD_OUT: Duration = Duration::from_millis(2);
/// How long that may take. The host waits for this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long the probes are told to do nothing, and then are at work, to learn what they cost; so often: what another
/// thread, or the host, interrupts stands in one reading, and the median has none of it.
const COST_WINDOW: Duration = Duration::from_millis(40);
const COST_WINDOWS: u32 = 7;
/// Runs that are enough for what the statistics themselves cost, and how many windows are waited for them.
const FLOOR_RUNS: u64 = 100;
const COST_FLOORS: u32 = 10;
/// The guest's only network card, and what its namespace is called.
const CARD: &str = "eth0";
const NAMESPACE: &str = "guest";

struct Agent {
    probes: Loaded,
    server: u32,
    port: u16,
    options: Options,
    names: Names,
    namespace: u32,
    epoch: u32,
    phase: Option<Phase>,
    /// What sampled phases brought.
    sampled: Vec<RawSampled>,
    sampling: Sampling,
}

/// A phase under way.
struct Phase {
    kind: PhaseKind,
    attached: Vec<Attached>,
    before: Totals,
    control: Control,
    /// It had begun when its times came.
    late: bool,
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
        [namespace, 0].into_iter().for_each(|namespace| names.namespace(namespace, NAMESPACE));
        let (phase, sampled) = (None, Vec::new());
        Ok(Self { probes, server, port, options, names, namespace, epoch: 0, phase, sampled, sampling })
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
        self.phase = None;
        let mut attached = vec![self.probes.attach(kind)?];
        if kind == PhaseKind::Sampled {
            attached.push(self.probes.attach_sampler(&self.sampling.cpus, self.sampling.rate_hz)?);
        }
        self.start(kind, attached, connections, wait_every)
    }

    /// The same with probes that are attached.
    fn start(&mut self, kind: PhaseKind, attached: Vec<Attached>, connections: u32, wait_every: u32) -> Result<()> {
        let before = self.probes.totals()?;
        let followed: BTreeMap<u32, Role> =
            process::family(self.server).into_iter().map(|pid| (pid, Role::Server)).collect();
        self.probes.follow(followed.into_iter())?;
        self.epoch += 1;
        let control = Control {
            state: ON,
            epoch: self.epoch,
            open_ns: u64::MAX,
            close_ns: u64::MAX,
            mode: match kind {
                PhaseKind::Detailed => PARTS,
                PhaseKind::Sampled => STACKS,
                PhaseKind::Detached | PhaseKind::Traced => TOTALS,
            },
            wait_every: if kind == PhaseKind::Sampled { wait_every } else { 0 },
            boundary_ifindex: card_number(),
            boundary_namespace: self.namespace,
            inside_port: u32::from(self.port),
            ..Control::default()
        };
        self.probes.control(control);
        let start = Instant::now();
        let seen = || match self.options.files {
            true => self.probes.tokens_seen(self.epoch),
            false => self.probes.server_sockets_seen(self.epoch),
        };
        while seen() < connections as usize && start.elapsed() < LONGEST_LEAD_IN {
            std::thread::sleep(LEAD_IN);
        }
        self.phase = Some(Phase { kind, attached, before, control, late: false });
        Ok(())
    }

    fn record(&mut self, open_ns: u64, length_ns: u64) {
        if let Some(phase) = &mut self.phase {
            phase.control.open_ns = open_ns;
            phase.control.close_ns = open_ns.saturating_add(length_ns);
            self.probes.record(phase.control.open_ns, phase.control.close_ns);
            phase.late = now_ns() >= open_ns;
        }
    }

    fn end(&mut self) -> Result<GuestCounts> {
        let none = || Error::workload("no phase was recorded in the guest", "the host asked for its counts");
        let phase = self.phase.take().filter(|phase| phase.control.close_ns < u64::MAX).ok_or_else(none)?;
        std::thread::sleep(Duration::from_nanos(phase.control.close_ns.saturating_sub(now_ns())));
        let (closed, mut drain) = (Instant::now(), Drain::default());
        loop {
            std::thread::sleep(LEAD_OUT);
            if drain.is_over(&self.probes, &phase.before, self.epoch)? || closed.elapsed() > LONGEST_WAIT {
                break;
            }
        }
        let until_ns = now_ns();
        self.probes.stop();
        drop(phase.attached);
        let labels = self.probes.labels(&self.names);
        let probes = self.probes.counts_since(&phase.before, &labels, &phase.control, until_ns)?;
        // One that came too late is measured again.
        if phase.kind == PhaseKind::Sampled && !phase.late {
            let mut events = Vec::new();
            let unreadable = self.probes.take_events(&mut events);
            events.retain(|event| event.head.epoch == self.epoch);
            self.sampled.push(RawSampled {
                events,
                users: UserNames::default(),
                operations: probes.counter(Counter::Operations),
                length_ns: phase.control.close_ns - phase.control.open_ns,
                schedstat_ns: BTreeMap::new(),
                states: probes.states.clone(),
                noted: (probes.counter(Counter::Events), probes.counter(Counter::EventsRingFull) + unreadable),
            });
        }
        let crossings =
            if phase.kind == PhaseKind::Traced { self.probes.crossings(&phase.control) } else { Vec::new() };
        let devices = labels.devices().cloned().collect();
        Ok(GuestCounts { probes, devices, crossings, late: phase.late, ..GuestCounts::default() })
    }

    /// As on the host: the statistics' own cost, with the probes told to do nothing, then theirs. What getting into
    /// them takes is not measured: each turn attaches one, which takes an emulated processor long, and one turn tells
    /// nothing.
    fn costs(&mut self, connections: u32) -> Result<Costs> {
        let kind = PhaseKind::Traced;
        let _statistics = Loaded::keep_run_times()?;
        let attached = self.probes.attach(kind)?;
        let start = self.probes.run_times(kind);
        let mut found = (0, 0.0);
        for _ in 0..COST_FLOORS {
            std::thread::sleep(COST_WINDOW);
            found = floor(&start, &self.probes.run_times(kind));
            if found.0 >= FLOOR_RUNS {
                break;
            }
        }
        let (runs, floor_ns) = found;
        self.start(kind, vec![attached], connections, 0)?;
        let length = COST_WINDOW * COST_WINDOWS;
        self.record(now_ns(), length.as_nanos() as u64);
        let mut readings = vec![self.probes.run_times(kind)];
        let began = Instant::now();
        for _ in 0..COST_WINDOWS {
            std::thread::sleep(COST_WINDOW);
            readings.push(self.probes.run_times(kind));
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
