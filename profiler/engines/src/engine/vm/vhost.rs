//! The kernel's own way between a tap and a guest's virtual queues.

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use virtax_model::error::{Error, Result};

const DEVICE: &str = "/dev/vhost-net";

/// Opens it for a VM.
///
/// # Errors
/// If this kernel has none.
pub fn open() -> Result<File> {
    OpenOptions::new().read(true).write(true).open(Path::new(DEVICE)).map_err(|error| {
        Error::unsupported(
            "there is no vhost for a virtual machine's network",
            format!("{DEVICE}: {error}"),
            "load the module: `modprobe vhost_net`; or take vhost=off",
        )
    })
}
