//! Workloads: what client and server do. A new one is a file here and a line in [`all`].

mod block;
mod fio;
mod redis;
mod redis_benchmark;
mod tcp_rr;

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    time::Duration,
};

pub use redis_benchmark::understand as understand_benchmark;
use workloads::protocol::Latencies;

use crate::pack;
use virtax_model::error::{Error, Result, did_you_mean};

/// A setting that a workload understands.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name of the setting.
    pub name: &'static str,
    /// What it can be.
    pub range: Range,
    /// The value if it is not given.
    pub default: &'static str,
    /// One line for `virtax list`.
    pub help: &'static str,
}

/// What a setting can be.
#[derive(Debug, Clone, Copy)]
pub enum Range {
    /// A whole number.
    Whole {
        /// Smallest.
        from: u64,
        /// Largest.
        to: u64,
    },
    /// A whole number, or `auto`.
    WholeOrAuto {
        /// Smallest.
        from: u64,
        /// Largest.
        to: u64,
    },
    /// A number per second, 0 for none.
    Rate {
        /// Largest.
        to: f64,
    },
    /// The path of a folder.
    Folder,
    /// One of these words.
    Words(&'static [&'static str]),
}

pub use virtax_model::header::Settings;

/// The program that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProgram {
    /// The static binary that virtax brings along.
    Own,
    /// One of this host's, packed for containers.
    System(Tool),
}

/// A program of this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Name of the program.
    pub name: &'static str,
    /// The package of Debian's that brings it.
    pub package: &'static str,
}

impl Tool {
    /// Where it is.
    ///
    /// # Errors
    /// If it is not there, with what brings it.
    pub fn find(&self) -> Result<PathBuf> {
        pack::find_program(self.name, self.package)
    }
    /// Where it is, also where only root has programs.
    ///
    /// # Errors
    /// As [`Tool::find`].
    pub fn find_of_root(&self) -> Result<PathBuf> {
        pack::find_tool(self.name, self.package)
    }
}

/// The program that asks.
#[derive(Debug, Clone)]
pub enum ClientProgram {
    /// The static binary, told its phases: with these arguments.
    Own(Vec<String>),
    /// Another program, which knows no phases: a run of its own for each.
    Foreign(Foreign),
}

/// A client of others' making. A run of it makes so many requests, ends, and sums them up.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// The program.
    pub tool: Tool,
    /// Arguments of the program, but for the number of requests.
    pub arguments: Vec<String>,
    /// The option before that number.
    pub number: &'static str,
    /// A run before all others, which fills the server: arguments, and requests; `None`: there is none.
    pub filling: Option<(Vec<String>, u64)>,
    /// Reads what a run has said; `None`: it is no summary.
    pub parse: fn(&str) -> Option<Summary>,
}

/// What a run of a [`Foreign`] client has seen.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Requests per second.
    pub requests_per_s: f64,
    /// Mean latency, ns.
    pub mean_ns: f64,
    /// Latencies, ns.
    pub histogram: Latencies,
}

/// What a server is told when it starts.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Where it is to listen.
    pub listen: SocketAddrV4,
    /// The folder of its files, as it sees it.
    pub folder: &'a Path,
    /// The folder of files that it reads and writes, as it sees it.
    pub data: &'a Path,
    /// The folder of what was prepared ([`Workload::preparation`]), as it sees it; `None`: nothing was.
    pub prepared: Option<&'a Path>,
    /// The program that it executes ([`Workload::server_executes`]).
    pub tool: &'a Path,
}

/// Requests over the network.
pub trait NetworkRequests: Sync {
    /// Requests that are under way or being prepared at any instant: the tokens that exist.
    fn connections(&self, settings: &Settings) -> u32;
    /// Requests per second that the client is to make, whatever comes back; `None`: it makes the next when it has an
    /// answer.
    fn rate_per_s(&self, _settings: &Settings) -> Option<f64> {
        None
    }
}

