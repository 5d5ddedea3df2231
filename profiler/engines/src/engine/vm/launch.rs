//! How a VM comes into being: QEMU as a child of virtax's, or through libvirt.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::Child,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Files, agent,
    command_line::{Card, Qemu, UserNetwork},
    domain::{self, Names},
    gate::{self, Proof},
    libvirt::{Domain, Libvirt},
    tap,
    tuning::Layout,
    vhost,
};
use crate::{
    child::{self, ChildLease},
    engine::configuration::Configuration,
    engine::{Bench, ns::network::Network},
    ledger::Lease,
};
use virtax_model::{
    counts::Accelerator,
    error::{Error, Result},
};
use virtax_probes::{Boundary, interrupt};

/// How long a socket may be missing that libvirt says is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be launched.
pub struct Wanted<'a> {
    pub bench: &'a Bench,
    pub configuration: &'a Configuration,
    pub qemu: &'a Qemu,
    pub link: Link<'a>,
    pub layout: &'a Layout,
    pub files: &'a Files,
    /// Number of the VM in this run.
    pub number: u32,
    pub has_agent: bool,
}

/// Where a VM's card leads.
#[derive(Clone, Copy)]
pub enum Link<'a> {
    /// To a tap of this network.
    Tap(&'a Rc<Network>),
    /// Into QEMU's own.
    User(UserNetwork),
}

/// A VM whose guest boots.
pub struct Launched {
    pub running: Running,
    pub boundary: Option<Boundary>,
    /// The host's end of the way to its agent.
    pub agent: Option<UnixStream>,
    /// QEMU's monitor, if virtax has it: libvirt has it for itself.
    pub monitor: Option<UnixStream>,
    pub proof: Option<Proof>,
}

/// A VM, for as long as it is to be.
pub enum Running {
    /// QEMU.
    Child(Child, #[expect(dead_code, reason = "held as long as the VM is")] ChildLease),
    /// libvirt's, with the tap that was made for it and the network that has it now.
    Domain(Domain, #[expect(dead_code, reason = "held as long as the VM is")] Option<Tap>),
}

/// A tap that lives until it is removed.
pub struct Tap {
    network: Rc<Network>,
    _lease: Lease,
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Err(error) = tap::remove(&self.network) {
            log::warn!("{error}");
        }
    }
}

impl Running {
    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Child(child, _) => child.id(),
            Self::Domain(domain, _) => domain.pid(),
        }
    }
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        match self {
            Self::Child(child, _) => child.try_wait().ok().flatten().map(|status| format!("QEMU ended ({status})")),
            Self::Domain(domain, _) => domain.has_ended().then(|| "QEMU ended".to_owned()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Child(child, _) = self {
            child::end(child);
        }
    }
}

/// QEMU as a child.
///
/// # Errors
/// If it cannot be started, or what it needs is not there.
pub fn by_itself(wanted: &Wanted<'_>) -> Result<Launched> {
    let Wanted { configuration, qemu, files, .. } = wanted;
    let vhost = if configuration.key("vhost") == "on" { Some(vhost::open()?) } else { None };
    let (card, tap) = match wanted.link {
        Link::Tap(network) => {
            let made = tap::create(network)?;
            (Card::Tap(made.0.as_raw_fd(), vhost.as_ref().map(AsRawFd::as_raw_fd)), Some(made))
        }
        Link::User(network) => (Card::User(network), None),
    };
    let port = if wanted.has_agent { Some(agent::pair().map_err(no_way)?) } else { None };
    let (agent, vms_end) = port.unzip();
    let (monitor, monitors_end) = agent::pair().map_err(no_way)?;
    let output = File::options()
        .append(true)
        .open(&files.console)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| Error::file("write", &files.console, error))?;
    let mut command = child::command(&qemu.program);
    let arguments =
        qemu.arguments(configuration, files, &card, wanted.layout, vms_end.as_ref(), monitors_end.as_raw_fd());
    command.args(arguments).stdout(output.0).stderr(output.1);
    let inherited = tap.iter().map(|(tap, _)| tap.as_raw_fd()).chain(vhost.iter().map(AsRawFd::as_raw_fd));
    for descriptor in inherited.chain(vms_end.iter().chain([&monitors_end]).map(AsRawFd::as_raw_fd)) {
        // SAFETY: one async-signal-safe system call; the descriptor is open until the child has executed.
        unsafe { command.pre_exec(move || keep_open(descriptor)) };
    }
    let is_kvm = qemu.accelerator == Accelerator::Kvm;
    child::unprivileged(&mut command, if is_kvm { gate::group()? } else { None });
    let (child, lease) = child::spawn(&wanted.bench.ledger, command)?;
    let running = Running::Child(child, lease);
    let proof = if is_kvm { Some(Proof::of(running.pid())?) } else { None };
    // QEMU has its end of the port: it must be seen to be closed when QEMU ends.
    Ok(Launched { running, boundary: tap.map(|(_, boundary)| boundary), agent, monitor: Some(monitor), proof })
}

