//! The agent in a guest: it follows requests there as virtax does on the host, phase by phase, on the host's command.
//!
//! The two talk through a serial port of the VM's. No clock is compared across it: the host says how long from
//! now, and the agent answers with what it counted by its own clock.

mod serve;
pub mod wire;

pub use serve::serve;
