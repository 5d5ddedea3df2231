//! `cargo xtask package`: a Debian package of what was built, and its trial on a host that has nothing else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, run};

const BINARY: &str = "target/release/virtax";
/// Shells, and where Debian looks for their completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/virtax"),
    ("zsh", "usr/share/zsh/vendor-completions/_virtax"),
    ("fish", "usr/share/fish/vendor_completions.d/virtax.fish"),
];
/// Files of the project, and where the package has them.
const DOCUMENTS: [(&str, &str); 8] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "changelog"),
    ("docs/files.md", "files.md"),
    ("docs/method.md", "method.md"),
    ("docs/overhead.md", "overhead.md"),
    ("docs/privileges.md", "privileges.md"),
    ("docs/truth.md", "truth.md"),
    ("docs/virtual-machines.md", "virtual-machines.md"),
];

/// A folder that is put together anew.
struct Tree(PathBuf);

impl Tree {
    fn new(path: &str) -> Result<Self> {
        let path = PathBuf::from(path);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf> {
        let path = self.0.join(name);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
    fn write_compressed(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.write(name, bytes, 0o644)?;
        let mut gzip = command("gzip");
        gzip.args(["-9", "--no-name"]).arg(path);
        run(gzip)
    }
}

fn virtax(arguments: &[&str]) -> Result<String> {
    let mut says = command(BINARY);
    says.args(arguments);
    output(says)
}

fn architecture() -> Result<String> {
    let mut says = command("dpkg");
    says.arg("--print-architecture");
    Ok(output(says)?.trim().to_owned())
}

fn control(architecture: &str, kilobytes: u64) -> String {
    format!(
        "Package: virtax\nVersion: {}\nArchitecture: {architecture}\nMaintainer: the virtax developers <virtax@localhost>\n\
         Installed-Size: {kilobytes}\nDepends: libc6 (>= 2.36), libgcc-s1\nRecommends: iptables, nftables\n\
         Suggests: docker.io, redis-server, qemu-system-x86, libvirt-daemon-driver-qemu\nSection: devel\nPriority: optional\n\
         Description: shows where, on the path of a request, virtualization charges its toll\n \
         virtax runs a workload natively, in containers and in virtual machines, follows\n \
         requests through the kernel with eBPF, and prints for each configuration a table\n \
         of stages whose times add up to the latency that the client saw, and the\n \
         differences between them.\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Builds the package from what `cargo xtask build` has built; where it is.
pub fn build() -> Result<PathBuf> {
    let tree = Tree::new("target/package/tree")?;
    let binary = fs::read(BINARY).with_context(|| format!("cannot read {BINARY}"))?;
    let installed = tree.write("usr/bin/virtax", &binary, 0o755)?;
    // Line numbers are for those who build it.
    let mut strip = command("strip");
    strip.arg("--strip-debug").arg(&installed);
    run(strip)?;
    for page in virtax(&["manual", "--list"])?.lines() {
        tree.write_compressed(&format!("usr/share/man/man1/{page}.1"), virtax(&["manual", page])?.as_bytes())?;
    }
    for (shell, path) in COMPLETIONS {
        tree.write(path, virtax(&["completions", shell])?.as_bytes(), 0o644)?;
    }
    for (from, to) in DOCUMENTS {
        let bytes = fs::read(from).with_context(|| format!("cannot read {from}"))?;
        let path = format!("usr/share/doc/virtax/{to}");
        if to == "changelog" { tree.write_compressed(&path, &bytes)? } else { drop(tree.write(&path, &bytes, 0o644)?) }
    }
    let license = fs::read("LICENSE").context("cannot read LICENSE")?;
    tree.write("usr/share/doc/virtax/copyright", &license, 0o644)?;
    let (architecture, bytes) = (architecture()?, fs::metadata(&installed)?.len());
    tree.write("DEBIAN/control", control(&architecture, bytes >> 10).as_bytes(), 0o644)?;
    let package = PathBuf::from(format!("target/package/virtax_{}_{architecture}.deb", env!("CARGO_PKG_VERSION")));
    let mut build = command("dpkg-deb");
    build.args(["--build", "--root-owner-group"]).arg(&tree.0).arg(&package).stdout(Stdio::null());
    run(build)?;
    Ok(package)
}

/// The mirror and the release that this host's own packages come from.
fn origin() -> Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.context("/etc/os-release names no release")?.trim_matches('"').to_owned();
    let mut targets = command("apt-get");
    targets.args(["indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages"]);
    let mirror = output(targets)?
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned))
        .with_context(|| format!("apt knows no mirror of {name}"))?;
    Ok((mirror, name))
}

/// What is done on the clean host, in a mount namespace that ends with it.
const TRIAL: &str = r#"
set -e
for folder in proc sys dev; do mount --rbind /$folder "$1/$folder"; done
mount -t tmpfs none "$1/run"
chroot "$1" dpkg --install /virtax.deb
chroot "$1" sh -ec '
    virtax --version
    virtax list > /list
    test -s /usr/share/man/man1/virtax.1.gz
    test -s /usr/share/man/man1/virtax-run.1.gz
    test -s /usr/share/bash-completion/completions/virtax
    virtax run tcp-rr --in native --rounds 1 --duration 0.5 --json --out /result > /result.json
    virtax report /result > /report
    virtax clean
    dpkg --remove virtax
    test ! -e /usr/bin/virtax
'
"#;

/// A minimal Debian in a folder.
pub struct Minimal(Tree);

impl Minimal {
    /// Makes one of this host's release.
    pub fn debian() -> Result<Self> {
        let root = Tree::new("target/package/root")?;
        let (mirror, release) = origin()?;
        println!("package: a minimal {release} in {}", root.0.display());
        let mut debootstrap = command("debootstrap");
        debootstrap.args(["--variant=minbase", &release]).arg(fs::canonicalize(&root.0)?).arg(mirror);
        debootstrap.stdout(Stdio::null());
        run(debootstrap)?;
        Ok(Self(root))
    }

    /// Installs the package there, runs it, and removes it.
    pub fn try_out(self, package: &Path) -> Result<()> {
        let folder = fs::canonicalize(&self.0.0)?;
        fs::copy(package, folder.join("virtax.deb")).context("cannot copy the package")?;
        let mut trial = command("unshare");
        trial.args(["--mount", "--propagation", "private", "sh", "-c", TRIAL, "trial"]).arg(&folder);
        run(trial)?;
        let text = fs::read_to_string(folder.join("result.json")).context("the trial left no result")?;
        let result: serde_json::Value = serde_json::from_str(&text).context("the trial's result is none")?;
        let native = &result["configurations"][0];
        let complete = native["incomplete"].as_array().is_some_and(Vec::is_empty);
        if !complete || native["stages"].as_array().is_none_or(Vec::is_empty) {
            bail!("the trial's result is not complete: {}", native["incomplete"]);
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }
}
