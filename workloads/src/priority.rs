//! Priority of threads.

/// This thread runs like any other: virtax starts clients with their main thread, which answers it, before all
/// others, and new threads inherit that.
pub fn usual() {
    // SAFETY: no pointers. Lowering one's own priority is always allowed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
}
