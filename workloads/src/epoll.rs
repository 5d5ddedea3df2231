//! Waiting for many sockets at once.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

const EVENTS: usize = 64;

/// A set of descriptors, level-triggered.
pub struct Epoll {
    set: OwnedFd,
    events: [libc::epoll_event; EVENTS],
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no preconditions.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor of our own, just made.
        let set = unsafe { OwnedFd::from_raw_fd(set) };
        Ok(Self { set, events: [libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    /// Watches a descriptor for something to read; `key` is what [`Epoll::wait`] calls it.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub fn add(&self, descriptor: RawFd, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key };
        // SAFETY: the set is open, the event is a local; a bad descriptor is an error.
        if unsafe { libc::epoll_ctl(self.set.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Keys of descriptors with something to read; waits for at most `patience_ms`, for ever if that is negative.
    ///
    /// # Errors
    /// If waiting fails; a signal is no failure.
    pub fn wait(&mut self, patience_ms: i32) -> io::Result<impl Iterator<Item = u64> + use<>> {
        // SAFETY: the buffer is ours, of the length given.
        let ready =
            unsafe { libc::epoll_wait(self.set.as_raw_fd(), self.events.as_mut_ptr(), EVENTS as i32, patience_ms) };
        let ready = match ready {
            ready if ready >= 0 => ready as usize,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
            _ => return Err(io::Error::last_os_error()),
        };
        let events = self.events;
        Ok((0..ready).map(move |index| events[index].u64))
    }
}
