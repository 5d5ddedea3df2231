//! The initial file system of a guest: its first process, drivers, and programs with their files.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use workloads::init::{GUEST, Guest, Task};

use super::{
    Kernel,
    archive::{Archive, Entry},
    kernel::FOLDER,
    modules,
};
use crate::pack::{Pack, Packed};
use virtax_model::error::{Error, Result};

/// Drivers of disks that a guest can be given, and of the file system on them.
const DISK_DRIVERS: &[&str] = &["virtio_blk", "nvme", "crc32c_generic", "ext4"];
/// Drivers of what a VM of virtax's has: its bus, of either kind, its network card, its source of
/// randomness, the agent's port.
pub const DRIVERS: &[&str] = &["virtio_pci", "virtio_mmio", "virtio_net", "virtio_rng", "virtio_console"];
/// Where the static binary lies in a guest.
const FIRST_PROCESS: &str = "/init";

/// What a guest is made of.
pub struct Image<'a> {
    /// The kernel that it boots: its modules must fit.
    pub kernel: &'a Kernel,
    /// Names of drivers.
    pub drivers: &'a [&'a str],
    /// Names of drivers that are to be there if the kernel has them, before the others.
    pub wishes: &'a [&'a str],
    /// The static binary, which is the first process.
    pub binary: &'a [u8],
    /// Programs with their libraries and files.
    pub packs: &'a [&'a Pack],
    /// What it is there for.
    pub task: Task,
}

impl Image<'_> {
    /// Writes the initial file system to `path`, readable for everyone.
    ///
    /// # Errors
    /// If the kernel lacks a driver, or a file cannot be read or written.
    pub fn write(self, path: &Path) -> Result<()> {
        let fail = |error: std::io::Error| Error::file("write", path, error);
        let has = |name: &&&str| modules::closure(&self.kernel.modules, &[**name]).is_ok();
        let wished: Vec<&str> = self.wishes.iter().filter(has).copied().collect();
        let drivers = modules::closure(&self.kernel.modules, &[&wished, self.drivers].concat())?;
        let mut archive = Archive::new(BufWriter::new(File::create(path).map_err(fail)?));
        let mut inside = Vec::new();
        for driver in &drivers {
            let name = Path::new("/drivers").join(modules::plain_name(driver));
            let bytes = modules::read(driver).map_err(|error| Error::file("read", driver, error))?;
            archive.add(&name, &Entry::File(&bytes), 0o644).map_err(fail)?;
            inside.push(name);
        }
        let guest = Guest { drivers: inside, task: self.task };
        let guest = serde_json::to_vec(&guest).map_err(|error| Error::file("write", path, error))?;
        archive.add(Path::new(GUEST), &Entry::File(&guest), 0o644).map_err(fail)?;
        archive.add(Path::new(FIRST_PROCESS), &Entry::File(self.binary), 0o755).map_err(fail)?;
        archive.add(Path::new("/dev/console"), &Entry::Device(5, 1), 0o600).map_err(fail)?;
        for (folder, mode) in [("/proc", 0o555), ("/sys", 0o555), ("/run", 0o755), ("/tmp", 0o1777)] {
            archive.add(Path::new(folder), &Entry::Folder, mode).map_err(fail)?;
        }
        let mut there = BTreeSet::new();
        for pack in self.packs {
            pack.visit(|inside, packed, mode| match packed {
                // Programs share libraries.
                _ if !there.insert(inside.to_owned()) => Ok(()),
                Packed::File(bytes) => archive.add(inside, &Entry::File(&bytes), mode),
                Packed::Link(target) => archive.add(inside, &Entry::Link(&target), mode),
                Packed::Folder => archive.add(inside, &Entry::Folder, mode),
            })?;
        }
        archive.finish().and_then(|mut file| file.flush()).map_err(fail)?;
        // Whatever the user's umask: who boots it is nobody.
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(fail)
    }
}

/// Adds a kernel for guests of the guest, where virtax looks for one: its image, and the drivers that virtax's
/// VMs need.
///
/// # Errors
/// If the kernel lacks one of those.
pub fn add_kernel(pack: &mut Pack, kernel: &Kernel) -> Result<()> {
    let folder = Path::new(FOLDER);
    pack.add_copy(&folder.join("boot").join(format!("vmlinuz-{}", kernel.release)), &kernel.image, 0o644);
    let modules = folder.join("lib/modules").join(&kernel.release);
    // Not every guest has a disk: a kernel without such a driver will do for the others.
    let disks = DISK_DRIVERS.iter().copied().filter(|driver| modules::closure(&kernel.modules, &[driver]).is_ok());
    let drivers: Vec<&str> = DRIVERS.iter().copied().chain(disks).collect();
    for driver in modules::closure(&kernel.modules, &drivers)? {
        let name = driver.file_name().unwrap_or_default();
        pack.add_copy(&modules.join("kernel").join(name), &driver, 0o644);
    }
    let builtin = kernel.modules.join("modules.builtin");
    pack.add_copy(&modules.join("modules.builtin"), &builtin, 0o644);
    Ok(())
}
