//! When a client's threads make operations: all the time, or in windows of their own, between which they rest.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::{now_ns, sleep_until},
    phases::Shared,
    protocol::Window,
    timer::Timer,
};

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
    /// It may.
    Now,
    /// It may from then on, ns.
    At(u64),
    /// Not in this phase any more.
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

/// The turns as one thread knows them: looked up anew in every phase.
pub struct Known {
    phase: u64,
    turns: Arc<Turns>,
}

impl Known {
    /// Those of the current phase.
    pub fn new(shared: &Shared) -> Self {
        // In this order: what was looked up is at least as new as the number says.
        let phase = shared.phase();
        Self { phase, turns: shared.turns() }
    }

    /// Whether an operation may be made at this time.
    pub fn at(&mut self, shared: &Shared, at_ns: u64) -> Turn {
        if shared.phase() != self.phase {
            *self = Self::new(shared);
        }
        self.turns.at(at_ns)
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
const LONGEST_REST: Duration = Duration::from_secs(1);

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
    fn count(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it rings more often than `heard`, or for a while.
    fn wait(&self, heard: u64) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.waiting.wait_timeout_while(rung, LONGEST_REST, |rung| *rung == heard);
    }

    /// A descriptor that can be read once it has rung.
    ///
    /// # Errors
    /// If the kernel has no room for it.
    fn descriptor(&self) -> io::Result<RawFd> {
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
    fn hush(&self) {
        if let Some(descriptor) = self.descriptor.get() {
            let mut count = [0u8; 8];
            // SAFETY: the descriptor is open, and eight bytes are ours.
            unsafe { libc::read(descriptor.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        }
    }
}

/// Sends the acknowledgement that a connection owes, and leaves it as it is: an even value does so without a change of
/// its mode (`__tcp_sock_set_quickack` in `net/ipv4/tcp.c`). Else a timer would send it in the window of another, and
/// would take the connection out of the mode in which answers carry acknowledgements.
pub fn acknowledge(stream: &TcpStream) {
    let now: libc::c_int = 2;
    // SAFETY: the descriptor is open, the value a local. Where the kernel refuses, the timer does it.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUICKACK,
            (&raw const now).cast(),
            size_of_val(&now) as libc::socklen_t,
        )
    };
}

/// Waits until it is the turn of a thread with one connection, which has just had its answer. Returns when it came,
/// if it was waited for; `None`: it was there.
pub fn wait(known: &mut Known, shared: &Shared, bell: &Bell, stream: &TcpStream) -> Option<u64> {
    let mut came_ns = None;
    loop {
        let heard = bell.count();
        let turn = known.at(shared, now_ns());
        if shared.stopped() || turn == Turn::Now {
            return came_ns;
        }
        if came_ns.is_none() {
            acknowledge(stream);
        }
        match turn {
            Turn::Now => {}
            // A phase that is given up for another must not be rested to its end.
            Turn::At(open_ns) => {
                sleep_until(open_ns.min(now_ns() + LONGEST_REST.as_nanos() as u64));
            }
            Turn::Over => bell.wait(heard),
        }
        came_ns = Some(now_ns());
    }
}

/// The connections of an event loop that rest until it is their turn.
pub struct Resting<'a> {
    known: Known,
    shared: &'a Shared,
    bell: &'a Bell,
    timer: Timer,
    resting: Vec<usize>,
    set_ns: u64,
}

/// What an event loop watches for a [`Resting`]: its timer and its bell.
pub const TURN: u64 = u64::MAX - 1;

impl<'a> Resting<'a> {
    /// None rests. `watch`: adds a descriptor to what the loop waits for, by the key [`TURN`].
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub fn new(shared: &'a Shared, bell: &'a Bell, watch: impl Fn(RawFd, u64) -> io::Result<()>) -> io::Result<Self> {
        let timer = Timer::new()?;
        watch(timer.as_raw_fd(), TURN)?;
        watch(bell.descriptor()?, TURN)?;
        Ok(Self { known: Known::new(shared), shared, bell, timer, resting: Vec::new(), set_ns: 0 })
    }

    /// How many rest.
    pub fn len(&self) -> usize {
        self.resting.len()
    }

    /// Whether a connection that is free may make an operation; if not, it rests from now on.
    pub fn may_ask(&mut self, index: usize, stream: &TcpStream) -> bool {
        if self.known.at(self.shared, now_ns()) == Turn::Now {
            return true;
        }
        acknowledge(stream);
        self.resting.push(index);
        false
    }

    /// The connections whose turn has come; when they have to wait for it, what wakes the loop is set.
    ///
    /// # Errors
    /// If the kernel refuses the timer.
    pub fn take(&mut self) -> io::Result<Vec<usize>> {
        let wake_ns = match self.known.at(self.shared, now_ns()) {
            Turn::Now => {
                self.set(0)?;
                return Ok(std::mem::take(&mut self.resting));
            }
            Turn::At(open_ns) => open_ns,
            Turn::Over => 0,
        };
        self.set(wake_ns)?;
        Ok(Vec::new())
    }

    fn set(&mut self, wake_ns: u64) -> io::Result<()> {
        if self.set_ns != wake_ns {
            self.timer.set(wake_ns)?;
            self.set_ns = wake_ns;
        }
        Ok(())
    }

    /// The loop was woken by [`TURN`].
    pub fn woken(&self) {
        self.bell.hush();
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
