//! The client: sends a command on every connection, and the next as soon as its reply is there.

use std::{
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
    sync::Arc,
};

use super::resp::{self, Reply as Answer};
use crate::{
    clock::now_ns,
    connect::{SILENCE, answers_since, connect},
    epoll::Epoll,
    phases::{Shared, Times, Worker, say},
    protocol::Reply,
    rest::{Resting, TURN},
};

/// What is asked of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Operation {
    /// Overwrite a value.
    Set,
    /// Read one.
    Get,
}

/// What the client does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// The server.
    #[arg(long)]
    pub connect: SocketAddrV4,
    /// What is asked.
    #[arg(long, value_enum)]
    pub operation: Operation,
    /// Connections, all on one thread.
    #[arg(long, default_value_t = 50)]
    pub clients: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 50)]
    pub data_size: usize,
    /// Keys, chosen evenly at random.
    #[arg(long, default_value_t = 100_000)]
    pub keyspace: u64,
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
/// When standard output is closed.
pub fn drive(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let streams = match connect_all(options) {
        Ok(streams) => streams,
        Err(reason) => return say(&Reply::Failed { reason }),
    };
    let shared = Arc::new(Shared::default());
    let worker = Arc::new(Worker::resting(options.clients));
    let (theirs, mine, options) = (shared.clone(), worker.clone(), *options);
    std::thread::spawn(move || {
        crate::priority::usual();
        if let Err(reason) = work(&options, streams, &theirs, &mine) {
            theirs.fail(reason);
        }
    });
    shared.answer(&[worker], io::stdin().lock(), &mut io::stdout().lock())
}

fn connect_all(options: &Options) -> Result<Vec<TcpStream>, String> {
    let deadline_ns = now_ns() + options.patience_ms * 1_000_000;
    let fail = |error: io::Error| format!("cannot connect to {}: {error}", options.connect);
    let mut streams = Vec::with_capacity(options.clients);
    for _ in 0..options.clients {
        let mut stream = connect(options.connect, deadline_ns).map_err(fail)?;
        // A userland proxy accepts before the server does: one exchange shows that Redis itself is there.
        ask(&mut stream, &resp::request(&[b"PING"]), |answer| *answer == Answer::Simple(b"PONG"))?;
        streams.push(stream);
    }
    fill(&mut streams[0], options)?;
    Ok(streams)
}

/// Sends requests, and takes their replies until the last one's; each must please `expected`.
fn exchange(
    stream: &mut TcpStream,
    requests: &[u8],
    replies: usize,
    expected: impl Fn(&Answer<'_>) -> bool,
) -> Result<(), String> {
    stream.write_all(requests).map_err(|error| format!("cannot send: {error}"))?;
    let (mut buffer, mut left) = (Vec::new(), replies);
    let mut chunk = [0; 16384];
    while left > 0 {
        match stream.read(&mut chunk) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(bytes) => buffer.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(format!("no reply for {} s", SILENCE.as_secs()));
            }
            Err(error) => return Err(format!("no reply: {error}")),
        }
        let mut used = 0;
        while let Some((answer, length)) = resp::parse(&buffer[used..])? {
            if !expected(&answer) {
                return Err(format!("wrong reply: {}", resp::show(&answer)));
            }
            used += length;
            left = left.saturating_sub(1);
        }
        buffer.drain(..used);
    }
    Ok(())
}

fn ask(stream: &mut TcpStream, request: &[u8], expected: impl Fn(&Answer<'_>) -> bool) -> Result<(), String> {
    exchange(stream, request, 1, expected)
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Gives every key a value, so that every read finds one, and every write overwrites one: a table that grows is moved
/// to a larger one for seconds, by the server itself, ten times a second.
fn fill(stream: &mut TcpStream, options: &Options) -> Result<(), String> {
    const BATCH: u64 = 1000;
    let value = vec![b'x'; options.data_size];
    let mut next = 0;
    while next < options.keyspace {
        let end = (next + BATCH).min(options.keyspace);
        let requests: Vec<u8> = (next..end).flat_map(|number| resp::request(&[b"SET", &key(number), &value])).collect();
        exchange(stream, &requests, (end - next) as usize, |answer| *answer == Answer::Simple(b"OK"))?;
        next = end;
    }
    Ok(())
}

/// A connection at work.
struct Connection {
    stream: TcpStream,
    /// What of the reply has arrived.
    reply: Vec<u8>,
    called_ns: u64,
    returned_ns: u64,
}

/// xorshift64* (Vigna, ACM TOMS 42, 2016): keys need no better.
struct Random(u64);
impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit.max(1)
    }
}

