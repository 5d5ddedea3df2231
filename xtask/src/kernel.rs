//! A kernel for guests: Debian's, as its package has it, unpacked into the cache and installed nowhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::shell::{cache, command, output, run};

/// Debian's package that depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// The folder with `boot` and `lib/modules`; fetched if it is not there yet.
pub fn fetched() -> Result<PathBuf> {
    let folder = cache()?.join("guest-kernel");
    if has_kernel(&folder) {
        return Ok(folder);
    }
    let fresh = cache()?.join(format!("guest-kernel.{}", std::process::id()));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let unpacked = unpack(&fresh);
    // One that was cut off before is in the way.
    let _ = fs::remove_dir_all(&folder);
    let moved = unpacked.and_then(|()| fs::rename(fresh.join("root"), &folder).context("cannot keep the kernel"));
    let _ = fs::remove_dir_all(&fresh);
    moved.map(|()| folder)
}

/// The image of the kernel in such a folder.
pub fn image(folder: &Path) -> Result<PathBuf> {
    let images = fs::read_dir(folder.join("boot")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut images: Vec<PathBuf> = images.filter(|path| is_image(path)).collect();
    images.sort();
    images.pop().with_context(|| format!("{} holds no kernel", folder.display()))
}

fn is_image(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
}

fn has_kernel(folder: &Path) -> bool {
    image(folder).is_ok()
}

fn unpack(folder: &Path) -> Result<()> {
    let mut depends = command("apt-cache");
    depends.args(["depends", NEWEST]);
    let list = output(depends)?;
    let package = list
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .with_context(|| format!("{NEWEST} depends on no kernel: `apt-get update`?"))?;
    let mut download = command("apt-get");
    download.args(["download", "--quiet", package]).current_dir(folder);
    run(download)?;
    let file = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"));
    let Some(file) = file else { bail!("apt-get has downloaded nothing") };
    let mut extract = command("dpkg");
    extract.arg("-x").arg(file).arg(folder.join("root"));
    run(extract)?;
    if has_kernel(&folder.join("root")) { Ok(()) } else { bail!("{package} holds no kernel") }
}
