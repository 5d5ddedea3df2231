//! The packer: a program of this host with everything that it needs to start elsewhere, as a tar. What runs in a
//! container, or in a VM, is then the same bytes as what runs natively, without any registry.
//!
//! Dynamic libraries are followed as the loader would look for them. What a program opens later by name (plug-ins, name
//! services, locales) is not seen: give it as an extra file.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use lddtree::DependencyAnalyzer;

use virtax_model::error::{Error, Result};

/// Where the loader finds libraries quickly, and those in unusual folders at all.
const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// Longest chain of scripts that interpret each other: the kernel's own limit.
const SCRIPT_DEPTH: usize = 4;
const SETUID_SETGID: u32 = 0o6000;

/// A file as it will lie in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// A copy of this file.
    Copy(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to this path.
    Link(PathBuf),
    /// An empty folder that anyone may write into.
    Folder,
}

/// A file of a pack, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    /// Bytes of a file.
    File(Vec<u8>),
    /// A symbolic link to this path.
    Link(PathBuf),
    /// An empty folder.
    Folder,
}

/// A program with its dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// Where the program lies, here and in the archive.
    pub program: PathBuf,
    /// What the user should know: permissions that were dropped.
    pub notes: Vec<String>,
    files: BTreeMap<PathBuf, (Content, u32)>,
}

/// Finds a program as a shell would.
///
/// # Errors
/// If there is none; `package` is the one of Debian's that brings it.
pub fn find_program(name: &str, package: &str) -> Result<PathBuf> {
    find_in(name, &std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())).ok_or_else(|| {
        Error::unsupported(
            format!("there is no {name}"),
            "it is not in PATH",
            format!("apt-get install --no-install-recommends {package} (it need not run as a service)"),
        )
    })
}

/// Finds a program as [`find_program`] does, also where only root has programs.
///
/// # Errors
/// As that.
pub fn find_tool(name: &str, package: &str) -> Result<PathBuf> {
    find_program(name, package).or_else(|error| find_in(name, "/usr/sbin:/sbin".as_ref()).ok_or(error))
}

