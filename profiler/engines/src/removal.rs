//! The removal of what a run has made: each kind of item by its owner.

use std::{fs, path::Path};

use crate::{
    cgroup, engine,
    ledger::{Item, PROGRAMS, lies_elsewhere},
    net,
};
use virtax_model::error::{Error, Result};
use virtax_probes::process;

/// The remedy for what another version has made.
const CLEAN: &str = "remove it by the version of virtax that made it: virtax clean";

/// Removes an item; what is gone already is no error.
///
/// # Errors
/// If it is still there afterwards.
pub fn remove(item: &Item) -> Result<()> {
    match item {
        Item::Namespace { name } => net::delete_namespace(name),
        Item::Link { name } => net::delete_link(name),
        Item::Container { engine, .. } | Item::Network { engine, .. } | Item::Image { engine, .. } => {
            let unknown =
                || Error::engine(format!("cannot remove {item}"), format!("no engine is called {engine}"), CLEAN);
            engine::by_name(engine).ok_or_else(unknown)?.remove(item)
        }
        Item::Rule { arguments } => net::delete_rule(arguments),
        Item::Sysctl { path, before } => fs::write(path, before).map_err(|error| Error::file("restore", path, error)),
        Item::Cgroup { path } => cgroup::delete(path),
        Item::Folder { path } => remove_folder(path),
        Item::Machine { name } => remove_vm(name),
        Item::HugePages { path, pages } => give_back(path, *pages),
        Item::Process { pid, started } => process::kill(*pid, *started),
    }
}

/// Ends QEMU by the name that the run gave its machine, and nobody else can have given to another.
fn remove_vm(name: &str) -> Result<()> {
    if !name.starts_with("virtax-") {
        return Ok(());
    }
    match process::machine(name).and_then(|pid| Some((pid, process::started(pid)?))) {
        Some((pid, started)) => process::kill(pid, started),
        None => Ok(()),
    }
}

/// Takes huge pages off again: of as many as there are now, because another run may have added some meanwhile.
fn give_back(path: &Path, pages: u64) -> Result<()> {
    let fail = |error: &dyn std::fmt::Display| Error::file("restore", path, error);
    let now: u64 = fs::read_to_string(path)
        .map_err(|error| fail(&error))?
        .trim()
        .parse()
        .map_err(|error: std::num::ParseIntError| fail(&error))?;
    fs::write(path, now.saturating_sub(pages).to_string()).map_err(|error| fail(&error))
}

/// Removes a folder of programs, and the parent if it was the last; never anything outside of [`PROGRAMS`].
fn remove_folder(path: &Path) -> Result<()> {
    if path.parent() != Some(Path::new(PROGRAMS)) && !lies_elsewhere(path) {
        return Err(Error::file("remove", path, format!("it does not lie in {PROGRAMS}")));
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        _ => {
            let _ = fs::remove_dir(PROGRAMS);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nr_hugepages");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("512\n");
        remove(&Item::HugePages { path: path.clone(), pages: 128 }).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "384");
        // Somebody has taken them off already.
        write("100\n");
        remove(&Item::HugePages { path: path.clone(), pages: 128 }).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0");
        write("many");
        assert!(remove(&Item::HugePages { path, pages: 1 }).is_err());
    }
}
