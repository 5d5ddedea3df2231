//! Connecting to a server that may only be starting.

use std::{
    io,
    net::{SocketAddrV4, TcpStream},
    time::Duration,
};

use crate::clock::now_ns;

/// A connection, tried for until `deadline_ns` (`CLOCK_MONOTONIC`). A server that hangs while connections are made shows as an
/// error of the next read, not as a run without end.
///
/// # Errors
/// The last refusal; at once, if this process has no room for another connection.
pub fn connect(server: SocketAddrV4, deadline_ns: u64) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect_timeout(&server.into(), Duration::from_secs(1)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                return Ok(stream);
            }
            // Too many open files: waiting does not help.
            Err(error) if now_ns() > deadline_ns || error.raw_os_error() == Some(libc::EMFILE) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
