//! Modules of a guest's kernel: those wanted, and those that they need, in the order in which they load.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use object::{Object, ObjectSection};

use virtax_model::error::{Error, Result};

/// The files of these modules and of what they depend on, dependencies first. What is built into the kernel needs no
/// file.
///
/// # Errors
/// If one is neither there nor built in, or cannot be read.
pub fn closure(folder: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let files = files_below(folder);
    let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let builtin: BTreeSet<String> = builtin.lines().map(|line| module_name(Path::new(line))).collect();
    let mut order = Order { files, builtin, done: BTreeSet::new(), order: Vec::new() };
    for name in wanted {
        order.add(name).map_err(|why| {
            Error::unsupported(
                format!("the guest's kernel has no driver {name}"),
                format!("{why} (in {})", folder.display()),
                "take a kernel with its modules: a distribution's linux-image",
            )
        })?;
    }
    Ok(order.order)
}

/// Largest module, decompressed, bytes.
const LARGEST: u64 = 256 << 20;

/// A module's bytes, decompressed as its name says: distributions compress them with xz, zstd or gzip.
///
/// # Errors
/// If it cannot be read, or is not what its name says.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    let mut take = |from: &mut dyn Read| from.take(LARGEST).read_to_end(&mut bytes);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => take(&mut lzma_rust2::XzReader::new(file, true))?,
        Some("zst") => {
            let mut reader = ruzstd::decoding::StreamingDecoder::new(file)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            take(&mut reader)?
        }
        Some("gz") => take(&mut flate2::read::GzDecoder::new(file))?,
        _ => take(&mut &file)?,
    };
    Ok(bytes)
}

/// What a module is called when it is not compressed: `veth.ko` of `veth.ko.xz`.
#[must_use]
pub fn plain_name(path: &Path) -> String {
    format!("{}.ko", module_name(path))
}

struct Order {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    done: BTreeSet<String>,
    order: Vec<PathBuf>,
}

impl Order {
    fn add(&mut self, name: &str) -> std::result::Result<(), String> {
        let name = name.replace('-', "_");
        // Noted before its dependencies: modules that need each other do not exist, but files may say so.
        if self.builtin.contains(&name) || !self.done.insert(name.clone()) {
            return Ok(());
        }
        let path = self.files.get(&name).cloned().ok_or_else(|| format!("there is no {name}.ko"))?;
        let bytes = read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let needed = dependencies(&bytes).ok_or_else(|| format!("{} is no module", path.display()))?;
        needed.iter().try_for_each(|needed| self.add(needed))?;
        self.order.push(path);
        Ok(())
    }
}

/// `virtio_net` of `kernel/drivers/net/virtio_net.ko`, compressed or not.
fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}

fn files_below(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.join("kernel")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if entry.file_name().to_string_lossy().contains(".ko") => {
                    found.insert(module_name(&entry.path()), entry.path());
                }
                _ => {}
            }
        }
    }
    found
}

/// What a module says that it needs: `depends=a,b` in its section `.modinfo`.
fn dependencies(module: &[u8]) -> Option<Vec<String>> {
    let file = object::File::parse(module).ok()?;
    let information = file.section_by_name(".modinfo")?.data().ok()?.to_owned();
    let fields = information.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let depends = fields.into_iter().find_map(|field| field.strip_prefix("depends=").map(str::to_owned));
    let list = depends.unwrap_or_default();
    Some(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use object::write;

    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        let mut file =
            write::Object::new(object::BinaryFormat::Elf, object::Architecture::X86_64, object::Endianness::Little);
        let section = file.add_section(Vec::new(), b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        file.append_section_data(section, format!("license=GPL\0depends={depends}\0name=x\0").as_bytes(), 1);
        file.write().unwrap()
    }

    fn tree(modules: &[(&str, &str)], builtin: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("kernel/drivers/net")).unwrap();
        for (name, depends) in modules {
            fs::write(folder.path().join("kernel/drivers/net").join(name), module(depends)).unwrap();
        }
        fs::write(folder.path().join("modules.builtin"), builtin).unwrap();
        folder
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tree(
            &[("virtio_net.ko", "net_failover,virtio"), ("net-failover.ko", "failover,virtio"), ("failover.ko", "")],
            "kernel/drivers/virtio/virtio.ko\n",
        );
        let found = closure(folder.path(), &["virtio_net", "failover", "virtio"]).unwrap();
        assert_eq!(names(&found), ["failover.ko", "net-failover.ko", "virtio_net.ko"]);
    }

    #[test]
    fn circles_end_and_what_is_missing_is_named() {
        let folder = tree(&[("a.ko", "b"), ("b.ko", "a"), ("c.ko", "gone"), ("d.ko.xz", ""), ("f.ko.zst", "")], "");
        assert_eq!(names(&closure(folder.path(), &["a"]).unwrap()), ["b.ko", "a.ko"]);
        let refusal = |name| closure(folder.path(), &[name]).unwrap_err().to_string();
        assert!(refusal("c").contains("no gone.ko") && refusal("c").contains("gone"));
        // Not what their names say.
        assert!(refusal("d").contains("d.ko.xz") && refusal("f").contains("f.ko.zst"));
        // Compressed, as they should be.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &module("a")).unwrap();
        fs::write(folder.path().join("kernel/g.ko.gz"), gzip.finish().unwrap()).unwrap();
        let found = closure(folder.path(), &["g"]).unwrap();
        assert_eq!(names(&found), ["b.ko", "a.ko", "g.ko.gz"]);
        assert_eq!(read(&found[2]).unwrap(), module("a"));
        assert_eq!(plain_name(&found[2]), "g.ko");
        fs::write(folder.path().join("kernel/e.ko"), "text").unwrap();
        assert!(refusal("e").contains("is no module"));
    }
}
