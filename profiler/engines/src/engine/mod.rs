//! Engines: how a server is run. A new one is a file here and a line in [`all`].

pub mod configuration;
pub mod docker;
pub mod files;
mod image;
mod key;
mod native;
pub mod ns;
pub mod vm;

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    rc::Rc,
};

pub use key::{Key, Values};

use crate::{
    cgroup::Cgroup,
    engine::configuration::Configuration,
    finding::Finding,
    injection::{Injection, Kind},
    ledger::{Item, Ledger},
    net::Wire,
    pack::Pack,
    workload::{Preparation, ServerProgram, Settings, Start, Workload},
};
use virtax_model::{
    counts::Accelerator,
    environment::Environment,
    error::{Error, Result},
};
use virtax_probes::{Boundary, Names, process};

/// What every configuration of a run shares.
pub struct Bench {
    /// Five hexadecimal digits, part of every name.
    pub run_id: String,
    /// What the run creates.
    pub ledger: Ledger,
    /// Where the client sits.
    pub wire: Wire,
    /// The static binary of virtax's own clients and servers, as a file.
    pub binary: PathBuf,
    /// What every server is started from.
    pub server: ServerFiles,
    /// The run's configurations, whose servers may be alive at once.
    pub configurations: Vec<Configuration>,
    /// How many of the run's small networks ([`crate::net::Subnets::segment`]) have been given away.
    pub segments_taken: Cell<u8>,
    /// How VMs are to be started.
    pub vms: vm::VmOptions,
    /// Where servers run.
    pub server_cpus: Vec<usize>,
    /// The control group of clients, as servers have theirs; `None`: this host has no hierarchies of them.
    pub client_group: Option<Rc<Cgroup>>,
}

/// Port of the first configuration's server; the others have the next ones.
const FIRST_PORT: u16 = 7000;

impl Bench {
    /// The number of a configuration in its run, by which names differ of what is made for each of them.
    #[must_use]
    pub fn number_of(&self, configuration: &Configuration) -> usize {
        self.configurations.iter().position(|found| found == configuration).unwrap_or(self.configurations.len())
    }

    /// The port on which a configuration's server listens, and is reached: none other's of the run.
    #[must_use]
    pub fn port_of(&self, configuration: &Configuration) -> u16 {
        FIRST_PORT.saturating_add(u16::try_from(self.number_of(configuration)).unwrap_or(u16::MAX))
    }

    /// What is made for a configuration's server, by its name: `virtax-RUN-server2`.
    fn name_of(&self, configuration: &Configuration) -> String {
        format!("{}-server{}", self.run_id, self.number_of(configuration))
    }

    /// The file with a server's words.
    fn log_of(&self, configuration: &Configuration) -> PathBuf {
        self.ledger.folder().join(format!("server{}.log", self.number_of(configuration)))
    }

    /// The number of a small network that nobody has.
    fn next_segment(&self) -> u8 {
        let next = self.segments_taken.get();
        self.segments_taken.set(next.saturating_add(1));
        next
    }
}

/// What to do where a server's or an engine's words say that the port is taken; nothing otherwise.
#[must_use]
pub(crate) fn port_remedy(words: &str, port: u16) -> String {
    let taken = ["already in use", "already allocated"].iter().any(|sign| words.contains(sign));
    if taken { format!("; another program listens on port {port}: stop it") } else { String::new() }
}

/// Where a server's files lie in a container.
const INSIDE: &str = "/virtax";

/// The folder in a container for files that its server reads and writes.
pub(crate) const DATA: &str = "/data";

/// The folder of what was prepared, as a packed server sees it.
const PREPARED: &str = "/prepared";

/// Makes a folder of a user's own, and in it what servers start from. It lies in the run's folder, and goes with that.
fn prepared(preparation: &dyn Preparation, settings: &Settings, folder: &Path, owner: u32) -> Result<PathBuf> {
    std::fs::create_dir(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)))
        .and_then(|()| std::os::unix::fs::chown(folder, Some(owner), Some(owner)))
        .map_err(|error| Error::file("make", folder, error))?;
    preparation.prepare(settings, folder)?;
    Ok(folder.to_owned())
}

