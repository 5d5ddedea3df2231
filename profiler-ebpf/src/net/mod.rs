//! Requests over the network, from socket to skb and back.

pub mod boundary;
pub mod hop;
pub mod loss;
pub mod path;
pub mod proxy;
pub mod reader;
pub mod retransmission;
