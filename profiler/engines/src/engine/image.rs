//! Images of disks with a file system: of VMs, and behind loop devices.

use std::{fs::File, path::Path};

use crate::{child, workload::Tool};
use virtax_model::error::{Error, Result};

/// What is on an image that is there for files.
pub const FILE_SYSTEM: &str = workloads::init::FILE_SYSTEM;
/// What makes it.
pub const MKFS: Tool = Tool { name: "mkfs.ext4", package: "e2fsprogs" };
/// MiB of its journal.
const JOURNAL_MIB: u64 = 64;

/// MiB of an image that has room for files of so many: besides them lie the journal, tables (256 bytes for each 16
/// KiB), and what grows with the size.
#[must_use]
pub const fn mib_for(files_mib: u64) -> u64 {
    files_mib + files_mib / 24 + 3 * JOURNAL_MIB
}

/// Makes an empty image of so many bytes, all holes.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn create(path: &Path, size: u64) -> Result<()> {
    let file = File::options().write(true).create_new(true).open(path);
    file.and_then(|file| file.set_len(size)).map_err(|error| Error::file("write", path, error))
}

/// Puts a file system on it, whose files are everybody's.
///
/// # Errors
/// If the program for that is missing, or fails.
pub fn make_file_system(path: &Path) -> Result<()> {
    // Everything now: nothing of it is to be made later, while something is measured. Blocks as on larger disks.
    let journal = format!("size={JOURNAL_MIB}");
    let now = "lazy_itable_init=0,lazy_journal_init=0";
    let settings = ["-q", "-F", "-m", "0", "-b", "4096", "-J", &journal, "-E", now];
    execute(MKFS, &settings, &[path])
}

/// Executes a program of the host's on images, to its end.
///
/// # Errors
/// If it is missing, or fails.
pub fn execute(tool: Tool, arguments: &[&str], files: &[&Path]) -> Result<()> {
    let name = tool.name;
    let program = tool.find_of_root()?;
    let fail = |why: String| Error::engine(format!("{name} cannot make a disk's image"), why, "see what it says");
    let output =
        child::command(&program).args(arguments).args(files).output().map_err(|error| fail(error.to_string()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(fail(words.lines().last().unwrap_or_default().to_owned())) }
}