struct Work<'a> {
    options: &'a Options,
    value: Vec<u8>,
    random: Random,
    worker: &'a Worker,
    resting: Resting<'a>,
}

fn work(options: &Options, streams: Vec<TcpStream>, shared: &Shared, worker: &Worker) -> Result<(), String> {
    let cannot_wait = |error: io::Error| format!("cannot wait for replies: {error}");
    let mut epoll = Epoll::new().map_err(cannot_wait)?;
    let mut connections = Vec::with_capacity(streams.len());
    for (index, stream) in streams.into_iter().enumerate() {
        epoll.add(stream.as_raw_fd(), index as u64).map_err(cannot_wait)?;
        connections.push(Connection { stream, reply: Vec::with_capacity(4096), called_ns: 0, returned_ns: now_ns() });
    }
    let resting = Resting::new(shared, worker, |descriptor, key| epoll.add(descriptor, key));
    let resting = resting.map_err(cannot_wait)?;
    let value = vec![b'x'; options.data_size];
    let mut work = Work { options, value, random: Random(0x9E37_79B9_7F4A_7C15), worker, resting };
    for (index, connection) in connections.iter_mut().enumerate() {
        work.next(index, connection)?;
    }
    let mut heard_ns = now_ns();
    while !shared.stopped() {
        for index in work.resting.take().map_err(cannot_wait)? {
            work.next(index, &mut connections[index])?;
        }
        if work.resting.len() == connections.len() {
            heard_ns = now_ns();
        } else {
            answers_since(heard_ns).map_err(|error| error.to_string())?;
        }
        for index in epoll.wait(1000).map_err(cannot_wait)? {
            if index == TURN {
                work.resting.woken();
                continue;
            }
            heard_ns = now_ns();
            let index = index as usize;
            let connection = &mut connections[index];
            if !work.receive(connection).map_err(|why| format!("connection {index}: {why}"))? {
                continue;
            }
            let times = Times {
                intended_ns: connection.called_ns,
                before_ns: connection.returned_ns,
                called_ns: connection.called_ns,
                back_ns: now_ns(),
            };
            shared.note(worker, index, &times);
            connection.returned_ns = times.back_ns;
            work.next(index, connection)?;
        }
    }
    Ok(())
}

impl Work<'_> {
    /// The next request of a connection that is free: now, or in its next turn.
    fn next(&mut self, index: usize, connection: &mut Connection) -> Result<(), String> {
        if self.resting.may_ask(index, &connection.stream) { self.call(index, connection) } else { Ok(()) }
    }

    fn call(&mut self, index: usize, connection: &mut Connection) -> Result<(), String> {
        let key = key(self.random.below(self.options.keyspace));
        let request = match self.options.operation {
            Operation::Set => resp::request(&[b"SET", &key, &self.value]),
            Operation::Get => resp::request(&[b"GET", &key]),
        };
        connection.called_ns = now_ns();
        self.worker.calls(index, connection.called_ns);
        connection.stream.write_all(&request).map_err(|error| format!("connection {index}: cannot send: {error}"))
    }

    /// One read. Whether the reply is whole.
    fn receive(&self, connection: &mut Connection) -> Result<bool, String> {
        let mut chunk = [0; 4096];
        match connection.stream.read(&mut chunk) {
            Ok(0) => return Err("the server closed it".to_owned()),
            Ok(bytes) => connection.reply.extend_from_slice(&chunk[..bytes]),
            Err(error) => return Err(format!("cannot receive: {error}")),
        }
        let Some((answer, length)) = resp::parse(&connection.reply)? else { return Ok(false) };
        let right = match self.options.operation {
            Operation::Set => answer == Answer::Simple(b"OK"),
            Operation::Get => matches!(answer, Answer::Bulk(Some(value)) if value.len() == self.options.data_size),
        };
        if !right || length != connection.reply.len() {
            return Err(format!("wrong reply: {}", resp::show(&answer)));
        }
        connection.reply.clear();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spread_over_the_keyspace() {
        let mut random = Random(1);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert_eq!(key(7), b"key:000000000007");
    }
}