/// How a server is started.
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Arguments of the program.
    pub arguments: Vec<String>,
    /// The file in which it notes what it did before its answers; `None`: it does nothing.
    pub account: Option<PathBuf>,
}

/// What every server of a run is started from: the same files natively and packed.
pub struct ServerFiles {
    /// Program and files of the server, for containers.
    pub pack: Pack,
    /// The program natively.
    program: PathBuf,
    /// The program that it executes: natively and in a pack at the same place; empty: none.
    tool: PathBuf,
    /// The folder of its files natively.
    folder: PathBuf,
    /// The folder of what was prepared, natively.
    prepared: Option<PathBuf>,
    workload: &'static dyn Workload,
    settings: Settings,
}

impl ServerFiles {
    /// Finds the program, and writes the files into `folder`; `binary` is the static one.
    ///
    /// # Errors
    /// If the program is missing or cannot be packed, or a file cannot be written.
    pub fn new(workload: &'static dyn Workload, settings: &Settings, folder: &Path, binary: &Path) -> Result<Self> {
        let program = match workload.server_program() {
            ServerProgram::Own => binary.to_owned(),
            ServerProgram::System(tool) => tool.find()?,
        };
        let mut pack = Pack::of(&program)?;
        let tool = workload.server_executes().map(|tool| tool.find()).transpose()?;
        if let Some(tool) = &tool {
            pack.add(tool)?;
        }
        for note in &pack.notes {
            log::warn!("{note}");
        }
        if workload.files().is_some() {
            pack.add_open_folder(Path::new(DATA));
        }
        let prepared = match workload.preparation() {
            Some(preparation) => Some(prepared(preparation, settings, &folder.join("prepared"), crate::child::NOBODY)?),
            None => None,
        };
        if let Some(prepared) = &prepared {
            pack.add_tree(prepared, Path::new(PREPARED))?;
        }
        for (name, content) in workload.server_files(settings) {
            pack.add_file(&Path::new(INSIDE).join(name), content.as_bytes(), 0o644);
            let path = folder.join(name);
            std::fs::write(&path, content)
                .and_then(|()| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)))
                .map_err(|error| Error::file("write", &path, error))?;
        }
        let tool = tool.unwrap_or_default();
        let (folder, settings) = (folder.to_owned(), settings.clone());
        Ok(Self { pack, program, tool, folder, prepared, workload, settings })
    }

    /// Program and arguments natively, and the file in which it notes its known cost, if it has one of its own doing.
    ///
    /// # Errors
    /// If that file cannot be made.
    pub fn native(&self, listen: SocketAddrV4, injection: Option<Injection>) -> Result<Program> {
        let data = self.data_folder().unwrap_or(&self.folder);
        let prepared = self.prepared.as_deref();
        let start = Start { listen, folder: &self.folder, data, prepared, tool: &self.tool };
        let mut arguments = self.workload.server_arguments(&self.settings, start);
        let mut account = None;
        if let Some(injection) = injection.filter(|injection| injection.kind.is_servers()) {
            // By its port: servers may be alive at once.
            let path = self.folder.join(format!("account-{}", listen.port()));
            workloads::account::create(&path).map_err(|error| Error::file("write", &path, error))?;
            arguments.extend(injection.server_arguments());
            arguments.extend(["--account".to_owned(), path.display().to_string()]);
            account = Some(path);
        }
        Ok(Program { path: self.program.clone(), arguments, account })
    }

    /// Program and arguments in a container made of the pack.
    #[must_use]
    pub fn packed(&self, listen: SocketAddrV4, injection: Option<Injection>) -> Program {
        let prepared = self.prepared.as_ref().map(|_| Path::new(PREPARED));
        let (folder, data) = (Path::new(INSIDE), Path::new(DATA));
        let start = Start { listen, folder, data, prepared, tool: &self.tool };
        let mut arguments = self.workload.server_arguments(&self.settings, start);
        arguments.extend(injection.into_iter().flat_map(Injection::server_arguments));
        Program { path: self.pack.program.clone(), arguments, account: None }
    }

    /// Where files are that a server reads and writes, and MiB of them; `None`: it has none.
    #[must_use]
    pub fn files(&self) -> Option<(&Path, u64)> {
        Some((self.data_folder()?, self.settings.get("size")?.parse().ok()?))
    }

    /// See [`crate::workload::FileOperations::first_writes`].
    #[must_use]
    pub fn first_writes(&self) -> Option<u64> {
        self.workload.files()?.first_writes(&self.settings)
    }

    /// How long a server may take until it answers: it may have files to write first.
    #[must_use]
    pub fn patience(&self) -> std::time::Duration {
        self.workload.patience(&self.settings)
    }

    /// The folder of the host for files that a server reads and writes; `None`: it has none.
    #[must_use]
    pub fn data_folder(&self) -> Option<&Path> {
        self.workload.files().map(|files| files.folder(&self.settings))
    }

    /// Bytes of a request and of a response, where the workload says so; else 0.
    #[must_use]
    pub fn message_bytes(&self) -> [u64; 2] {
        ["request", "response"].map(|name| self.settings.get(name).and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// A way to run servers.
pub trait Engine: Sync {
    /// Name of the engine in configurations.
    fn name(&self) -> &'static str;
    /// One line for `virtax list`.
    fn summary(&self) -> &'static str;
    /// The keys it understands.
    fn keys(&self) -> &'static [Key];
    /// Names for several keys at once: `engine:NAME`, and the keys that it stands for.
    fn presets(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// The value of a key that is not given: of those that are, it may follow.
    fn default_of(&self, key: &Key, _given: &BTreeMap<String, String>) -> &'static str {
        key.default
    }
    /// Refuses keys that do not go together.
    ///
    /// # Errors
    /// [`Error::Usage`], by their names.
    fn check(&self, _configuration: &Configuration) -> Result<()> {
        Ok(())
    }
    /// What executes the guests in which its servers run; `None`: they run in no VMs.
    fn accelerator(&self) -> Option<Accelerator> {
        None
    }
    /// Refuses a configuration that does not fit a workload.
    ///
    /// # Errors
    /// [`Error::Usage`], with what would fit.
    fn suits(&self, _configuration: &Configuration, _workload: &dyn Workload, _settings: &Settings) -> Result<()> {
        Ok(())
    }
    /// Looks for what a configuration needs on this host, before anything is changed.
    ///
    /// # Errors
    /// If something is missing, with what brings it.
    fn needs(&self, _configuration: &Configuration, _workload: &dyn Workload) -> Result<()> {
        Ok(())
    }
    /// What this host has and lacks for it.
    fn findings(&self) -> Vec<Finding> {
        self.drives().map(|product| driven(self.name(), product, &self.version())).into_iter().collect()
    }
    /// What it drives, where that is a program of its own; `None`: the kernel alone.
    fn drives(&self) -> Option<&'static str> {
        None
    }
    /// Removes an item that carries its name; what is gone already is no error.
    ///
    /// # Errors
    /// If it is still there afterwards.
    fn remove(&self, item: &Item) -> Result<()> {
        Err(Error::engine(
            format!("cannot remove {item}"),
            format!("{} makes no such thing", self.name()),
            "report this",
        ))
    }
    /// All that it has made for runs, dead or alive, with their ids.
    ///
    /// # Errors
    /// If what it drives is not there.
    fn labelled(&self) -> Result<Vec<(String, Item)>> {
        Ok(Vec::new())
    }
    /// The version of what it drives; `None`: that has none, or is part of the kernel.
    ///
    /// # Errors
    /// If it is not there.
    fn version(&self) -> Result<Option<String>> {
        Ok(None)
    }
    /// Notes in a run's environment what this engine adds to it: nothing, where it drives no program of its own.
    ///
    /// # Errors
    /// If what it drives is not there.
    fn describe(&self, _environment: &mut Environment) -> Result<()> {
        Ok(())
    }
    /// Whether it can put a known cost of this kind in.
    fn accepts(&self, kind: Kind) -> bool {
        kind.is_everywhere()
    }
    /// Whether a server of this configuration can rest while others are asked: nothing of it goes on meanwhile, and no
    /// limit of it is restored, which it would then never meet.
    fn can_rest(&self, configuration: &Configuration) -> bool {
        // What executes a guest has its own clock.
        let costs_rest = configuration.injection.is_none_or(|injection| injection.kind.can_rest());
        costs_rest && self.accelerator().is_none()
    }
    /// The file system that a configuration puts a server's files on; `None`: whatever the folder is on.
    fn file_system(&self, _configuration: &Configuration) -> Option<&'static str> {
        None
    }
    /// Whether requests to its servers cross the host's forwarding, where others' rules may refuse them.
    fn is_forwarded(&self, _configuration: &Configuration) -> bool {
        false
    }
    /// Whether the first of its keys is always part of a configuration's name.
    fn tells_first_key(&self) -> bool {
        true
    }
    /// What a person would call a configuration, within a sentence.
    fn phrase(&self, configuration: &Configuration) -> String;
    /// Makes what all its configurations in this run share: images, networks.
    ///
    /// # Errors
    /// If the engine is not there, or refuses.
    fn prepare(&self, bench: &Bench, configurations: &[Configuration]) -> Result<Box<dyn Host>>;
}

