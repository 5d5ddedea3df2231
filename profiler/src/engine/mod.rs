//! Engines: how a server is run. A new one is a file here and a line in [`all`].

pub mod docker;
mod native;

use std::{collections::BTreeMap, net::SocketAddrV4, path::PathBuf};

use crate::{configuration::Configuration, error::Result, ledger::Ledger, net::Wire, probes::Names, process};

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
    /// The static binary of all clients and servers, as a file.
    pub binary: PathBuf,
}

/// The server to start.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// Arguments of the static binary, without the address.
    pub arguments: Vec<String>,
    /// Port to listen on.
    pub port: u16,
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
    fn start(&mut self, bench: &Bench, configuration: &Configuration, spec: &ServerSpec) -> Result<Box<dyn Server>>;
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