/// Operations on files: calls of the server's that read or write one.
pub trait FileOperations: Sync {
    /// Operations that are under way or being prepared at any instant: the tokens that exist.
    fn at_once(&self, settings: &Settings) -> u32;
    /// The folder of the host in which a server has its files, or containers theirs.
    fn folder<'a>(&self, settings: &'a Settings) -> &'a Path;
    /// Whether all are calls that return when they are done.
    fn is_synchronous(&self, _settings: &Settings) -> bool {
        false
    }
    /// Bytes of files that operations open for writing, and that were never written to before: in a layered root,
    /// they lie in a layer below; `None`: there are none.
    fn first_writes(&self, _settings: &Settings) -> Option<u64> {
        None
    }
    /// Whether operations write, and none reads.
    fn only_writes(&self, _settings: &Settings) -> bool {
        false
    }
}

/// What servers start from: a database's data directory, say.
pub trait Preparation: Sync {
    /// Makes it, once a run, in a folder that belongs to the servers' user and to nobody else.
    ///
    /// # Errors
    /// If it cannot be made.
    fn prepare(&self, settings: &Settings, folder: &Path) -> Result<()>;
}

/// What of a workload is followed.
#[derive(Clone, Copy)]
pub enum Follows<'a> {
    /// The requests over the network.
    Requests(&'a dyn NetworkRequests),
    /// The operations on files.
    Operations(&'a dyn FileOperations),
}

impl Follows<'_> {
    /// The tokens that exist at any instant.
    #[must_use]
    pub fn tokens(self, settings: &Settings) -> u32 {
        match self {
            Self::Requests(requests) => requests.connections(settings),
            Self::Operations(operations) => operations.at_once(settings),
        }
    }
}

/// What is followed of a workload. One that has both requests and operations can be described; a run follows one of
/// them.
///
/// # Errors
/// [`Error::Usage`] if it has both, or neither.
pub fn follows(workload: &dyn Workload) -> Result<Follows<'_>> {
    let refuse = |why: &str| Err(Error::Usage(format!("workload `{}` cannot be followed: {why}", workload.name())));
    match (workload.network(), workload.files()) {
        (Some(requests), None) => Ok(Follows::Requests(requests)),
        (None, Some(operations)) => Ok(Follows::Operations(operations)),
        (Some(_), Some(_)) => refuse("it has requests over the network and operations on files, and a run follows one"),
        (None, None) => refuse("it has neither requests over the network nor operations on files"),
    }
}

/// What client and server do.
pub trait Workload: Sync {
    /// Name of the workload on the command line.
    fn name(&self) -> &'static str;
    /// One line for `virtax list`.
    fn summary(&self) -> &'static str;
    /// The settings it understands.
    fn settings(&self) -> &'static [Setting];
    /// The requests over the network; `None`: there are none.
    fn network(&self) -> Option<&dyn NetworkRequests> {
        None
    }
    /// The operations on files that its server makes; `None`: it has none.
    fn files(&self) -> Option<&dyn FileOperations> {
        None
    }
    /// What its servers start from, made once a run; `None`: nothing is.
    fn preparation(&self) -> Option<&dyn Preparation> {
        None
    }
    /// Threads of client and server together that are at work for connections, more or less.
    fn threads(&self, _settings: &Settings) -> u32 {
        0
    }
    /// Refuses settings that do not go together, or what is not built yet.
    ///
    /// # Errors
    /// [`Error::Usage`], by the setting's name.
    fn check(&self, _settings: &Settings) -> Result<()> {
        Ok(())
    }
    /// The server's program.
    fn server_program(&self) -> ServerProgram {
        ServerProgram::Own
    }
    /// A program of this host's that the server executes.
    fn server_executes(&self) -> Option<Tool> {
        None
    }
    /// Programs of this host's that it needs, with some of its settings at least.
    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }
    /// Replaces settings that are left to the host.
    fn scale(&self, _settings: &mut Settings) {}
    /// What is smaller than in the study that the workload is taken from; `None`: nothing.
    fn scaling(&self, _settings: &Settings) -> Option<String> {
        None
    }
    /// Files that the server needs beside its program: names and contents.
    fn server_files(&self, _settings: &Settings) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The server's arguments.
    fn server_arguments(&self, settings: &Settings, start: Start<'_>) -> Vec<String>;
    /// The client, and its arguments; `has_cpu`: nobody else of the run wants its CPU.
    fn client(&self, settings: &Settings, server: SocketAddrV4, has_cpu: bool) -> ClientProgram;
    /// How long client and server may take until they work together.
    fn patience(&self, _settings: &Settings) -> Duration {
        Duration::from_secs(15)
    }
    /// Largest residual of a complete result, share of the client's mean.
    fn residual_limit(&self) -> f64;
}

