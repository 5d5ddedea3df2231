//! The server: threads that read or write one file.

use std::{
    fs::File,
    io::{self, BufReader},
    net::TcpListener,
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
};

use super::{
    first::{self, Unwritten},
    options::{ALIGNMENT, Kind, Options},
    work::work,
};
use crate::{
    file::{PIECE, explain, make, within},
    phases::{Shared, Worker},
};

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
mod tests {
    use super::{
        super::options::{Order, tests::options},
        *,
    };

    #[test]
    fn a_transfer_too_fine_for_its_disk_has_a_hint() {
        let options = Options { direct: true, bytes: 512, ..options(1, Order::Random) };
        let refused = io::Error::from_raw_os_error(libc::EINVAL);
        assert!(hint(&options, &refused).contains("`bytes=4096`"));
        assert_eq!(hint(&Options { bytes: 8192, ..options.clone() }, &refused), "");
        assert_eq!(hint(&options, &io::Error::from_raw_os_error(libc::EIO)), "");
    }
}
