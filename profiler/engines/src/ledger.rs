//! The ledger: what a run creates is written down before it is created, so that it can be removed after any end of
//! the run, `kill -9` included.

use std::{
    cell::RefCell,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use serde::{Deserialize, Serialize};

use virtax_model::error::{Error, Result};

/// Where live runs keep their ledgers and working files; only root can look inside.
pub const RUNS: &str = "/run/virtax";

/// Where live runs keep the programs that they start.
pub const PROGRAMS: &str = "/var/lib/virtax";

/// Something that a run creates outside its own memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Item {
    /// A network namespace under `/run/netns`.
    Namespace {
        /// Name of the namespace.
        name: String,
    },
    /// A link in the host's namespace; its peer goes with it.
    Link {
        /// Name of the link.
        name: String,
    },
    /// A container.
    Container {
        /// Name of the engine whose it is.
        #[serde(default = "first_engine")]
        engine: String,
        /// Name of the container.
        name: String,
    },
    /// A container network.
    Network {
        /// Name of the engine whose it is.
        #[serde(default = "first_engine")]
        engine: String,
        /// Name of the network.
        name: String,
    },
    /// A container image.
    Image {
        /// Name of the engine whose it is.
        #[serde(default = "first_engine")]
        engine: String,
        /// Reference of the image.
        name: String,
    },
    /// A firewall rule: what follows `iptables -I` or `-D`.
    Rule {
        /// The arguments.
        arguments: Vec<String>,
    },
    /// A kernel setting and its value before the run.
    Sysctl {
        /// File below `/proc/sys`.
        path: PathBuf,
        /// What it held.
        before: String,
    },
    /// A control group.
    Cgroup {
        /// Folder of the group, below [`crate::cgroup::CGROUPS`].
        path: PathBuf,
    },
    /// A folder for files that must be executable: `/run` often is not.
    Folder {
        /// Path of the folder, below [`PROGRAMS`].
        path: PathBuf,
    },
    /// A VM that libvirt starts.
    Machine {
        /// Name of its domain.
        name: String,
    },
    /// Huge pages that were added to the host's.
    HugePages {
        /// The file that says how many there are.
        path: PathBuf,
        /// How many were added.
        pages: u64,
    },
    /// A process.
    Process {
        /// Number of the process.
        pid: u32,
        /// Start of the process, in ticks since boot: numbers are used again.
        started: u64,
    },
}

/// Whose containers are of which the ledger of an earlier version does not say it.
fn first_engine() -> String {
    "docker".to_owned()
}

impl Item {
    /// Name of the engine that made it, and removes it; `None`: virtax itself did.
    #[must_use]
    pub fn engine(&self) -> Option<&str> {
        match self {
            Self::Container { engine, .. } | Self::Network { engine, .. } | Self::Image { engine, .. } => Some(engine),
            Self::Namespace { .. }
            | Self::Link { .. }
            | Self::Rule { .. }
            | Self::Sysctl { .. }
            | Self::Cgroup { .. }
            | Self::Folder { .. }
            | Self::Machine { .. }
            | Self::HugePages { .. }
            | Self::Process { .. } => None,
        }
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace { name } => write!(formatter, "network namespace {name}"),
            Self::Link { name } => write!(formatter, "link {name}"),
            Self::Container { name, .. } => write!(formatter, "container {name}"),
            Self::Network { name, .. } => write!(formatter, "container network {name}"),
            Self::Image { name, .. } => write!(formatter, "image {name}"),
            Self::Rule { arguments } => write!(formatter, "firewall rule {}", arguments.join(" ")),
            Self::Sysctl { path, before } => write!(formatter, "{} (back to {})", path.display(), before.trim()),
            Self::Cgroup { path } => write!(formatter, "control group {}", path.display()),
            Self::Folder { path } => write!(formatter, "folder {}", path.display()),
            Self::Machine { name } => write!(formatter, "virtual machine {name}"),
            Self::HugePages { path, pages } => write!(formatter, "{pages} huge pages ({})", path.display()),
            Self::Process { pid, .. } => write!(formatter, "process {pid}"),
        }
    }
}

/// What folders are for that lie on whatever disk a run's files are to lie: an overlay's upper layer, a VM's disk.
const ELSEWHERE: [&str; 2] = ["-over-", "-disk-"];

/// The name of a folder for an overlay's upper layer.
#[must_use]
pub fn upper_layer(run_id: &str, number: u32) -> String {
    format!("virtax-{run_id}{}{number}", ELSEWHERE[0])
}

/// The name of a folder for a VM's disk.
#[must_use]
pub fn disk_folder(run_id: &str, number: u32) -> String {
    format!("virtax-{run_id}{}{number}", ELSEWHERE[1])
}

