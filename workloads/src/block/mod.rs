//! Reads and writes of a file: the server makes them, the client passes its phases on to it. So the operations run in
//! whatever the server runs in, and are timed there.

pub mod client;
pub mod first;
pub mod options;
mod queue;
pub mod server;
mod work;
