//! A guest, from power on to power off.

use std::{
    fs::{self, File},
    io,
    net::SocketAddrV4,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Child,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use workloads::init::{FAILED, READY, Serve, Task};

use super::{
    Agent, Files, Processor, agent,
    gate::{self, Proof},
    machine::{Card, Machine},
    tap, vhost,
};
use crate::{
    artifact,
    child::{self, ChildLease},
    configuration::Configuration,
    engine::{Bench, Boundary, Server, last_lines_of, ns::network::Network},
    error::{Error, Result},
    guest::{DRIVERS, Image, Kernel},
    interrupt,
    net::{Namespace, Segment, Subnets},
    probes::Names,
};

/// How long a guest may take until its server answers: ten times as long as it takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the agent lies in a guest.
const AGENT: &str = "/virtax-agent";
/// Lines of its console that a message shows.
const CONSOLE_LINES: usize = 12;

struct Guest {
    child: Child,
    _lease: ChildLease,
    address: SocketAddrV4,
    console: PathBuf,
    initial: PathBuf,
    boundary: Option<Boundary>,
    network: Option<Rc<Network>>,
    client: Rc<Namespace>,
    facts: Vec<(String, String)>,
    agent: Option<Agent>,
}

/// Where the guest sits, where the client reaches it, and its card; the file is the tap's, to be kept until QEMU has it.
struct Place {
    guest: Serve,
    address: SocketAddrV4,
    card: Card,
    tap: Option<(File, Boundary)>,
    vhost: Option<File>,
}

fn place(bench: &Bench, configuration: &Configuration, network: Option<&Network>) -> Result<Place> {
    let (port, subnets) = (bench.server.port, bench.wire.subnets);
    let at = |address| SocketAddrV4::new(address, port);
    let told = |address, prefix, gateway| {
        let (program, arguments) = bench.server.packed(at(address), None);
        Serve { address, prefix, gateway, port, program, arguments, agent: None }
    };
    let Some(network) = network else {
        let (gateway, address) = subnets.inside_qemu();
        let card = Card::User { from: at(subnets.host()), to: at(address), gateway };
        let guest = told(address, Subnets::PREFIX, gateway);
        return Ok(Place { guest, address: at(subnets.host()), card, tap: None, vhost: None });
    };
    let (tap, boundary) = tap::create(network)?;
    let vhost = if configuration.key("vhost") == "on" { Some(vhost::open()?) } else { None };
    let segment = network.segment;
    let address = if configuration.key("net") == "nat" { segment.router } else { segment.server };
    Ok(Place {
        guest: told(segment.server, Segment::PREFIX, segment.gateway),
        address: at(address),
        card: Card::Tap(tap.as_raw_fd(), vhost.as_ref().map(AsRawFd::as_raw_fd)),
        tap: Some((tap, boundary)),
        vhost,
    })
}

pub(super) fn start(
    bench: &Bench,
    configuration: &Configuration,
    machine: &Machine,
    kernel: &Kernel,
    network: Option<&Rc<Network>>,
) -> Result<Box<dyn Server>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let place = place(bench, configuration, network.map(Rc::as_ref))?;
    let files = Files {
        kernel: kernel.image.clone(),
        console: bench.ledger.folder().join("console.log"),
        initial: machine.folder.join(format!("initial-{number}")),
    };
    // With QEMU's own network, QEMU is the server, and nothing of the guest is on the path.
    let has_agent = configuration.key("agent") == "on" && place.tap.is_some();
    let mut files_of_guest = bench.server.pack.clone();
    let mut task = place.guest.clone();
    let port = if has_agent {
        files_of_guest.add_file(Path::new(AGENT), artifact::agent()?, 0o755);
        task.agent = Some(AGENT.into());
        Some(agent::pair().map_err(|error| Error::workload("there is no way to the guest", error))?)
    } else {
        None
    };
    let image = Image {
        kernel,
        drivers: DRIVERS,
        binary: artifact::workload()?,
        packs: &[&files_of_guest],
        task: Task::Serve(task),
    };
    image.write(&files.initial)?;
    let output = File::create(&files.console)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| Error::file("write", &files.console, error))?;
    let mut command = child::command(&machine.qemu);
    let machines_end = port.as_ref().map(|(_, end)| end);
    command.args(machine.arguments(configuration, &files, &place.card, machines_end)).stdout(output.0).stderr(output.1);
    let inherited = place.tap.iter().map(|(tap, _)| tap.as_raw_fd());
    let inherited = inherited.chain(place.vhost.iter().map(AsRawFd::as_raw_fd));
    for descriptor in inherited.chain(machines_end.map(AsRawFd::as_raw_fd)) {
        // SAFETY: one async-signal-safe system call; the descriptor is open until the child has executed.
        unsafe { command.pre_exec(move || keep_open(descriptor)) };
    }
    let group = if machine.processor == Processor::Kvm { gate::group()? } else { None };
    child::unprivileged(&mut command, group);
    let (child, lease) = child::spawn(&bench.ledger, command)?;
    let mut guest = Guest {
        child,
        _lease: lease,
        address: place.address,
        console: files.console,
        initial: files.initial,
        boundary: place.tap.as_ref().map(|(_, boundary)| *boundary),
        network: network.cloned(),
        client: bench.wire.namespace.clone(),
        facts: Vec::new(),
        agent: None,
    };
    let proof = if machine.processor == Processor::Kvm { Some(Proof::of(guest.child.id())?) } else { None };
    let release = guest.await_server(configuration, proof.as_ref())?;
    let machine = configuration.key("machine").to_owned();
    guest.facts = [("accelerator", configuration.engine.clone()), ("machine", machine), ("guest_kernel", release)]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
    if let Some((host, machines_end)) = port {
        // QEMU has it: the guest's end must be seen to be closed when QEMU ends.
        drop(machines_end);
        let greeted = Agent::greet(host, &guest.console)
            .map_err(|error| Error::workload("there is no way to the guest", error))?;
        guest.agent = Some(greeted);
    }
    Ok(Box::new(guest))
}

