//! The client: one blocking connection per thread, latencies per phase.

use std::{
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpStream},
    sync::Arc,
};

use crate::{
    clock::{now_ns, sleep_until},
    connect::connect,
    phases::{Shared, Times, Worker, say},
    protocol::Reply,
};

/// What the client does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// The server.
    #[arg(long)]
    pub connect: SocketAddrV4,
    /// Connections, one thread each.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Operations per second over all connections (open loop); 0: as fast as responses come.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Bytes of a request.
    #[arg(long, default_value_t = 100)]
    pub request: usize,
    /// Bytes of a response.
    #[arg(long, default_value_t = 200)]
    pub response: usize,
    /// Bytes per receiving call; 0: as many as there are.
    #[arg(long, default_value_t = 0)]
    pub chunk: usize,
    /// Milliseconds to try to connect for.
    #[arg(long, default_value_t = 10_000)]
    pub patience_ms: u64,
    /// Seconds after which the client ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// Connects, works, and answers the requests on standard input until it ends.
///
/// # Errors
/// When the server cannot be reached in time, or standard output is closed.
pub fn drive(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let streams = match connect_all(options) {
        Ok(streams) => streams,
        Err(error) => {
            let reason = format!("cannot connect to {}: {error}", options.connect);
            return say(&Reply::Failed { reason });
        }
    };
    let shared = Arc::new(Shared::default());
    let workers: Vec<Arc<Worker>> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| {
            let worker = Arc::new(Worker::new(1));
            let (shared, mine, options) = (shared.clone(), worker.clone(), *options);
            std::thread::spawn(move || {
                crate::priority::usual();
                if let Err(error) = work(&options, index, stream, &shared, &mine) {
                    shared.fail(format!("connection {index} failed: {error}"));
                }
            });
            worker
        })
        .collect();
    shared.answer(&workers, io::stdin().lock(), &mut io::stdout().lock())
}

fn connect_all(options: &Options) -> io::Result<Vec<TcpStream>> {
    let deadline = now_ns() + options.patience_ms * 1_000_000;
    let mut streams = Vec::new();
    for _ in 0..options.connections {
        streams.push(connect(options.connect, deadline)?);
    }
    // A userland proxy accepts before the server does: one exchange shows that the server itself is there.
    for stream in &mut streams {
        exchange(stream, options, &vec![0; options.request], &mut vec![0; options.response])?;
    }
    Ok(streams)
}

fn exchange(stream: &mut TcpStream, options: &Options, request: &[u8], response: &mut [u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let chunk = if options.chunk == 0 { response.len() } else { options.chunk };
    response.chunks_mut(chunk).try_for_each(|piece| stream.read_exact(piece))
}

fn work(options: &Options, index: usize, mut stream: TcpStream, shared: &Shared, worker: &Worker) -> io::Result<()> {
    let (request, mut response) = (vec![0; options.request], vec![0; options.response]);
    // With a rate, every connection sends at an interval of its own, the connections evenly offset.
    let interval_ns = if options.rate > 0.0 { (1e9 * f64::from(options.connections) / options.rate) as u64 } else { 0 };
    let mut intended_ns = now_ns() + interval_ns * index as u64 / u64::from(options.connections).max(1);
    let mut returned_ns = now_ns();
    while !shared.stopped() {
        if interval_ns > 0 {
            sleep_until(intended_ns);
        }
        let called_ns = now_ns();
        worker.calls(0, called_ns);
        exchange(&mut stream, options, &request, &mut response)?;
        let back_ns = now_ns();
        let intended_ns_or_call = if interval_ns > 0 { intended_ns } else { called_ns };
        let times = Times { intended_ns: intended_ns_or_call, before_ns: returned_ns, called_ns, back_ns };
        shared.note(worker, 0, &times);
        returned_ns = back_ns;
        intended_ns += interval_ns;
    }
    Ok(())
}