/// Whether a folder is one that lies on whatever disk a run's files are to lie.
#[must_use]
pub fn lies_elsewhere(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_prefix("virtax-")) else { return false };
    let number = ELSEWHERE.iter().find_map(|purpose| name.split_once(purpose));
    number.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

/// Removes a folder of programs, and the parent if it was the last; never anything outside of [`PROGRAMS`], but for
/// folders that lie elsewhere by their names.
///
/// # Errors
/// If it lies elsewhere, or cannot be removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    if path.parent() != Some(Path::new(PROGRAMS)) && !lies_elsewhere(path) {
        return Err(Error::file("remove", path, format!("it does not lie in {PROGRAMS}")));
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        _ => {
            let _ = fs::remove_dir(PROGRAMS);
            Ok(())
        }
    }
}

/// The way in which an item is removed ([`crate::removal::remove`]); what is gone already is no error. The ledger does
/// not know the owners of its items: they all know the ledger.
pub type Remover = fn(&Item) -> Result<()>;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    number: usize,
    /// `None`: the item of this number was removed.
    item: Option<Item>,
}

struct Inner {
    folder: PathBuf,
    file: File,
    remove: Remover,
    items: Vec<Option<Item>>,
}

/// A live run's ledger. The last clone's end removes everything and the folder.
#[derive(Clone)]
pub struct Ledger(Rc<RefCell<Inner>>);

/// An item that exists as long as this does.
pub struct Lease {
    ledger: Ledger,
    number: usize,
}

impl Ledger {
    /// Opens the ledger of a new run, and locks it: the lock is how others know that the run is alive.
    ///
    /// # Errors
    /// If the folder exists, or cannot be made.
    pub fn create(runs: &Path, run_id: &str, remove: Remover) -> Result<Self> {
        let folder = runs.join(run_id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(runs)
            .and_then(|()| builder.recursive(false).create(&folder))
            .map_err(|error| Error::file("create", &folder, error))?;
        let path = folder.join("ledger");
        let file = File::create_new(&path).map_err(|error| Error::file("create", &path, error))?;
        file.lock().map_err(|error| Error::file("lock", &path, error))?;
        Ok(Self(Rc::new(RefCell::new(Inner { folder, file, remove, items: Vec::new() }))))
    }

    /// The run's folder for working files; it goes with the ledger.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.0.borrow().folder.clone()
    }

    /// Notes an item that is about to be created.
    ///
    /// # Errors
    /// If the file cannot be written: then the item must not be created.
    pub fn note(&self, item: Item) -> Result<Lease> {
        let mut inner = self.0.borrow_mut();
        let number = inner.items.len();
        inner.write(&Line { number, item: Some(item.clone()) })?;
        inner.items.push(Some(item));
        Ok(Lease { ledger: self.clone(), number })
    }
}

impl Inner {
    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).map_err(|error| Error::file("write", &self.folder, error))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|error| Error::file("write", &self.folder, error))
    }

    fn remove(&mut self, number: usize) {
        let Some(item) = self.items[number].take() else { return };
        match (self.remove)(&item) {
            Ok(()) => {
                if let Err(error) = self.write(&Line { number, item: None }) {
                    log::warn!("{error}");
                }
            }
            Err(error) => {
                log::warn!("{item} is left behind: {error}");
                self.items[number] = Some(item);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for number in (0..self.items.len()).rev() {
            self.remove(number);
        }
        if self.items.iter().all(Option::is_none) {
            if let Err(error) = fs::remove_dir_all(&self.folder) {
                log::warn!("cannot remove {}: {error}", self.folder.display());
            }
            // The parent stays while other runs live.
            let _ = self.folder.parent().map(fs::remove_dir);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ledger.0.borrow_mut().remove(self.number);
    }
}

/// What a dead run left.
pub struct Remains {
    /// Id of the run.
    pub run_id: String,
    folder: PathBuf,
    items: Vec<Item>,
    /// Kept locked: nobody else cleans up the same.
    _lock: Option<File>,
}

impl Remains {
    /// What is still there, last made first.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().rev()
    }

    /// Removes everything; reports what could not be.
    pub fn remove(self, remove: Remover) -> Vec<Error> {
        let errors: Vec<Error> = self.items().filter_map(|item| remove(item).err()).collect();
        if errors.is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
            let _ = self.folder.parent().map(fs::remove_dir);
        }
        errors
    }
}

/// The run, alive or dead, that has changed this setting and not put it back yet.
#[must_use]
pub fn changer_of(runs: &Path, setting: &Path) -> Option<String> {
    let folders = fs::read_dir(runs).ok()?.flatten().map(|entry| entry.path());
    let changes = |item: &Item| matches!(item, Item::Sysctl { path, .. } if path == setting);
    let mut found = folders.filter(|folder| read_items(&folder.join("ledger")).iter().any(changes));
    found.next().and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
}

