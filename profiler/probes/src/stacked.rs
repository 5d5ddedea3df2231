//! Whether this host has disks that pass bios on to others.

use std::{fs, path::Path};

const DISKS: &str = "/sys/block";

/// Whether there are any: the device mapper's and RAID's have disks below (`slaves`); NVMe's disks with several ways
/// have a hidden disk for each (`nvme0c1n1`). Without them, the probes need not look.
pub(super) fn any() -> bool {
    any_in(Path::new(DISKS))
}

fn any_in(folder: &Path) -> bool {
    let Ok(disks) = fs::read_dir(folder) else { return false };
    disks.flatten().any(|disk| {
        let has_below = fs::read_dir(disk.path().join("slaves")).is_ok_and(|mut below| below.next().is_some());
        has_below || is_way(&disk.file_name().to_string_lossy())
    })
}

/// Whether this is the name of one way to a disk: `nvmeSUBSYSTEMcCONTROLLERnNAMESPACE`.
fn is_way(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|rest| rest.contains('c'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_with_others_below_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(folder.path().join(path)).unwrap();
        make("vda/slaves");
        make("nvme0n1");
        assert!(!any_in(folder.path()));
        make("dm-0/slaves/vda1");
        assert!(any_in(folder.path()));
    }

    #[test]
    fn ways_to_a_disk_have_names_of_their_own() {
        assert!(is_way("nvme0c1n1") && !is_way("nvme0n1") && !is_way("sdc"));
        assert!(!any_in(Path::new("/nonexistent")));
    }
}
