//! Taps: links whose other end is a file, QEMU's. One lives as long as somebody has the file open.

use std::{
    fs::{File, OpenOptions},
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    path::Path,
};

use crate::{
    engine::ns::network::{Network, TAP},
    ledger::{Item, Lease, Ledger},
    net::{Segment, links},
};
use virtax_model::error::{Error, Result};
use virtax_probes::{Boundary, process};

/// Where taps come from.
pub const TUN: &str = "/dev/net/tun";

nix::ioctl_write_int!(set_interface, b'T', 202);
nix::ioctl_write_int!(set_persistent, b'T', 203);
nix::ioctl_write_int!(set_owner, b'T', 204);

/// Makes the tap of a network, takes it up, and says where it is.
///
/// # Errors
/// If there are no taps here.
pub fn create(network: &Network) -> Result<(File, Boundary)> {
    let gateway = network.segment.gateway;
    let (file, ifindex) = network.router.run(|| {
        let file = open(TAP).map_err(missing)?;
        Ok((file, bring_up(gateway)?))
    })?;
    let namespace = process::namespace_inode(network.router.path())?;
    Ok((file, Boundary { ifindex, namespace }))
}

/// A tap of the host's, down and without an address, for somebody else to open: it lives until it is removed. Noted
/// before it is made.
///
/// # Errors
/// If there are no taps here, or it cannot be noted.
pub fn create_for(ledger: &Ledger, name: &str, owner: libc::uid_t) -> Result<Lease> {
    let lease = ledger.note(Item::Link { name: name.to_owned() })?;
    let file = open(name).map_err(missing)?;
    let keep = || -> nix::Result<()> {
        // SAFETY: both take a number.
        unsafe {
            set_owner(file.as_raw_fd(), u64::from(owner))?;
            set_persistent(file.as_raw_fd(), 1)?;
        }
        Ok(())
    };
    keep().map_err(|error| missing(error.into()))?;
    Ok(lease)
}

/// Moves a tap that somebody has opened from the host into a network, and takes it up there.
///
/// # Errors
/// If it is gone.
pub fn move_into(network: &Network, name: &str) -> Result<Boundary> {
    links::move_to(name, network.router.file())?;
    let gateway = network.segment.gateway;
    let ifindex = network.router.run(|| {
        links::rename(name, TAP)?;
        bring_up(gateway)
    })?;
    let namespace = process::namespace_inode(network.router.path())?;
    Ok(Boundary { ifindex, namespace })
}

/// Removes the tap of a network, if there is one.
///
/// # Errors
/// If it is still there afterwards.
pub fn remove(network: &Network) -> Result<()> {
    network.router.run(|| links::delete_link(TAP))
}

/// Takes the tap of this thread's namespace up; its number.
fn bring_up(gateway: Ipv4Addr) -> Result<u32> {
    links::bring_up(TAP, Some((gateway, Segment::PREFIX)))?;
    let name = std::ffi::CString::new(TAP).unwrap_or_default();
    // SAFETY: the name lives as long as the call.
    Ok(unsafe { libc::if_nametoindex(name.as_ptr()) })
}

fn missing(error: io::Error) -> Error {
    let remedy = "load the module: `modprobe tun`; in a container, pass the device in; or take net=user";
    Error::unsupported(format!("there is no tap for a virtual machine ({TUN})"), error, remedy)
}

/// A new tap in this thread's namespace (`Documentation/networking/tuntap.rst`), with the header by which a guest
/// leaves checksums and segments to others.
fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(Path::new(TUN))?;
    // SAFETY: all zeroes are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (into, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *into = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request lives as long as the call, and is what the number asks for.
    unsafe { set_interface(file.as_raw_fd(), (&raw const request) as u64) }.map_err(io::Error::from)?;
    Ok(file)
}
