//! Clients and servers that virtax drives, and [`protocol`], by which a client learns when a phase begins and ends
//! and says what it saw in it.

pub mod account;
pub mod block;
pub mod clock;
pub mod connect;
pub mod epoll;
pub mod file;
pub mod fio;
pub mod hog;
pub mod init;
pub mod keep;
pub mod phases;
pub mod priority;
pub mod protocol;
pub mod redis;
pub mod relay;
mod rest;
pub mod speed;
pub mod tcp_rr;
pub mod timer;
mod turns;
