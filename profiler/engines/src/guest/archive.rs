//! Initial file systems as the kernel unpacks them: cpio archives of the form "newc" (`usr/gen_init_cpio.c`,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`). Not compressed: unpacking is what takes an emulated
//! CPU long.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Something in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A regular file of these bytes.
    File(&'a [u8]),
    /// A symbolic link to this path.
    Link(&'a Path),
    /// A character device of these numbers.
    Device(u32, u32),
    /// An empty folder.
    Folder,
}

const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;
const FOLDER: u32 = 0o040_000;
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Writes an archive; everything belongs to root and is dated 1970, so that the same files make the same bytes.
pub struct Archive<W> {
    into: W,
    written: usize,
    number: u32,
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// Begins one.
    pub fn new(into: W) -> Self {
        Self { into, written: 0, number: 0, folders: BTreeSet::new() }
    }

    /// Adds an entry, and the folders above it that are not there yet. `mode`: its permissions.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, path: &Path, entry: &Entry<'_>, mode: u32) -> io::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        for folder in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            if !folder.as_os_str().is_empty() && self.folders.insert(folder.to_owned()) {
                self.write(folder, FOLDER | 0o755, (0, 0), &[])?;
            }
        }
        let mode = mode & 0o7777;
        match entry {
            Entry::File(bytes) => self.write(path, FILE | mode, (0, 0), bytes),
            Entry::Link(target) => {
                self.write(path, LINK | 0o777, (0, 0), std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str()))
            }
            Entry::Device(major, minor) => self.write(path, DEVICE | mode, (*major, *minor), &[]),
            Entry::Folder if self.folders.insert(path.to_owned()) => self.write(path, FOLDER | mode, (0, 0), &[]),
            Entry::Folder => Ok(()),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// If its end cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(Path::new(TRAILER), 0, (0, 0), &[])?;
        Ok(self.into)
    }

    fn write(&mut self, path: &Path, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let name = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let length = |length: usize| u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        self.number += 1;
        // Inode, mode, user, group, links, date, length, device, its own device, length of the name, checksum.
        let fields =
            [self.number, mode, 0, 0, 1, 0, length(bytes.len())?, 0, 0, device.0, device.1, length(name.len() + 1)?, 0];
        let header: String =
            std::iter::once("070701".to_owned()).chain(fields.iter().map(|field| format!("{field:08x}"))).collect();
        self.put(header.as_bytes())?;
        self.put(name)?;
        self.put(&[0])?;
        self.align()?;
        self.put(bytes)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.into.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names, modes and contents, read back.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let whole = archive.len();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&archive[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, length, name_length) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[110..110 + name_length - 1].to_vec()).unwrap();
            let at = |rest: &[u8], skip: usize| (whole - rest.len() + skip).next_multiple_of(4) - (whole - rest.len());
            archive = &archive[at(archive, 110 + name_length)..];
            let bytes = archive[..length].to_vec();
            archive = &archive[at(archive, length)..];
            if name == TRAILER {
                return found;
            }
            found.push((name, mode, bytes));
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.add(Path::new("/a/b/c"), &Entry::File(b"abc"), 0o644).unwrap();
        archive.add(Path::new("/a/b/d"), &Entry::Link(Path::new("c")), 0).unwrap();
        archive.add(Path::new("/dev/console"), &Entry::Device(5, 1), 0o600).unwrap();
        archive.add(Path::new("/a"), &Entry::Folder, 0o755).unwrap();
        let found = entries(&archive.finish().unwrap());
        let shown: Vec<String> = found.iter().map(|(name, mode, _)| format!("{name} {mode:o}")).collect();
        assert_eq!(shown, ["a 40755", "a/b 40755", "a/b/c 100644", "a/b/d 120777", "dev 40755", "dev/console 20600"]);
        assert_eq!(found[2].2, b"abc");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(files in prop::collection::btree_map("[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..50), 0..9)) {
            let mut archive = Archive::new(Vec::new());
            for (name, bytes) in &files {
                archive.add(Path::new(name), &Entry::File(bytes), 0o755).unwrap();
            }
            let found = entries(&archive.finish().unwrap());
            let expected: Vec<_> = files.into_iter().map(|(name, bytes)| (name, FILE | 0o755, bytes)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
