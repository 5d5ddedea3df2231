//! Reads and writes of a file, by the server.

use std::{net::SocketAddrV4, path::Path, time::Duration};

use super::{ClientProgram, FileOperations, Range, Setting, Settings, Start, Workload};
use virtax_model::error::{Error, Result};

/// See the module.
pub struct Block;

/// What transfers past the page cache are multiples of.
const SECTOR: u64 = 512;

/// Operations of all threads that may be under way at once: a quarter of the places that the probes have for them.
const AT_ONCE_MOST: u64 = 4096;

/// Bytes of memory that operations may take at once.
const MEMORY_MOST: u64 = 1 << 30;

/// What a disk writes at least.
pub(super) const SLOWEST_MIB_PER_S: u64 = 10;

/// Where the file lies.
pub(super) const FOLDER: Setting = Setting {
    name: "folder",
    range: Range::Folder,
    default: "/var/tmp",
    help: "folder of the host in which the file is made, without a name, or what a container keeps it in (bind, overlay)",
};

/// What tells a server of files its phases.
pub(super) fn client(server: SocketAddrV4, patience: Duration) -> ClientProgram {
    let patience = patience.as_millis().to_string();
    let arguments = ["block-client", "--connect", &server.to_string(), "--patience-ms", &patience];
    ClientProgram::Own(arguments.map(str::to_owned).to_vec())
}

fn number(settings: &Settings, name: &str) -> u64 {
    settings[name].parse().unwrap_or(0)
}

/// Whether operations open files that were never written to.
fn is_first_write(settings: &Settings) -> bool {
    settings["kind"] == "first-write"
}

impl FileOperations for Block {
    fn at_once(&self, settings: &Settings) -> u32 {
        (number(settings, "threads") * number(settings, "depth")) as u32
    }
    fn is_synchronous(&self, settings: &Settings) -> bool {
        settings["engine"] == "sync"
    }
    fn folder<'a>(&self, settings: &'a Settings) -> &'a Path {
        Path::new(&settings["folder"])
    }
    fn only_writes(&self, settings: &Settings) -> bool {
        settings["kind"] == "write"
    }
    fn first_writes(&self, settings: &Settings) -> Option<u64> {
        is_first_write(settings).then(|| number(settings, "bytes"))
    }
}

