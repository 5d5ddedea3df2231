//! The kernel's folder of tracepoints: mounted on most hosts, and mounted privately where it is not.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::format::Format;

/// Where it is on most hosts.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `linux/perf_event.h`.
const PERF_TYPE_TRACEPOINT: u64 = 2;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// `linux/mount.h`.
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// tracefs, as long as this lives.
pub struct Tracefs {
    root: PathBuf,
    _mount: Option<OwnedFd>,
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given, and nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

impl Tracefs {
    /// Finds it; where it is not mounted, it gets a mount of this process's own that no path leads to and that ends
    /// with it.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn open() -> io::Result<Self> {
        if let Some(found) = MOUNTED.iter().find(|folder| Path::new(folder).join("events").is_dir()) {
            return Ok(Self { root: PathBuf::from(found), _mount: None });
        }
        // SAFETY: pointers to constants, ended by zero bytes; the kernel checks the rest.
        let mount = unsafe {
            let context = descriptor(libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), 1))?;
            let none = std::ptr::null::<libc::c_char>();
            if libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            descriptor(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0))?
        };
        Ok(Self { root: PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())), _mount: Some(mount) })
    }

    /// What the kernel says of an event, by `category/name`.
    ///
    /// # Errors
    /// If this kernel lacks it.
    pub fn text(&self, event: &str) -> Result<String, String> {
        let path = self.root.join("events").join(event).join("format");
        fs::read_to_string(path).map_err(|error| format!("tracepoint {event}: {error}"))
    }

    /// Names of all events, without their categories.
    #[must_use]
    pub fn event_names(&self) -> BTreeSet<String> {
        let below = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        let categories = below(&self.root.join("events"));
        let events = categories.flat_map(|category| below(&category.path()));
        events.filter_map(|event| event.file_name().into_string().ok()).collect()
    }

    /// The layout of an event's record, by `category/name`.
    ///
    /// # Errors
    /// If this kernel lacks it, or it cannot be understood.
    pub fn format(&self, event: &str) -> Result<Format, String> {
        Format::parse(&self.text(event)?).map_err(|why| format!("tracepoint {event}: {why}"))
    }
}

/// Word 5 of the attributes: threads and processes that a counted thread starts are counted as well.
const INHERIT: u64 = 1 << 1;

/// `struct perf_event_attr` of the first size that all kernels know: type, size, config, flags, and zeroes.
fn attributes(id: u32, flags: u64) -> [u64; 8] {
    let mut attributes = [0u64; 8];
    attributes[0] = PERF_TYPE_TRACEPOINT | (size_of_val(&attributes) as u64) << 32;
    attributes[1] = u64::from(id);
    attributes[5] = flags;
    attributes
}

/// Counts how often a thread, and all that it starts from now on, passes a tracepoint: the descriptor is read as one
/// number.
///
/// # Errors
/// The kernel's reason.
pub fn count_tracepoint(id: u32, tid: u32) -> io::Result<OwnedFd> {
    let attributes = attributes(id, INHERIT);
    // SAFETY: the pointer is to a local of the size given in it; the kernel checks the rest.
    descriptor(unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), tid, -1, -1, PERF_FLAG_FD_CLOEXEC)
    })
}

/// Attaches a program to a tracepoint by its number; the returned descriptor holds it there, on all CPUs.
///
/// # Errors
/// The kernel's reason.
pub fn attach(id: u32, program: libc::c_int) -> io::Result<OwnedFd> {
    let attributes = attributes(id, 0);
    // SAFETY: the pointer is to a local of the size given in it; the kernel checks the rest.
    unsafe {
        let event =
            descriptor(libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), -1, 0, -1, PERF_FLAG_FD_CLOEXEC))?;
        let set = libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program);
        if set < 0 || libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(event)
    }
}