/// Whether what an engine drives is there.
fn driven(engine: &str, product: &str, version: &Result<Option<String>>) -> Finding {
    let what = match version {
        Ok(version) => format!("{product} {}", version.as_deref().unwrap_or_default()),
        Err(error) => format!("{product}: {}", error.to_string().lines().next().unwrap_or_default()),
    };
    let remedy = format!("start the daemon for `{engine}:` configurations; others do not need it");
    Finding::new(version.is_ok(), what, remedy)
}

/// What a person calls a configuration, by its name; of an unknown one, its name.
#[must_use]
pub fn phrase(name: &str) -> String {
    let of = |found: Configuration| {
        let phrase = by_name(&found.engine)?.phrase(&found);
        Some(found.injection.map_or(phrase.clone(), |injection| format!("{phrase} ({injection})")))
    };
    configuration::parse(name).ok().and_then(|(found, _)| of(found)).unwrap_or_else(|| name.to_owned())
}

/// An engine, prepared for a run.
pub trait Host {
    /// Starts a fresh server.
    ///
    /// # Errors
    /// If it does not start.
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>>;
}

/// A known cost, by the kernel's or the server's own account: not by virtax's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// How often.
    pub events: u64,
    /// Together, ns.
    pub ns: u64,
}

/// What our own server has noted of what it did before its answers, natively or in namespaces that see the file.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn servers_account(file: Option<&Path>) -> Result<Option<Account>> {
    let Some(path) = file else { return Ok(None) };
    let account = workloads::account::read(path).map_err(|error| Error::file("read", path, error))?;
    Ok(Some(Account { events: account.0, ns: account.1 }))
}

