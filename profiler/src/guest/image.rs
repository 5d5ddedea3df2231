//! The initial file system of a guest: its first process, drivers, and the server with its files.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use workloads::init::{GUEST, Guest};

use super::{
    Kernel,
    archive::{Archive, Entry},
    modules,
};
use crate::{
    error::{Error, Result},
    pack::{Pack, Packed},
};

/// Drivers of what a machine of virtax's has: its bus, its network card, its source of randomness.
const DRIVERS: &[&str] = &["virtio_pci", "virtio_net", "virtio_rng"];
/// Where the static binary lies in a guest.
const FIRST_PROCESS: &str = "/init";

/// Writes an initial file system to `path`. `binary`: the static binary, which is the guest's first process; `guest`: what it is told,
/// but for its drivers.
///
/// # Errors
/// If the kernel lacks a driver, or a file cannot be read or written.
pub fn write_initial(path: &Path, kernel: &Kernel, binary: &Path, pack: &Pack, guest: Guest) -> Result<()> {
    let fail = |error: std::io::Error| Error::file("write", path, error);
    let drivers = modules::closure(&kernel.modules, DRIVERS)?;
    let mut archive = Archive::new(BufWriter::new(File::create(path).map_err(fail)?));
    let mut inside = Vec::new();
    for driver in &drivers {
        let name = Path::new("/drivers").join(driver.file_name().unwrap_or_default());
        let bytes = fs::read(driver).map_err(|error| Error::file("read", driver, error))?;
        archive.add(&name, &Entry::File(&bytes), 0o644).map_err(fail)?;
        inside.push(name);
    }
    let guest = Guest { drivers: inside, ..guest };
    let guest = serde_json::to_vec(&guest).map_err(|error| Error::file("write", path, error))?;
    let first = fs::read(binary).map_err(|error| Error::file("read", binary, error))?;
    archive.add(Path::new(GUEST), &Entry::File(&guest), 0o644).map_err(fail)?;
    archive.add(Path::new(FIRST_PROCESS), &Entry::File(&first), 0o755).map_err(fail)?;
    archive.add(Path::new("/dev/console"), &Entry::Device(5, 1), 0o600).map_err(fail)?;
    for (folder, mode) in [("/proc", 0o555), ("/sys", 0o555), ("/run", 0o755), ("/tmp", 0o1777)] {
        archive.add(Path::new(folder), &Entry::Folder, mode).map_err(fail)?;
    }
    pack.visit(|inside, packed, mode| match packed {
        Packed::File(bytes) => archive.add(inside, &Entry::File(&bytes), mode),
        Packed::Link(target) => archive.add(inside, &Entry::Link(&target), mode),
    })?;
    archive.finish().and_then(|mut file| file.flush()).map_err(fail)?;
    // Whatever the user's umask: who boots it is nobody.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(fail)?;
    Ok(())
}
