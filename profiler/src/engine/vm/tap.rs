//! Taps: links whose other end is a file, QEMU's. One lives as long as somebody has the file open.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use crate::{
    engine::{
        Boundary,
        ns::network::{Network, TAP},
    },
    error::{Error, Result},
    net::{Segment, links},
    process,
};

/// Where taps come from.
pub const TUN: &str = "/dev/net/tun";

nix::ioctl_write_int!(set_interface, b'T', 202);

/// Makes the tap of a network, takes it up, and says where it is.
///
/// # Errors
/// If there are no taps here.
pub fn create(network: &Network) -> Result<(File, Boundary)> {
    let gateway = network.segment.gateway;
    let (file, ifindex) = network.router.run(|| {
        let file = open().map_err(|error| {
            let remedy = "load the module: `modprobe tun`; in a container, pass the device in; or take net=user";
            Error::unsupported(format!("there is no tap for a virtual machine ({TUN})"), error, remedy)
        })?;
        links::bring_up(TAP, Some((gateway, Segment::PREFIX)))?;
        let name = std::ffi::CString::new(TAP).unwrap_or_default();
        // SAFETY: the name lives as long as the call.
        Ok((file, unsafe { libc::if_nametoindex(name.as_ptr()) }))
    })?;
    let namespace = process::namespace_inode(network.router.path())?;
    Ok((file, Boundary { ifindex, namespace }))
}

/// A new tap in this thread's namespace (`Documentation/networking/tuntap.rst`), with the header by which a guest leaves checksums and
/// segments to others.
fn open() -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(Path::new(TUN))?;
    // SAFETY: all zeroes are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (into, byte) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *into = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request lives as long as the call, and is what the number asks for.
    unsafe { set_interface(file.as_raw_fd(), (&raw const request) as u64) }.map_err(io::Error::from)?;
    Ok(file)
}
