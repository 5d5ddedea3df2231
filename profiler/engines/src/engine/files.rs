//! Where a server's file lies, read from its process: through which mount it is open, and what that was made of. (The
//! file's device would not do: btrfs and overlayfs give files devices that no mount has.)

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::{engine, engine::configuration::Configuration, environment::setup};
use virtax_model::error::{Error, Result};

/// A file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Kind of its file system.
    system: String,
    /// What that was mounted from.
    source: String,
    /// Number of the device.
    device: String,
}

/// What was found of the place of a server's file: names and values.
///
/// # Errors
/// If it is gone, has no such file, or has it where the configuration does not say.
pub fn facts(pid: u32, configuration: &Configuration) -> Result<Vec<(String, String)>> {
    let fail = |why: String| Error::workload(format!("cannot see where the file of `{configuration}` lies"), why);
    let mount = mount_of_file(pid).ok_or_else(|| fail("its server has no file without a name open".to_owned()))?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(|error| fail(error.to_string()))?;
    let place = find(&mounts, &mount).ok_or_else(|| fail(format!("there is no mount {mount}")))?;
    let wanted = engine::by_name(&configuration.engine).and_then(|engine| engine.file_system(configuration));
    if wanted.is_some_and(|wanted| wanted != place.system) {
        let why = format!("the file is on {}, not on {}", place.system, wanted.unwrap_or_default());
        return Err(Error::workload(format!("`{configuration}` is not what it says"), why));
    }
    let of_disk = setup::of_disk(&place.device);
    Ok([("filesystem", place.system), ("filesystem_source", place.source), ("device", place.device)]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(of_disk)
        .collect())
}

/// The device that an image lies on, and its number: names and values.
#[must_use]
pub fn of_image(image: &Path) -> Vec<(String, String)> {
    let Ok(number) = fs::metadata(image).map(|metadata| metadata.dev()) else { return Vec::new() };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    vec![("device".to_owned(), format!("an image on {major}:{minor}"))]
}

/// The number of the mount through which a process has a regular file without a name open (proc_pid_fdinfo(5)).
fn mount_of_file(pid: u32) -> Option<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut nameless = open.filter(|entry| {
        let is_plain = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 0);
        is_plain && fs::read_link(entry.path()).is_ok_and(|shown| is_nameless(&shown))
    });
    let number = nameless.next()?.file_name();
    let facts = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("fdinfo").join(number)).ok()?;
    facts.lines().find_map(|line| Some(line.strip_prefix("mnt_id:")?.trim().to_owned()))
}

/// What the kernel shows of a file without a name: memory of programs' own is none of a file system that one asks for.
fn is_nameless(shown: &Path) -> bool {
    let shown = shown.to_string_lossy();
    shown.ends_with(" (deleted)") && !shown.starts_with("/memfd:")
}

/// The mount of a number in a text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
fn find(mounts: &str, number: &str) -> Option<Place> {
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let (mut words, found) = (system.split(' '), mount.next()? == number);
        let (system, source, device) = (words.next()?.to_owned(), words.next()?.to_owned(), mount.nth(1)?.to_owned());
        found.then_some(Place { system, source, device })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                      23 22 0:5 / /proc rw shared:2 - proc proc rw\n\
                      40 22 0:40 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b\n\
                      41 40 0:41 / /data rw - tmpfs tmpfs rw\nnonsense\n";
        let found = |number| find(mounts, number).map(|place| (place.system, place.source, place.device));
        let place =
            |system: &str, source: &str, device: &str| Some((system.to_owned(), source.to_owned(), device.to_owned()));
        assert_eq!(found("22"), place("ext4", "/dev/vda", "254:0"));
        assert_eq!(found("40"), place("overlay", "overlay", "0:40"));
        assert_eq!(found("41"), place("tmpfs", "tmpfs", "0:41"));
        assert_eq!(found("4"), None);
    }

    #[test]
    fn a_file_without_a_name_is_found_by_its_mount() {
        let _file = tempfile::tempfile().unwrap();
        let mount = mount_of_file(std::process::id()).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(find(&mounts, &mount).is_some(), "{mount}");
        assert!(!is_nameless(Path::new("/memfd:x (deleted)")) && !is_nameless(Path::new("/a/file")));
    }
}