/// Most connections of a workload over the network: both ends of each are sockets of this host, which the probes'
/// tables must hold.
pub const MOST_CONNECTIONS: u64 = 10_000;

/// Descriptors that a client or server has beside its connections.
const OTHER_FILES: u64 = 64;

/// Refuses more connections than a process of this host may have open.
fn check_open_files(connections: u64) -> Result<()> {
    let most = open_files_limit();
    if connections + OTHER_FILES > most {
        return Err(Error::Usage(format!(
            "{connections} connections are more than a process may have open here ({most} files): give at most {}, or raise the hard limit \
             (ulimit -Hn)",
            most.saturating_sub(OTHER_FILES)
        )));
    }
    Ok(())
}

/// The hard limit of open files, which clients and servers raise theirs to.
fn open_files_limit() -> u64 {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}

/// All workloads.
#[must_use]
pub fn all() -> &'static [&'static dyn Workload] {
    &[
        &tcp_rr::TcpRr,
        &redis::Redis::SET,
        &redis::Redis::GET,
        &block::Block,
        &fio::Fio::SEQREAD,
        &fio::Fio::SEQWRITE,
        &fio::Fio::RANDREAD_QD16,
        &fio::Fio::RANDRW_QD32X8,
    ]
}

/// The workload with this name.
///
/// # Errors
/// [`Error::Usage`] if there is none.
pub fn by_name(name: &str) -> Result<&'static dyn Workload> {
    all().iter().copied().find(|workload| workload.name() == name).ok_or_else(|| {
        let known: Vec<_> = all().iter().map(|workload| workload.name()).collect();
        Error::Usage(format!(
            "unknown workload `{name}`{}; workloads: {}",
            did_you_mean(name, known.iter().copied()),
            known.join(", ")
        ))
    })
}

impl Range {
    fn check(&self, text: &str) -> std::result::Result<(), String> {
        match self {
            Self::Whole { from, to } => match text.parse::<u64>() {
                Ok(value) if (*from..=*to).contains(&value) => Ok(()),
                _ => Err(format!("a whole number from {from} to {to}")),
            },
            Self::WholeOrAuto { from, to } => match text.parse::<u64>() {
                _ if text == "auto" => Ok(()),
                Ok(value) if (*from..=*to).contains(&value) => Ok(()),
                _ => Err(format!("`auto`, or a whole number from {from} to {to}")),
            },
            Self::Rate { to } => match text.parse::<f64>() {
                Ok(value) if (0.0..=*to).contains(&value) => Ok(()),
                _ => Err(format!("a number per second from 0 (as fast as responses come) to {to}")),
            },
            Self::Folder if text.starts_with('/') => Ok(()),
            Self::Folder => Err("the path of a folder, from /".to_owned()),
            Self::Words(words) if words.contains(&text) => Ok(()),
            Self::Words(words) => {
                Err(format!("one of {}{}", words.join(", "), did_you_mean(text, words.iter().copied())))
            }
        }
    }
}

