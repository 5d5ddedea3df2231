//! What the server's threads do: which block is next, and one operation after the other, or several at once.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    fs::File,
    io,
    mem::ManuallyDrop,
    os::unix::fs::FileExt,
    ptr::NonNull,
};

use super::{
    options::{ALIGNMENT, Engine, Kind, Options, Order},
    queue::{Aio, Queue, Ring, Transfer},
};
use crate::{
    clock::now_ns,
    file::{PIECE, Random},
    phases::{Shared, Times, Worker},
};

/// Memory at the address that direct transfers want.
struct Buffer(NonNull<u8>, Layout);

// SAFETY: it is owned memory.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(bytes: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // SAFETY: its size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        Ok(Self(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout)), layout))
    }
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: that many bytes were allocated, zeroed, and are borrowed as this is.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.1.size()) }
    }
}
impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.0.as_ptr(), self.1) }
    }
}

/// Buffers that the kernel may be reading and writing.
struct UnderWay<'a> {
    queue: &'a mut dyn Queue,
    buffers: ManuallyDrop<Vec<Buffer>>,
}
impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // If the kernel cannot be waited for, their memory stays its own.
        if self.queue.finish() {
            // SAFETY: once, and nobody uses them after this.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

/// Blocks of a thread, and which comes next.
struct Blocks {
    order: Order,
    /// Blocks from which random ones are taken: all of the file's.
    all: u64,
    /// First place of the thread's own part, for sequential operations.
    first: u64,
    count: u64,
    next: u64,
}

impl Blocks {
    fn new(options: &Options, index: u32) -> io::Result<Self> {
        let all = options.size * PIECE as u64 / options.bytes.max(1) as u64;
        let count = all / u64::from(options.threads.max(1));
        if count == 0 {
            let why = format!("a file of {} MiB has no block of {} bytes for each thread", options.size, options.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self { order: options.order, all, first: u64::from(index) * count, count, next: 0 })
    }
    fn next(&mut self, random: &mut Random) -> u64 {
        match self.order {
            Order::Random => random.number() % self.all,
            Order::Sequential => {
                let block = self.first + self.next;
                self.next = (self.next + 1) % self.count;
                block
            }
        }
    }
}

/// What one thread does.
struct Making<'a> {
    options: &'a Options,
    shared: &'a Shared,
    worker: &'a Worker,
    random: Random,
    blocks: Blocks,
    /// When the last operation in each place returned.
    returned_ns: Vec<u64>,
}

/// Reads or writes until the work is to end.
///
/// # Errors
/// If an operation fails, or cannot be made in the way that is asked for.
pub fn work(options: &Options, index: u32, file: &File, shared: &Shared, worker: &Worker) -> io::Result<()> {
    let making = Making {
        options,
        shared,
        worker,
        random: Random(0x2545_f491_4f6c_dd1d ^ (u64::from(index) + 1)),
        blocks: Blocks::new(options, index)?,
        returned_ns: vec![now_ns(); options.depth],
    };
    let none = |engine: &str, error: &io::Error| {
        let used_up = "raise fs.aio-max-nr, give fewer `threads` or less `depth`, or `engine=sync`";
        let remedy = match error.raw_os_error() {
            Some(libc::EAGAIN) => used_up,
            Some(libc::EPERM) if options.engine == Engine::IoUring && is_ring_disabled() => {
                "the kernel forbids it: set kernel.io_uring_disabled=0, or `engine=sync` can"
            }
            _ => "`engine=sync` can",
        };
        io::Error::new(error.kind(), format!("{engine} cannot be had here ({error}); {remedy}"))
    };
    match options.engine {
        Engine::Sync => making.one_by_one(file),
        Engine::Libaio => making.queued(&mut Aio::new(file, options.depth).map_err(|error| none("libaio", &error))?),
        Engine::IoUring => {
            making.queued(&mut Ring::new(file, options.depth).map_err(|error| none("io_uring", &error))?)
        }
    }
}

/// Whether the kernel forbids io_uring to some or all (`Documentation/admin-guide/sysctl/kernel.rst`).
fn is_ring_disabled() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() != "0")
}

