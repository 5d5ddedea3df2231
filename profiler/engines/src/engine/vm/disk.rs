//! A guest's disk: an image of the run's own, all holes, and what the guest's kernel says of it.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use crate::{
    child::NOBODY,
    engine::configuration::Configuration,
    engine::{
        Bench,
        image::{self, mib_for},
    },
    ledger::{Item, Lease, disk_folder},
};
use virtax_model::error::{Error, Result};

/// Bytes of an image that holds no files, of which none are written before a guest writes.
const SIZE: u64 = 256 << 20;
/// A disk's sector, as Linux counts.
const SECTOR: u64 = 512;
/// Name of QEMU's thread for it.
const THREAD: &str = "io0";

/// A guest's disk, for as long as the guest is.
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// Bytes, as the guest sees it.
    size: u64,
    /// Whether it has a file system for the server's files.
    pub holds_files: bool,
    /// The folder in which it lies among the files of native servers.
    _folder: Option<Lease>,
}

impl Disk {
    /// The disk of a configuration, if it has one: in `folder`, or, where the server reads and writes files, in the
    /// folder of these.
    ///
    /// # Errors
    /// If the image cannot be written.
    pub fn create(bench: &Bench, configuration: &Configuration, folder: &Path, number: u32) -> Result<Option<Self>> {
        if configuration.key("blk") == "none" {
            return Ok(None);
        }
        let name = format!("disk-{number}");
        let disk = match bench.server.files() {
            None => Self { path: folder.join(name), size: SIZE, holds_files: false, _folder: None },
            Some((data, mib)) => {
                let folder = data.join(disk_folder(&bench.run_id, number));
                // First made, then noted: one that somebody else has made there is nothing for us to remove.
                let made = fs::DirBuilder::new().mode(0o755).create(&folder);
                made.map_err(|error| Error::file("create", &folder, error))?;
                let lease = bench.ledger.note(Item::Folder { path: folder.clone() })?;
                Self { path: folder.join(name), size: mib_for(mib) << 20, holds_files: true, _folder: Some(lease) }
            }
        };
        disk.write(configuration)?;
        Ok(Some(disk))
    }

    fn write(&self, configuration: &Configuration) -> Result<()> {
        let raw = self.path.with_extension("raw");
        let fail = |error| Error::file("write", &self.path, error);
        image::create(&raw, self.size)?;
        if self.holds_files {
            image::make_file_system(&raw)?;
        }
        if configuration.key("image") == "raw" {
            fs::rename(&raw, &self.path).map_err(fail)?;
        } else {
            let format = ["convert", "-f", "raw", "-O", configuration.key("image")];
            let made = image::execute(super::QEMU_IMG, &format, &[&raw, &self.path]);
            let _ = fs::remove_file(&raw);
            made?;
        }
        // QEMU runs as nobody.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600))
            .and_then(|()| chown(&self.path, Some(NOBODY), Some(NOBODY)))
            .map_err(fail)
    }
}

