//! Files that were never written to, opened for writing: on overlayfs, that call copies each into the upper layer,
//! and what is written afterwards costs what later writes do.

use std::{
    ffi::CString,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    clock::now_ns,
    file::PIECE,
    phases::{Shared, Times, Worker},
};

/// Where the files lie, in the folder of files.
pub const FOLDER: &str = "never-written";
/// Names of them: a file of ext4 has at most 65 000.
const NAMES: u64 = 60_000;

/// Makes the files in a folder that becomes a lower layer: one file with all of the names, as each name is copied for
/// itself (overlayfs without `index=on`).
///
/// # Errors
/// If one cannot be made.
pub fn make_lower(folder: &Path, bytes: u64) -> io::Result<()> {
    let folder = folder.join(FOLDER);
    DirBuilder::new().mode(0o777).create(&folder)?;
    // Whatever the user's umask: the server is nobody.
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777))?;
    let first = folder.join("0");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&first)?;
    file.set_permissions(PermissionsExt::from_mode(0o666))?;
    let piece = vec![0x5a; PIECE];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE as u64);
        file.write_all(&piece[..now as usize])?;
        left -= now;
    }
    file.sync_all()?;
    (1..NAMES).try_for_each(|name| std::fs::hard_link(&first, folder.join(name.to_string())))
}

/// What is opened.
pub enum Unwritten {
    /// Each of these once, by its name in this folder.
    Named {
        /// The folder.
        folder: File,
        /// The next name.
        next: AtomicU64,
    },
    /// A file that lies in no lower layer, by its descriptor.
    Nameless(CString),
}

impl Unwritten {
    /// The files in this folder, if a layer below has some; else this one.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub fn find(folder: &Path, file: &File) -> io::Result<Self> {
        match File::open(folder.join(FOLDER)) {
            Ok(folder) => Ok(Self::Named { folder, next: AtomicU64::new(0) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::Nameless(CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?))
            }
            Err(error) => Err(error),
        }
    }

    /// The folder and the name of what is opened next.
    fn next(&self) -> io::Result<(RawFd, CString)> {
        match self {
            Self::Nameless(path) => Ok((libc::AT_FDCWD, path.clone())),
            Self::Named { folder, next } => match next.fetch_add(1, Ordering::Relaxed) {
                name @ 0..NAMES => Ok((folder.as_raw_fd(), CString::new(name.to_string())?)),
                _ => Err(io::Error::other(format!(
                    "all of {NAMES} files of the lower layer were opened: give a shorter `--duration`"
                ))),
            },
        }
    }

    /// The copy takes room: once it was made, it goes.
    fn remove(&self, folder: RawFd, name: &CString) -> io::Result<()> {
        if matches!(self, Self::Nameless(_)) {
            return Ok(());
        }
        // SAFETY: a string that ends.
        if unsafe { libc::unlinkat(folder, name.as_ptr(), 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// `openat2(2)`, for writing: hardly another program makes this call, so by it the probes know what is an operation.
fn open(folder: RawFd, name: &CString) -> io::Result<OwnedFd> {
    // SAFETY: all zeroes are a value of it.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_WRONLY | libc::O_CLOEXEC) as u64;
    // SAFETY: a string that ends, and a structure of the size that is given.
    let opened =
        unsafe { libc::syscall(libc::SYS_openat2, folder, name.as_ptr(), &raw const how, size_of::<libc::open_how>()) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as RawFd) })
}

/// Opens one after the other until the work is to end.
///
/// # Errors
/// If one cannot be opened or removed.
pub fn work(unwritten: &Unwritten, shared: &Shared, worker: &Worker) -> io::Result<()> {
    let mut before_ns = now_ns();
    while !shared.stopped() {
        let (folder, name) = unwritten.next()?;
        let called_ns = now_ns();
        worker.calls(0, called_ns);
        let opened = open(folder, &name)?;
        let back_ns = now_ns();
        shared.note(worker, 0, &Times { intended_ns: called_ns, before_ns, called_ns, back_ns });
        before_ns = back_ns;
        drop(opened);
        unwritten.remove(folder, &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_opened_once_and_goes() {
        let folder = std::env::temp_dir().join(format!("virtax-first-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let file = File::create(folder.join("own")).unwrap();
        assert!(matches!(Unwritten::find(&folder, &file).unwrap(), Unwritten::Nameless(_)));
        make_lower(&folder, 5000).unwrap();
        let unwritten = Unwritten::find(&folder, &file).unwrap();
        for expected in ["0", "1"] {
            let (at, name) = unwritten.next().unwrap();
            assert_eq!(name.to_str().unwrap(), expected);
            let path = folder.join(FOLDER).join(expected);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 5000);
            open(at, &name).unwrap();
            unwritten.remove(at, &name).unwrap();
            assert!(!path.exists());
        }
        let Unwritten::Named { next, .. } = &unwritten else { panic!("they have names") };
        next.store(NAMES, Ordering::Relaxed);
        assert!(unwritten.next().unwrap_err().to_string().contains("shorter"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
