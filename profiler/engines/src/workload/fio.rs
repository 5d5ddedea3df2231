//! fio's reads and writes of a file: the loads of Felter et al. (2015), section IV.

use std::{net::SocketAddrV4, path::Path, time::Duration};

use super::{ClientProgram, FileOperations, Range, Setting, Settings, Start, Tool, Workload, block::SLOWEST_MIB_PER_S};

/// fio, and the package of Debian's that brings it.
pub const FIO: Tool = Tool { name: "fio", package: "fio" };

/// MiB of the file that the study used.
pub const STUDY_MIB: u64 = 16 << 10;
/// Without a size given: this share of the host's memory, and of the room in the file's folder,
const OF_MEMORY: u64 = 32;
const OF_ROOM: u64 = 8;
/// but not less than this, MiB.
const LEAST_MIB: u64 = 64;

/// See the module.
pub struct Fio {
    name: &'static str,
    summary: &'static str,
    /// Options of fio's.
    job: &'static [&'static str],
    /// Operations at once of a job, and jobs.
    depth: u32,
    jobs: u32,
}

impl Fio {
    /// Reads of 1 MiB, one after another.
    pub const SEQREAD: Self = Self {
        name: "fio-seqread",
        summary: "fio: reads of 1 MiB one after another, libaio, direct, 1 at a time",
        job: &["--rw=read", "--bs=1M"],
        depth: 1,
        jobs: 1,
    };
    /// Writes of 1 MiB, one after another.
    pub const SEQWRITE: Self = Self {
        name: "fio-seqwrite",
        summary: "fio: writes of 1 MiB one after another, libaio, direct, 1 at a time",
        job: &["--rw=write", "--bs=1M"],
        depth: 1,
        jobs: 1,
    };
    /// Random reads of 4 KiB, 16 at once.
    pub const RANDREAD_QD16: Self = Self {
        name: "fio-randread-qd16",
        summary: "fio: random reads of 4 KiB, libaio, direct, 16 at a time",
        job: &["--rw=randread", "--bs=4k"],
        depth: 16,
        jobs: 1,
    };
    /// Random reads and writes of 4 KiB, 8 × 32 at once.
    pub const RANDRW_QD32X8: Self = Self {
        name: "fio-randrw-qd32x8",
        summary: "fio: random reads and writes of 4 KiB, 70 : 30, libaio, direct, 8 jobs of 32 at a time",
        job: &["--rw=randrw", "--rwmixread=70", "--bs=4k"],
        depth: 32,
        jobs: 8,
    };
}

impl FileOperations for Fio {
    fn only_writes(&self, _settings: &Settings) -> bool {
        self.job.contains(&"--rw=write")
    }
    fn at_once(&self, _settings: &Settings) -> u32 {
        self.depth * self.jobs
    }
    fn folder<'a>(&self, settings: &'a Settings) -> &'a Path {
        Path::new(&settings["folder"])
    }
}

impl Workload for Fio {
    fn files(&self) -> Option<&dyn FileOperations> {
        Some(self)
    }
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "size",
                range: Range::WholeOrAuto { from: 8, to: 1 << 20 },
                default: "auto",
                help: "MiB of the file; auto: 1/32 of the memory, 1/8 of the room in its folder, or the 16384 of the study, whichever is least",
            },
            super::block::FOLDER,
        ]
    }
    fn scale(&self, settings: &mut Settings) {
        if settings["size"] == "auto" {
            let size = scaled_mib(memory_mib(), room_mib(Path::new(&settings["folder"])));
            settings.insert("size".to_owned(), size.to_string());
        }
    }
    fn scaling(&self, settings: &Settings) -> Option<String> {
        let mib = settings.get("size")?.parse::<u64>().ok().filter(|mib| *mib < STUDY_MIB)?;
        Some(format!(
            "the file has {mib} MiB, that of the study {STUDY_MIB}: more of it may lie in caches of the disk's"
        ))
    }
    fn server_executes(&self) -> Option<Tool> {
        Some(FIO)
    }
    fn tools(&self) -> Vec<Tool> {
        vec![FIO]
    }
    fn server_arguments(&self, settings: &Settings, start: Start<'_>) -> Vec<String> {
        let pairs = [
            ("--listen", start.listen.to_string()),
            ("--folder", start.data.display().to_string()),
            ("--size", settings["size"].clone()),
            ("--program", start.tool.display().to_string()),
            ("--at-once", self.at_once(settings).to_string()),
        ];
        let mut arguments = vec!["fio-server".to_owned()];
        arguments.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        arguments.push("--".to_owned());
        arguments.extend(["--ioengine=libaio", "--direct=1"].map(str::to_owned));
        arguments.extend(self.job.iter().map(|option| (*option).to_owned()));
        arguments.extend([format!("--iodepth={}", self.depth), format!("--numjobs={}", self.jobs)]);
        arguments
    }
    fn client(&self, settings: &Settings, server: SocketAddrV4, _has_cpu: bool) -> ClientProgram {
        super::block::client(server, self.patience(settings))
    }
    fn patience(&self, settings: &Settings) -> Duration {
        // The file is written first, and fio has eight seconds to begin.
        Duration::from_secs(25 + settings["size"].parse::<u64>().unwrap_or(0) / SLOWEST_MIB_PER_S)
    }
    fn residual_limit(&self) -> f64 {
        // That of 16 × 8 at once is wider: an operation waits for the program's other ones, of which only the program
        // knows.
        if self.at_once(&Settings::new()) > 16 { 0.08 } else { 0.05 }
    }
}

/// MiB of the host's memory.
fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// MiB of room in a folder.
fn room_mib(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |found| (found.blocks_available() * found.fragment_size()) >> 20)
}

fn scaled_mib(memory_mib: u64, room_mib: u64) -> u64 {
    (memory_mib / OF_MEMORY).min(room_mib / OF_ROOM).clamp(LEAST_MIB, STUDY_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_scaled_to_the_host() {
        assert_eq!(scaled_mib(24 << 10, 100 << 10), 768);
        assert_eq!(scaled_mib(1 << 20, 1 << 20), STUDY_MIB);
        assert_eq!(scaled_mib(24 << 10, 800), 100);
        assert_eq!(scaled_mib(512, 10), LEAST_MIB);
    }
}
