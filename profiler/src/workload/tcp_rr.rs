//! TCP request/response over a fixed number of connections.

use std::net::SocketAddrV4;

use workloads::tcp_rr::LARGEST_MESSAGE;

use super::{ClientProgram, Range, Setting, Settings, Start, Workload};

/// See the module.
pub struct TcpRr;

const MESSAGE: Range = Range::Whole { from: 1, to: LARGEST_MESSAGE as u64 };

impl Workload for TcpRr {
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
                range: Range::Whole { from: 1, to: 1024 },
                default: "1",
                help: "connections of the client, one thread each",
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
                help: "operations per second over all connections, latency from the intended time; 0: closed loop",
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
    fn connections(&self, settings: &Settings) -> u32 {
        settings["connections"].parse().unwrap_or(1)
    }
    fn server_arguments(&self, settings: &Settings, start: Start<'_>) -> Vec<String> {
        let pairs = [("--model", &settings["server"]), ("--listen", &start.listen.to_string())];
        arguments("tcp-rr-server", &pairs, settings)
    }
    fn client(&self, settings: &Settings, server: SocketAddrV4) -> ClientProgram {
        let pairs = [
            ("--connect", &server.to_string()),
            ("--connections", &settings["connections"]),
            ("--rate", &settings["rate"]),
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
