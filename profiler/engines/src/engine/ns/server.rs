//! A server in its namespaces, with what stands beside it.

use std::{
    fs::{self, File},
    net::SocketAddrV4,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Child,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{
    has_proxy,
    launch::{self, COMMAND, Root, Spec},
    network::Network,
};
use crate::{
    cgroup::Cgroup,
    child::{self, ChildLease},
    engine::configuration::Configuration,
    engine::{Account, Bench, DATA, Server, image, last_lines, port_remedy, servers_account},
    injection::{Injection, Kind},
    ledger::{Item, Lease, Ledger, PROGRAMS, disk_folder, upper_layer},
    net::Namespace,
};
use virtax_model::error::{Error, Result};
use virtax_probes::{Names, interrupt, process};

/// How long the way through all namespaces may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Period of a quota: short, so that a round has many.
const PERIOD: Duration = Duration::from_millis(5);

/// The smallest quota that the kernel takes (`min_cfs_quota_period`).
pub(super) const SMALLEST_QUOTA: Duration = Duration::from_millis(1);

/// A share of the period.
pub(super) fn quota(percent: u32) -> Duration {
    PERIOD * percent / 100
}

/// A process beside the server: ended with it.
struct Companion {
    child: Child,
    _lease: ChildLease,
}

impl Drop for Companion {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}

struct Contained {
    // First, so ended first.
    relay: Option<Companion>,
    hogs: Vec<Companion>,
    launcher: Child,
    pid: u32,
    started: u64,
    address: SocketAddrV4,
    log: PathBuf,
    over: Option<PathBuf>,
    network: Option<Rc<Network>>,
    client: Rc<Namespace>,
    account: Option<PathBuf>,
    injection: Option<Injection>,
    // Held until the server is gone.
    leases: Vec<Lease>,
    // Last: it is busy as long as the server is in it.
    cgroup: Option<Cgroup>,
}

/// Where the server listens, and where the client reaches it.
fn addresses(bench: &Bench, configuration: &Configuration, network: Option<&Network>) -> (SocketAddrV4, SocketAddrV4) {
    let at = |address| SocketAddrV4::new(address, bench.port_of(configuration));
    let Some(network) = network else { return (at(bench.wire.subnets.host()), at(bench.wire.subnets.host())) };
    let segment = network.segment;
    let is_router = configuration.key("net") == "own";
    let through_router = is_router || configuration.key("net") == "nat" || has_proxy(configuration);
    (
        at(if is_router { segment.router } else { segment.server }),
        at(if through_router { segment.router } else { segment.server }),
    )
}

/// What is launched, and the file in which it notes its known cost.
fn spec(
    bench: &Bench,
    configuration: &Configuration,
    network: Option<&Network>,
    cgroup: Option<&Cgroup>,
    root: Option<Root>,
) -> Result<(Spec, Option<PathBuf>)> {
    let on = |key: &str| configuration.key(key) == "on";
    let (listen, _) = addresses(bench, configuration, network);
    let program = match root {
        None => bench.server.native(listen, configuration.injection)?,
        Some(_) => bench.server.packed(listen, configuration.injection),
    };
    let spec = Spec {
        cgroup_doors: cgroup.map(Cgroup::doors).unwrap_or_default(),
        network: network.map(|network| network.inner.as_ref().unwrap_or(&network.router).path().to_owned()),
        root,
        own_pids: on("pid"),
        own_users: on("user"),
        filtered: configuration.key("seccomp") == "docker",
        loading_filters: Injection::of(configuration.injection, Kind::Filters),
        program: program.path,
        arguments: program.arguments,
    };
    Ok((spec, program.account))
}

/// Refuses a folder for files that is none, or whose path has what the mount would take for its own marks.
fn check_folder(data: &Path, marks: &[char]) -> Result<()> {
    if !data.is_dir() {
        let why = format!("`folder={}` is no folder of this machine: make it, or name another", data.display());
        return Err(Error::Usage(why));
    }
    if data.to_string_lossy().contains(marks) {
        let why =
            format!("`folder={}` cannot be an overlay's: a comma, colon or backslash in it separates", data.display());
        return Err(Error::Usage(format!("{why} overlayfs's own options; name another")));
    }
    Ok(())
}

/// First made, then noted: one that somebody else has made there is nothing for us to remove. Nobody else may look
/// into it.
fn make_folder(bench: &Bench, path: &Path) -> Result<Lease> {
    let mut make = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
    make.create(path).map_err(|error| Error::file("create", path, error))?;
    bench.ledger.note(Item::Folder { path: path.to_owned() })
}

/// A lower layer of files that were never written to, on the disk of the upper.
fn never_written(over: &Path, bytes: u64) -> Result<PathBuf> {
    let layer = over.join("first");
    let data = layer.join(DATA.trim_start_matches('/'));
    let fail = |error: std::io::Error| Error::file("make files in", &data, error);
    fs::create_dir_all(&data).map_err(fail)?;
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).map_err(fail)?;
    workloads::block::first::make_lower(&data, bytes).map_err(fail)?;
    Ok(layer)
}

