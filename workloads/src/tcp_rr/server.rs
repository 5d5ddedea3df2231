//! The server: answers every request of `request` bytes with `response` bytes.

use std::{
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
};

use super::Model;
use crate::{
    account::Account,
    clock::{now_ns, sleep_until},
    epoll::Epoll,
};

/// What the server does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address and port to listen on.
    #[arg(long)]
    pub listen: SocketAddrV4,
    /// Threading model.
    #[arg(long, value_enum, default_value = "epoll")]
    pub model: Model,
    /// Bytes of a request.
    #[arg(long, default_value_t = 100)]
    pub request: usize,
    /// Bytes of a response.
    #[arg(long, default_value_t = 200)]
    pub response: usize,
    /// What it does before answers.
    #[command(flatten)]
    pub before: Before,
    /// Seconds after which the server ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// A known cost before answers, by which it is tested whether it is found.
#[derive(Debug, Clone, clap::Args)]
pub struct Before {
    /// Microseconds to sleep before an answer.
    #[arg(long, default_value_t = 0)]
    pub sleep_us: u64,
    /// Microseconds to compute before an answer.
    #[arg(long, default_value_t = 0)]
    pub spin_us: u64,
    /// One answer in so many is computed for.
    #[arg(long, default_value_t = 1)]
    pub spin_every: u64,
    /// File in which the time that this took is noted, see [`crate::account`].
    #[arg(long)]
    pub account: Option<PathBuf>,
}

/// [`Before`], at work.
#[derive(Clone)]
struct Cost {
    sleep_ns: u64,
    spin_ns: u64,
    every: u64,
    answers: u64,
    account: Option<Account>,
}

impl Cost {
    fn new(before: &Before) -> io::Result<Self> {
        let account = before.account.as_deref().map(Account::open).transpose()?;
        let [sleep_ns, spin_ns] = [before.sleep_us, before.spin_us].map(|us| us * 1000);
        Ok(Self { sleep_ns, spin_ns, every: before.spin_every.max(1), answers: 0, account })
    }

    fn pay(&mut self) {
        if self.sleep_ns == 0 && self.spin_ns == 0 {
            return;
        }
        self.answers += 1;
        if !self.answers.is_multiple_of(self.every) {
            return;
        }
        let start_ns = now_ns();
        if self.sleep_ns > 0 {
            sleep_until(start_ns + self.sleep_ns);
        }
        let mut end_ns = now_ns();
        while end_ns < start_ns + self.spin_ns {
            end_ns = now_ns();
        }
        if let Some(account) = &self.account {
            account.add(end_ns - start_ns);
        }
    }
}

/// Serves until the lifetime ends.
///
/// # Errors
/// When the address cannot be listened on, or waiting fails.
pub fn serve(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let cost = Cost::new(&options.before)?;
    let listener = TcpListener::bind(options.listen)?;
    match options.model {
        Model::Epoll => serve_epoll(&listener, options, cost),
        Model::Threads => serve_threads(&listener, options, &cost),
    }
}

fn serve_threads(listener: &TcpListener, options: &Options, cost: &Cost) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let (mut request, response) = (vec![0; options.request], vec![0; options.response]);
        let mut cost = cost.clone();
        std::thread::spawn(move || {
            while stream.read_exact(&mut request).is_ok() {
                cost.pay();
                if stream.write_all(&response).is_err() {
                    break;
                }
            }
        });
    }
}

/// A connection of the epoll server.
struct Connection {
    stream: TcpStream,
    /// Bytes of the current request that have arrived.
    arrived: usize,
}

fn serve_epoll(listener: &TcpListener, options: &Options, mut cost: Cost) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), listener.as_raw_fd() as u64)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut request, response) = (vec![0; options.request], vec![0; options.response]);
    loop {
        for descriptor in epoll.wait(-1)? {
            if descriptor == listener.as_raw_fd() as u64 {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                let key = stream.as_raw_fd() as usize;
                epoll.add(stream.as_raw_fd(), key as u64)?;
                if connections.len() <= key {
                    connections.resize_with(key + 1, || None);
                }
                connections[key] = Some(Connection { stream, arrived: 0 });
                continue;
            }
            let slot = &mut connections[descriptor as usize];
            let alive = slot.as_mut().is_some_and(|connection| answer(connection, &mut request, &response, &mut cost));
            if !alive {
                // Closing takes it out of the epoll set.
                *slot = None;
            }
        }
    }
}

/// One read, and the response once the request is whole. False: the connection ended.
fn answer(connection: &mut Connection, request: &mut [u8], response: &[u8], cost: &mut Cost) -> bool {
    match connection.stream.read(&mut request[connection.arrived..]) {
        Ok(0) | Err(_) => false,
        Ok(bytes) => {
            connection.arrived += bytes;
            if connection.arrived < request.len() {
                return true;
            }
            connection.arrived = 0;
            cost.pay();
            connection.stream.write_all(response).is_ok()
        }
    }
}
