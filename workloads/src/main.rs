//! `virtax-workload`: the client and the server that virtax runs, the same static binary in every configuration.

use clap::Parser;
use workloads::{
    redis,
    tcp_rr::{client, server},
};

#[derive(Parser)]
#[command(name = "virtax-workload", version, about)]
enum Command {
    /// TCP request/response server
    TcpRrServer(server::Options),
    /// TCP request/response client; told its phases on standard input
    TcpRrClient(client::Options),
    /// Load generator for Redis; told its phases on standard input
    RedisClient(redis::client::Options),
}

fn main() -> std::process::ExitCode {
    let result = match Command::parse() {
        Command::TcpRrServer(options) => server::serve(&options),
        Command::TcpRrClient(options) => client::drive(&options),
        Command::RedisClient(options) => redis::client::drive(&options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtax-workload: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