/// The root of `fs`; an overlay has its own upper layer in every repetition.
fn root_of(
    configuration: &Configuration,
    bench: &Bench,
    folder: Option<&Path>,
) -> Result<(Option<Root>, Option<Lease>)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some(folder) = folder else { return Ok((None, None)) };
    match configuration.key("fs") {
        "bind" => {
            let data = bench.server.data_folder().map(Path::to_owned);
            data.as_deref().map_or(Ok(()), |data| check_folder(data, &[]))?;
            Ok((Some(Root::Bind { folder: folder.to_owned(), data, image: None }), None))
        }
        "loop" => {
            let Some((data, mib)) = bench.server.files() else {
                let why = "fs=loop is for workloads that read and write files: give fs=bind";
                return Err(Error::Usage(format!("`{configuration}` cannot be: {why}")));
            };
            check_folder(data, &[])?;
            let path = data.join(disk_folder(&bench.run_id, COUNT.fetch_add(1, Ordering::Relaxed)));
            let lease = make_folder(bench, &path)?;
            let disk = path.join("disk");
            image::create(&disk, image::mib_for(mib) << 20)?;
            image::make_file_system(&disk)?;
            Ok((Some(Root::Bind { folder: folder.to_owned(), data: None, image: Some(disk) }), Some(lease)))
        }
        "overlay" => {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let (over, elsewhere) = match bench.server.data_folder() {
                // Files that the server writes are to lie on the disk that was asked for.
                Some(data) => {
                    check_folder(data, &[',', ':', '\\'])?;
                    let path = data.join(upper_layer(&bench.run_id, number));
                    let lease = make_folder(bench, &path)?;
                    (path, Some(lease))
                }
                None => (Path::new(PROGRAMS).join(&bench.run_id).join(format!("over-{number}")), None),
            };
            for layer in ["upper", "work", "root"] {
                let path = over.join(layer);
                fs::create_dir_all(&path).map_err(|error| Error::file("create", &path, error))?;
            }
            let first = match bench.server.first_writes() {
                Some(bytes) => Some(never_written(&over, bytes)?),
                None => None,
            };
            Ok((Some(Root::Overlay { first, lower: folder.to_owned(), over }), elsewhere))
        }
        _ => Ok((None, None)),
    }
}

pub(super) fn start(
    bench: &Bench,
    configuration: &Configuration,
    network: Option<&Rc<Network>>,
    folder: Option<&Path>,
) -> Result<Box<dyn Server>> {
    let cgroup = match configuration.key("cgroup") {
        "on" => Some(Cgroup::create(&bench.ledger, &bench.name_of(configuration))?),
        _ => None,
    };
    if let (Some(cgroup), percent @ 1..) = (&cgroup, Injection::of(configuration.injection, Kind::QuotaPercent)) {
        cgroup.limit_cpu(quota(percent), PERIOD)?;
    }
    let (root, elsewhere) = root_of(configuration, bench, folder)?;
    if let (Some(cgroup), per_s @ 1.., Some(data)) =
        (&cgroup, Injection::of(configuration.injection, Kind::ReadIops), bench.server.data_folder())
    {
        cgroup.limit_reads(data, per_s)?;
    }
    let over = match &root {
        Some(Root::Overlay { over, .. }) => Some(over.clone()),
        _ => None,
    };
    let network = network.cloned();
    let (spec, account) = spec(bench, configuration, network.as_deref(), cgroup.as_ref(), root)?;
    let log = bench.log_of(configuration);
    let (launcher, lease) = launch(bench, &spec, &log)?;
    let (_, address) = addresses(bench, configuration, network.as_deref());
    let mut server = Contained {
        relay: None,
        hogs: Vec::new(),
        launcher,
        pid: 0,
        started: 0,
        address,
        log,
        over,
        network,
        client: bench.wire.namespace.clone(),
        account,
        injection: configuration.injection,
        leases: std::iter::once(lease).chain(elsewhere).collect(),
        cgroup,
    };
    server.wait_for_program(&bench.ledger)?;
    if has_proxy(configuration) {
        server.relay = Some(server.start_relay(bench)?);
    }
    for _ in 0..Injection::of(configuration.injection, Kind::Hogs) {
        let mut command = child::command(&bench.binary);
        command.arg("hog");
        child::unprivileged(&mut command, None);
        let (child, lease) = child::spawn(&bench.ledger, command)?;
        server.hogs.push(Companion { child, _lease: lease });
    }
    Ok(Box::new(server))
}

