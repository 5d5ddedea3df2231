//! How a client's threads rest between windows: one with a single connection in a call, an event loop with many.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use crate::{
    clock::{now_ns, sleep_until},
    phases::{Beside, Shared, Worker},
    timer::Timer,
    turns::{LONGEST_REST, Turn, Turns},
};

/// The turns as one thread knows them: looked up anew in every phase.
pub struct Known {
    phase: u64,
    turns: Arc<Turns>,
}

impl Known {
    /// The turns of the current phase.
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

    fn time_work(&self, shared: &Shared, worker: &Worker, beside: Beside) {
        shared.time_work(worker, &self.turns, self.phase, beside);
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
pub fn wait(known: &mut Known, shared: &Shared, worker: &Worker, stream: &TcpStream) -> Option<u64> {
    let mut came_ns = None;
    loop {
        let heard = worker.bell.count();
        let turn = known.at(shared, now_ns());
        if shared.stopped() || turn == Turn::Now {
            return came_ns.map(|_| {
                known.time_work(shared, worker, Beside::Before);
                now_ns()
            });
        }
        if came_ns.is_none() {
            acknowledge(stream);
            known.time_work(shared, worker, Beside::After);
        }
        match turn {
            Turn::Now => {}
            // A phase that is given up for another must not be rested to its end.
            Turn::At(open_ns) => {
                sleep_until(open_ns.min(now_ns() + LONGEST_REST.as_nanos() as u64));
            }
            Turn::Over => worker.bell.wait(heard),
        }
        came_ns = Some(now_ns());
    }
}

/// The connections of an event loop that rest until it is their turn.
pub struct Resting<'a> {
    known: Known,
    shared: &'a Shared,
    worker: &'a Worker,
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
    pub fn new(
        shared: &'a Shared,
        worker: &'a Worker,
        watch: impl Fn(RawFd, u64) -> io::Result<()>,
    ) -> io::Result<Self> {
        let timer = Timer::new()?;
        watch(timer.as_raw_fd(), TURN)?;
        watch(worker.bell.descriptor()?, TURN)?;
        Ok(Self { known: Known::new(shared), shared, worker, timer, resting: Vec::new(), set_ns: 0 })
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
        if self.resting.len() == self.worker.connections() {
            self.known.time_work(self.shared, self.worker, Beside::After);
        }
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
                if self.resting.len() == self.worker.connections() {
                    self.known.time_work(self.shared, self.worker, Beside::Before);
                }
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
        self.worker.bell.hush();
    }
}
