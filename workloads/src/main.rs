//! `virtax-workload`: the client and the server that virtax runs, the same static binary in every configuration.

use clap::Parser;
use workloads::{
    block, fio, hog, init, keep, redis, relay,
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
    /// Reads and writes a file, as the client says
    BlockServer(block::options::Options),
    /// Tells the server of a file its phases, as they come on standard input
    BlockClient(block::client::Options),
    /// Runs fio on a file, and says what it says
    FioServer(fio::Options),
    /// Userland proxy
    Relay(relay::Options),
    /// Keeps a container's servers: a fresh one whenever it is told
    Keep(keep::Options),
    /// Computes, and does nothing else
    Hog(hog::Options),
}

/// Raises the soft limit of open files to the hard one: the usual one ends a thousand connections short of a thousand.
fn allow_many_connections() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a local; should either call fail, the limit stays as it is.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn main() -> std::process::ExitCode {
    allow_many_connections();
    // Nobody gives arguments to a guest's first process.
    if std::process::id() == 1 && std::path::Path::new(init::GUEST).exists() {
        init::run();
    }
    let result = match Command::parse() {
        Command::TcpRrServer(options) => server::serve(&options),
        Command::TcpRrClient(options) => client::drive(&options),
        Command::RedisClient(options) => redis::client::drive(&options),
        Command::BlockServer(options) => block::server::serve(&options),
        Command::BlockClient(options) => block::client::drive(&options),
        Command::FioServer(options) => fio::serve(&options),
        Command::Relay(options) => relay::relay(&options),
        Command::Keep(options) => keep::keep(&options),
        Command::Hog(options) => hog::compute(&options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtax-workload: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