impl Making<'_> {
    /// Whether the next operation writes, and where.
    fn next(&mut self) -> (bool, u64) {
        let at = self.blocks.next(&mut self.random) * self.options.bytes as u64;
        let writes = match self.options.kind {
            Kind::Read | Kind::FirstWrite => false,
            Kind::Write => true,
            Kind::Mixed => self.random.number() & 1 == 0,
        };
        (writes, at)
    }

    fn one_by_one(mut self, file: &File) -> io::Result<()> {
        let mut buffer = Buffer::new(self.options.bytes)?;
        let mut written = 0;
        while !self.shared.stopped() {
            let (writes, at) = self.next();
            let called_ns = now_ns();
            self.worker.calls(0, called_ns);
            if writes {
                file.write_all_at(buffer.bytes(), at)?
            } else {
                file.read_exact_at(buffer.bytes(), at)?
            }
            self.ended(0, called_ns, now_ns());
            written += u64::from(writes);
            if writes && self.options.sync_every > 0 && written % self.options.sync_every == 0 {
                let called_ns = now_ns();
                self.worker.calls(0, called_ns);
                file.sync_data()?;
                self.ended(0, called_ns, now_ns());
            }
        }
        Ok(())
    }

    /// Makes as many at once as there are places: whatever is done is followed by the next.
    fn queued(mut self, queue: &mut dyn Queue) -> io::Result<()> {
        let buffers =
            (0..self.options.depth).map(|_| Buffer::new(self.options.bytes)).collect::<io::Result<Vec<_>>>()?;
        self.keep_going(&mut UnderWay { queue, buffers: ManuallyDrop::new(buffers) })
    }

    fn keep_going(&mut self, under_way: &mut UnderWay<'_>) -> io::Result<()> {
        let (queue, buffers) = (&mut *under_way.queue, &mut under_way.buffers);
        let mut called_ns = vec![0; buffers.len()];
        let mut free: Vec<usize> = (0..buffers.len()).collect();
        let mut done = Vec::with_capacity(buffers.len());
        while !self.shared.stopped() {
            for slot in free.drain(..) {
                let (writes, at) = self.next();
                let memory = buffers[slot].bytes();
                called_ns[slot] = now_ns();
                self.worker.calls(slot, called_ns[slot]);
                let transfer = Transfer { slot, writes, memory: memory.as_mut_ptr(), bytes: memory.len(), at };
                // SAFETY: the buffer is not given back while anything is under way.
                unsafe { queue.push(&transfer)? };
            }
            queue.go(&mut done)?;
            let back_ns = now_ns();
            for (slot, moved) in done.drain(..) {
                let moved = moved?;
                if moved != self.options.bytes {
                    let why = format!("{moved} bytes of {} were transferred", self.options.bytes);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                self.ended(slot, called_ns[slot], back_ns);
                free.push(slot);
            }
        }
        Ok(())
    }

    /// An operation has ended.
    fn ended(&mut self, slot: usize, called_ns: u64, back_ns: u64) {
        let before_ns = std::mem::replace(&mut self.returned_ns[slot], back_ns);
        let times = Times { intended_ns: called_ns, before_ns, called_ns, back_ns };
        self.shared.note(self.worker, slot, &times);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::options::tests::options, *};
    use crate::file::make;

    #[test]
    fn threads_go_through_parts_of_their_own() {
        let of = |index| {
            let mut blocks = Blocks::new(&options(2, Order::Sequential), index).unwrap();
            let mut random = Random(1);
            (0..129).map(|_| blocks.next(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(of(0), (0..128).chain([0]).collect::<Vec<_>>());
        assert_eq!(of(1), (128..256).chain([128]).collect::<Vec<_>>());
    }

    #[test]
    fn random_blocks_lie_in_the_file_and_differ() {
        let mut blocks = Blocks::new(&options(1, Order::Random), 0).unwrap();
        let mut random = Random(7);
        let found: std::collections::BTreeSet<u64> = (0..1000).map(|_| blocks.next(&mut random)).collect();
        assert!(found.len() > 200 && *found.last().unwrap() < 256, "{}", found.len());
    }

    #[test]
    fn a_file_smaller_than_a_block_of_each_thread_is_refused() {
        assert!(Blocks::new(&options(300, Order::Random), 0).is_err());
    }

    /// Either way of having several at once reads what is there, and ends when told.
    #[test]
    fn operations_at_once_are_all_noted() {
        for engine in [Engine::Libaio, Engine::IoUring] {
            let options = Options { engine, depth: 8, ..options(1, Order::Random) };
            let file = make(&options.folder, options.size).unwrap();
            let (shared, worker) = (Arc::new(Shared::default()), Arc::new(Worker::new(options.depth)));
            let worked = std::thread::scope(|scope| {
                let working = scope.spawn(|| work(&options, 0, &file, &shared, &worker));
                std::thread::sleep(std::time::Duration::from_millis(20));
                shared.answer(&[], std::io::empty(), &mut std::io::sink()).unwrap();
                working.join().unwrap()
            });
            if let Err(error) = worked {
                // A container's seccomp filter may forbid it.
                assert!(error.to_string().contains("`engine=sync` can"), "{error}");
                eprintln!("skipped: {error}");
                continue;
            }
            assert_eq!(worker.used(), 8);
        }
    }

    /// Forbids a call as a container's seccomp filter does: it is refused.
    fn forbid(call: libc::c_long) {
        let instruction = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let mut filter = [
            // The call's number is the first word of what the filter is given.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program is whole, and read during the call only. Both are the current thread's alone.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        }
    }

    #[test]
    fn an_engine_that_is_forbidden_is_named() {
        for (engine, call, name) in
            [(Engine::Libaio, libc::SYS_io_setup, "libaio"), (Engine::IoUring, libc::SYS_io_uring_setup, "io_uring")]
        {
            let said = std::thread::spawn(move || {
                let options = Options { engine, ..options(1, Order::Random) };
                let file = make(&options.folder, options.size).unwrap();
                forbid(call);
                work(&options, 0, &file, &Shared::default(), &Worker::new(1)).unwrap_err().to_string()
            });
            let said = said.join().unwrap();
            assert!(said.starts_with(name) && said.contains("not permitted"), "{said}");
            assert!(said.ends_with("`engine=sync` can"), "{said}");
        }
    }
}
