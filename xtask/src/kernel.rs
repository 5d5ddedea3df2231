//! A kernel for guests: Debian's, as its package has it, unpacked into the cache and installed nowhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::shell::{cache, command, output, run};

/// Debian's package that depends on the newest kernel for VMs.
const NEWEST: &str = "linux-image-cloud-amd64";

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// The one of the running release.
    Release,
    /// The newer one that is built for it besides.
    Backports,
}

/// The folder with `boot` and `lib/modules`; fetched if it is not there yet.
pub fn fetched(suite: Suite) -> Result<PathBuf> {
    let name = if suite == Suite::Release { "guest-kernel" } else { "guest-kernel-backports" };
    let folder = cache()?.join(name);
    if image(&folder).is_ok() {
        return Ok(folder);
    }
    let fresh = cache()?.join(format!("{name}.{}", std::process::id()));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let unpacked = options(suite, &fresh).and_then(|options| unpack(&fresh, &options));
    // One that was cut off before is in the way.
    let _ = fs::remove_dir_all(&folder);
    let moved = unpacked.and_then(|()| fs::rename(fresh.join("root"), &folder).context("cannot keep the kernel"));
    let _ = fs::remove_dir_all(&fresh);
    moved.map(|()| folder)
}

/// What apt is told: for backports, lists of its own, from where this host has its packages, so that its own
/// settings stay.
fn options(suite: Suite, folder: &Path) -> Result<Vec<String>> {
    if suite == Suite::Release {
        return Ok(Vec::new());
    }
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned();
    let mut targets = command("apt-get");
    targets.args(["indextargets", "--format", "$(RELEASE) $(SITE)"]);
    let targets = output(targets)?;
    let site = targets.lines().find_map(|line| line.strip_prefix(codename.as_str())?.strip_prefix(' '));
    let site = site.with_context(|| format!("no package source of this machine has {codename}"))?;
    let (sources, lists) = (folder.join("sources"), folder.join("lists"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::write(
        &sources,
        format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {site} {codename}-backports main\n"),
    )?;
    let options = [
        format!("Dir::Etc::SourceList={}", sources.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", lists.display()),
        format!("Dir::Cache={}", folder.join("cache").display()),
        // Its user cannot look into root's cache.
        "APT::Sandbox::User=root".to_owned(),
    ];
    let options: Vec<String> = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
    let mut update = command("apt-get");
    update.args(&options).args(["update", "--quiet"]);
    run(update)?;
    Ok(options)
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

fn unpack(folder: &Path, options: &[String]) -> Result<()> {
    let mut depends = command("apt-cache");
    depends.args(options).args(["depends", NEWEST]);
    let list = output(depends)?;
    let package = list
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .with_context(|| format!("{NEWEST} depends on no kernel: `apt-get update`?"))?;
    let mut download = command("apt-get");
    download.args(options).args(["download", "--quiet", package]).current_dir(folder);
    run(download)?;
    let file = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"));
    let Some(file) = file else { bail!("apt-get has downloaded nothing") };
    let mut extract = command("dpkg");
    extract.arg("-x").arg(file).arg(folder.join("root"));
    run(extract)?;
    image(&folder.join("root")).map(drop).with_context(|| format!("{package} holds no kernel"))
}
