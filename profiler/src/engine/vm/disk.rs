//! A guest's disk: an image of the run's own, all holes, and what the guest's kernel says of it.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use crate::{
    child::NOBODY,
    configuration::Configuration,
    error::{Error, Result},
};

/// Bytes of the image, of which none are written before a guest writes.
const SIZE: u64 = 256 << 20;
/// A disk's sector, as Linux counts.
const SECTOR: u64 = 512;
/// Name of QEMU's thread for it.
const THREAD: &str = "io0";

/// A guest's disk, for as long as the guest is.
pub struct Disk {
    /// The image.
    pub path: PathBuf,
}

impl Disk {
    /// The disk of a configuration, if it has one.
    ///
    /// # Errors
    /// If the image cannot be written.
    pub fn create(configuration: &Configuration, path: PathBuf) -> Result<Option<Self>> {
        if configuration.key("blk") == "none" {
            return Ok(None);
        }
        let disk = Self { path };
        File::options()
            .write(true)
            .create_new(true)
            .open(&disk.path)
            .and_then(|file| {
                file.set_len(SIZE)?;
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
                // QEMU runs as nobody.
                fchown(&file, Some(NOBODY), Some(NOBODY))
            })
            .map_err(|error| Error::file("write", &disk.path, error))?;
        Ok(Some(disk))
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
    if key("blk") == "none" && (key("cache") != "none" || key("aio") != "threads") {
        return refuse("there is no disk for `cache` and `aio`: add blk=virtio");
    }
    if key("blk") == "nvme" && key("machine") == "microvm" {
        return refuse("microvm has no PCI bus for NVMe: take blk=virtio, or machine=q35");
    }
    if key("aio") == "native" && !matches!(key("cache"), "none" | "directsync") {
        return refuse("aio=native needs cache=none or cache=directsync");
    }
    Ok(())
}

/// QEMU's arguments for a disk.
#[must_use]
pub fn arguments(configuration: &Configuration, path: &Path, bus: &str) -> Vec<(&'static str, String)> {
    let (cache, aio) = (configuration.key("cache"), configuration.key("aio"));
    let drive = format!("if=none,id=disk0,format=raw,file={},cache={cache},aio={aio}", path.display());
    let device = match configuration.key("blk") {
        "nvme" => "nvme,drive=disk0,serial=virtax".to_owned(),
        _ => format!("virtio-blk-{bus},drive=disk0,iothread={THREAD}"),
    };
    let thread = (configuration.key("blk") == "virtio").then(|| ("-object", format!("iothread,id={THREAD}")));
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

/// What the guest says of its disk (`vda:virtio_blk:524288:write-back`), for a person.
///
/// # Errors
/// If that is not the disk that the configuration says.
pub fn seen(configuration: &Configuration, said: &str) -> Result<String> {
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
                && sectors.parse() == Ok(SIZE / SECTOR)
                && cache.is_none_or(|cache| cache == kept) =>
        {
            Ok(format!("{name}, {driver}, {} MiB, {}", SIZE >> 20, kept.replace('-', " ")))
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
    use crate::configuration::parse;

    #[test]
    fn what_a_guest_sees_is_held_against_what_it_was_given() {
        let of = |text: &str, said: &str| {
            let configuration = parse(text).unwrap().0;
            seen(&configuration, said).ok()
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