fn launch(bench: &Bench, spec: &Spec, log: &Path) -> Result<(Child, ChildLease)> {
    let text = serde_json::to_string(spec).map_err(|error| Error::workload("cannot start the server", error))?;
    // A file, because a pipe that nobody reads would stop a server that says much.
    let output = File::create(log)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| Error::file("write", log, error))?;
    let mut command = child::command(Path::new("/proc/self/exe"));
    command.args([COMMAND, &text]).stdout(output.0).stderr(output.1);
    child::spawn(&bench.ledger, command).map_err(|error| Error::workload("cannot start the server", error))
}

impl Contained {
    /// Waits until the launcher's child is the server.
    fn wait_for_program(&mut self, ledger: &Ledger) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = launch::find_server(self.launcher.id());
            if let Some((pid, started)) = found.and_then(|pid| Some((pid, process::started(pid)?))) {
                (self.pid, self.started) = (pid, started);
                self.leases.push(ledger.note(Item::Process { pid, started })?);
                return Ok(());
            }
            if let Ok(Some(status)) = self.launcher.try_wait() {
                let words = last_lines(&self.log);
                let why = if words.is_empty() { launch::ending(status) } else { words };
                return Err(Error::unsupported(
                    "the server cannot be started in its namespaces",
                    why,
                    "leave out the key that the kernel forbids",
                ));
            }
            if Instant::now() > deadline {
                let why = format!("it is not there after {} s", PATIENCE.as_secs());
                return Err(Error::workload("cannot start the server", why));
            }
            interrupt::sleep(Duration::from_millis(2))?;
        }
    }

    /// The proxy: in the router's namespace, between the client and the server.
    fn start_relay(&self, bench: &Bench) -> Result<Companion> {
        let network =
            self.network.as_ref().ok_or_else(|| Error::Usage("a proxy needs a network of its own".to_owned()))?;
        let to = SocketAddrV4::new(network.segment.server, self.address.port());
        let mut command = child::command(&bench.binary);
        command.args(["relay", "--listen", &self.address.to_string(), "--connect", &to.to_string()]);
        // SAFETY: one async-signal-safe system call.
        unsafe { command.pre_exec(network.router.enter_before_exec()) };
        child::unprivileged(&mut command, None);
        let (child, lease) = child::spawn(&bench.ledger, command)?;
        Ok(Companion { child, _lease: lease })
    }
}

impl Server for Contained {
    fn address(&self) -> SocketAddrV4 {
        self.address
    }
    fn pid(&self) -> u32 {
        self.pid
    }
    fn relay(&self) -> Option<u32> {
        self.relay.as_ref().map(|relay| relay.child.id())
    }
    fn companions(&self) -> Vec<u32> {
        self.relay.iter().chain(&self.hogs).map(|companion| companion.child.id()).collect()
    }
    fn label(&self, names: &mut Names) -> Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.label(&self.client, names))
    }
    fn facts(&self) -> Vec<(String, String)> {
        let tool =
            self.network.as_ref().and_then(|network| network.tool).map(|tool| ("rules_by", tool.name().to_owned()));
        let cgroup = self.cgroup.as_ref().map(|cgroup| ("cgroup_of", cgroup.describe()));
        tool.into_iter().chain(cgroup).map(|(name, value)| (name.to_owned(), value)).collect()
    }
    /// A base's account is that of what is put beside it: there is always some waiting on run queues.
    fn account(&mut self, client: u32) -> Result<Option<Account>> {
        match (self.injection.map(|injection| injection.kind), &self.network) {
            (Some(kind), _) if kind.is_servers() => servers_account(self.account.as_deref()),
            (Some(Kind::QuotaPercent), _) => {
                let throttled = self.cgroup.as_ref().map(Cgroup::throttled).transpose()?;
                Ok(throttled.map(|(events, ns)| Account { events, ns }))
            }
            (Some(Kind::Hogs), _) | (None, None) if self.cgroup.is_none() => {
                let ns = [self.pid, client].into_iter().map(process::run_queue_ns).sum();
                Ok(Some(Account { events: 0, ns }))
            }
            (_, network) => network.as_ref().map_or(Ok(None), |network| network.account()),
        }
    }
    fn failure(&mut self) -> Option<String> {
        if let Some(Ok(Some(status))) = self.relay.as_mut().map(|relay| relay.child.try_wait()) {
            return Some(format!("its proxy ended ({})", launch::ending(status)));
        }
        let status = self.launcher.try_wait().ok()??;
        let words = last_lines(&self.log);
        let remedy = port_remedy(&words, self.address.port());
        Some(format!("it ended ({}): {words}{remedy}", launch::ending(status)))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // The server first, and until it is gone: it dies with the launcher, but only some time later.
        if self.pid != 0
            && let Err(error) = process::kill(self.pid, self.started)
        {
            log::warn!("{error}");
        }
        child::end(&mut self.launcher);
        if let Some(over) = &self.over {
            let _ = fs::remove_dir_all(over);
        }
    }
}
