//! The clock that the client, the agent and the probes share.

use std::time::Duration;

/// `CLOCK_MONOTONIC`, ns: the kernel's `bpf_ktime_get_ns` reads the same.
#[must_use]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local; the call cannot fail for a clock that every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Ends this process after so many seconds: the bound on its loops. A handler, because the first process of a container
/// gets no signal whose action is the default one.
pub fn end_after(seconds: u32) {
    extern "C" fn end(_signal: libc::c_int) {
        // SAFETY: async-signal-safe, and does not return.
        unsafe { libc::_exit(124) }
    }
    // SAFETY: the handler is async-signal-safe; alarm has no preconditions.
    unsafe {
        libc::signal(libc::SIGALRM, end as *const () as libc::sighandler_t);
        libc::alarm(seconds);
    }
}

/// Sleeps until the clock shows `at_ns`, if it does not yet.
pub fn sleep_until(at_ns: u64) {
    let now = now_ns();
    if at_ns > now {
        std::thread::sleep(Duration::from_nanos(at_ns - now));
    }
}
