//! The server: threads that read or write one file.

use std::{
    fs::File,
    io::{self, BufReader},
    net::{SocketAddrV4, TcpListener},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    first::{self, Unwritten},
    work::work,
};
use crate::{
    file::{PIECE, explain, make, within},
    phases::{Shared, Worker},
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
    /// `openat2` for writing, of a file that was never written to.
    FirstWrite,
}

/// Which block of the file comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Any.
    Random,
    /// The next one of the thread's own part of the file.
    Sequential,
}

/// How operations are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Calls that return when they are done.
    Sync,
    /// `io_submit` and `io_getevents`.
    Libaio,
    /// `io_uring_enter`.
    IoUring,
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
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// How operations are made.
    #[arg(long, value_enum, default_value = "sync")]
    pub engine: Engine,
    /// Operations of each thread that are under way at once.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
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
pub const ALIGNMENT: usize = 4096;

/// Makes the file, then reads or writes it, and tells the client, until that goes.
///
/// # Errors
/// When the file cannot be made or opened, or the port cannot be had.
pub fn serve(options: &Options) -> io::Result<()> {
    crate::clock::end_after(options.lifetime);
    let is_first = options.kind == Kind::FirstWrite;
    let mib = if is_first { options.bytes.div_ceil(PIECE) as u64 } else { options.size };
    let file = make(&options.folder, mib)?;
    let unwritten = is_first.then(|| Unwritten::find(&options.folder, &file)).transpose()?.map(Arc::new);
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
            let worker = Arc::new(Worker::new(options.depth));
            let (shared, mine, options, file) = (shared.clone(), worker.clone(), options.clone(), file.clone());
            let unwritten = unwritten.clone();
            std::thread::spawn(move || {
                let done = match unwritten {
                    Some(unwritten) => first::work(&unwritten, &shared, &mine),
                    None => work(&options, index, &file, &shared, &mine),
                };
                if let Err(error) = done {
                    shared.fail(explain("use", &options.folder, &error) + hint(&options, &error));
                }
            });
            worker
        })
        .collect();
    shared.answer(&workers, BufReader::new(&stream), &mut &stream)
}

/// What probably is wrong, where the kernel only says that something is.
fn hint(options: &Options, error: &io::Error) -> &'static str {
    let may_be_too_fine = options.direct && !options.bytes.is_multiple_of(ALIGNMENT);
    if may_be_too_fine && error.raw_os_error() == Some(libc::EINVAL) {
        "; its disk may transfer whole multiples of 4096 bytes only: give `bytes=4096`, or `direct=off`"
    } else {
        ""
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn options(threads: u32, order: Order) -> Options {
        Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            folder: std::env::temp_dir(),
            size: 1,
            kind: Kind::Read,
            order,
            bytes: 4096,
            threads,
            engine: Engine::Sync,
            depth: 1,
            direct: false,
            sync_every: 0,
            lifetime: 10,
        }
    }

    #[test]
    fn a_transfer_too_fine_for_its_disk_has_a_hint() {
        let options = Options { direct: true, bytes: 512, ..options(1, Order::Random) };
        let refused = io::Error::from_raw_os_error(libc::EINVAL);
        assert!(hint(&options, &refused).contains("`bytes=4096`"));
        assert_eq!(hint(&Options { bytes: 8192, ..options.clone() }, &refused), "");
        assert_eq!(hint(&options, &io::Error::from_raw_os_error(libc::EIO)), "");
    }
}
