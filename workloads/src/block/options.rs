//! What the server is told.

use std::{net::SocketAddrV4, path::PathBuf};

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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn options(threads: u32, order: Order) -> Options {
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
}
