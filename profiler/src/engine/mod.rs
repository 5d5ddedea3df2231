//! Engines: how a server is run. A new one is a file here and a line in [`all`].

pub mod docker;
mod native;

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use crate::{
    configuration::Configuration,
    error::{Error, Result},
    ledger::Ledger,
    net::Wire,
    pack::{self, Pack},
    probes::Names,
    process,
    workload::{ServerProgram, Settings, Start, Workload},
};

/// A key that an engine understands.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The values it can have, and what each means.
    pub values: &'static [&'static str],
    /// The value if it is not given.
    pub default: &'static str,
    /// One line for `virtax list`.
    pub help: &'static str,
}

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
}

/// What to do where a server's or an engine's words say that the port is taken; nothing otherwise.
#[must_use]
pub(crate) fn port_remedy(words: &str, port: u16) -> String {
    let taken = ["already in use", "already allocated"].iter().any(|sign| words.contains(sign));
    if taken { format!("; another program listens on port {port}: stop it") } else { String::new() }
}

/// Where a server's files lie in a container.
const INSIDE: &str = "/virtax";

/// What every server of a run is started from: the same files natively and packed.
pub struct ServerFiles {
    /// Port to listen on.
    pub port: u16,
    /// Its program and files, for containers.
    pub pack: Pack,
    /// The program natively.
    program: PathBuf,
    /// The folder of its files natively.
    folder: PathBuf,
    workload: &'static dyn Workload,
    settings: Settings,
}

impl ServerFiles {
    /// Finds the program, and writes the files into `folder`; `binary` is the static one.
    ///
    /// # Errors
    /// If the program is missing or cannot be packed, or a file cannot be written.
    pub fn new(
        workload: &'static dyn Workload,
        settings: &Settings,
        port: u16,
        folder: &Path,
        binary: &Path,
    ) -> Result<Self> {
        let program = match workload.server_program() {
            ServerProgram::Own => binary.to_owned(),
            ServerProgram::System { name, package } => pack::find_program(name, package)?,
        };
        let mut pack = Pack::of(&program)?;
        for note in &pack.notes {
            log::warn!("{note}");
        }
        for (name, content) in workload.server_files(settings) {
            pack.add_file(&Path::new(INSIDE).join(name), content.as_bytes(), 0o644);
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(|error| Error::file("write", &path, error))?;
        }
        Ok(Self { port, pack, program, folder: folder.to_owned(), workload, settings: settings.clone() })
    }

    /// Program and arguments natively.
    #[must_use]
    pub fn native(&self, listen: SocketAddrV4) -> (PathBuf, Vec<String>) {
        let start = Start { listen, folder: &self.folder };
        (self.program.clone(), self.workload.server_arguments(&self.settings, start))
    }

    /// Program and arguments in a container made of the pack.
    #[must_use]
    pub fn packed(&self, listen: SocketAddrV4) -> (PathBuf, Vec<String>) {
        let start = Start { listen, folder: Path::new(INSIDE) };
        (self.pack.program.clone(), self.workload.server_arguments(&self.settings, start))
    }
}

/// A way to run servers.
pub trait Engine: Sync {
    /// Its name in configurations.
    fn name(&self) -> &'static str;
    /// One line for `virtax list`.
    fn summary(&self) -> &'static str;
    /// The keys it understands.
    fn keys(&self) -> &'static [Key];
    /// What a person would call a configuration, within a sentence.
    fn phrase(&self, configuration: &Configuration) -> String;
    /// Makes what all its configurations in this run share: images, networks.
    ///
    /// # Errors
    /// If the engine is not there, or refuses.
    fn prepare(&self, bench: &Bench, configurations: &[Configuration]) -> Result<Box<dyn Host>>;
}

/// An engine, prepared for a run.
pub trait Host {
    /// Starts a fresh server.
    ///
    /// # Errors
    /// If it does not start.
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>>;
}

/// A running server; dropping it ends it and removes what was made for it.
pub trait Server {
    /// Where the client reaches it.
    fn address(&self) -> SocketAddrV4;
    /// Its first process, by the host's numbers.
    fn pid(&self) -> u32;
    /// Labels for the namespaces and devices that it brought.
    ///
    /// # Errors
    /// If it is gone.
    fn label(&self, names: &mut Names) -> Result<()>;
    /// Its last words, if it has ended.
    fn failure(&mut self) -> Option<String>;
}

/// All engines.
#[must_use]
pub fn all() -> &'static [&'static dyn Engine] {
    &[&native::Native, &docker::Docker]
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
    Ok([
        ("network_namespace", namespace.to_owned()),
        ("seccomp", seccomp.to_owned()),
        ("cgroup", cgroup),
        ("cpus_allowed", cpus),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect())
}
