//! Ctrl-C and SIGTERM (caught by `signals`, on the host): noticed at every wait, so that whatever runs ends through its
//! ordinary clean-up.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use virtax_model::error::{Error, Result};

/// Longest time until a signal is noticed while waiting.
const SLICE: Duration = Duration::from_millis(20);

/// Signals so far.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);

/// A signal has arrived. Async-signal-safe.
pub fn note() {
    ARRIVED.fetch_add(1, Ordering::Relaxed);
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
