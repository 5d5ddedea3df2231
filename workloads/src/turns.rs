//! When a client's threads make operations: all the time, or in windows of their own, between which they rest; and what
//! wakes them then.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::protocol::Window;

/// When operations are made, and which of them count.
#[derive(Debug)]
pub enum Turns {
    /// All the time; what begins in the interval counts.
    Always {
        /// The beginning, ns.
        open_ns: u64,
        /// The end, ns.
        close_ns: u64,
    },
    /// In windows only.
    Windows(Vec<Window>),
}

impl Default for Turns {
    fn default() -> Self {
        Self::Always { open_ns: 0, close_ns: 0 }
    }
}

/// Whether a thread may make an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The thread may.
    Now,
    /// The thread may from then on, ns.
    At(u64),
    /// The thread may not in this phase any more.
    Over,
}

impl Turns {
    /// The windows, if there are any.
    pub fn windows(&self) -> &[Window] {
        match self {
            Self::Always { .. } => &[],
            Self::Windows(windows) => windows,
        }
    }

    /// The number of the window in whose counted part this time lies; 0: all that counts in a phase without windows.
    pub fn counts_at(&self, at_ns: u64) -> Option<usize> {
        match self {
            Self::Always { open_ns, close_ns } => (*open_ns..*close_ns).contains(&at_ns).then_some(0),
            Self::Windows(windows) => {
                let index = windows.partition_point(|window| window.close_ns <= at_ns);
                windows.get(index).is_some_and(|window| window.from_ns <= at_ns).then_some(index)
            }
        }
    }

    /// The number of the window in which an operation may be made at this time.
    pub fn open_at(&self, at_ns: u64) -> Option<usize> {
        let windows = self.windows();
        let index = windows.partition_point(|window| window.close_ns <= at_ns);
        windows.get(index).is_some_and(|window| window.open_ns <= at_ns).then_some(index)
    }

    /// The number of the last window that is over at this time.
    pub fn last_over_at(&self, at_ns: u64) -> Option<usize> {
        self.windows().partition_point(|window| window.close_ns <= at_ns).checked_sub(1)
    }

    /// Whether an operation may be made at this time.
    pub fn at(&self, at_ns: u64) -> Turn {
        match self {
            Self::Always { .. } => Turn::Now,
            Self::Windows(windows) => match windows.get(windows.partition_point(|window| window.close_ns <= at_ns)) {
                None => Turn::Over,
                Some(window) if window.open_ns <= at_ns => Turn::Now,
                Some(window) => Turn::At(window.open_ns),
            },
        }
    }
}

/// What wakes a thread that rests: it waits for the bell itself, or watches a descriptor among others.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    waiting: Condvar,
    descriptor: std::sync::OnceLock<OwnedFd>,
}

/// How long a thread rests before it looks again by itself.
pub const LONGEST_REST: Duration = Duration::from_secs(1);

impl Bell {
    /// Wakes who rests.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.waiting.notify_all();
        if let Some(descriptor) = self.descriptor.get() {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the descriptor is open, and eight bytes are ours. It is full only if nobody has read it for ages.
            unsafe { libc::write(descriptor.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// How often it has rung.
    pub fn count(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it rings more often than `heard`, or for a while.
    pub fn wait(&self, heard: u64) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.waiting.wait_timeout_while(rung, LONGEST_REST, |rung| *rung == heard);
    }

    /// A descriptor that can be read once it has rung.
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub fn descriptor(&self) -> io::Result<RawFd> {
        if let Some(descriptor) = self.descriptor.get() {
            return Ok(descriptor.as_raw_fd());
        }
        // SAFETY: no preconditions.
        let made = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor of our own, just made.
        let made = unsafe { OwnedFd::from_raw_fd(made) };
        Ok(self.descriptor.get_or_init(|| made).as_raw_fd())
    }

    /// Makes the descriptor unreadable until it rings again.
    pub fn hush(&self) {
        if let Some(descriptor) = self.descriptor.get() {
            let mut count = [0u8; 8];
            // SAFETY: the descriptor is open, and eight bytes are ours.
            unsafe { libc::read(descriptor.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(open_ns: u64, from_ns: u64, close_ns: u64) -> Window {
        Window { open_ns, from_ns, close_ns }
    }

    #[test]
    fn turns_come_with_their_windows() {
        let turns = Turns::Windows(vec![window(10, 12, 20), window(30, 30, 40)]);
        let at = |at_ns| turns.at(at_ns);
        assert_eq!([at(9), at(10), at(19), at(20)], [Turn::At(10), Turn::Now, Turn::Now, Turn::At(30)]);
        assert_eq!([at(39), at(40)], [Turn::Now, Turn::Over]);
        let counts = |at_ns| turns.counts_at(at_ns);
        assert_eq!([counts(11), counts(12), counts(19)], [None, Some(0), Some(0)]);
        assert_eq!([counts(20), counts(30), counts(40)], [None, Some(1), None]);
        let open = [9, 10, 19, 20, 30, 40].map(|at_ns| turns.open_at(at_ns));
        assert_eq!(open, [None, Some(0), Some(0), None, Some(1), None]);
        assert_eq!([19, 20, 30, 40].map(|at_ns| turns.last_over_at(at_ns)), [None, Some(0), Some(0), Some(1)]);
        let always = Turns::Always { open_ns: 10, close_ns: 20 };
        assert_eq!([always.at(0), always.at(50)], [Turn::Now; 2]);
        assert_eq!([always.counts_at(9), always.counts_at(10), always.counts_at(20)], [None, Some(0), None]);
    }

    #[test]
    fn a_bell_wakes_who_waits_for_it() {
        let bell = Bell::default();
        let descriptor = bell.descriptor().unwrap();
        let mut epoll = crate::epoll::Epoll::new().unwrap();
        epoll.add(descriptor, 3).unwrap();
        assert_eq!(epoll.wait(0).unwrap().count(), 0);
        let heard = bell.count();
        bell.ring();
        // It returns at once: it has rung since.
        bell.wait(heard);
        assert_eq!(epoll.wait(0).unwrap().collect::<Vec<_>>(), [3]);
        bell.hush();
        assert_eq!(epoll.wait(0).unwrap().count(), 0);
    }
}
