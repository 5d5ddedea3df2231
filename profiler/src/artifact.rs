//! What the binary carries inside: the probes, and the workloads' static binary.

use crate::error::{Error, Result};

/// `include_bytes!` promises no alignment; the ELF reader wants 8.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static PROBES: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/virtax-probes")));
#[cfg(feature = "host")]
static WORKLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtax-workload"));
#[cfg(feature = "host")]
static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtax-agent"));
#[cfg(feature = "host")]
static LIBVIRT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/virtax-libvirt"));

fn present(bytes: &'static [u8], what: &str) -> Result<&'static [u8]> {
    if bytes.is_empty() {
        return Err(Error::unsupported(
            format!("this virtax was built without its {what}"),
            "it was compiled by cargo alone",
            "run `cargo xtask build`",
        ));
    }
    Ok(bytes)
}

/// The probes' ELF object.
///
/// # Errors
/// If this build has none.
pub fn probes() -> Result<&'static [u8]> {
    present(&PROBES.0, "probes")
}

/// The agent for guests, a static binary.
///
/// # Errors
/// If this build has none.
#[cfg(feature = "host")]
pub fn agent() -> Result<&'static [u8]> {
    present(AGENT, "agent")
}

/// What speaks to libvirt, a program of its own that needs libvirt's library.
///
/// # Errors
/// If this build has none.
#[cfg(feature = "host")]
pub fn libvirt() -> Result<&'static [u8]> {
    present(LIBVIRT, "way to libvirt")
}

/// The static binary of all clients and servers.
///
/// # Errors
/// If this build has none.
#[cfg(feature = "host")]
pub fn workload() -> Result<&'static [u8]> {
    present(WORKLOAD, "workloads")
}
