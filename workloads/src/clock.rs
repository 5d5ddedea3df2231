//! The clock that the client, the agent and the probes share.

use std::io;

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

/// The current thread's sleeps end when they are due: by default the kernel may let them last 50 µs longer, to wake
/// for several at once.
///
/// # Errors
/// If the kernel refuses.
pub fn sleep_precisely() -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sleeps until the clock shows `at_ns`, if it does not yet.
pub fn sleep_until(at_ns: u64) {
    let at = libc::timespec {
        tv_sec: (at_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (at_ns % 1_000_000_000) as libc::c_long,
    };
    // A signal may end a sleep early.
    while now_ns() < at_ns {
        // SAFETY: the time is a local; an absolute sleep writes nothing back.
        unsafe {
            let rest = std::ptr::null_mut();
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const at, rest);
        }
    }
}

/// Waits until the clock shows `at_ns`: the last `spin_ns` of it at work, because waking takes longer than that, and
/// longer at some times than at others.
pub fn wait_until(at_ns: u64, spin_ns: u64) {
    if at_ns > now_ns() + spin_ns {
        sleep_until(at_ns.saturating_sub(spin_ns));
    }
    while now_ns() < at_ns {
        std::hint::spin_loop();
    }
}