impl Workload for Block {
    fn files(&self) -> Option<&dyn FileOperations> {
        Some(self)
    }
    fn name(&self) -> &'static str {
        "block"
    }
    fn summary(&self) -> &'static str {
        "reads and writes of a file (own program, in the place of the server)"
    }
    fn settings(&self) -> &'static [Setting] {
        const SWITCH: Range = Range::Words(&["on", "off"]);
        &[
            Setting {
                name: "kind",
                range: Range::Words(&["read", "write", "mixed", "first-write"]),
                default: "read",
                help: "what an operation does; mixed: half and half; first-write: opens a file of `bytes` for writing that was never \
                       written to, which on overlayfs copies it (ns:fs=overlay)",
            },
            Setting {
                name: "order",
                range: Range::Words(&["random", "sequential"]),
                default: "random",
                help: "which block comes next",
            },
            Setting {
                name: "bytes",
                range: Range::Whole { from: 1, to: 16 << 20 },
                default: "4096",
                help: "bytes of an operation",
            },
            Setting {
                name: "threads",
                range: Range::Whole { from: 1, to: 256 },
                default: "1",
                help: "threads, each with `depth` operations at a time",
            },
            Setting {
                name: "engine",
                range: Range::Words(&["sync", "libaio", "io-uring"]),
                default: "sync",
                help: "how operations are made: by calls that return when they are done, or submitted and waited for",
            },
            Setting {
                name: "depth",
                range: Range::Whole { from: 1, to: 128 },
                default: "1",
                help: "operations of each thread that are under way at once; more than one need libaio or io-uring",
            },
            Setting { name: "direct", range: SWITCH, default: "on", help: "past the page cache (O_DIRECT)" },
            Setting {
                name: "sync-every",
                range: Range::Whole { from: 0, to: 1_000_000 },
                default: "0",
                help: "an fdatasync, an operation of its own, after every so many writes of a thread; 0: none",
            },
            Setting {
                name: "size",
                range: Range::Whole { from: 1, to: 65_536 },
                default: "64",
                help: "MiB of the file",
            },
            FOLDER,
        ]
    }
    fn check(&self, settings: &Settings) -> Result<()> {
        let (bytes, threads) = (number(settings, "bytes"), number(settings, "threads"));
        if settings["direct"] == "on" && bytes % SECTOR != 0 && !is_first_write(settings) {
            let why = format!("`bytes={bytes}` cannot be transferred with `direct=on`: give a multiple of {SECTOR}");
            return Err(Error::Usage(why));
        }
        let wanted = bytes * threads;
        if number(settings, "size") << 20 < wanted && !is_first_write(settings) {
            let least = wanted.div_ceil(1 << 20);
            return Err(Error::Usage(format!(
                "the file is smaller than one operation of each thread: give `size={least}`"
            )));
        }
        if number(settings, "sync-every") > 0 && settings["kind"] == "read" {
            return Err(Error::Usage("`sync-every` needs writes: give `kind=write` or `kind=mixed`".to_owned()));
        }
        let under_way = wanted * number(settings, "depth");
        if under_way > MEMORY_MOST {
            let why = format!("operations under way at once would take {} MiB of memory", under_way >> 20);
            return Err(Error::Usage(format!("{why}: give fewer `threads`, less `depth` or `bytes`")));
        }
        if is_first_write(settings) && (settings["engine"] != "sync" || number(settings, "sync-every") > 0) {
            return Err(Error::Usage("`kind=first-write` needs `engine=sync` and no `sync-every`".to_owned()));
        }
        if settings["engine"] == "sync" && number(settings, "depth") > 1 {
            let why = "a call that returns when it is done is one at a time: give `engine=libaio` or `engine=io-uring`";
            return Err(Error::Usage(why.to_owned()));
        }
        if threads * number(settings, "depth") > AT_ONCE_MOST {
            let why = format!("more than {AT_ONCE_MOST} operations at once are not followed");
            return Err(Error::Usage(format!("{why}: give fewer `threads` or less `depth`")));
        }
        if settings["engine"] == "libaio" && settings["direct"] == "off" {
            let why = "libaio reads and writes the page cache one after the other, before it returns: give `direct=on`";
            return Err(Error::Usage(format!("{why}, or `engine=io-uring`")));
        }
        if settings["engine"] != "sync" && number(settings, "sync-every") > 0 {
            return Err(Error::Usage("`sync-every` needs `engine=sync`".to_owned()));
        }
        Ok(())
    }
    fn server_arguments(&self, settings: &Settings, start: Start<'_>) -> Vec<String> {
        let mut arguments = vec!["block-server".to_owned(), "--listen".to_owned(), start.listen.to_string()];
        arguments.extend(["--folder".to_owned(), start.data.display().to_string()]);
        for name in ["kind", "order", "bytes", "threads", "engine", "depth", "sync-every", "size"] {
            arguments.extend([format!("--{name}"), settings[name].clone()]);
        }
        if settings["direct"] == "on" && !is_first_write(settings) {
            arguments.push("--direct".to_owned());
        }
        arguments
    }
    fn client(&self, settings: &Settings, server: SocketAddrV4, _has_cpu: bool) -> ClientProgram {
        client(server, self.patience(settings))
    }
    fn patience(&self, settings: &Settings) -> Duration {
        // The file is written first.
        Duration::from_secs(15 + number(settings, "size") / SLOWEST_MIB_PER_S)
    }
    fn residual_limit(&self) -> f64 {
        0.05
    }
}

#[cfg(test)]
mod tests {
    use super::super::{by_name, tests::parse_of};

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let block = by_name("block").unwrap();
        let refused: &[&[&str]] = &[
            &["depth=2"],
            &["engine=aio"],
            &["engine=libaio", "kind=write", "sync-every=1"],
            &["sync-every=1"],
            &["bytes=100"],
            &["size=1", "threads=200", "bytes=8192"],
            &["engine=io-uring", "depth=129"],
            &["engine=io-uring", "depth=128", "threads=40"],
            &["engine=libaio", "direct=off"],
            &["kind=first-write", "engine=libaio"],
            &["engine=io-uring", "depth=128", "bytes=16777216"],
        ];
        let said =
            refused.iter().map(|pairs| format!("{:<44} {}", pairs.join(" "), parse_of(block, pairs).unwrap_err()));
        insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"));
        assert!(parse_of(block, &["engine=libaio", "depth=128", "threads=4"]).is_ok());
    }
}