fn find_in(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|found| {
        fs::metadata(found).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

impl Pack {
    /// A program, its loader and its libraries; of a script, its interpreter with all of that.
    ///
    /// # Errors
    /// If it is not there or no program for this host, if a library is missing, or a script's interpreter.
    pub fn of(program: &Path) -> Result<Self> {
        let program = std::path::absolute(program).map_err(|error| refuse(program, error, "give another path"))?;
        let mut pack = Self { program: program.clone(), notes: Vec::new(), files: BTreeMap::new() };
        pack.add_program(&program, SCRIPT_DEPTH)?;
        Ok(pack)
    }

    /// Adds another program, with all that it needs.
    ///
    /// # Errors
    /// As [`Pack::of`].
    pub fn add(&mut self, program: &Path) -> Result<()> {
        let program = std::path::absolute(program).map_err(|error| refuse(program, error, "give another path"))?;
        self.add_program(&program, SCRIPT_DEPTH)
    }

    /// Adds a file of these bytes.
    pub fn add_file(&mut self, inside: &Path, bytes: &[u8], mode: u32) {
        self.files.insert(inside.to_owned(), (Content::Bytes(bytes.to_vec()), mode & 0o777));
    }

    /// Adds a copy of a file of this host, at another place.
    pub fn add_copy(&mut self, inside: &Path, source: &Path, mode: u32) {
        self.files.insert(inside.to_owned(), (Content::Copy(source.to_owned()), mode & 0o777));
    }

    /// Adds an empty folder that anyone may write into.
    pub fn add_open_folder(&mut self, inside: &Path) {
        self.files.insert(inside.to_owned(), (Content::Folder, 0o777));
    }

    /// Where its files lie in the archive, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    fn add_program(&mut self, program: &Path, depth: usize) -> Result<()> {
        let metadata = fs::metadata(program).map_err(|error| refuse(program, error, "install it"))?;
        let mode = metadata.permissions().mode();
        if !metadata.is_file() || mode & 0o111 == 0 {
            return Err(refuse(program, "it is no executable file", "give the path of a program"));
        }
        if mode & SETUID_SETGID != 0 {
            self.notes.push(format!(
                "{} is setuid or setgid here; its copy is not, and has the rights of whoever starts it",
                program.display()
            ));
        }
        // A link stays one: `$ORIGIN` and programs that look at their own path mean the real file.
        let real = fs::canonicalize(program).map_err(|error| refuse(program, error, "install it"))?;
        if real != program {
            self.files.insert(program.to_owned(), (Content::Link(real.clone()), 0o777));
        }
        self.add_copy(&real, &real, mode);
        let start = first_bytes(program)?;
        let (own, its) = (elf_machine(&first_bytes(Path::new("/proc/self/exe"))?), elf_machine(&start));
        if its.is_some() && its != own {
            return Err(refuse(program, "it is a program for another processor", "give one for this machine"));
        }
        match start.strip_prefix(b"#!") {
            Some(line) => self.add_interpreter(program, line, depth),
            None => self.add_libraries(program),
        }
    }

    /// What a script names in its first line, and, of `env`, the program that it looks up.
    fn add_interpreter(&mut self, script: &Path, line: &[u8], depth: usize) -> Result<()> {
        let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
        let mut words = line.split_whitespace();
        let missing =
            |what: &str| refuse(script, format!("its interpreter {what} is missing"), "install the interpreter");
        let interpreter = words.next().ok_or_else(|| missing("(none named)"))?;
        if depth == 0 {
            return Err(refuse(script, "its interpreters are scripts of scripts", "give the program itself"));
        }
        let path = PathBuf::from(interpreter);
        if !path.is_absolute() || !path.is_file() {
            return Err(missing(interpreter));
        }
        self.add_program(&path, depth - 1)?;
        if path.file_name().is_some_and(|name| name == "env") {
            let name =
                words.find(|word| !word.starts_with('-') && !word.contains('=')).ok_or_else(|| missing("of env"))?;
            let search = std::env::var_os("PATH").unwrap_or_default();
            let found = find_in(name, &search).ok_or_else(|| missing(name))?;
            self.add_program(&found, depth - 1)?;
        }
        Ok(())
    }

    fn add_libraries(&mut self, program: &Path) -> Result<()> {
        let real = fs::canonicalize(program).map_err(|error| refuse(program, error, "install it"))?;
        let tree = DependencyAnalyzer::default()
            .analyze(&real)
            .map_err(|error| refuse(program, error, "give a program for this machine (ELF), or a script"))?;
        // A static program has neither.
        if tree.interpreter.is_none() && tree.libraries.is_empty() {
            return Ok(());
        }
        let mut missing: Vec<&str> =
            tree.libraries.values().filter(|library| !library.found()).map(|library| library.name.as_str()).collect();
        missing.sort_unstable();
        if !missing.is_empty() {
            return Err(refuse(
                program,
                format!("its library {} is missing", missing.join(", ")),
                "install the package that brings it; `ldd` shows what the loader finds",
            ));
        }
        for library in tree.libraries.values() {
            let source = library.realpath.as_deref().unwrap_or(&library.path);
            let mode = fs::metadata(source).map_or(0o755, |metadata| metadata.permissions().mode());
            self.add_copy(&library.path, source, mode);
        }
        if let Some(interpreter) = &tree.interpreter {
            self.add_copy(Path::new(interpreter), Path::new(interpreter), 0o755);
        }
        if Path::new(LOADER_CACHE).is_file() {
            self.add_copy(Path::new(LOADER_CACHE), Path::new(LOADER_CACHE), 0o644);
        }
        Ok(())
    }

    /// Shows every file, in order of their paths, with its permissions.
    ///
    /// # Errors
    /// If one cannot be read, and the function's.
    pub fn visit(&self, mut function: impl FnMut(&Path, Packed, u32) -> std::io::Result<()>) -> Result<()> {
        for (inside, (content, mode)) in &self.files {
            let packed = match content {
                Content::Copy(source) => fs::read(source).map(Packed::File),
                Content::Bytes(bytes) => Ok(Packed::File(bytes.clone())),
                Content::Link(target) => Ok(Packed::Link(target.clone())),
                Content::Folder => Ok(Packed::Folder),
            };
            packed
                .and_then(|packed| function(inside, packed, *mode))
                .map_err(|error| Error::file("pack", inside, error))?;
        }
        Ok(())
    }

    /// Adds a folder with all that is in it, for whoever the server is there. What is neither file nor folder is left
    /// out.
    ///
    /// # Errors
    /// If something in it cannot be read.
    pub fn add_tree(&mut self, folder: &Path, inside: &Path) -> Result<()> {
        let fail = |error: std::io::Error| Error::file("pack", folder, error);
        self.add_open_folder(inside);
        for entry in fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (from, to) = (entry.path(), inside.join(entry.file_name()));
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                self.add_tree(&from, &to)?;
            } else if kind.is_file() {
                self.add_file(&to, &fs::read(&from).map_err(fail)?, 0o666);
            }
        }
        Ok(())
    }

    /// Writes all files as a tar: owned by root, dated 1970, so that the same files make the same bytes.
    ///
    /// # Errors
    /// If a file cannot be read, or the archive not be written.
    pub fn write_tar(&self, into: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(into);
        self.visit(|inside, packed, mode| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_mtime(0);
            match packed {
                Packed::File(bytes) => {
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, relative(inside), bytes.as_slice())
                }
                Packed::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    archive.append_link(&mut header, relative(inside), target)
                }
                Packed::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    archive.append_data(&mut header, relative(inside), std::io::empty())
                }
            }
        })?;
        archive.finish().map_err(|error| Error::file("pack", &self.program, error))
    }
}

