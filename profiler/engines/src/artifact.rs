//! What the binary carries inside beside the probes: the workloads' static binary, the agent for guests, and what
//! speaks to libvirt.

use virtax_probes::artifact::present;

use virtax_model::error::Result;

static WORKLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtax-workload"));
static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtax-agent"));
static LIBVIRT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtax-libvirt"));

/// The agent for guests, a static binary.
///
/// # Errors
/// If this build has none.
pub fn agent() -> Result<&'static [u8]> {
    present(AGENT, "agent")
}

/// What speaks to libvirt, a program of its own that needs libvirt's library.
///
/// # Errors
/// If this build has none.
pub fn libvirt() -> Result<&'static [u8]> {
    present(LIBVIRT, "way to libvirt")
}

/// The static binary of all clients and servers.
///
/// # Errors
/// If this build has none.
pub fn workload() -> Result<&'static [u8]> {
    present(WORKLOAD, "workloads")
}
