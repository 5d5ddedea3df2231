//! Named network namespaces, where `ip netns` looks for them.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::ledger::{Item, Lease, Ledger};
use virtax_model::error::{Error, Result};

const FOLDER: &str = "/run/netns";

/// For a child about to execute: moves it into the namespace of this file, which must stay open until then.
pub fn enter_before_exec(namespace: &File) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
    let fd = namespace.as_raw_fd();
    move || {
        // SAFETY: async-signal-safe; the descriptor is the parent's, alive until the child has executed.
        if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// A network namespace of the run.
pub struct Namespace {
    file: File,
    path: PathBuf,
    _lease: Lease,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn create(ledger: &Ledger, name: &str) -> Result<Self> {
        let path = path_of(name);
        let refuse = |error: &dyn std::fmt::Display| {
            Error::unsupported(
                format!("cannot create network namespace {name}"),
                error,
                "run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN",
            )
        };
        let lease = ledger.note(Item::Namespace { name: name.to_owned() })?;
        create_file(&path).map_err(|error| refuse(&error))?;
        let target = path.clone();
        // In a thread of its own: unsharing changes the thread that does it, for good.
        std::thread::spawn(move || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        })
        .join()
        .map_err(|_| refuse(&"its thread panicked"))?
        .map_err(|error| refuse(&error))?;
        let file = File::open(&path).map_err(|error| refuse(&error))?;
        Ok(Self { file, path, _lease: lease })
    }

    /// The file of the namespace under `/run/netns`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An open descriptor of it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs a function inside, in a thread of its own.
    ///
    /// # Errors
    /// The function's, or if the namespace cannot be entered.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let (file, path) = (&self.file, &self.path);
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| Error::file("enter", path, error))?;
                    function()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// For a child about to execute: moves it inside.
    pub fn enter_before_exec(&self) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
        enter_before_exec(&self.file)
    }
}

/// A new file to mount on. Another run that ends may remove the empty folder in between: then once more.
fn create_file(path: &Path) -> io::Result<()> {
    for _ in 0..3 {
        fs::create_dir_all(FOLDER)?;
        match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            created => return created.map(drop),
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{FOLDER} is removed again and again")))
}

/// Removes a named namespace; one that is gone is no error.
///
/// # Errors
/// If its file is still there afterwards.
pub fn delete_namespace(name: &str) -> Result<()> {
    let path = path_of(name);
    // Not mounted: it was cut off between the file and the mount.
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &path, error)),
        _ => {
            // Stays while it holds others, or where `ip netns` has mounted it.
            let _ = fs::remove_dir(FOLDER);
            Ok(())
        }
    }
}

/// Names of namespaces that start with `prefix`.
#[must_use]
pub fn namespaces_named(prefix: &str) -> Vec<String> {
    fs::read_dir(FOLDER)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}
