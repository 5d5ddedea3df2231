//! The client: fixed connections, one request under way on each, in a closed loop or at times of its own.

use std::{
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
    sync::Arc,
};

use super::{
    Model,
    schedule::{Arrivals, Schedule},
};
use crate::{
    clock::{self, now_ns},
    connect::{answers_since, connect},
    epoll::Epoll,
    phases::{Shared, Times, Worker, say},
    protocol::Reply,
    rest::{self, Known, Resting, TURN},
    timer::Timer,
    turns::Turn,
};

/// What the client does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// The server.
    #[arg(long)]
    pub connect: SocketAddrV4,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Threading model.
    #[arg(long, value_enum, default_value = "epoll")]
    pub model: Model,
    /// Operations per second over all connections (open loop); 0: as fast as responses come.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// How an open loop's requests are spaced.
    #[arg(long, value_enum, default_value = "constant")]
    pub arrivals: Arrivals,
    /// Nanoseconds before a request is due that are waited for at work: only where nobody else wants the CPU.
    #[arg(long, default_value_t = 0)]
    pub spin_ns: u64,
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
    clock::end_after(options.lifetime);
    let streams = match connect_all(options) {
        Ok(streams) => streams,
        Err(error) => {
            let reason = format!("cannot connect to {}: {error}", options.connect);
            return say(&Reply::Failed { reason });
        }
    };
    let shared = Arc::new(Shared::default());
    let start_ns = now_ns();
    let mut connections: Vec<Connection> = (0..)
        .zip(streams)
        .map(|(index, stream)| {
            let Options { arrivals, rate, connections, .. } = *options;
            Connection {
                schedule: Schedule::new(arrivals, rate, connections, index, start_ns),
                ..Connection::new(stream)
            }
        })
        .collect();
    let workers: Vec<Arc<Worker>> = match options.model {
        Model::Epoll => vec![spawn(options, "", connections, &shared)],
        Model::Threads => (0..connections.len())
            .zip(connections.drain(..))
            .map(|(index, connection)| spawn(options, &format!("connection {index}: "), vec![connection], &shared))
            .collect(),
    };
    shared.answer(&workers, io::stdin().lock(), &mut io::stdout().lock())
}

/// A thread at work on these connections; `who` begins what it says when it fails.
fn spawn(options: &Options, who: &str, mut connections: Vec<Connection>, shared: &Arc<Shared>) -> Arc<Worker> {
    let worker = Arc::new(Worker::resting(connections.len()));
    let (shared, mine, options, who) = (shared.clone(), worker.clone(), *options, who.to_owned());
    std::thread::spawn(move || {
        crate::priority::usual();
        let done = clock::sleep_precisely().and_then(|()| match connections.as_mut_slice() {
            // There is nothing else to wait for: its one connection is waited for in the call that receives.
            [connection] => work_on_one(&options, connection, &shared, &mine),
            all => work_on_all(&options, all, &shared, &mine),
        });
        if let Err(error) = done {
            shared.fail(format!("{who}{error}"));
        }
    });
    worker
}

fn connect_all(options: &Options) -> io::Result<Vec<TcpStream>> {
    let deadline = now_ns() + options.patience_ms * 1_000_000;
    let mut streams = Vec::new();
    for _ in 0..options.connections {
        let mut stream = connect(options.connect, deadline)?;
        // A userland proxy accepts before the server does: one exchange shows that the server itself is there. And
        // before the next connection, so that no queue of a listener's overflows, which costs a second each time.
        exchange(&mut stream, options, &vec![0; options.request], &mut vec![0; options.response])?;
        streams.push(stream);
    }
    Ok(streams)
}

fn exchange(stream: &mut TcpStream, options: &Options, request: &[u8], response: &mut [u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let chunk = if options.chunk == 0 { response.len() } else { options.chunk };
    response.chunks_mut(chunk).try_for_each(|piece| stream.read_exact(piece))
}

/// A connection at work.
struct Connection {
    stream: TcpStream,
    schedule: Schedule,
    called_ns: u64,
    returned_ns: u64,
    /// Bytes of the response that are still to come; 0: no request is under way.
    missing: usize,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let schedule = Schedule::new(Arrivals::Constant, 0.0, 1, 0, 0);
        Self { stream, schedule, called_ns: 0, returned_ns: now_ns(), missing: 0 }
    }

    /// The request of the connection has returned: the times of that, and the next one is due.
    fn returned(&mut self, back_ns: u64) -> Times {
        let (before_ns, called_ns) = (self.returned_ns, self.called_ns);
        let times = Times { intended_ns: self.schedule.due_ns().unwrap_or(called_ns), before_ns, called_ns, back_ns };
        self.returned_ns = back_ns;
        self.schedule.advance();
        times
    }
}

