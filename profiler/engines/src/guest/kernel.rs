//! Kernels for guests: where they lie, whether they are any, which modules belong to them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use virtax_model::error::{Error, Result};

/// Where a kernel for guests is looked for before all others: a folder with `boot` and `lib/modules` in it.
pub const FOLDER_VARIABLE: &str = "VIRTAX_GUEST_KERNEL";
/// Where it lies if nothing is said.
pub(super) const FOLDER: &str = "/usr/share/virtax/guest-kernel";

/// Where `cargo xtask guest-kernel` puts one: `virtax/guest-kernel` in the user's cache folder.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("virtax/guest-kernel"))
}

/// A kernel that a guest can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// Release of the kernel, as `uname -r` says it in the guest.
    pub release: String,
    /// Folder of its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// The kernel in the folder that `VIRTAX_GUEST_KERNEL` names, else the host's own if it is readable, else the one
    /// that was installed with virtax, else the one that `cargo xtask guest-kernel` has fetched.
    ///
    /// # Errors
    /// If there is none, or if what is there is none.
    pub fn find() -> Result<Self> {
        if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
            return Self::in_root(Path::new(&folder)).unwrap_or_else(|| {
                Err(refuse(&format!("{FOLDER_VARIABLE} names a folder without boot/vmlinuz-*: {}", folder.display())))
            });
        }
        let own = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let own = PathBuf::from(format!("/boot/vmlinuz-{}", own.trim()));
        if fs::File::open(&own).is_ok() {
            return Self::of(&own, Path::new("/"));
        }
        let cached = cache();
        let folders = [Some(PathBuf::from(FOLDER)), cached.clone()];
        folders.iter().flatten().find_map(|folder| Self::in_root(folder)).unwrap_or_else(|| {
            let cached = cached.map_or_else(String::new, |folder| format!(" or {}", folder.display()));
            Err(refuse(&format!("neither {} can be read, nor is there one in {FOLDER}{cached}", own.display())))
        })
    }

    /// The kernel in this file; its modules lie where a distribution has them: `lib/modules` beside the folder of the
    /// image.
    ///
    /// # Errors
    /// If it is none.
    pub fn at(image: &Path) -> Result<Self> {
        Self::of(image, image.parent().and_then(Path::parent).unwrap_or(Path::new("/")))
    }

    /// The newest kernel below a root's `boot`.
    fn in_root(root: &Path) -> Option<Result<Self>> {
        let entries = fs::read_dir(root.join("boot")).ok()?;
        let mut images: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
            .collect();
        images.sort();
        Some(Self::of(&images.pop()?, root))
    }

    /// The kernel in this file, with its modules below `root`.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(image: &Path, root: &Path) -> Result<Self> {
        let bytes = fs::read(image).map_err(|error| Error::file("read", image, error))?;
        let release = release(&bytes)
            .ok_or_else(|| refuse(&format!("{} is no Linux kernel (bzImage) for this processor", image.display())))?;
        let modules = root.join("lib/modules").join(&release);
        Ok(Self { image: image.to_owned(), release, modules })
    }
}

fn refuse(why: &str) -> Error {
    Error::unsupported(
        "there is no kernel for a guest",
        why,
        format!(
            "let {FOLDER_VARIABLE} name a folder with a distribution's boot/vmlinuz-* and lib/modules (`cargo xtask guest-kernel` fetches Debian's)"
        ),
    )
}

/// The release in an image's header (`Documentation/arch/x86/boot.rst`): its signature at 0x202, and at 0x20e the
/// offset, less 0x200, of a text that begins with it.
fn release(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = usize::from(u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?)) + 0x200;
    let text = image.get(offset..)?.split(|byte| *byte == 0 || *byte == b' ').next()?;
    let is_release = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+_~".contains(byte);
    if text.is_empty() || text.len() > 64 || !text.iter().all(is_release) {
        return None;
    }
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x80u16.to_le_bytes());
        bytes[0x280..0x280 + text.len()].copy_from_slice(text);
        bytes
    }

    #[test]
    fn the_release_is_the_first_word_of_the_version() {
        assert_eq!(release(&image(b"6.1.0-42-cloud-amd64 (x@y) #1 SMP\0")).as_deref(), Some("6.1.0-42-cloud-amd64"));
        assert_eq!(release(&image(b"../../etc \0")), None);
        assert_eq!(release(&image(b"")), None);
        assert_eq!(release(b"\x7fELF"), None);
    }

    #[test]
    fn what_is_no_kernel_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz-1");
        fs::write(&path, "none").unwrap();
        let error = Kernel::of(&path, folder.path()).unwrap_err().to_string();
        assert!(error.contains("no Linux kernel") && error.contains("vmlinuz-1"), "{error}");
        assert!(Kernel::in_root(folder.path()).is_none());
    }

    proptest! {
        #[test]
        fn images_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..0x400), signed: bool) {
            if signed && bytes.len() > 0x206 {
                bytes[0x202..0x206].copy_from_slice(b"HdrS");
            }
            let _ = release(&bytes);
        }
    }
}
