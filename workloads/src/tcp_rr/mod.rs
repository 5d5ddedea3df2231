//! TCP request/response: fixed-size requests, fixed-size responses, one request under way per connection.

pub mod client;
pub mod schedule;
pub mod server;

/// How connections are divided among threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// One thread waits for all of them with `epoll`.
    Epoll,
    /// One thread each, in blocking calls.
    Threads,
}

/// Largest request or response: one segment on an Ethernet-sized link, so that one skb holds the message.
pub const LARGEST_MESSAGE: usize = 1400;
