//! Signals, caught and counted for [`interrupt`].

use crate::{
    error::{Error, Result},
    interrupt,
};

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
        unsafe { signal_hook::low_level::register(signal, interrupt::note) }
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
