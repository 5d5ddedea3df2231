//! Ctrl-C and SIGTERM: noticed at every wait, so that whatever runs ends through its ordinary clean-up.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// Longest time until a signal is noticed while waiting.
const SLICE: Duration = Duration::from_millis(20);

/// Signals so far.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);

/// From now on SIGINT, SIGTERM and SIGHUP are counted instead of ending the process.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn install() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        if is_ignored(signal) {
            continue;
        }
        // SAFETY: the handler adds to an atomic, which is async-signal-safe.
        unsafe {
            signal_hook::low_level::register(signal, || {
                ARRIVED.fetch_add(1, Ordering::Relaxed);
            })
        }
        .map_err(|error| Error::unsupported("cannot catch signals", error, "report this"))?;
    }
    Ok(())
}

/// Whether whoever started this process wants it to ignore a signal, as `nohup` does.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: zeroes are a value of this structure, and the pointers are to it or null.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Ends what is under way if a signal has arrived.
///
/// # Errors
/// [`Error::Interrupted`] once one has.
pub fn check() -> Result<()> {
    check_since(0)
}

/// Signals that have arrived so far: what is done after a first one, such as the report of what was measured, is
/// ended by a further one only.
#[must_use]
pub fn arrived() -> usize {
    ARRIVED.load(Ordering::Relaxed)
}

/// The same, for what began after `before` signals.
///
/// # Errors
/// [`Error::Interrupted`] once more signals have arrived than `before`.
pub fn check_since(before: usize) -> Result<()> {
    if arrived() > before { Err(Error::Interrupted) } else { Ok(()) }
}

/// Sleeps, calling `meanwhile` at least every 20 ms.
///
/// # Errors
/// [`Error::Interrupted`] once a signal has arrived.
pub fn sleep_with(duration: Duration, mut meanwhile: impl FnMut()) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
        meanwhile();
    }
}

/// Sleeps.
///
/// # Errors
/// [`Error::Interrupted`] once a signal has arrived.
pub fn sleep(duration: Duration) -> Result<()> {
    sleep_with(duration, || ())
}
