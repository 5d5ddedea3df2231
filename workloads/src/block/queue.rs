//! Operations that are under way while their thread goes on: by `io_submit`, and by a ring.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    ptr::null_mut,
};

use io_uring::{IoUring, opcode, types::Fd};

/// One operation. Its memory stays where it is until it is done.
pub struct Transfer {
    /// Which of the thread's.
    pub slot: usize,
    /// Whether it writes.
    pub writes: bool,
    /// Where its bytes are.
    pub memory: *mut u8,
    /// How many.
    pub bytes: usize,
    /// Where in the file.
    pub at: u64,
}

/// A way to have operations under way.
pub trait Queue {
    /// The operation is made with the next [`Queue::go`].
    ///
    /// # Errors
    /// If there is no room for it.
    ///
    /// # Safety
    /// The transfer's memory has that many bytes, and stays until the operation is done or [`Queue::finish`] says
    /// that all are.
    unsafe fn push(&mut self, transfer: &Transfer) -> io::Result<()>;
    /// Makes what was pushed, waits until at least one operation is done, and tells all that are: which, and how many
    /// bytes.
    ///
    /// # Errors
    /// If the kernel refuses one of them, or waiting.
    fn go(&mut self, done: &mut Vec<(usize, io::Result<usize>)>) -> io::Result<()>;
    /// Waits until none is under way; whether that is so.
    fn finish(&mut self) -> bool;
}

/// A wait is also ended by a stop of the process, a debugger, a frozen cgroup: none of them is an error.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn result(bytes: i64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(-bytes as i32))
}

/// Laid out as in `include/uapi/linux/aio_abi.h`, on little-endian hosts.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    flags_of_transfer: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    memory: u64,
    bytes: u64,
    at: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;

/// An event as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    iocb: u64,
    result: i64,
    result2: i64,
}

/// Linux's asynchronous I/O, as libaio has it.
pub struct Aio {
    context: libc::c_ulong,
    file: RawFd,
    iocbs: Box<[Iocb]>,
    pushed: Vec<*mut Iocb>,
    events: Box<[Event]>,
}

impl Aio {
    /// For so many operations at once on a file, which stays open for as long.
    ///
    /// # Errors
    /// If the kernel has none (`aio-max-nr`, or built without).
    pub fn new(file: &File, depth: usize) -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the pointer is to a context, which is 0.
        if unsafe { libc::syscall(libc::SYS_io_setup, depth as libc::c_long, &raw mut context) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            context,
            file: file.as_raw_fd(),
            iocbs: vec![Iocb::default(); depth].into(),
            pushed: Vec::with_capacity(depth),
            events: vec![Event::default(); depth].into(),
        })
    }
}

impl Queue for Aio {
    // SAFETY: the caller's, as the trait says: the memory stays where it is until the transfer has ended.
    unsafe fn push(&mut self, transfer: &Transfer) -> io::Result<()> {
        self.iocbs[transfer.slot] = Iocb {
            data: transfer.slot as u64,
            opcode: if transfer.writes { IOCB_CMD_PWRITE } else { IOCB_CMD_PREAD },
            file: self.file as u32,
            memory: transfer.memory as u64,
            bytes: transfer.bytes as u64,
            at: transfer.at as i64,
            ..Iocb::default()
        };
        self.pushed.push(&raw mut self.iocbs[transfer.slot]);
        Ok(())
    }
    fn go(&mut self, done: &mut Vec<(usize, io::Result<usize>)>) -> io::Result<()> {
        let mut made = 0;
        while made < self.pushed.len() {
            let rest = &mut self.pushed[made..];
            // SAFETY: the pointers are to iocbs of this queue, whose memory their maker keeps.
            let taken = unsafe {
                libc::syscall(libc::SYS_io_submit, self.context, rest.len() as libc::c_long, rest.as_mut_ptr())
            };
            made += result(if taken == -1 { -i64::from(errno()) } else { taken })?;
        }
        self.pushed.clear();
        let came = again(|| {
            // SAFETY: there is room for as many events.
            let came = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    1 as libc::c_long,
                    self.events.len() as libc::c_long,
                    self.events.as_mut_ptr(),
                    null_mut::<libc::timespec>(),
                )
            };
            result(if came == -1 { -i64::from(errno()) } else { came })
        })?;
        done.extend(self.events[..came].iter().map(|event| (event.data as usize, result(event.result))));
        Ok(())
    }
    fn finish(&mut self) -> bool {
        // Waits for all of them.
        // SAFETY: the context is this queue's, and not used any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) != -1 }
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// io_uring.
pub struct Ring {
    ring: IoUring,
    file: RawFd,
    under_way: usize,
}

impl Ring {
    /// A queue of io_uring's for the current thread alone, as [`Aio::new`].
    ///
    /// # Errors
    /// If the kernel has none, or forbids it (`kernel.io_uring_disabled`, seccomp).
    pub fn new(file: &File, depth: usize) -> io::Result<Self> {
        // So that completions come while their thread waits for them, and nowhere else: a worker of the kernel's
        // would bring some before (since 6.1).
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(depth as u32);
        let ring = match ring {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(depth as u32)?,
            other => other?,
        };
        Ok(Self { ring, file: file.as_raw_fd(), under_way: 0 })
    }
}

impl Queue for Ring {
    // SAFETY: as of the other.
    unsafe fn push(&mut self, transfer: &Transfer) -> io::Result<()> {
        let (file, bytes) = (Fd(self.file), transfer.bytes as u32);
        let entry = if transfer.writes {
            opcode::Write::new(file, transfer.memory, bytes).offset(transfer.at).build()
        } else {
            opcode::Read::new(file, transfer.memory, bytes).offset(transfer.at).build()
        };
        // SAFETY: the file stays until the operation is done, and the memory as the caller sees to.
        unsafe { self.ring.submission().push(&entry.user_data(transfer.slot as u64)) }.map_err(io::Error::other)?;
        self.under_way += 1;
        Ok(())
    }
    fn go(&mut self, done: &mut Vec<(usize, io::Result<usize>)>) -> io::Result<()> {
        again(|| self.ring.submit_and_wait(1))?;
        let before = done.len();
        done.extend(self.ring.completion().map(|entry| (entry.user_data() as usize, result(entry.result().into()))));
        self.under_way -= done.len() - before;
        Ok(())
    }
    fn finish(&mut self) -> bool {
        while self.under_way > 0 && again(|| self.ring.submit_and_wait(1)).is_ok() {
            self.under_way -= self.ring.completion().count();
        }
        self.under_way == 0
    }
}
