//! Files that servers read and write: without a name, so that no end of a process leaves them behind.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
};

/// Bytes written at a time while a file is made.
pub const PIECE: usize = 1 << 20;

/// Marsaglia's xorshift (2003), 64 bits: which block is next must not cost what a better one would.
pub struct Random(pub u64);
impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A file of so many MiB in this folder, full of what does not compress, and on its disk.
///
/// # Errors
/// If it cannot be made, filled, or written out: in words for the user.
pub fn make(folder: &Path, mib: u64) -> io::Result<File> {
    let file = within("make", folder, nameless(folder))?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut piece = vec![0; PIECE];
    for index in 0..mib {
        piece.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.number().to_le_bytes()));
        within("fill", folder, file.write_all_at(&piece, index * PIECE as u64))?;
    }
    within("write out", folder, file.sync_all())?;
    // What lies in the page cache now would make of the first reads what they are not.
    // SAFETY: no pointers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(file)
}

/// What went wrong with a file in this folder, in words for the user.
#[must_use]
pub fn explain(what: &str, folder: &Path, error: &io::Error) -> String {
    format!("cannot {what} a file in {}: {error}", folder.display())
}

/// The result of something in a folder, with what it was as an error.
///
/// # Errors
/// The result's own.
pub fn within<T>(what: &str, folder: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), explain(what, folder, &error)))
}

/// `O_TMPFILE`; where the file system has none, a file whose name is removed at once.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true);
    match open.clone().custom_flags(libc::O_TMPFILE).mode(0o600).open(folder) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => return other,
    }
    let path = folder.join(format!("virtax-block-{}", std::process::id()));
    let file = open.create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_name_holds_what_it_is_to_hold() {
        let file = make(&std::env::temp_dir(), 1).unwrap();
        assert_eq!(file.metadata().unwrap().len(), PIECE as u64);
        let missing = make(Path::new("/nonexistent"), 1).unwrap_err().to_string();
        assert!(missing.starts_with("cannot make a file in /nonexistent: "));
    }
}
