//! What a server does before its answers, noted where its starter can read it: two numbers in a file that both have
//! mapped or read, so that noting costs no system call.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Bytes of the file: how often, and the time together, ns; 8 bytes each, in the host's order.
const BYTES: usize = 16;

/// Makes the file, or empties it; a server that is nobody can write it.
///
/// # Errors
/// If it cannot be written.
pub fn create(path: &Path) -> io::Result<()> {
    std::fs::write(path, [0; BYTES])?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

/// How often, and the time together, ns.
///
/// # Errors
/// If the file cannot be read, or is too short.
pub fn read(path: &Path) -> io::Result<(u64, u64)> {
    let mut bytes = [[0; 8]; 2];
    let mut file = File::open(path)?;
    bytes.iter_mut().try_for_each(|number| file.read_exact(number))?;
    Ok((u64::from_ne_bytes(bytes[0]), u64::from_ne_bytes(bytes[1])))
}

/// The file, as its writer has it.
#[derive(Debug, Clone, Copy)]
pub struct Account(&'static [AtomicU64; 2]);

impl Account {
    /// Maps the file, for the rest of the process's life.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() < BYTES as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the account is too short"));
        }
        // SAFETY: a fresh mapping of a file of this size, never unmapped; atomics may be shared with other processes.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(std::ptr::null_mut(), BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(&*at.cast::<[AtomicU64; 2]>()))
        }
    }

    /// Notes one more.
    pub fn add(&self, ns: u64) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
        self.0[1].fetch_add(ns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let path = std::env::temp_dir().join(format!("virtax-account-{}", std::process::id()));
        create(&path).unwrap();
        let account = Account::open(&path).unwrap();
        account.add(5);
        account.add(7);
        assert_eq!(read(&path).unwrap(), (2, 12));
        create(&path).unwrap();
        assert_eq!(read(&path).unwrap(), (0, 0));
        std::fs::remove_file(&path).unwrap();
        assert!(Account::open(&path).is_err());
    }
}
