//! A guest, from power on to power off.

use std::{
    fs::{self, File},
    net::SocketAddrV4,
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use workloads::init::{FAILED, FILE_SYSTEM, READY, Serve, Task};

use super::{
    Agent, Files, Starter,
    command_line::{Qemu, UserNetwork},
    disk::{self, Disk},
    gate::{self, Proof},
    launch::{self, Link, Running, Wanted},
    monitor,
    tuning::{Layout, Settings},
};
use crate::{
    artifact,
    engine::configuration::Configuration,
    engine::files,
    engine::{Bench, DATA, Program, Server, last_lines_of, ns::network::Network},
    guest::{DRIVERS, Image, Kernel},
    net::{Namespace, Segment, Subnets},
};
use virtax_model::{
    counts::Accelerator,
    error::{Error, Result},
};
use virtax_probes::{Boundary, Names, interrupt, process};

/// How long a guest may take until its server answers: ten times as long as it takes on a slow host.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the agent lies in a guest.
const AGENT: &str = "/virtax-agent";
/// Characters of what the console says of a guest that is ready: its kernel's release, its uptime, its disk.
const LONGEST_READY: usize = 256;
/// Lines of its console that a message shows.
const CONSOLE_LINES: usize = 12;

struct Guest {
    running: Running,
    address: SocketAddrV4,
    console: PathBuf,
    initial: PathBuf,
    boundary: Option<Boundary>,
    network: Option<Rc<Network>>,
    client: Rc<Namespace>,
    facts: Vec<(String, String)>,
    agent: Option<Agent>,
    /// Whether each of its processors has a CPU of its own.
    is_pinned: bool,
    disk: Option<Disk>,
    _settings: Settings,
}

/// Where the guest sits, and where the client reaches it.
struct Place<'a> {
    guest: Serve,
    address: SocketAddrV4,
    link: Link<'a>,
}

fn place<'a>(bench: &Bench, configuration: &Configuration, network: Option<&'a Rc<Network>>) -> Place<'a> {
    let (port, subnets) = (bench.port_of(configuration), bench.wire.subnets);
    let at = |address| SocketAddrV4::new(address, port);
    let told = |address, prefix, gateway| {
        let Program { path: program, arguments, .. } = bench.server.packed(at(address), None);
        Serve { address, prefix, gateway, port, program, arguments, agent: None, has_disk: false, data: None }
    };
    let Some(network) = network else {
        let (gateway, address) = subnets.inside_qemu();
        let link = Link::User(UserNetwork { from: at(subnets.host()), to: at(address), gateway });
        return Place { guest: told(address, Subnets::PREFIX, gateway), address: at(subnets.host()), link };
    };
    let segment = network.segment;
    let address = if configuration.key("net") == "nat" { segment.router } else { segment.server };
    let guest = told(segment.server, Segment::PREFIX, segment.gateway);
    Place { guest, address: at(address), link: Link::Tap(network) }
}

pub(super) fn start(
    bench: &Bench,
    configuration: &Configuration,
    qemu: &Qemu,
    kernel: &Kernel,
    network: Option<&Rc<Network>>,
    starter: &Starter,
) -> Result<Box<dyn Server>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let place = place(bench, configuration, network);
    let disk = Disk::create(bench, configuration, &qemu.folder, number)?;
    let holds_files = disk.as_ref().is_some_and(|disk| disk.holds_files);
    let files = Files {
        kernel: kernel.image.clone(),
        console: bench.ledger.folder().join("console.log"),
        initial: qemu.folder.join(format!("initial-{number}")),
        disk: disk.as_ref().map(|disk| disk.path.clone()),
    };
    // With QEMU's own network, QEMU is the server, and nothing of the guest is on the path.
    let has_agent = configuration.key("agent") == "on" && network.is_some();
    let mut task = place.guest;
    task.has_disk = disk.is_some();
    task.data = holds_files.then(|| DATA.into());
    write_image(bench, configuration, kernel, (task, has_agent), &files.initial)?;
    File::create(&files.console).map_err(|error| Error::file("write", &files.console, error))?;
    let layout = Layout::of(configuration, &bench.server_cpus);
    let settings = Settings::make(bench, configuration, &layout)?;
    let (link, files_of_run) = (place.link, &files);
    let wanted = Wanted { bench, configuration, qemu, link, layout: &layout, files: files_of_run, number, has_agent };
    let launched = match starter {
        Starter::Itself => launch::by_itself(&wanted)?,
        Starter::Libvirt(libvirt) => {
            launch::by_libvirt(&wanted, libvirt).map_err(|error| given_up_by_qemu(configuration, error))?
        }
    };
    let mut guest = Guest {
        running: launched.running,
        address: place.address,
        console: files.console,
        initial: files.initial,
        boundary: launched.boundary,
        network: network.cloned(),
        client: bench.wire.namespace.clone(),
        facts: Vec::new(),
        agent: None,
        is_pinned: configuration.key("pin") == "on",
        disk,
        _settings: settings,
    };
    let for_files = if holds_files { bench.server.patience() } else { Duration::ZERO };
    let ready = guest.await_server(PATIENCE + for_files, configuration, launched.proof.as_ref())?;
    guest.facts = facts(&guest, configuration, qemu, starter, &ready)?;
    if let Some(monitor) = launched.monitor {
        let threads = monitor::check(monitor, guest.running.pid())?;
        guest.facts.push(("threads".to_owned(), threads));
    }
    if let Some(host) = launched.agent {
        let greeted = Agent::greet(host, &guest.console)
            .map_err(|error| Error::workload("there is no way to the guest", error))?;
        guest.agent = Some(greeted);
    }
    Ok(Box::new(guest))
}

