//! A timer that can be waited for along with sockets.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// A timer of `CLOCK_MONOTONIC`. It is exact to the kernel's high-resolution timers: no slack applies to it.
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no preconditions.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor of our own, just made.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(timer) }))
    }

    /// Makes it ready to be read from `at_ns` on, at once if that has passed; 0: never.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set(&self, at_ns: u64) -> io::Result<()> {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let at = libc::timespec {
            tv_sec: (at_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (at_ns % 1_000_000_000) as libc::c_long,
        };
        let wanted = libc::itimerspec { it_interval: none, it_value: at };
        let old = std::ptr::null_mut();
        // SAFETY: the descriptor is open, the times are a local.
        let done =
            unsafe { libc::timerfd_settime(self.0.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const wanted, old) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::now_ns, epoll::Epoll};

    #[test]
    fn a_timer_wakes_at_its_time_and_not_before() {
        let (timer, mut epoll) = (Timer::new().unwrap(), Epoll::new().unwrap());
        epoll.add(timer.as_raw_fd(), 7).unwrap();
        assert_eq!(epoll.wait(0).unwrap().count(), 0);
        let at_ns = now_ns() + 2_000_000;
        timer.set(at_ns).unwrap();
        assert_eq!(epoll.wait(10_000).unwrap().collect::<Vec<_>>(), [7]);
        assert!(now_ns() >= at_ns);
        timer.set(0).unwrap();
        assert_eq!(epoll.wait(0).unwrap().count(), 0);
    }
}