/// Ids of the runs that live, and the remains of those that do not.
///
/// # Errors
/// If the folder of runs cannot be read.
pub fn survey(runs: &Path) -> Result<(Vec<String>, Vec<Remains>)> {
    let (mut alive, mut dead) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((alive, dead)),
        Err(error) => return Err(Error::file("read", runs, error)),
    };
    for entry in entries.flatten() {
        let folder = entry.path();
        let run_id = entry.file_name().to_string_lossy().into_owned();
        let Ok(file) = File::open(folder.join("ledger")) else {
            dead.push(Remains { run_id, folder, items: Vec::new(), _lock: None });
            continue;
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => alive.push(run_id),
            Err(TryLockError::Error(error)) => return Err(Error::file("lock", &folder, error)),
            Ok(()) => {
                let items = read_items(&folder.join("ledger"));
                dead.push(Remains { run_id, folder, items, _lock: Some(file) });
            }
        }
    }
    Ok((alive, dead))
}

/// Items noted and not removed. A line cut off by the end of its process is ignored: nothing was created after it.
fn read_items(path: &Path) -> Vec<Item> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut items: Vec<Option<Item>> = Vec::new();
    for line in text.lines() {
        let Ok(Line { number, item }) = serde_json::from_str(line) else { continue };
        match item {
            Some(item) => items.push(Some(item)),
            None if number < items.len() => items[number] = None,
            None => {}
        }
    }
    items.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_back(item: &Item) -> Result<()> {
        let Item::Sysctl { path, before } = item else { panic!("{item}") };
        fs::write(path, before).map_err(|error| Error::file("restore", path, error))
    }

    fn setting(folder: &Path, name: &str) -> Item {
        let path = folder.join(name);
        fs::write(&path, "changed").unwrap();
        Item::Sysctl { path, before: "before".to_owned() }
    }

    #[test]
    fn who_has_changed_a_setting_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, item) = (folder.path().join("runs"), setting(folder.path(), "one"));
        let path = folder.path().join("one");
        let ledger = Ledger::create(&runs, "a1b2c", put_back).unwrap();
        assert_eq!(changer_of(&runs, &path), None);
        let lease = ledger.note(item).unwrap();
        assert_eq!(changer_of(&runs, &path).as_deref(), Some("a1b2c"));
        assert_eq!(changer_of(&runs, &folder.path().join("two")), None);
        drop(lease);
        assert_eq!(changer_of(&runs, &path), None);
    }

    fn content(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn leases_and_the_ledgers_end_remove_items() {
        let temporary = tempfile::tempdir().unwrap();
        let runs = temporary.path().join("runs");
        let ledger = Ledger::create(&runs, "a1b2c", put_back).unwrap();
        let lease = ledger.note(setting(temporary.path(), "x")).unwrap();
        let other = ledger.note(setting(temporary.path(), "y")).unwrap();
        drop(lease);
        assert_eq!(content(temporary.path(), "x"), "before");
        assert_eq!(content(temporary.path(), "y"), "changed");
        drop((other, ledger));
        assert_eq!(content(temporary.path(), "y"), "before");
        assert!(!runs.exists());
    }

    #[test]
    fn a_living_run_is_left_alone_and_a_dead_one_is_cleaned() {
        let temporary = tempfile::tempdir().unwrap();
        let runs = temporary.path().join("runs");
        let living = Ledger::create(&runs, "aaaaa", put_back).unwrap();
        let (alive, dead) = survey(&runs).unwrap();
        assert_eq!((alive.as_slice(), dead.len()), (&["aaaaa".to_owned()][..], 0));

        let folder = runs.join("bbbbb");
        fs::create_dir(&folder).unwrap();
        let gone = setting(temporary.path(), "gone");
        let kept = setting(temporary.path(), "kept");
        let lines = [
            Line { number: 0, item: Some(gone) },
            Line { number: 1, item: Some(kept) },
            Line { number: 0, item: None },
        ];
        let mut text = lines.map(|line| serde_json::to_string(&line).unwrap()).join("\n");
        text.push_str("\n{\"number\":2,\"item\":{\"ki");
        fs::write(folder.join("ledger"), text).unwrap();
        let (_, mut dead) = survey(&runs).unwrap();
        let remains = dead.pop().unwrap();
        assert_eq!(remains.run_id, "bbbbb");
        assert_eq!(remains.items().count(), 1);
        assert!(remains.remove(put_back).is_empty());
        assert_eq!(content(temporary.path(), "kept"), "before");
        assert_eq!(content(temporary.path(), "gone"), "changed");
        assert!(!folder.exists());
        drop(living);
        assert!(!runs.exists());
    }

    #[test]
    fn no_runs_no_remains() {
        let temporary = tempfile::tempdir().unwrap();
        let (alive, dead) = survey(&temporary.path().join("none")).unwrap();
        assert!(alive.is_empty() && dead.is_empty());
    }
}