fn work_on_one(options: &Options, connection: &mut Connection, shared: &Shared, worker: &Worker) -> io::Result<()> {
    let (request, mut response) = (vec![0; options.request], vec![0; options.response]);
    let mut known = Known::new(shared);
    while !shared.stopped() {
        if let Some(came_ns) = rest::wait(&mut known, shared, worker, &connection.stream) {
            connection.schedule.restart(came_ns);
            continue;
        }
        if let Some(due_ns) = connection.schedule.due_ns() {
            clock::wait_until(due_ns, options.spin_ns);
            if known.at(shared, now_ns()) != Turn::Now {
                continue;
            }
        }
        connection.called_ns = now_ns();
        worker.calls(0, connection.called_ns);
        exchange(&mut connection.stream, options, &request, &mut response)?;
        shared.note(worker, 0, &connection.returned(now_ns()));
    }
    Ok(())
}

/// What [`Epoll`] calls the timer.
const TIMER: u64 = u64::MAX;
/// How long one wait may last: then it is looked whether the work is to end.
const WAIT_MS: i32 = 1000;

/// Connections whose next request is due at a time, the next one first.
type Dues = std::collections::BinaryHeap<std::cmp::Reverse<(u64, usize)>>;

struct Work<'a> {
    options: &'a Options,
    worker: &'a Worker,
    resting: Resting<'a>,
    request: Vec<u8>,
    response: Vec<u8>,
    dues: Dues,
    under_way: usize,
}

fn work_on_all(options: &Options, connections: &mut [Connection], shared: &Shared, worker: &Worker) -> io::Result<()> {
    let (mut epoll, timer) = (Epoll::new()?, Timer::new()?);
    epoll.add(timer.as_raw_fd(), TIMER)?;
    let resting = Resting::new(shared, worker, |descriptor, key| epoll.add(descriptor, key))?;
    let chunk = if options.chunk == 0 { options.response } else { options.chunk };
    let (request, response) = (vec![0; options.request], vec![0; chunk.max(1)]);
    let mut work = Work { options, worker, resting, request, response, dues: Dues::new(), under_way: 0 };
    for (index, connection) in connections.iter_mut().enumerate() {
        epoll.add(connection.stream.as_raw_fd(), index as u64)?;
        work.next(index, connection)?;
    }
    let (mut heard_ns, mut set_ns) = (now_ns(), 0);
    while !shared.stopped() {
        work.begin_turn(connections)?;
        work.make_what_is_due(connections)?;
        if work.under_way == 0 {
            heard_ns = now_ns();
        } else {
            answers_since(heard_ns)?;
        }
        let next_ns = work.dues.peek().map_or(0, |first| first.0.0.saturating_sub(options.spin_ns));
        if next_ns != set_ns {
            timer.set(next_ns)?;
            set_ns = next_ns;
        }
        for key in epoll.wait(WAIT_MS)? {
            match key {
                TIMER => continue,
                TURN => {
                    work.resting.woken();
                    continue;
                }
                _ => {}
            }
            heard_ns = now_ns();
            let index = key as usize;
            let connection = &mut connections[index];
            if work.receive(connection)? {
                shared.note(worker, index, &connection.returned(now_ns()));
                work.next(index, connection)?;
            }
        }
    }
    Ok(())
}

impl Work<'_> {
    /// Connections that have rested ask again, if their turn has come.
    fn begin_turn(&mut self, connections: &mut [Connection]) -> io::Result<()> {
        for index in self.resting.take()? {
            connections[index].schedule.restart(now_ns());
            self.next(index, &mut connections[index])?;
        }
        Ok(())
    }

    /// The next request of a connection that is free: now, or when it is due, or in its next turn.
    fn next(&mut self, index: usize, connection: &mut Connection) -> io::Result<()> {
        if !self.resting.may_ask(index, &connection.stream) {
            return Ok(());
        }
        match connection.schedule.due_ns() {
            Some(due_ns) if due_ns > now_ns() => {
                self.dues.push(std::cmp::Reverse((due_ns, index)));
                Ok(())
            }
            _ => self.call(index, connection),
        }
    }

    fn make_what_is_due(&mut self, connections: &mut [Connection]) -> io::Result<()> {
        while let Some(std::cmp::Reverse((due_ns, index))) = self.dues.peek().copied() {
            if due_ns > now_ns() + self.options.spin_ns {
                break;
            }
            self.dues.pop();
            clock::wait_until(due_ns, self.options.spin_ns);
            if self.resting.may_ask(index, &connections[index].stream) {
                self.call(index, &mut connections[index])?;
            }
        }
        Ok(())
    }

    fn call(&mut self, index: usize, connection: &mut Connection) -> io::Result<()> {
        connection.called_ns = now_ns();
        self.worker.calls(index, connection.called_ns);
        connection.missing = self.options.response;
        self.under_way += 1;
        connection.stream.write_all(&self.request)
    }

    /// One read. Whether the response is whole.
    fn receive(&mut self, connection: &mut Connection) -> io::Result<bool> {
        let wanted = connection.missing.clamp(1, self.response.len());
        match connection.stream.read(&mut self.response[..wanted])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection")),
            bytes if connection.missing == 0 => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("{bytes} bytes came that nobody asked for")))
            }
            bytes => {
                connection.missing -= bytes;
                self.under_way -= usize::from(connection.missing == 0);
                Ok(connection.missing == 0)
            }
        }
    }
}