impl Disk {
    /// What the guest says of it, for a person.
    ///
    /// # Errors
    /// If that is another disk.
    pub fn check(&self, configuration: &Configuration, said: &str) -> Result<String> {
        seen(configuration, said, self.size)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// # Errors
/// [`Error::Usage`] for a disk that QEMU has not, or keys of one where there is none.
pub fn check(configuration: &Configuration) -> Result<()> {
    let key = |name| configuration.key(name);
    let refuse = |why: &str| Err(Error::Usage(format!("`{configuration}`: {why}")));
    if key("blk") == "none" && (key("cache") != "none" || key("aio") != "threads" || key("image") != "raw") {
        return refuse("there is no disk for `cache`, `aio` and `image`: add blk=virtio");
    }
    if key("blk") == "nvme" && key("machine") == "microvm" {
        return refuse("microvm has no PCI bus for NVMe: take blk=virtio, or machine=q35");
    }
    if key("aio") == "native" && !matches!(key("cache"), "none" | "directsync") {
        return refuse("aio=native needs cache=none or cache=directsync");
    }
    Ok(())
}

/// Whether QEMU has a thread of its own for it. Emulated, microvm's virtio can wake none: its main loop works for the
/// disk.
fn has_thread(configuration: &Configuration) -> bool {
    let wakes_none = configuration.key("machine") == "microvm" && configuration.engine == "tcg";
    configuration.key("blk") == "virtio" && !wakes_none
}

/// QEMU's arguments for a disk.
#[must_use]
pub fn arguments(configuration: &Configuration, path: &Path, bus: &str) -> Vec<(&'static str, String)> {
    let (cache, aio) = (configuration.key("cache"), configuration.key("aio"));
    let (format, file) = (configuration.key("image"), path.display());
    let drive = format!("if=none,id=disk0,format={format},file={file},cache={cache},aio={aio}");
    let device = match configuration.key("blk") {
        "nvme" => "nvme,drive=disk0,serial=virtax".to_owned(),
        _ if has_thread(configuration) => format!("virtio-blk-{bus},drive=disk0,iothread={THREAD}"),
        _ => format!("virtio-blk-{bus},drive=disk0"),
    };
    let thread = has_thread(configuration).then(|| ("-object", format!("iothread,id={THREAD}")));
    thread.into_iter().chain([("-drive", drive), ("-device", device)]).collect()
}

/// Drivers that a guest needs for its disk.
#[must_use]
pub fn drivers(configuration: &Configuration) -> &'static [&'static str] {
    match configuration.key("blk") {
        "virtio" => &["virtio_blk"],
        "nvme" => &["nvme"],
        _ => &[],
    }
}

/// The module by which a file system has the sums of its blocks computed, in kernels where it asks for that by name.
pub const WISHES: &[&str] = &["crc32c_generic"];

/// What the guest says of its disk (`vda:virtio_blk:524288:write-back`), for a person.
///
/// # Errors
/// If that is not the disk that the configuration says.
fn seen(configuration: &Configuration, said: &str, size: u64) -> Result<String> {
    let words: Vec<&str> = said.split(':').collect();
    let expected = drivers(configuration).first().copied().unwrap_or_default();
    // An emulated NVMe says of itself that it has a volatile cache in any case.
    let cache = match (configuration.key("blk"), configuration.key("cache")) {
        ("virtio", "writethrough" | "directsync") => Some("write-through"),
        ("virtio", _) => Some("write-back"),
        _ => None,
    };
    match words[..] {
        [name, driver, sectors, kept]
            if driver == expected
                && sectors.parse() == Ok(size / SECTOR)
                && cache.is_none_or(|cache| cache == kept) =>
        {
            Ok(format!("{name}, {driver}, {} MiB, {}", size >> 20, kept.replace('-', " ")))
        }
        _ => Err(Error::engine(
            format!("the guest of `{configuration}` has another disk than it should"),
            format!("it says `{said}`"),
            "report this",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::configuration::parse;

    #[test]
    fn what_a_guest_sees_is_held_against_what_it_was_given() {
        let of = |text: &str, said: &str| {
            let configuration = parse(text).unwrap().0;
            seen(&configuration, said, SIZE).ok()
        };
        let shown = of("tcg:blk=virtio", "vda:virtio_blk:524288:write-back");
        assert_eq!(shown.as_deref(), Some("vda, virtio_blk, 256 MiB, write back"));
        assert!(of("tcg:blk=virtio,cache=writethrough", "vda:virtio_blk:524288:write-through").is_some());
        for (text, said) in [
            ("tcg:blk=virtio,cache=writethrough", "vda:virtio_blk:524288:write-back"),
            ("tcg:blk=virtio", "nvme0n1:nvme:524288:write-back"),
            ("tcg:blk=virtio", "vda:virtio_blk:1024:write-back"),
            ("tcg:blk=nvme", ""),
            ("tcg:blk=nvme", "a:b:c:d:e"),
        ] {
            assert_eq!(of(text, said), None, "{text}: {said}");
        }
        assert!(of("tcg:blk=nvme", "nvme0n1:nvme:524288:write-back").is_some());
    }
}
