//! A run's directory. Every repetition is saved as it ends, so that an interrupted run still reports what it has.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{plan::Placement, profiles, records, schedule::Brought};
use crate::{
    configuration::file_stem,
    counts::Repetition,
    environment::Environment,
    error::{Error, Result},
    workload::Settings,
};

/// Version of the files in a directory; a field added is a version.
pub const SCHEMA_VERSION: u32 = 2;

/// What is known before the first repetition: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Five hexadecimal digits.
    pub run_id: String,
    /// Version of virtax.
    pub virtax_version: String,
    /// Start, seconds since 1970.
    pub started_unix_s: u64,
    /// The command that repeats the run.
    pub command: String,
    /// The workload's name.
    pub workload: String,
    /// Its settings.
    pub settings: Settings,
    /// Largest residual of a complete result, share of the client's mean.
    pub residual_limit: f64,
    /// Where client and server ran.
    pub placement: Placement,
    /// Configurations' names, in the order of `--in`.
    pub configurations: Vec<String>,
    /// Name of the one that others are compared with.
    pub baseline: String,
    /// Rounds that were asked for.
    pub rounds: u32,
    /// Measured time per configuration and round, seconds.
    pub duration_s: f64,
    /// Seed of the order within rounds.
    pub seed: u64,
    /// Samples a second on each CPU; 0: none.
    pub sample_rate_hz: u32,
    /// Half width of the layers' shares until which samples were to be taken.
    #[serde(default)]
    pub samples_until: Option<f64>,
    /// The machine.
    pub environment: Environment,
}

/// A directory that a run writes.
pub struct Store {
    folder: PathBuf,
    repetitions: File,
}

const HEADER: &str = "run.json";
const REPETITIONS: &str = "repetitions.jsonl";

impl Store {
    /// Makes the directory, or takes one that is there and empty. With `force`, what virtax wrote there before is
    /// removed, and nothing else.
    ///
    /// # Errors
    /// [`Error::Usage`] if it has other content; [`Error::Files`] if it cannot be written.
    pub fn create(folder: &Path, force: bool) -> Result<Self> {
        let fail = |error| Error::file("write to", folder, error);
        Self::check(folder, force)?;
        fs::create_dir_all(folder).map_err(fail)?;
        for entry in fs::read_dir(folder).map_err(fail)?.flatten() {
            if is_ours(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(fail)?;
            }
        }
        let repetitions = OpenOptions::new().create(true).append(true).open(folder.join(REPETITIONS)).map_err(fail)?;
        Ok(Self { folder: folder.to_owned(), repetitions })
    }

    /// Refuses a directory with other content, before anything is set up.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is not empty and may not be replaced.
    pub fn check(folder: &Path, force: bool) -> Result<()> {
        let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
        if empty || force {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "`--out {}` is not empty; give another folder, or `--force` to replace an earlier run in it",
            folder.display()
        )))
    }

    /// Writes what is known before the first repetition.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, header: &Header) -> Result<()> {
        write_json(&self.folder.join(HEADER), header)
    }

    /// Saves what a repetition brought, on the disk before it returns. Its counts go last: without them, the rest is
    /// ignored.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self, brought: &Brought) -> Result<()> {
        let fail = |error: std::io::Error| Error::file("write to", &self.folder, error);
        let repetition = &brought.repetition;
        let configuration = &repetition.configuration;
        records::append(&records_path(&self.folder, configuration), repetition.round, &brought.records)?;
        if let Some(profile) = &brought.profile {
            profiles::append(&profiles_path(&self.folder, configuration), profile)?;
        }
        let mut line = serde_json::to_vec(repetition).map_err(|error| fail(error.into()))?;
        line.push(b'\n');
        self.repetitions.write_all(&line).map_err(fail)?;
        self.repetitions.sync_data().map_err(fail)
    }

    /// The directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn is_ours(name: &str) -> bool {
    [HEADER, REPETITIONS, "result.json"].contains(&name)
        || name.starts_with("records.")
        || name.starts_with("stacks.")
        || (["latency.", "cpu.", "off-cpu."].iter().any(|kind| name.starts_with(kind))
            && (name.ends_with(".svg") || name.ends_with(".folded")))
}

/// Where a configuration's records are.
#[must_use]
pub fn records_path(folder: &Path, configuration: &str) -> PathBuf {
    folder.join(format!("records.{}.jsonl.gz", file_stem(configuration)))
}

/// Where a configuration's stacks are.
#[must_use]
pub fn profiles_path(folder: &Path, configuration: &str) -> PathBuf {
    folder.join(format!("stacks.{}.jsonl.gz", file_stem(configuration)))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", path, error))?;
    text.push(b'\n');
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| Error::file("write", path, error))
}

/// Reads what a run wrote.
///
/// # Errors
/// If the directory holds no run, or one of an unknown version. A last repetition that was cut off is left out.
pub fn load(folder: &Path) -> Result<(Header, Vec<Repetition>)> {
    let path = folder.join(HEADER);
    let text = fs::read(&path).map_err(|error| Error::file("read", &path, error))?;
    let header: Header = serde_json::from_slice(&text).map_err(|error| Error::file("understand", &path, error))?;
    check_version(&path, header.schema_version)?;
    let path = folder.join(REPETITIONS);
    let file = File::open(&path).map_err(|error| Error::file("read", &path, error))?;
    let lines: Vec<String> = BufReader::new(file)
        .lines()
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::file("read", &path, error))?;
    let mut repetitions = Vec::with_capacity(lines.len());
    for (number, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(repetition) => repetitions.push(repetition),
            Err(_) if number + 1 == lines.len() => {}
            Err(error) => return Err(Error::file("understand", &path, format!("line {}: {error}", number + 1))),
        }
    }
    Ok((header, repetitions))
}

/// Refuses files of a newer virtax.
///
/// # Errors
/// If the version is not [`SCHEMA_VERSION`].
pub fn check_version(path: &Path, version: u32) -> Result<()> {
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    Err(Error::file(
        "understand",
        path,
        format!("its schema version is {version}, this virtax knows {SCHEMA_VERSION}; use the virtax that wrote it"),
    ))
}
