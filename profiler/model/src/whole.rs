//! Files that are written whole or not at all.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    run_folder::NEW,
};

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
