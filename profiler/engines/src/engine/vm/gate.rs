//! What must be seen before anything is called KVM: a real guest that is entered and left.
//!
//! That `/dev/kvm` is there proves nothing, nor does a toy that runs in it: there are kernels whose KVM emulates
//! guests' code, and takes minutes for what should take seconds.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    time::Duration,
};

use virtax_model::error::{Error, Result};
use virtax_probes::{self, Tracefs, process};

const DEVICE: &str = "/dev/kvm";
/// The tracepoints at which a processor enters a guest and leaves it.
const ENTRY_AND_EXIT: [&str; 2] = ["kvm/kvm_entry", "kvm/kvm_exit"];
/// Time after which a guest has been entered, if it ever is: its firmware's first instruction is one.
pub const FIRST_ENTRY: Duration = Duration::from_secs(10);

const INSTEAD: &str = "take `tcg`, an emulated processor: its results say nothing of KVM's cost";

/// KVM is not to be had, for this reason; what to take instead.
pub fn no_kvm(what: &str, why: impl std::fmt::Display) -> Error {
    Error::unsupported(what, why, INSTEAD)
}

/// Whether KVM can be opened at all, and has its tracepoints.
///
/// # Errors
/// If not, with the reason and what to do instead.
pub fn check_device() -> Result<()> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| no_kvm("there is no KVM here", format!("{DEVICE}: {error}")))?;
    group()?;
    events().map(drop)
}

/// The group that a process of nobody's needs to open KVM; `None`: it needs none.
///
/// # Errors
/// If only root may.
pub fn group() -> Result<Option<libc::gid_t>> {
    let metadata = Path::new(DEVICE).metadata().map_err(|error| no_kvm("there is no KVM here", error))?;
    match metadata.mode() {
        mode if mode & 0o006 == 0o006 => Ok(None),
        mode if mode & 0o060 == 0o060 => Ok(Some(metadata.gid())),
        mode => Err(Error::unsupported(
            "KVM cannot be used by a process without privileges",
            format!("{DEVICE} has mode {:o}", mode & 0o777),
            format!("as distributions have it: chgrp kvm {DEVICE} && chmod 0660 {DEVICE}"),
        )),
    }
}

fn events() -> Result<[u32; 2]> {
    let fail = |why: String| no_kvm("nothing of what KVM does could be seen", why);
    let tracefs = Tracefs::open().map_err(|error| fail(format!("no tracefs: {error}")))?;
    let number = |event| tracefs.format(event).map(|format| format.id).map_err(fail);
    Ok([number(ENTRY_AND_EXIT[0])?, number(ENTRY_AND_EXIT[1])?])
}

fn read(counter: &OwnedFd) -> io::Result<u64> {
    let mut count = 0u64;
    // SAFETY: the pointer is to a local of the size given.
    let read = unsafe { libc::read(counter.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    if read == size_of::<u64>() as isize { Ok(count) } else { Err(io::Error::last_os_error()) }
}

/// Entries into a VM and exits from it, counted from its beginning.
pub struct Proof {
    entries: Vec<OwnedFd>,
    exits: Vec<OwnedFd>,
}

impl Proof {
    /// Watches a VM whose process has just been started: the threads that it has, and those that they start from
    /// now on, are counted.
    ///
    /// # Errors
    /// If the kernel refuses the counters.
    pub fn of(pid: u32) -> Result<Self> {
        let refuse = |error: io::Error| no_kvm("KVM's entries and exits cannot be counted", error);
        let [entry, exit] = events()?;
        let mut proof = Self { entries: Vec::new(), exits: Vec::new() };
        for (thread, _) in process::named_threads(pid) {
            proof.entries.push(virtax_probes::count_tracepoint(entry, thread).map_err(refuse)?);
            proof.exits.push(virtax_probes::count_tracepoint(exit, thread).map_err(refuse)?);
        }
        Ok(proof)
    }

    /// Entries and exits so far.
    fn counts(&self) -> io::Result<[u64; 2]> {
        let sum = |counters: &[OwnedFd]| counters.iter().map(read).sum::<io::Result<u64>>();
        Ok([sum(&self.entries)?, sum(&self.exits)?])
    }

    /// # Errors
    /// If the VM was not entered or not left.
    pub fn check(&self) -> Result<()> {
        let counts = self.counts().map_err(|error| no_kvm("KVM's entries and exits cannot be counted", error))?;
        let [entries, exits] = counts;
        if entries > 0 && exits > 0 {
            return Ok(());
        }
        Err(no_kvm(
            "KVM executes no guest here",
            format!("{entries} entries into it and {exits} exits were counted: its code is emulated in the kernel"),
        ))
    }
}
