//! What ends a run from outside, noticed at every wait, so that whatever runs ends through its ordinary clean-up:
//! Ctrl-C and SIGTERM (caught by `signals`, on the host), and what a [`Watch`] sees.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use virtax_model::error::{Error, Result};

/// Longest time until a signal is noticed while waiting.
const SLICE: Duration = Duration::from_millis(20);
/// Shortest time between two looks of a watch.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Signals so far.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);

/// A signal has arrived. Async-signal-safe.
pub fn note() {
    ARRIVED.fetch_add(1, Ordering::Relaxed);
}

thread_local! {
    static WATCH: RefCell<Option<Looks>> = const { RefCell::new(None) };
}

struct Looks {
    look: Box<dyn FnMut() -> Result<()>>,
    next: Instant,
}

/// Looks, at the waits of this thread, whether something is still as a run needs it, until it is dropped. There is one
/// at a time: a later one takes the place of an earlier one.
#[must_use = "it ends when it is dropped"]
pub struct Watch(std::marker::PhantomData<*const ()>);

impl Watch {
    /// An error of `look` is the wait's error. It is called in this thread, and must not wait itself.
    pub fn begin(look: impl FnMut() -> Result<()> + 'static) -> Self {
        WATCH.set(Some(Looks { look: Box::new(look), next: Instant::now() }));
        Self(std::marker::PhantomData)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCH.set(None);
    }
}

impl Looks {
    fn look(&mut self) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        (self.look)()?;
        self.next = Instant::now() + LOOK_AGAIN;
        Ok(())
    }
}

/// Ends what is under way if a signal has arrived, or the thread's [`Watch`] sees that something is gone.
///
/// # Errors
/// [`Error::Interrupted`] once a signal has arrived; the watch's.
pub fn check() -> Result<()> {
    check_since(0)?;
    WATCH.with_borrow_mut(|watch| watch.as_mut().map_or(Ok(()), Looks::look))
}

/// Signals that have arrived so far: what is done after a first one, such as the report of what was measured, is
/// ended by a further one only.
#[must_use]
pub fn arrived() -> usize {
    ARRIVED.load(Ordering::Relaxed)
}

/// Ends what began after `before` signals if a further one has arrived.
///
/// # Errors
/// [`Error::Interrupted`] once more signals have arrived than `before`.
pub fn check_since(before: usize) -> Result<()> {
    if arrived() > before { Err(Error::Interrupted) } else { Ok(()) }
}

/// Sleeps, calling `meanwhile` at least every 20 ms.
///
/// # Errors
/// Those of [`check`].
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
/// Those of [`check`].
pub fn sleep(duration: Duration) -> Result<()> {
    sleep_with(duration, || ())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_watch_ends_waits_as_long_as_it_is_there() {
        let is_there = Rc::new(std::cell::Cell::new(true));
        let seen = is_there.clone();
        let watch = Watch::begin(move || if seen.get() { Ok(()) } else { Err(Error::Usage("it is gone".to_owned())) });
        sleep(Duration::from_millis(1)).unwrap();
        is_there.set(false);
        let ended = sleep(Duration::from_secs(60));
        assert!(matches!(&ended, Err(Error::Usage(why)) if why == "it is gone"), "{ended:?}");
        // It is gone at the next look, too, and in no other thread.
        check().unwrap_err();
        std::thread::spawn(|| check().unwrap()).join().unwrap();
        drop(watch);
        check().unwrap();
    }
}