/// An absolute path as an archive names it: without its root, and without steps upwards.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// The processor that an ELF file is for: `e_machine` (elf(5)); `None`: it is none.
fn elf_machine(bytes: &[u8]) -> Option<[u8; 2]> {
    let is_elf = bytes.starts_with(b"\x7fELF");
    is_elf.then(|| bytes.get(18..20)?.try_into().ok()).flatten()
}

fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let fail = |error: std::io::Error| refuse(path, error, "make it readable");
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(fail)?.take(256).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn refuse(program: &Path, why: impl std::fmt::Display, remedy: &str) -> Error {
    Error::unsupported(format!("cannot pack {}", program.display()), why, remedy)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn executable(folder: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Compiles C, which everyone who builds virtax can.
    fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let (code, out) = (folder.join(format!("{name}.c")), folder.join(name));
        fs::write(&code, source).unwrap();
        let status =
            Command::new("cc").arg(&code).arg("-o").arg(&out).args(flags).current_dir(folder).status().unwrap();
        assert!(status.success());
        out
    }

    fn names(pack: &Pack) -> Vec<String> {
        pack.paths().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_tree_is_packed_for_whoever_the_server_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("db/tables")).unwrap();
        fs::write(folder.path().join("db/tables/one"), b"rows").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("db/link")).unwrap();
        let mut pack = Pack::of(&executable(folder.path(), "program", b"#!/bin/sh\n", 0o755)).unwrap();
        pack.add_tree(&folder.path().join("db"), Path::new("/prepared")).unwrap();
        let mut bytes = Vec::new();
        pack.write_tar(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let found: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()))
            .filter(|(path, _)| path.starts_with("prepared"))
            .collect();
        let tree = [("prepared", 0o777), ("prepared/tables", 0o777), ("prepared/tables/one", 0o666)];
        assert_eq!(found, tree.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn a_dynamic_program_brings_its_loader_and_libraries() {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), "libown.so", "int own(void) { return 42; }", &["-shared", "-fPIC"]);
        let flags = ["-L.", "-lown", "-Wl,-rpath,$ORIGIN"];
        let program = compile(folder.path(), "main", "int own(void); int main(void) { return own(); }", &flags);
        let pack = Pack::of(&program).unwrap();
        let found = names(&pack);
        assert!(
            found.iter().any(|name| name == "libown.so") && found.iter().any(|name| name == "libc.so.6"),
            "{found:?}"
        );
        assert!(found.iter().any(|name| name.starts_with("ld-linux")), "{found:?}");

        // Unpacked elsewhere, under nothing but its own files, it runs.
        let root = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        pack.write_tar(&mut bytes).unwrap();
        tar::Archive::new(bytes.as_slice()).unpack(root.path()).unwrap();
        let inside = root.path().join(relative(&program));
        assert_eq!(fs::read(&inside).unwrap(), fs::read(&program).unwrap());
        let libraries = inside.parent().unwrap();
        let loader =
            pack.paths().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("ld-linux")).unwrap();
        let status = Command::new(root.path().join(relative(loader)))
            .arg("--library-path")
            .arg(format!("{}:{}", libraries.display(), root.path().join("lib/x86_64-linux-gnu").display()))
            .arg(&inside)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(42));
        let mut again = Vec::new();
        pack.write_tar(&mut again).unwrap();
        assert_eq!(bytes, again);
    }

    #[test]
    fn a_missing_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let library = compile(folder.path(), "libgone.so", "int own(void) { return 42; }", &["-shared", "-fPIC"]);
        let source = "int own(void); int main(void) { return own(); }";
        let program = compile(folder.path(), "main", source, &["-L.", "-lgone"]);
        fs::remove_file(library).unwrap();
        let error = Pack::of(&program).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("libgone.so is missing"), "{error}");
    }

    #[test]
    fn a_static_program_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let program = compile(folder.path(), "main", "int main(void) { return 0; }", &["-static"]);
        assert_eq!(names(&Pack::of(&program).unwrap()), ["main"]);
    }

    #[test]
    fn a_link_to_a_program_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let program = compile(folder.path(), "main", "int main(void) { return 0; }", &["-static"]);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let pack = Pack::of(&link).unwrap();
        assert_eq!(
            (pack.program.as_path(), names(&pack)),
            (link.as_path(), vec!["link".to_owned(), "main".to_owned()])
        );
        let mut bytes = Vec::new();
        pack.write_tar(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let first = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(first.link_name().unwrap().unwrap(), fs::canonicalize(&program).unwrap());
    }

    #[test]
    fn a_script_brings_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let script = executable(folder.path(), "script", b"#!/bin/sh -e\nexit 0\n", 0o755);
        let found = names(&Pack::of(&script).unwrap());
        assert!(found.contains(&"sh".to_owned()) && found.contains(&"libc.so.6".to_owned()), "{found:?}");
        let through_env = executable(folder.path(), "env-script", b"#!/usr/bin/env sh\nexit 0\n", 0o755);
        let found = names(&Pack::of(&through_env).unwrap());
        assert!(found.contains(&"env".to_owned()) && found.contains(&"sh".to_owned()), "{found:?}");
    }

    #[test]
    fn what_cannot_be_packed_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |name: &str, content: &[u8], mode: u32| {
            Pack::of(&executable(folder.path(), name, content, mode)).unwrap_err().to_string()
        };
        assert!(refusal("lost", b"#!/no/such/interpreter\n", 0o755).contains("/no/such/interpreter is missing"));
        assert!(refusal("nobody", b"#!/usr/bin/env no-such-program\n", 0o755).contains("no-such-program is missing"));
        assert!(refusal("none", b"#!\n", 0o755).contains("none named"));
        assert!(refusal("text", b"just text", 0o755).contains("ELF"));
        assert!(refusal("plain", b"\x7fELF", 0o644).contains("no executable file"));
        let mut foreign = b"\x7fELF\x02\x01\x01".to_vec();
        foreign.resize(64, 0);
        foreign[18] = 0xF7;
        assert!(refusal("foreign", &foreign, 0o755).contains("another processor"));
        let itself = folder.path().join("itself");
        fs::write(&itself, format!("#!{}\n", itself.display())).unwrap();
        fs::set_permissions(&itself, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Pack::of(&itself).unwrap_err().to_string().contains("scripts of scripts"));
        assert!(Pack::of(Path::new("/no/such/program")).is_err());
        assert!(
            find_program("no-such-program", "its-package")
                .unwrap_err()
                .to_string()
                .contains("install --no-install-recommends its-package")
        );
    }

    #[test]
    fn no_copy_gains_rights() {
        let folder = tempfile::tempdir().unwrap();
        let program = executable(folder.path(), "script", b"#!/bin/sh\n", 0o4755);
        let pack = Pack::of(&program).unwrap();
        assert!(pack.notes[0].contains("setuid"), "{:?}", pack.notes);
        let mut bytes = Vec::new();
        pack.write_tar(&mut bytes).unwrap();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            assert_eq!(entry.unwrap().header().mode().unwrap() & SETUID_SETGID, 0);
        }
    }

    #[test]
    fn no_file_leaves_the_archive() {
        assert_eq!(relative(Path::new("/a/../../b")), Path::new("a/b"));
    }
}
