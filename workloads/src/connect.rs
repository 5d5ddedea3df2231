//! Connecting to a server that may only be starting.

use std::{
    io,
    net::{SocketAddrV4, TcpStream},
    time::Duration,
};

use crate::clock::now_ns;

/// The time without any reply after which a server counts as hung: three times the longest phase (10 s).
pub const SILENCE: Duration = Duration::from_secs(30);

/// An error that says for how long there was no reply, if that is too long.
///
/// # Errors
/// `TimedOut` where the last reply, at `heard_ns` (`CLOCK_MONOTONIC`), is longer ago than [`SILENCE`].
pub fn answers_since(heard_ns: u64) -> io::Result<()> {
    if Duration::from_nanos(now_ns().saturating_sub(heard_ns)) <= SILENCE {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no reply for {} s", SILENCE.as_secs())))
}

/// A connection, tried for until `deadline_ns` (`CLOCK_MONOTONIC`). A server that hangs while connections are made
/// shows as an error of the next read, not as a run without end.
///
/// # Errors
/// The last refusal; at once, if this process has no room for another connection.
pub fn connect(server: SocketAddrV4, deadline_ns: u64) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect_timeout(&server.into(), Duration::from_secs(1)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE))?;
                return Ok(stream);
            }
            // Too many open files: waiting does not help.
            Err(error) if now_ns() > deadline_ns || error.raw_os_error() == Some(libc::EMFILE) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
