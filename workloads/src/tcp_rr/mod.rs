//! TCP request/response: fixed-size requests, fixed-size responses, one request under way per connection.

pub mod client;
pub mod server;

/// Largest request or response: one segment on an Ethernet-sized link, so that one skb holds the message.
pub const LARGEST_MESSAGE: usize = 1400;