/// All settings of a workload, from `key=value` pairs and defaults.
///
/// # Errors
/// [`Error::Usage`] for unknown names, values out of range, and names given twice.
pub fn parse_settings(workload: &dyn Workload, pairs: &[String]) -> Result<Settings> {
    let mut settings = Settings::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::Usage(format!("`--set {pair}` is not `key=value`")));
        };
        let known = workload.settings();
        let setting = known.iter().find(|setting| setting.name == name).ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|setting| setting.name).collect();
            Error::Usage(format!(
                "workload `{}` has no setting `{name}`{}; settings: {}",
                workload.name(),
                did_you_mean(name, names.iter().copied()),
                names.join(", ")
            ))
        })?;
        setting
            .range
            .check(value)
            .map_err(|wanted| Error::Usage(format!("setting `{name}` cannot be `{value}`: give {wanted}")))?;
        if settings.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Error::Usage(format!("setting `{name}` is given twice")));
        }
    }
    for setting in workload.settings() {
        settings.entry(setting.name.to_owned()).or_insert_with(|| setting.default.to_owned());
    }
    workload.scale(&mut settings);
    workload.check(&settings)?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn parse_of(workload: &dyn Workload, pairs: &[&str]) -> Result<Settings> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        parse_settings(workload, &pairs)
    }

    fn parse(pairs: &[&str]) -> Result<Settings> {
        parse_of(by_name("tcp-rr").unwrap(), pairs)
    }

    /// A workload as a database is one: asked over the network, at work on files, from a folder made before.
    struct Database;
    impl Workload for Database {
        fn name(&self) -> &'static str {
            "database"
        }
        fn summary(&self) -> &'static str {
            ""
        }
        fn settings(&self) -> &'static [Setting] {
            &[]
        }
        fn network(&self) -> Option<&dyn NetworkRequests> {
            by_name("tcp-rr").unwrap().network()
        }
        fn files(&self) -> Option<&dyn FileOperations> {
            by_name("block").unwrap().files()
        }
        fn server_arguments(&self, _settings: &Settings, _start: Start<'_>) -> Vec<String> {
            Vec::new()
        }
        fn client(&self, _settings: &Settings, _server: SocketAddrV4, _has_cpu: bool) -> ClientProgram {
            ClientProgram::Own(Vec::new())
        }
        fn residual_limit(&self) -> f64 {
            0.05
        }
    }

    #[test]
    fn a_run_follows_requests_or_operations() {
        let tokens = |name: &str, pairs: &[&str]| {
            let workload = by_name(name).unwrap();
            follows(workload).unwrap().tokens(&parse_of(workload, pairs).unwrap())
        };
        assert_eq!(tokens("tcp-rr", &["connections=7"]), 7);
        assert_eq!(tokens("block", &["engine=libaio", "depth=3", "threads=2"]), 6);
        let Err(both) = follows(&Database) else { panic!("both are followed") };
        assert!(both.to_string().contains("a run follows one"), "{both}");
    }

    #[test]
    fn defaults_are_filled_in() {
        let settings = parse(&["connections=16"]).unwrap();
        assert_eq!(settings["connections"], "16");
        assert_eq!(settings["server"], "epoll");
    }

    #[test]
    fn redis_refuses_what_is_not_built() {
        let redis = by_name("redis-set").unwrap();
        let parse = |pair: &str| parse_settings(redis, &[pair.to_owned()]);
        assert_eq!(redis.network().unwrap().connections(&parse("clients=10").unwrap()), 10);
        insta::assert_snapshot!(
            ["pipeline=2", "pipeline=0", "clients=0", "data-size=1025", "keyspace=0", "client=wrk", "size=3"]
                .map(|pair| format!("{pair:<16} {}", parse(pair).unwrap_err()))
                .join("\n")
        );
    }

    #[test]
    fn refusals() {
        let refused = [
            "connections",
            "connections=0",
            "connections=-1",
            "connections=x",
            "conections=1",
            "server=fork",
            "rate=-1",
            "rate=nan",
            "rate=inf",
            "request=1401",
            "zzz=1",
            "=",
        ];
        insta::assert_snapshot!(refused.map(|pair| format!("{pair:<16} {}", parse(&[pair]).unwrap_err())).join("\n"));
        assert!(parse(&["rate=1", "rate=2"]).unwrap_err().to_string().contains("twice"));
        assert!(by_name("tcp-r").err().unwrap().to_string().contains("did you mean `tcp-rr`"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(pair in ".{0,40}") {
            let _ = parse(&[&pair]);
        }
    }
}
