//! A run's directory. Every repetition is saved as it ends, so that an interrupted run still reports what it has.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use virtax_model::{
    header::{Header, SCHEMA_VERSION},
    whole::write_json,
};

use super::{plan::MOST_ROUNDS, profiles};
use crate::{
    counts::Repetition,
    engine::configuration,
    error::{Error, Result},
    input::{self, Lines},
    profile::Profile,
    records::{self, Record},
    run_folder::{HEADER, REPETITIONS, is_ours, records_path, stacks_path},
};

/// What a repetition brought home.
pub struct Brought {
    /// Counts of the repetition.
    pub repetition: Repetition,
    /// Single requests.
    pub records: Vec<Record>,
    /// Stacks, if they were sampled.
    pub profile: Option<Profile>,
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

    /// Goes on in the directory of an earlier run. A last repetition that was cut off goes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn reopen(folder: &Path) -> Result<Self> {
        let path = folder.join(REPETITIONS);
        let fail = |error| Error::file("write to", &path, error);
        let bytes = fs::read(&path).map_err(fail)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let repetitions = OpenOptions::new().append(true).open(&path).map_err(fail)?;
        repetitions.set_len(whole as u64).map_err(fail)?;
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

/// Reads what a run wrote.
///
/// # Errors
/// If the directory holds no run, one of an unknown version, or impossible values. A last repetition that was cut off
/// is left out.
pub fn load(folder: &Path) -> Result<(Header, Vec<Repetition>)> {
    let path = folder.join(HEADER);
    let header: Header = input::document(&path, SCHEMA_VERSION)?;
    check(&header).map_err(|why| Error::file("understand", &path, why))?;
    let path = folder.join(REPETITIONS);
    let file = File::open(&path).map_err(|error| Error::file("read", &path, error))?;
    let mut lines = Lines::new(&path, file);
    let mut repetitions: Vec<Repetition> = Vec::new();
    while let Some((number, line, ended)) = lines.next_line()? {
        let repetition = input::parse(line).and_then(|found: Repetition| takes(&header, &found).map(|()| found));
        match repetition {
            Ok(repetition) => repetitions.push(repetition),
            Err(_) if !ended => {}
            Err(why) => return Err(Error::file("understand", &path, format!("line {number}: {why}"))),
        }
    }
    Ok((header, repetitions))
}

/// Whether a header's values can be a run's.
fn check(header: &Header) -> std::result::Result<(), String> {
    if !header.configurations.contains(&header.baseline) {
        return Err(format!("its baseline `{}` is not among its configurations", header.baseline));
    }
    // A name of an earlier version may say what goes without saying by now.
    let known = |name: &String| configuration::parse(name).is_ok();
    if let Some(name) = header.configurations.iter().find(|name| !known(name)) {
        return Err(format!("`{}` is no configuration", name.escape_debug()));
    }
    // Nor is what is no number.
    let has_limit = header.residual_limit > 0.0;
    match header.spec.impossible() {
        Some(why) => Err(why.to_owned()),
        None if !has_limit => Err("its limit of the residual is not above 0".to_owned()),
        None => Ok(()),
    }
}

/// Whether a repetition can be one of a run.
fn takes(header: &Header, repetition: &Repetition) -> std::result::Result<(), String> {
    if !header.configurations.contains(&repetition.configuration) {
        return Err(format!("configuration `{}` is not one of this run's", repetition.configuration.escape_debug()));
    }
    // A run that goes on until something is told has more rounds than were asked for.
    let most = header.spec.rounds.max(MOST_ROUNDS);
    if repetition.round >= most {
        return Err(format!("round {} of {most}", u64::from(repetition.round) + 1));
    }
    match repetition.phases.iter().find(|phase| phase.length_ns == 0) {
        Some(phase) => Err(format!("a {} phase of no length", phase.kind.name())),
        None => Ok(()),
    }
}
