//! Redis: one command on many connections, served by the real `redis-server` from a configuration of the run's own.

use std::net::SocketAddrV4;

use workloads::redis::LARGEST_VALUE;

use super::{
    ClientProgram, Foreign, NetworkRequests, Range, ServerProgram, Setting, Settings, Start, Tool, Workload,
    redis_benchmark,
};
use virtax_model::error::{Error, Result};

/// One of the commands. See the module.
pub struct Redis {
    name: &'static str,
    summary: &'static str,
    command: &'static str,
    /// Whether it expects values to be there.
    reads: bool,
}

impl Redis {
    /// Overwrites values.
    pub const SET: Self = Self {
        name: "redis-set",
        summary: "Redis SET: many clients, one server thread (real redis-server, own load generator)",
        command: "set",
        reads: false,
    };
    /// Reads values.
    pub const GET: Self = Self {
        name: "redis-get",
        summary: "Redis GET: many clients, one server thread (real redis-server, own load generator)",
        command: "get",
        reads: true,
    };
}

const CONFIGURATION: &str = "redis.conf";
const SERVER: Tool = Tool { name: "redis-server", package: "redis-server" };

impl NetworkRequests for Redis {
    fn connections(&self, settings: &Settings) -> u32 {
        settings["clients"].parse().unwrap_or(1)
    }
}

impl Workload for Redis {
    fn network(&self) -> Option<&dyn NetworkRequests> {
        Some(self)
    }
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "clients",
                range: Range::Whole { from: 1, to: super::MOST_CONNECTIONS },
                default: "50",
                help: "connections of the client, all on one thread, one request under way on each",
            },
            Setting {
                name: "data-size",
                range: Range::Whole { from: 1, to: LARGEST_VALUE as u64 },
                default: "50",
                help: "bytes of a value",
            },
            Setting {
                name: "keyspace",
                range: Range::Whole { from: 1, to: 1_000_000 },
                default: "100000",
                help: "keys, chosen evenly at random",
            },
            Setting {
                name: "pipeline",
                range: Range::Whole { from: 1, to: 1024 },
                default: "1",
                help: "requests sent at once on a connection; more than 1 is not built yet",
            },
            Setting {
                name: "client",
                range: Range::Words(&["virtax", "redis-benchmark"]),
                default: "virtax",
                help: "own load generator, or the well-known one: a run of it for each phase, no residual",
            },
        ]
    }
    fn check(&self, settings: &Settings) -> Result<()> {
        super::check_open_files(u64::from(self.connections(settings)))?;
        if settings["pipeline"] == "1" {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "setting `pipeline` cannot be `{}`: pipelined requests share one token until byte ranges are built; give 1",
            settings["pipeline"]
        )))
    }
    fn server_program(&self) -> ServerProgram {
        ServerProgram::System(SERVER)
    }
    fn tools(&self) -> Vec<Tool> {
        vec![SERVER, redis_benchmark::TOOL]
    }
    fn server_files(&self, _settings: &Settings) -> Vec<(&'static str, String)> {
        // Nothing on disk, nothing in the background: what is measured is the command.
        let lines = [
            "save \"\"",
            "appendonly no",
            "daemonize no",
            "supervised no",
            "protected-mode no",
            "loglevel warning",
            // Its default ends just below the most that can be asked for.
            "maxclients 10100",
        ];
        vec![(CONFIGURATION, lines.join("\n") + "\n")]
    }
    fn server_arguments(&self, _settings: &Settings, start: Start<'_>) -> Vec<String> {
        let file = start.folder.join(CONFIGURATION).display().to_string();
        let listen = [
            ("--bind", start.listen.ip().to_string()),
            ("--port", start.listen.port().to_string()),
            ("--dir", start.folder.display().to_string()),
        ];
        let listen = listen.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once(file).chain(listen).collect()
    }
    fn client(&self, settings: &Settings, server: SocketAddrV4, _has_cpu: bool) -> ClientProgram {
        if settings["client"] == "redis-benchmark" {
            return ClientProgram::Foreign(self.benchmark(settings, server));
        }
        let pairs = [
            ("--connect", server.to_string()),
            ("--operation", self.command.to_owned()),
            ("--clients", settings["clients"].clone()),
            ("--data-size", settings["data-size"].clone()),
            ("--keyspace", settings["keyspace"].clone()),
        ];
        let pairs = pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        ClientProgram::Own(std::iter::once("redis-client".to_owned()).chain(pairs).collect())
    }
    fn residual_limit(&self) -> f64 {
        0.05
    }
}

impl Redis {
    fn benchmark(&self, settings: &Settings, server: SocketAddrV4) -> Foreign {
        let arguments = |command: &str| -> Vec<String> {
            let pairs = [
                ("-h", server.ip().to_string()),
                ("-p", server.port().to_string()),
                ("-t", command.to_owned()),
                ("-c", settings["clients"].clone()),
                ("-d", settings["data-size"].clone()),
                ("-r", settings["keyspace"].clone()),
                ("--precision", "3".to_owned()),
            ];
            pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
        };
        // Nearly every key has a value before reads: it writes at random, seven times as often as there are keys,
        // which leaves e⁻⁷ of them, less than one in a thousand.
        let keys: u64 = settings["keyspace"].parse().unwrap_or(1);
        let pipelined = ["-P", "100"].map(str::to_owned);
        let filling = self.reads.then(|| ([arguments("set"), pipelined.to_vec()].concat(), 7 * keys));
        let (tool, parse) = (redis_benchmark::TOOL, redis_benchmark::parse);
        Foreign { tool, arguments: arguments(self.command), number: "-n", filling, parse }
    }
}
