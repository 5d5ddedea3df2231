//! The client: what virtax says goes to the server, and what the server says comes back.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, SocketAddrV4},
};

use crate::{clock::now_ns, connect::connect, phases::say, protocol::Reply};

/// What the client does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// The server.
    #[arg(long)]
    pub connect: SocketAddrV4,
    /// Milliseconds to try to connect for.
    #[arg(long, default_value_t = 10_000)]
    pub patience_ms: u64,
    /// Seconds after which the client ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// Passes lines on in both directions, until either side ends.
///
/// # Errors
/// When the server cannot be reached in time, or goes.
pub fn drive(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let stream = match connect(options.connect, now_ns() + options.patience_ms * 1_000_000) {
        Ok(stream) => stream,
        Err(error) => return say(&Reply::Failed { reason: format!("cannot connect to {}: {error}", options.connect) }),
    };
    // Between phases nothing is said.
    stream.set_read_timeout(None)?;
    let requests = stream.try_clone()?;
    std::thread::spawn(move || {
        let _ = pass_on(io::stdin().lock(), &requests);
        let _ = requests.shutdown(Shutdown::Both);
    });
    pass_on(BufReader::new(stream), io::stdout().lock())
}

/// Line by line: each is wanted at once.
fn pass_on(mut from: impl BufRead, mut to: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        line.clear();
    }
    Ok(())
}