/// An error of libvirt's. If QEMU itself gave up within KVM, as it does where a host has less of it than it says, this
/// host has no KVM for it.
fn given_up_by_qemu(configuration: &Configuration, error: Error) -> Error {
    let words = error.to_string();
    // The file of QEMU's that says so, by itself or in an assertion.
    if configuration.engine == "kvm" && words.contains("kvm.c:") {
        return gate::no_kvm(&format!("the guest of `{configuration}` does not start under KVM"), words);
    }
    error
}

/// Writes a guest's initial file system: what it is to do, and what for, an agent perhaps.
fn write_image(
    bench: &Bench,
    configuration: &Configuration,
    kernel: &Kernel,
    (mut task, has_agent): (Serve, bool),
    path: &Path,
) -> Result<()> {
    let mut files = bench.server.pack.clone();
    if has_agent {
        files.add_file(Path::new(AGENT), artifact::agent()?, 0o755);
        task.agent = Some(AGENT.into());
    }
    let holds_files = task.data.is_some();
    let image = Image {
        kernel,
        drivers: &[DRIVERS, disk::drivers(configuration), if holds_files { &[FILE_SYSTEM] } else { &[] }].concat(),
        wishes: if holds_files { disk::WISHES } else { &[] },
        binary: artifact::workload()?,
        packs: &[&files],
        task: Task::Serve(task),
    };
    image.write(path)
}

/// What the VM is, and what its guest says of itself when it is ready: release, uptime, disk.
fn facts(
    guest: &Guest,
    configuration: &Configuration,
    qemu: &Qemu,
    starter: &Starter,
    ready: &str,
) -> Result<Vec<(String, String)>> {
    let mut words = ready.split(' ');
    let (release, uptime) = (words.next().unwrap_or_default(), words.next().unwrap_or("?"));
    let mut facts = [
        (Accelerator::SETTING, qemu.accelerator.name().to_owned()),
        ("machine", configuration.key("machine").to_owned()),
        ("guest_kernel", release.to_owned()),
        ("guest_ready", format!("{uptime} s of its own time")),
        ("started_by", starter.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    if let Some(disk) = &guest.disk {
        let seen = disk.check(configuration, words.next().unwrap_or_default())?;
        if disk.holds_files {
            // It would not have come up without it.
            let device = seen.split(',').next().unwrap_or_default();
            facts.push(("filesystem".to_owned(), FILE_SYSTEM.to_owned()));
            facts.push(("filesystem_source".to_owned(), format!("/dev/{device} of the guest's")));
            facts.extend(files::of_image(&disk.path));
        }
        facts.push(("guest_disk".to_owned(), seen));
    }
    Ok(facts)
}

/// What the guest's kernel gave up for: it may say so before many lines of how it came there.
fn panic_of(console: &Path) -> Option<String> {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.find("Kernel panic").map(|at| &line[at..]))?;
    Some(line.chars().filter(|letter| !letter.is_control()).take(200).collect())
}

impl Guest {
    /// Waits until the console says that the server answers; the release of its kernel, and its uptime. With a proof,
    /// it must be there by then, and a VM in which nothing shows for long is given up early.
    fn await_server(
        &mut self,
        patience: Duration,
        configuration: &Configuration,
        proof: Option<&Proof>,
    ) -> Result<String> {
        let began = Instant::now();
        let deadline = Instant::now() + patience;
        let fail = |guest: &Self, why: String| {
            let words = last_lines_of(&guest.console, CONSOLE_LINES);
            let words =
                if words.is_empty() { "its console is empty".to_owned() } else { format!("its console: {words}") };
            let why = panic_of(&guest.console).map_or(why.clone(), |panic| format!("{why}: {panic}"));
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
                let plain = release.trim().chars().filter(|letter| !letter.is_control()).take(LONGEST_READY).collect();
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
            if let Some(ended) = self.running.ended() {
                return Err(fail(self, ended));
            }
            if Instant::now() > deadline {
                return Err(fail(self, format!("its server does not answer after {} s", patience.as_secs())));
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
        self.running.pid()
    }
    fn is_vm(&self) -> bool {
        true
    }
    fn place_freely(&self, cpus: &[usize]) -> Result<()> {
        // libvirt lets its VMs run on all of the host's.
        let pid = self.running.pid();
        process::pin(pid, cpus)?;
        let threads = process::named_threads(pid).into_iter();
        let processors = threads.filter(|(_, name)| self.is_pinned && process::is_processor(name));
        processors.zip(cpus.iter().cycle()).try_for_each(|((thread, _), cpu)| process::pin_thread(thread, &[*cpu]))
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
        let ended = self.running.ended()?;
        Some(format!("{ended}: {}", last_lines_of(&self.console, CONSOLE_LINES)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.initial);
    }
}
