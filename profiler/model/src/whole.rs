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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_not_through_a_link() {
        let folder = std::env::temp_dir().join(format!("virtax-whole-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("file"), folder.join("other"));
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        write_whole(&path, b"ours").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"ours".to_vec(), b"theirs".to_vec()));
        assert!(!path.is_symlink());
        // Nothing but the two is left, whether it can be written or not.
        let impossible = folder.join("no-folder/file");
        assert!(write_json(&impossible, &1).unwrap_err().to_string().contains("no-folder"));
        fs::create_dir(folder.join("folder")).unwrap();
        fs::write(folder.join("folder/content"), "").unwrap();
        write_whole(&folder.join("folder"), b"ours").unwrap_err();
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "folder", "other"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
