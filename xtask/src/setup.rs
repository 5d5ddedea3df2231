//! What a host must have, why, and how it is brought.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    build::{self, BpfCompiler, DEBIAN_RUSTC},
    shell::{self, cache, command, find, output, run},
};

/// A program of Debian's, and what it is for.
struct Package {
    name: &'static str,
    why: &'static str,
    present: fn() -> bool,
    /// The one task that needs it; `None`: all do.
    only_for: Option<Purpose>,
}

const DOCKER: &str = "docker.io";

const PACKAGES: &[Package] = &[
    Package {
        name: "rustc-web",
        why: "compiles the probes for the kernel's BPF machine",
        present: has_bpf_compiler,
        only_for: None,
    },
    Package {
        name: "libstd-rust-web-dev-bpf",
        why: "Rust's core library for BPF",
        present: has_bpf_compiler,
        only_for: None,
    },
    Package {
        name: DOCKER,
        why: "runs the container configurations",
        present: || find("dockerd").is_some(),
        only_for: None,
    },
    Package {
        name: "iptables",
        why: "Docker's NAT, and the rule that lets the wire through to a bridge",
        present: || find("iptables").is_some(),
        only_for: None,
    },
    Package {
        name: "nftables",
        why: "lists the netfilter hooks on the path",
        present: || find("nft").is_some(),
        only_for: None,
    },
    Package {
        name: "redis-server",
        why: "the server of the Redis workloads, and redis-benchmark; it is not run as a service",
        present: || find("redis-server").is_some() && find("redis-benchmark").is_some(),
        only_for: None,
    },
    Package {
        name: "fio",
        why: "the storage workloads of that name",
        present: || find("fio").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "dmsetup",
        why: "maps disks in the lab, which delay what they pass on",
        present: || find("dmsetup").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "mdadm",
        why: "makes a RAID in the lab",
        present: || find("mdadm").is_some(),
        only_for: Some(Purpose::LongTest),
    },
    Package {
        name: "chromium",
        why: "shows the report's page, clicks and searches in it",
        present: || find("chromium").is_some(),
        only_for: Some(Purpose::LongTest),
    },
    Package {
        name: "iproute2",
        why: "shapes queues (tc), a known cost of `virtax truth`",
        present: || find("tc").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "qemu-system-x86",
        why: "runs the virtual machines",
        present: || find("qemu-system-x86_64").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "e2fsprogs",
        why: "makes the file systems on the disks of virtual machines",
        present: || find("mkfs.ext4").is_some() || Path::new("/usr/sbin/mkfs.ext4").is_file(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "qemu-utils",
        why: "makes images in QEMU's own format",
        present: || find("qemu-img").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "libvirt-daemon-driver-qemu",
        why: "starts the virtual machines: libvirt's driver, without a daemon",
        present: || build::multiarch("libvirt/connection-driver/libvirt_driver_qemu.so").is_file(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "libvirt-dev",
        why: "what virtax's way to libvirt is compiled against",
        present: build::has_libvirt,
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "pkg-config",
        why: "finds libvirt for the compiler",
        present: || find("pkg-config").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "strace",
        why: "counts system calls, to be held against virtax's counts",
        present: || find("strace").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "linux-perf",
        why: "counts exits of virtual machines, to be held against virtax's counts",
        present: || find("perf").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "debootstrap",
        why: "makes the minimal Debian that the package is tried on",
        present: || find("debootstrap").is_some(),
        only_for: Some(Purpose::Test),
    },
    Package {
        name: "bpftrace",
        why: "runs the script that virtax's cost is compared with",
        present: || find("bpftrace").is_some(),
        only_for: Some(Purpose::Bench),
    },
    Package {
        name: "bpftrace",
        why: "measures stages by another tool's script, to be held against virtax's",
        present: || find("bpftrace").is_some(),
        only_for: Some(Purpose::Test),
    },
];

fn has_bpf_compiler() -> bool {
    build::bpf_compiler().is_some()
}

/// What the host is set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building and running.
    Run,
    /// Tests, the package's trial among them.
    Test,
    /// `cargo xtask test --full`.
    LongTest,
    /// Benchmarks.
    Bench,
}

/// Brings what is missing, or, with `no_install`, says what that is and fails.
pub fn all(no_install: bool, purpose: Purpose) -> Result<()> {
    // The longer tests need what all tests do, and more.
    let is_for = |only: Purpose| only == purpose || (only == Purpose::Test && purpose == Purpose::LongTest);
    let wanted = |package: &&Package| package.only_for.is_none_or(is_for);
    let missing =
        || -> Vec<&Package> { PACKAGES.iter().filter(wanted).filter(|package| !(package.present)()).collect() };
    let first_missing = missing();
    let linker_missing = !matches!(linker(), Ok(path) if path.is_file());
    if first_missing.is_empty() && !linker_missing {
        return Ok(());
    }
    println!("{}", if no_install { "missing:" } else { "to be installed:" });
    for package in &first_missing {
        println!("  {:<24} {}", package.name, package.why);
    }
    if linker_missing {
        println!("  {:<24} links the probes (built once, into {})", "bpf-linker", cache()?.display());
    }
    let names: Vec<&str> = first_missing.iter().map(|package| package.name).collect();
    if no_install {
        println!("bring it with:");
        if !names.is_empty() {
            println!("  apt-get update && apt-get install --no-install-recommends {}", names.join(" "));
        }
        if linker_missing {
            println!("  cargo xtask demo      # builds bpf-linker with the LLVM of the probes' compiler");
        }
        bail!("not everything is installed");
    }
    // A demonstration goes without Docker where there is none to be had.
    let (spared, needed): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| *name == DOCKER && purpose == Purpose::Run);
    if !needed.is_empty() {
        install(&needed)?;
        // One of a newer release than the others may have had to go for them; of their own it comes back.
        let names = missing().into_iter().map(|package| package.name);
        let removed: Vec<&str> = names.filter(|name| !spared.contains(name)).collect();
        if !removed.is_empty() {
            install(&removed)?;
        }
    }
    if !spared.is_empty()
        && let Err(error) = install(&spared)
    {
        println!("Docker cannot be installed ({error:#}): bare namespaces stand in for it");
    }
    if linker_missing {
        build_linker()?;
    }
    Ok(())
}