/// Lines of a server's log that a message shows.
const LAST_LINES: usize = 3;

/// The end of a server's log.
pub(crate) fn last_lines(log: &Path) -> String {
    last_lines_of(log, LAST_LINES)
}

/// The end of a log: so many lines at most.
fn last_lines_of(log: &Path, most: usize) -> String {
    let words = std::fs::read(log).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    // What a terminal would take for commands is not for an error message.
    let plain = |line: &str| line.chars().filter(|letter| !letter.is_control()).collect::<String>().trim().to_owned();
    let lines: Vec<String> = words.lines().map(plain).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(most)..].join("; ")
}

/// A running server; dropping it ends it and removes what was made for it.
pub trait Server {
    /// Where the client reaches it.
    fn address(&self) -> SocketAddrV4;
    /// First process of the server, by the host's numbers.
    fn pid(&self) -> u32;
    /// The proxy between it and the client, if there is one.
    fn relay(&self) -> Option<u32> {
        None
    }
    /// The device behind which it answers from a VM, if it does.
    fn boundary(&self) -> Option<Boundary> {
        None
    }
    /// Whether its process is a VM's.
    fn is_vm(&self) -> bool {
        false
    }
    /// What follows requests inside of its VM, if something does.
    fn take_agent(&mut self) -> Option<vm::Agent> {
        None
    }
    /// Processes that belong beside it, on its CPUs.
    fn companions(&self) -> Vec<u32> {
        Vec::new()
    }
    /// Places it and what belongs to it on these CPUs.
    ///
    /// # Errors
    /// If the kernel refuses one.
    fn pin(&self, cpus: &[usize]) -> Result<()> {
        process::family(self.pid()).into_iter().chain(self.companions()).try_for_each(|pid| process::pin(pid, cpus))
    }
    /// These are the CPUs of the run, and nobody is to be placed on one of them. Its threads may have places of their
    /// own.
    ///
    /// # Errors
    /// If the kernel refuses one.
    fn place_freely(&self, _cpus: &[usize]) -> Result<()> {
        Ok(())
    }
    /// What else is known of what it runs in: names and values.
    fn facts(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// What its known cost amounted to so far; `None` where nobody but the client can tell. `client`: the client's
    /// process, whose waits on a shared CPU count too.
    ///
    /// # Errors
    /// If it cannot be read.
    fn account(&mut self, _client: u32) -> Result<Option<Account>> {
        Ok(None)
    }
    /// Labels for the namespaces and devices that it brought.
    ///
    /// # Errors
    /// If it is gone.
    fn label(&self, names: &mut Names) -> Result<()>;
    /// Last words of the server, if it has ended.
    fn failure(&mut self) -> Option<String>;
}

/// All engines.
#[must_use]
pub fn all() -> &'static [&'static dyn Engine] {
    static ALL: [&dyn Engine; 5] = [&native::Native, &docker::Docker, &ns::Ns, &vm::KVM, &vm::TCG];
    &ALL
}