fn keep_open(descriptor: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn no_way(error: io::Error) -> Error {
    Error::workload("there is no way to the guest", error)
}

/// A domain of libvirt's. libvirt opens a tap by its name where it is itself: so that is made there, down, and moved
/// into the network before the guest runs.
///
/// # Errors
/// If libvirt refuses, or what it needs is not there.
pub fn by_libvirt(wanted: &Wanted<'_>, libvirt: &Libvirt) -> Result<Launched> {
    let Wanted { bench, configuration, qemu, files, number, .. } = wanted;
    let name = format!("virtax-{}-{number}", bench.run_id);
    // As `virtax clean` knows it, if all else is lost.
    let tap = format!("vx{}t{}", bench.run_id, number % 10);
    if configuration.key("vhost") == "on" {
        drop(vhost::open()?);
    }
    let words;
    let (card, made) = match wanted.link {
        Link::Tap(network) => {
            (domain::Card::Tap(&tap), Some((network, tap::create_for(&bench.ledger, &tap, libvirt.user())?)))
        }
        Link::User(network) => {
            words = network.words();
            (domain::Card::User(&words), None)
        }
    };
    let socket = qemu.folder.join(format!("agent-{number}"));
    let shown = |path: &PathBuf| path.display().to_string();
    let mut description = domain::describe(
        configuration,
        qemu.accelerator,
        wanted.layout,
        &Names {
            domain: &name,
            qemu: &shown(&qemu.program),
            kernel: &shown(&files.kernel),
            initial: &shown(&files.initial),
            console: &shown(&files.console),
            agent: wanted.has_agent.then(|| shown(&socket)).as_deref(),
            disk: files.disk.as_ref().map(shown).as_deref(),
            card,
        },
    );
    if let Some(snippet) = &bench.vms.snippet {
        domain::merge(&mut description, snippet);
    }
    let is_kvm = qemu.accelerator == Accelerator::Kvm;
    let group = if is_kvm { gate::group()? } else { None };
    let mut created = libvirt.create(bench, &name, &domain::print(&description)?, group)?;
    let (boundary, tap) = match made {
        Some((network, lease)) => {
            let boundary = tap::move_into(network, &tap)?;
            (Some(boundary), Some(Tap { network: network.clone(), _lease: lease }))
        }
        None => (None, None),
    };
    // What the agent says before somebody listens would be lost.
    let agent = if wanted.has_agent { Some(connect(&socket)?) } else { None };
    let proof = if is_kvm { Some(Proof::of(created.pid())?) } else { None };
    created.resume()?;
    let _ = fs::remove_file(&socket);
    Ok(Launched { running: Running::Domain(created, tap), boundary, agent, monitor: None, proof })
}

fn connect(socket: &PathBuf) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(no_way(error)),
            Err(_) => interrupt::sleep(Duration::from_millis(10))?,
        }
    }
}