fn install(names: &[&str]) -> Result<()> {
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        bail!("installing needs root: apt-get install --no-install-recommends {}", names.join(" "));
    }
    let mut update = command("apt-get");
    update.args(["update", "--quiet"]);
    run(update)?;
    let _no_services = NoServices::new()?;
    let mut install = command("apt-get");
    install
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(install)
}

/// Where Debian's packages ask whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, packages that are installed start no services: a run starts what it needs by itself, with settings
/// of its own. A policy that the host has already stays as it is.
struct NoServices(bool);

const POLICY_TEXT: &str = "#!/bin/sh\n# virtax's set-up: no services while it installs packages.\nexit 101\n";

impl NoServices {
    fn new() -> Result<Self> {
        // Ctrl-C ends the installation, and this process goes on, to take the policy away.
        shell::outlive_interrupts();
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match file {
            Ok(mut file) => {
                let guard = Self(true);
                file.write_all(POLICY_TEXT.as_bytes()).with_context(|| format!("cannot write {POLICY}"))?;
                Ok(guard)
            }
            // Our own, of a set-up that was killed, is taken over; anybody else's stays.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self(fs::read_to_string(POLICY).is_ok_and(|text| text == POLICY_TEXT)))
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {POLICY}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.0 {
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn linker() -> Result<PathBuf> {
    let compiler = build::bpf_compiler().context("no compiler for the probes")?;
    build::bpf_linker(build::llvm_major(&compiler)?)
}

/// Builds bpf-linker against the LLVM of the probes' compiler: an older one could not read what the compiler writes.
fn build_linker() -> Result<()> {
    let compiler = build::bpf_compiler().context("no compiler for the probes, although it was installed")?;
    let llvm = build::llvm_major(&compiler)?;
    let root = linker()?.ancestors().nth(2).context("the linker has a folder")?.to_owned();
    let mut cargo = command("cargo");
    cargo.args(["install", "bpf-linker", "--version", "^0.13", "--locked", "--root"]).arg(&root);
    if matches!(compiler, BpfCompiler::Debian) {
        let prefix = llvm_prefix(llvm)?;
        cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]).env("LLVM_PREFIX", prefix);
    }
    run(cargo)
}

/// A folder that looks like an LLVM installation to the build: Debian's compiler brings the library alone, without the
/// gigabyte of `llvm-dev`.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    let mut ldd = command("ldd");
    ldd.arg(DEBIAN_RUSTC);
    let libraries = output(ldd)?;
    let wanted = format!("libLLVM.so.{llvm}");
    let library = libraries
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/') && word.contains(&wanted)))
        .map(PathBuf::from)
        .next()
        .or_else(|| library_in_multiarch(&wanted))
        .with_context(|| format!("{wanted} is not where {DEBIAN_RUSTC} finds it"))?;
    let prefix = cache()?.join(format!("llvm-{llvm}"));
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    let _ = fs::remove_file(&link);
    symlink(&library, &link).with_context(|| format!("cannot link {}", library.display()))?;
    Ok(prefix)
}

fn library_in_multiarch(wanted: &str) -> Option<PathBuf> {
    fs::read_dir(build::multiarch(""))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(wanted)))
}