/// The engine with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Engine> {
    all().iter().copied().find(|engine| engine.name() == name)
}

/// What a server really runs in, read from its process.
///
/// # Errors
/// If it is gone.
pub fn verified_settings(pid: u32) -> Result<BTreeMap<String, String>> {
    let own = process::network_namespace(std::process::id())?;
    let namespace = if process::network_namespace(pid)? == own { "host" } else { "own" };
    let seccomp = match process::status_field(pid, "Seccomp").as_deref() {
        Some("2") => "filter",
        Some("1") => "strict",
        _ => "off",
    };
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| Some(line.strip_prefix("0::")?.to_owned()))
        .unwrap_or_default();
    let cpus = process::status_field(pid, "Cpus_allowed_list").unwrap_or_default();
    let filters = process::status_field(pid, "Seccomp_filters").unwrap_or_default();
    let namespaces = process::own_namespaces(pid);
    Ok([
        ("network_namespace", namespace.to_owned()),
        ("namespaces", namespaces.join(",")),
        ("root", process::root_file_system(pid).unwrap_or_default()),
        ("seccomp", seccomp.to_owned()),
        ("seccomp_filters", filters),
        ("cgroup", cgroup),
        ("cpus_allowed", cpus),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Makes one file, or cannot.
    struct Database {
        can: bool,
    }

    impl Preparation for Database {
        fn prepare(&self, settings: &Settings, folder: &Path) -> Result<()> {
            if !self.can {
                return Err(Error::workload("cannot make the database", "it says so"));
            }
            let file = folder.join("data");
            std::fs::write(&file, &settings["size"]).map_err(|error| Error::file("write", &file, error))
        }
    }

    #[test]
    fn what_servers_start_from_is_made_once_for_their_user_alone() {
        let run = tempfile::tempdir().unwrap();
        let settings = Settings::from([("size".to_owned(), "64".to_owned())]);
        let (folder, user) = (run.path().join("prepared"), nix::unistd::geteuid().as_raw());
        let made = prepared(&Database { can: true }, &settings, &folder, user).unwrap();
        assert_eq!(std::fs::read_to_string(made.join("data")).unwrap(), "64");
        let found = std::fs::metadata(&made).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, user));
        // Not over another one, and not without its content.
        prepared(&Database { can: true }, &settings, &folder, user).unwrap_err();
        let failed = prepared(&Database { can: false }, &settings, &run.path().join("other"), user).unwrap_err();
        assert!(failed.to_string().contains("it says so"), "{failed}");
    }
}
