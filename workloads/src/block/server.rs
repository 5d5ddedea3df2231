//! The server: threads that read or write one file, each one call at a time.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    fs::{File, OpenOptions},
    io::{self, BufReader},
    net::{SocketAddrV4, TcpListener},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
};

use crate::{
    clock::now_ns,
    phases::{Shared, Times, Worker},
};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `pread`.
    Read,
    /// `pwrite`.
    Write,
    /// Either, at random: half and half.
    Mixed,
}

/// Which block of the file comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Any.
    Random,
    /// The next one of the thread's own part of the file.
    Sequential,
}

/// What the server does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address and port to listen on for the client.
    #[arg(long)]
    pub listen: SocketAddrV4,
    /// Folder of the file, which has no name there.
    #[arg(long)]
    pub folder: PathBuf,
    /// MiB of the file.
    #[arg(long, default_value_t = 64)]
    pub size: u64,
    /// What an operation does.
    #[arg(long, value_enum, default_value = "read")]
    pub kind: Kind,
    /// Which block comes next.
    #[arg(long, value_enum, default_value = "random")]
    pub order: Order,
    /// Bytes of an operation.
    #[arg(long, default_value_t = 4096)]
    pub bytes: usize,
    /// Threads, each with one operation at a time.
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// Past the page cache (`O_DIRECT`).
    #[arg(long)]
    pub direct: bool,
    /// `fdatasync` after every so many writes of a thread; 0: never.
    #[arg(long, default_value_t = 0)]
    pub sync_every: u64,
    /// Seconds after which the server ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// Blocks of direct transfers, and what they lie at, are multiples of this on every disk in use.
const ALIGNMENT: usize = 4096;
/// Bytes written at a time while the file is made.
const PIECE: usize = 1 << 20;

/// Makes the file, then reads or writes it, and tells the client, until that goes.
///
/// # Errors
/// When the file cannot be made or opened, or the port cannot be had.
pub fn serve(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let file = make_file(options)?;
    if options.direct {
        go_direct(&file, &options.folder)?;
    }
    let file = Arc::new(file);
    // Only now: who is answered before would take what goes wrong until here for a lost connection.
    let listener = TcpListener::bind(options.listen)?;
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let shared = Arc::new(Shared::default());
    let workers: Vec<Arc<Worker>> = (0..options.threads)
        .map(|index| {
            let worker = Arc::new(Worker::new(1));
            let (shared, mine, options, file) = (shared.clone(), worker.clone(), options.clone(), file.clone());
            std::thread::spawn(move || {
                if let Err(error) = work(&options, index, &file, &shared, &mine) {
                    shared.fail(explain("use", &options.folder, &error));
                }
            });
            worker
        })
        .collect();
    shared.answer(&workers, BufReader::new(&stream), &mut &stream)
}

fn explain(what: &str, folder: &Path, error: &io::Error) -> String {
    format!("cannot {what} a file in {}: {error}", folder.display())
}

fn within<T>(what: &str, folder: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), explain(what, folder, &error)))
}

/// A file without a name, which no end of this process leaves behind, full of what does not compress, and on its disk.
fn make_file(options: &Options) -> io::Result<File> {
    let folder = &options.folder;
    let file = within("make", folder, nameless(folder))?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut piece = vec![0; PIECE];
    for index in 0..options.size {
        piece.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()));
        within("fill", folder, file.write_all_at(&piece, index * PIECE as u64))?;
    }
    within("write out", folder, file.sync_all())?;
    // What lies in the page cache now would make of the first reads what they are not.
    // SAFETY: no pointers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(file)
}

/// `O_TMPFILE`; where the file system has none, a file whose name is removed at once.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true);
    match open.clone().custom_flags(libc::O_TMPFILE).mode(0o600).open(folder) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => return other,
    }
    let path = folder.join(format!("virtax-block-{}", std::process::id()));
    let file = open.create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// From now on, the file is read and written past the page cache.
fn go_direct(file: &File, folder: &Path) -> io::Result<()> {
    // SAFETY: no pointers.
    let done = unsafe {
        match libc::fcntl(file.as_raw_fd(), libc::F_GETFL) {
            -1 => -1,
            flags => libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT),
        }
    };
    let found = if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    within("go past the page cache (`direct=off` goes through it) with", folder, found)
}

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

/// Marsaglia's xorshift (2003), 64 bits: which block is next must not cost what a better one would.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Blocks of a thread, and which comes next.
struct Blocks {
    order: Order,
    /// Blocks from which random ones are taken: all of the file's.
    all: u64,
    /// Its own part, for sequential ones.
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
            Order::Random => random.next() % self.all,
            Order::Sequential => {
                let block = self.first + self.next;
                self.next = (self.next + 1) % self.count;
                block
            }
        }
    }
}

fn work(options: &Options, index: u32, file: &File, shared: &Shared, worker: &Worker) -> io::Result<()> {
    let mut buffer = Buffer::new(options.bytes)?;
    let mut random = Random(0x2545_f491_4f6c_dd1d ^ (u64::from(index) + 1));
    let mut blocks = Blocks::new(options, index)?;
    let (mut returned_ns, mut written) = (now_ns(), 0);
    while !shared.stopped() {
        let at = blocks.next(&mut random) * options.bytes as u64;
        let writes = match options.kind {
            Kind::Read => false,
            Kind::Write => true,
            Kind::Mixed => random.next() & 1 == 0,
        };
        let called_ns = now_ns();
        worker.calls(0, called_ns);
        if writes {
            file.write_all_at(buffer.bytes(), at)?
        } else {
            file.read_exact_at(buffer.bytes(), at)?
        }
        note(shared, worker, &mut returned_ns, called_ns);
        written += u64::from(writes);
        if writes && options.sync_every > 0 && written % options.sync_every == 0 {
            let called_ns = now_ns();
            worker.calls(0, called_ns);
            file.sync_data()?;
            note(shared, worker, &mut returned_ns, called_ns);
        }
    }
    Ok(())
}

/// An operation has ended.
fn note(shared: &Shared, worker: &Worker, returned_ns: &mut u64, called_ns: u64) {
    let back_ns = now_ns();
    shared.note(worker, 0, &Times { intended_ns: called_ns, before_ns: *returned_ns, called_ns, back_ns });
    *returned_ns = back_ns;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(threads: u32, order: Order) -> Options {
        Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            folder: std::env::temp_dir(),
            size: 1,
            kind: Kind::Read,
            order,
            bytes: 4096,
            threads,
            direct: false,
            sync_every: 0,
            lifetime: 10,
        }
    }

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
    fn a_file_without_a_name_holds_what_it_is_to_hold() {
        let file = make_file(&options(1, Order::Random)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), PIECE as u64);
        let missing = Options { folder: "/nonexistent".into(), ..options(1, Order::Random) };
        assert!(make_file(&missing).unwrap_err().to_string().starts_with("cannot make a file in /nonexistent: "));
        assert!(Blocks::new(&options(300, Order::Random), 0).is_err());
    }
}
