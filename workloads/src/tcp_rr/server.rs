//! The server: answers every request of `request` bytes with `response` bytes.

use std::{
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use crate::epoll::Epoll;

/// How the server divides its connections among threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// One thread waits for all of them with `epoll`.
    Epoll,
    /// One thread each, in blocking calls.
    Threads,
}

/// What the server does.
#[derive(Debug, Clone, Copy, clap::Args)]
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
    /// Seconds after which the server ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// Serves until the lifetime ends.
///
/// # Errors
/// When the address cannot be listened on, or waiting fails.
pub fn serve(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let listener = TcpListener::bind(options.listen)?;
    match options.model {
        Model::Epoll => serve_epoll(&listener, options),
        Model::Threads => serve_threads(&listener, options),
    }
}

fn serve_threads(listener: &TcpListener, options: &Options) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let (mut request, response) = (vec![0; options.request], vec![0; options.response]);
        std::thread::spawn(
            move || {
                while stream.read_exact(&mut request).is_ok() && stream.write_all(&response).is_ok() {}
            },
        );
    }
}

/// A connection of the epoll server.
struct Connection {
    stream: TcpStream,
    /// Bytes of the current request that have arrived.
    arrived: usize,
}

fn serve_epoll(listener: &TcpListener, options: &Options) -> io::Result<()> {
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
            let alive = slot.as_mut().is_some_and(|connection| answer(connection, &mut request, &response));
            if !alive {
                // Closing takes it out of the epoll set.
                *slot = None;
            }
        }
    }
}

/// One read, and the response once the request is whole. False: the connection ended.
fn answer(connection: &mut Connection, request: &mut [u8], response: &[u8]) -> bool {
    match connection.stream.read(&mut request[connection.arrived..]) {
        Ok(0) | Err(_) => false,
        Ok(bytes) => {
            connection.arrived += bytes;
            if connection.arrived < request.len() {
                return true;
            }
            connection.arrived = 0;
            connection.stream.write_all(response).is_ok()
        }
    }
}
