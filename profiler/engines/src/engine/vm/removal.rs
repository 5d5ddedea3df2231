//! The removal of what VMs leave behind.

use std::{fs, path::Path};

use virtax_model::error::{Error, Result};
use virtax_probes::process;

/// Ends QEMU by the name that the run gave its VM, and nobody else can have given to another.
///
/// # Errors
/// If it does not end.
pub fn remove(name: &str) -> Result<()> {
    if !name.starts_with("virtax-") {
        return Ok(());
    }
    match process::qemu(name).and_then(|pid| Some((pid, process::started(pid)?))) {
        Some((pid, started)) => process::kill(pid, started),
        None => Ok(()),
    }
}

/// Takes huge pages off again: of as many as there are now, because another run may have added some meanwhile.
///
/// # Errors
/// If the file cannot be read or written.
pub fn give_back(path: &Path, pages: u64) -> Result<()> {
    let fail = |error: &dyn std::fmt::Display| Error::file("restore", path, error);
    let now: u64 = fs::read_to_string(path)
        .map_err(|error| fail(&error))?
        .trim()
        .parse()
        .map_err(|error: std::num::ParseIntError| fail(&error))?;
    fs::write(path, now.saturating_sub(pages).to_string()).map_err(|error| fail(&error))
}

/// Gives a kernel setting the value that it had before.
///
/// # Errors
/// If it cannot be written.
pub fn restore(path: &Path, before: &str) -> Result<()> {
    fs::write(path, before).map_err(|error| Error::file("restore", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nr_hugepages");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("512\n");
        give_back(&path, 128).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "384");
        // Somebody has taken them off already.
        write("100\n");
        give_back(&path, 128).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0");
        write("many");
        assert!(give_back(&path, 1).is_err());
    }
}
