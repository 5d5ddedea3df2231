//! Where a server's file lies, read from its process: by the device that the file is on, and what its mounts say of that.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::{
    configuration::Configuration,
    engine,
    error::{Error, Result},
};

/// A file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Kind of its file system.
    system: String,
    /// What that was mounted from.
    source: String,
}

/// What was found of the place of a server's file: names and values.
///
/// # Errors
/// If it is gone, has no such file, or has it where the configuration does not say.
pub fn facts(pid: u32, configuration: &Configuration) -> Result<Vec<(String, String)>> {
    let fail = |why: String| Error::workload(format!("cannot see where the file of `{configuration}` lies"), why);
    let device = device_of_file(pid).ok_or_else(|| fail("its server has no file without a name open".to_owned()))?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(|error| fail(error.to_string()))?;
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let place = find(&mounts, &number).ok_or_else(|| fail(format!("no mount has its device, {number}")))?;
    let wanted = engine::by_name(&configuration.engine).and_then(|engine| engine.file_system(configuration));
    if wanted.is_some_and(|wanted| wanted != place.system) {
        let why = format!("the file is on {}, not on {}", place.system, wanted.unwrap_or_default());
        return Err(Error::workload(format!("`{configuration}` is not what it says"), why));
    }
    Ok(vec![
        ("filesystem".to_owned(), place.system),
        ("filesystem_source".to_owned(), place.source),
        ("file_device".to_owned(), number),
    ])
}

/// The device of a regular file without a name that a process has open.
fn device_of_file(pid: u32) -> Option<u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    open.filter_map(|entry| {
        let metadata = fs::metadata(entry.path()).ok()?;
        (metadata.is_file() && metadata.nlink() == 0 && is_nameless(&fs::read_link(entry.path()).ok()?))
            .then(|| metadata.dev())
    })
    .next()
}

/// What the kernel shows of a file without a name: memory of programs' own is none of a file system that one asks for.
fn is_nameless(shown: &Path) -> bool {
    let shown = shown.to_string_lossy();
    shown.ends_with(" (deleted)") && !shown.starts_with("/memfd:")
}

/// The last mount of a device in a text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
fn find(mounts: &str, device: &str) -> Option<Place> {
    mounts
        .lines()
        .filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut words = system.split(' ');
            let (kind, source) = (words.next()?, words.next()?);
            (mount.split(' ').nth(2)? == device).then(|| Place { system: kind.to_owned(), source: source.to_owned() })
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_among_mounts() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                      23 22 0:5 / /proc rw shared:2 - proc proc rw\n\
                      40 22 0:40 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b\n\
                      41 40 0:41 / /data rw - tmpfs tmpfs rw\nnonsense\n";
        let found = |device| find(mounts, device).map(|place| (place.system, place.source));
        assert_eq!(found("254:0"), Some(("ext4".to_owned(), "/dev/vda".to_owned())));
        assert_eq!(found("0:40").unwrap().0, "overlay");
        assert_eq!(found("0:41").unwrap().0, "tmpfs");
        assert_eq!(found("0:4"), None);
    }

    #[test]
    fn a_file_without_a_name_is_found_by_its_device() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(device_of_file(std::process::id()), Some(file.metadata().unwrap().dev()));
        assert!(!is_nameless(Path::new("/memfd:x (deleted)")) && !is_nameless(Path::new("/a/file")));
    }
}
