//! TCP request/response over a fixed number of connections.

use std::net::SocketAddrV4;

use workloads::tcp_rr::LARGEST_MESSAGE;

use super::{ClientProgram, NetworkRequests, Range, Setting, Settings, Start, Workload};
use virtax_model::error::Result;

/// See the module.
pub struct TcpRr;

/// How long before a request is due the client waits for it at work, where the CPU is its own: longer than waking an
/// idle CPU takes.
const SPIN_NS: u64 = 100_000;

const MESSAGE: Range = Range::Whole { from: 1, to: LARGEST_MESSAGE as u64 };

impl NetworkRequests for TcpRr {
    fn connections(&self, settings: &Settings) -> u32 {
        settings["connections"].parse().unwrap_or(1)
    }
    fn rate_per_s(&self, settings: &Settings) -> Option<f64> {
        settings.get("rate")?.parse().ok().filter(|rate| *rate > 0.0)
    }
}

impl Workload for TcpRr {
    fn network(&self) -> Option<&dyn NetworkRequests> {
        Some(self)
    }
    fn name(&self) -> &'static str {
        "tcp-rr"
    }
    fn summary(&self) -> &'static str {
        "TCP request/response, one request under way per connection (own client and server)"
    }
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "connections",
                range: Range::Whole { from: 1, to: super::MOST_CONNECTIONS },
                default: "1",
                help: "connections of the client",
            },
            Setting {
                name: "model",
                range: Range::Words(&["epoll", "threads"]),
                default: "epoll",
                help: "the client: one thread for all connections, or one each",
            },
            Setting {
                name: "server",
                range: Range::Words(&["epoll", "threads"]),
                default: "epoll",
                help: "one thread for all connections, or one each",
            },
            Setting {
                name: "rate",
                range: Range::Rate { to: 1e7 },
                default: "0",
                help: "operations per second over all connections (open loop): latency has the time that they wait for earlier ones of their \
                       connection; 0: closed loop",
            },
            Setting {
                name: "arrivals",
                range: Range::Words(&["constant", "poisson"]),
                default: "constant",
                help: "with a rate: equal intervals, or independent ones at random",
            },
            Setting {
                name: "chunk",
                range: Range::Whole { from: 0, to: LARGEST_MESSAGE as u64 },
                default: "0",
                help: "bytes per receiving call of the client; 0: as many as there are",
            },
            Setting {
                name: "request",
                range: MESSAGE,
                default: "100",
                help: "bytes of a request, one segment at most",
            },
            Setting {
                name: "response",
                range: MESSAGE,
                default: "200",
                help: "bytes of a response, one segment at most",
            },
        ]
    }
    fn threads(&self, settings: &Settings) -> u32 {
        let sides = ["server", "model"].into_iter().filter(|side| settings[*side] == "threads").count();
        self.connections(settings).saturating_mul(sides as u32)
    }
    fn check(&self, settings: &Settings) -> Result<()> {
        super::check_open_files(u64::from(self.connections(settings)))
    }
    fn server_arguments(&self, settings: &Settings, start: Start<'_>) -> Vec<String> {
        let pairs = [("--model", &settings["server"]), ("--listen", &start.listen.to_string())];
        arguments("tcp-rr-server", &pairs, settings)
    }
    fn client(&self, settings: &Settings, server: SocketAddrV4, has_cpu: bool) -> ClientProgram {
        let spin_ns = if has_cpu { SPIN_NS } else { 0 };
        let pairs = [
            ("--connect", &server.to_string()),
            ("--connections", &settings["connections"]),
            ("--model", &settings["model"]),
            ("--rate", &settings["rate"]),
            ("--arrivals", &settings["arrivals"]),
            ("--spin-ns", &spin_ns.to_string()),
            ("--chunk", &settings["chunk"]),
        ];
        ClientProgram::Own(arguments("tcp-rr-client", &pairs, settings))
    }
    fn residual_limit(&self) -> f64 {
        0.05
    }
}

fn arguments(command: &str, own: &[(&str, &String)], settings: &Settings) -> Vec<String> {
    let shared = [("--request", &settings["request"]), ("--response", &settings["response"])];
    let mut arguments = vec![command.to_owned()];
    for (name, value) in own.iter().chain(&shared) {
        arguments.extend([(*name).to_owned(), (*value).clone()]);
    }
    arguments
}
