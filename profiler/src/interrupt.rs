//! Ctrl-C and SIGTERM: noticed at every wait, so that whatever runs ends through its ordinary clean-up.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// Longest time until a signal is noticed while waiting.
const SLICE: Duration = Duration::from_millis(20);

fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// From now on SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn install() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, flag().clone())
            .map_err(|error| Error::unsupported("cannot catch signals", error, "report this"))?;
    }
    Ok(())
}

/// # Errors
/// [`Error::Interrupted`] once a signal has arrived.
pub fn check() -> Result<()> {
    if flag().load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
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
