//! A run's directory. Every repetition is saved as it ends, so that an interrupted run still reports what it has.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::{profiles, schedule::Brought, spec::RunSpec};
use crate::{
    counts::Repetition,
    engine::configuration,
    environment::Environment,
    error::{Error, Result},
    input::{self, Lines},
    records,
    run_folder::{HEADER, NEW, REPETITIONS, is_ours, records_path, stacks_path},
    workload::Settings,
};

/// Version of the files in a directory. Within a version, fields are added, and none changes its meaning.
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
    /// Configurations' names, in the order of `--in`.
    pub configurations: Vec<String>,
    /// Name of the one that others are compared with.
    pub baseline: String,
    /// How it was to be measured.
    #[serde(flatten)]
    pub spec: RunSpec,
    /// Kernel memory of the probes' tables, bytes.
    #[serde(default)]
    pub tables_bytes: u64,
    /// The machine.
    pub environment: Environment,
}

/// A directory that a run writes.
pub struct Store {
    folder: PathBuf,
    repetitions: File,
}

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
        let content = match fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return check_parent(folder),
            Err(error) => return Err(Error::file("write to", folder, error)),
        };
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| Error::file("write to", folder, error))?;
        if !content || force {
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
            profiles::append(&stacks_path(&self.folder, configuration), profile)?;
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

/// Tries to create a folder, and removes what it made: only the attempt tells for sure.
fn check_parent(folder: &Path) -> Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    let created = fs::create_dir_all(folder);
    for path in missing {
        // What could not be created is not there.
        let _ = fs::remove_dir(path);
    }
    created.map_err(|error| Error::file("create", folder, error))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", path, error))?;
    text.push(b'\n');
    write_whole(path, &text)
}

/// Writes a file whole or not at all, and never through a link that stands in its place: folders may come from
/// strangers.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(NEW);
    let temporary = path.with_file_name(name);
    let write = || {
        // What an earlier end left; a link is removed itself.
        let _ = fs::remove_file(&temporary);
        File::create_new(&temporary)?.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::file("write", path, error)
    })
}

/// Reads what a run wrote.
///
/// # Errors
/// If the directory holds no run, one of an unknown version, or impossible values. A last repetition that was cut off
/// is left out.
pub fn load(folder: &Path) -> Result<(Header, Vec<Repetition>)> {
    let path = folder.join(HEADER);
    let header: Header = input::document(&path, SCHEMA_VERSION)?;
    header.check().map_err(|why| Error::file("understand", &path, why))?;
    let path = folder.join(REPETITIONS);
    let file = File::open(&path).map_err(|error| Error::file("read", &path, error))?;
    let mut lines = Lines::new(&path, file);
    let mut repetitions: Vec<Repetition> = Vec::new();
    while let Some((number, line, ended)) = lines.next_line()? {
        let repetition = input::parse(line).and_then(|found: Repetition| header.takes(&found).map(|()| found));
        match repetition {
            Ok(repetition) => repetitions.push(repetition),
            Err(_) if !ended => {}
            Err(why) => return Err(Error::file("understand", &path, format!("line {number}: {why}"))),
        }
    }
    Ok((header, repetitions))
}

impl Header {
    /// Operations per second that were asked for; `None`: none were.
    #[must_use]
    pub fn rate_per_s(&self) -> Option<f64> {
        crate::workload::by_name(&self.workload).ok()?.rate_per_s(&self.settings)
    }

    /// Whether its values can be a run's.
    fn check(&self) -> std::result::Result<(), String> {
        if !self.configurations.contains(&self.baseline) {
            return Err(format!("its baseline `{}` is not among its configurations", self.baseline));
        }
        // A name of an earlier version may say what goes without saying by now.
        let known = |name: &String| configuration::parse(name).is_ok();
        if let Some(name) = self.configurations.iter().find(|name| !known(name)) {
            return Err(format!("`{}` is no configuration", name.escape_debug()));
        }
        // Nor is what is no number.
        let has_limit = self.residual_limit > 0.0;
        match self.spec.impossible() {
            Some(why) => Err(why.to_owned()),
            None if !has_limit => Err("its limit of the residual is not above 0".to_owned()),
            None => Ok(()),
        }
    }

    /// Whether a repetition can be one of this run.
    fn takes(&self, repetition: &Repetition) -> std::result::Result<(), String> {
        if !self.configurations.contains(&repetition.configuration) {
            return Err(format!(
                "configuration `{}` is not one of this run's",
                repetition.configuration.escape_debug()
            ));
        }
        // A run that goes on until something is told has more rounds than were asked for.
        let most = self.spec.rounds.max(super::schedule::MOST_ROUNDS);
        if repetition.round >= most {
            return Err(format!("round {} of {most}", u64::from(repetition.round) + 1));
        }
        match repetition.phases.iter().find(|phase| phase.length_ns == 0) {
            Some(phase) => Err(format!("a {} phase of no length", phase.kind.name())),
            None => Ok(()),
        }
    }
}
