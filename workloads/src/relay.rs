//! A userland proxy: for every connection that it accepts it makes one to the server, and copies what comes, both
//! ways. By reading and writing, so that what passes can be followed (splice goes around the points of sockets).

use std::{
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{clock::now_ns, epoll::Epoll};

/// What the proxy does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Where it listens.
    #[arg(long)]
    pub listen: SocketAddrV4,
    /// The server.
    #[arg(long)]
    pub connect: SocketAddrV4,
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// Connections at once.
const MOST: usize = 4096;
/// How long it tries to reach a server that may only be starting, ns.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Bytes that it reads at once.
const BUFFER: usize = 64 << 10;

/// Relays until the lifetime ends.
///
/// # Errors
/// When the address cannot be listened on.
pub fn relay(options: &Options) -> io::Result<()> {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    crate::clock::end_after(options.lifetime);
    let listener = TcpListener::bind(options.listen)?;
    loop {
        let (client, _) = listener.accept()?;
        if OPEN.load(Ordering::Relaxed) >= MOST {
            continue;
        }
        let server = options.connect;
        OPEN.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            // Either end may close at any time: that ends the pair, and nothing else.
            let _ = crate::connect::connect(server, now_ns() + PATIENCE_NS).and_then(|server| copy(client, server));
            OPEN.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Copies both ways in one thread, a message at a time, until one end closes.
fn copy(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut epoll = Epoll::new()?;
    epoll.add(client.as_raw_fd(), 0)?;
    epoll.add(server.as_raw_fd(), 1)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        for which in epoll.wait(-1)? {
            let (from, to) = if which == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let bytes = from.read(&mut buffer)?;
            if bytes == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..bytes])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_goes_in_comes_out_both_ways() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
        let upstream = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (accepted, _) = front.accept().unwrap();
        let (mut served, _) = server.accept().unwrap();
        let copying = std::thread::spawn(move || copy(accepted, upstream));
        for stream in [&client, &served] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        let mut buffer = [0; 5];
        client.write_all(b"there").unwrap();
        served.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"there");
        served.write_all(b"again").unwrap();
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"again");
        drop(client);
        copying.join().unwrap().unwrap();
    }
}