fn keep_open(descriptor: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Guest {
    /// Waits until the console says that the server answers; the release of its kernel. With a proof, it must be there by then, and
    /// a machine in which nothing shows for long is given up early.
    fn await_server(&mut self, configuration: &Configuration, proof: Option<&Proof>) -> Result<String> {
        let began = Instant::now();
        let deadline = Instant::now() + PATIENCE;
        let fail = |guest: &Self, why: String| {
            let words = last_lines_of(&guest.console, CONSOLE_LINES);
            let words =
                if words.is_empty() { "its console is empty".to_owned() } else { format!("its console: {words}") };
            if proof.is_some_and(|proof| proof.check().is_err()) {
                return gate::no_kvm(
                    &format!("the guest of `{configuration}` does not start under KVM"),
                    format!("{why}; {words}"),
                );
            }
            Error::engine(
                format!("the guest of `{configuration}` does not start"),
                format!("{why}; {words}"),
                "try another kernel (kernel=PATH), or more memory (memory=1024)",
            )
        };
        loop {
            let console = fs::read(&self.console).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            if let Some((_, rest)) = console.split_once(READY)
                && let Some((release, _)) = rest.split_once(['\r', '\n'])
            {
                let plain = release.trim().chars().filter(|letter| !letter.is_control()).take(64).collect();
                return proof.map_or(Ok(()), Proof::check).map(|()| plain);
            }
            if began.elapsed() > gate::FIRST_ENTRY
                && let Some(proof) = proof
            {
                proof.check()?;
            }
            if console.contains(FAILED) && console.ends_with('\n') {
                return Err(fail(self, "its first process gave up".to_owned()));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(fail(self, format!("QEMU ended ({status})")));
            }
            if Instant::now() > deadline {
                return Err(fail(self, format!("its server does not answer after {} s", PATIENCE.as_secs())));
            }
            interrupt::sleep(Duration::from_millis(5))?;
        }
    }
}

impl Server for Guest {
    fn address(&self) -> SocketAddrV4 {
        self.address
    }
    fn pid(&self) -> u32 {
        self.child.id()
    }
    fn is_machine(&self) -> bool {
        true
    }
    fn take_agent(&mut self) -> Option<Agent> {
        self.agent.take()
    }
    fn boundary(&self) -> Option<Boundary> {
        self.boundary
    }
    fn label(&self, names: &mut Names) -> Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.label(&self.client, names))
    }
    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }
    fn failure(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("QEMU ended ({status}): {}", last_lines_of(&self.console, CONSOLE_LINES)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        child::end(&mut self.child);
        let _ = fs::remove_file(&self.initial);
    }
}
