//! Compiling: the probes for the BPF virtual machine, workloads and agent as static binaries, then virtax with all of
//! them inside.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::shell::{cache, command, copy_if_changed, output, run, succeeds};

const BPF_TARGET: &str = "bpfel-unknown-none";
/// A compiler of Debian's with a prebuilt core library for BPF, beside rustup's.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// How the probes can be compiled here.
pub enum BpfCompiler {
    /// rustup's nightly builds the core library from its source.
    Nightly,
    /// Debian's compiler brings it along.
    Debian,
}

/// Finds a compiler for the probes.
pub fn bpf_compiler() -> Option<BpfCompiler> {
    let mut nightly = command("rustc");
    nightly.args(["+nightly", "--print", "sysroot"]);
    if succeeds(nightly) {
        let mut sysroot = command("rustc");
        sysroot.args(["+nightly", "--print", "sysroot"]);
        let source = output(sysroot).ok()?;
        if Path::new(source.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
            return Some(BpfCompiler::Nightly);
        }
    }
    let mut libraries = command(DEBIAN_RUSTC);
    libraries.args(["--print", "target-libdir", "--target", BPF_TARGET]);
    let found = output(libraries).ok()?;
    Path::new(found.trim()).is_dir().then_some(BpfCompiler::Debian)
}

/// A line of `rustc -vV`.
fn compiler_says(mut rustc: std::process::Command, field: &str) -> Result<String> {
    rustc.arg("-vV");
    output(rustc)?
        .lines()
        .find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
        .with_context(|| format!("rustc -vV has no line {field}"))
}

/// Major version of the LLVM in the compiler of the probes: the linker's must be at least as new.
pub fn llvm_major(compiler: &BpfCompiler) -> Result<u32> {
    let mut rustc = command(if matches!(compiler, BpfCompiler::Debian) { DEBIAN_RUSTC } else { "rustc" });
    if matches!(compiler, BpfCompiler::Nightly) {
        rustc.arg("+nightly");
    }
    let version = compiler_says(rustc, "LLVM version:")?;
    version.split('.').next().and_then(|major| major.parse().ok()).with_context(|| format!("{version} is no version"))
}

/// Where bpf-linker is, or will be once it is built.
pub fn bpf_linker(llvm: u32) -> Result<PathBuf> {
    Ok(cache()?.join(format!("bpf-linker-llvm-{llvm}")).join("bin/bpf-linker"))
}

/// Compiles everything.
pub fn all() -> Result<()> {
    // The probes' compiler has little to do at once.
    std::thread::scope(|scope| {
        let workloads = scope.spawn(|| static_binary("workloads", "virtax-workload"));
        probes()?;
        workloads.join().map_err(|_| anyhow!("the workloads were not compiled"))?
    })?;
    static_binary("virtax-agent", "virtax-agent")?;
    way_to_libvirt()?;
    let mut virtax = command("cargo");
    virtax.args(["build", "--release", "--package", "profiler", "--locked"]);
    run(virtax)
}

fn probes() -> Result<()> {
    let Some(compiler) = bpf_compiler() else {
        bail!("no compiler for the probes: `cargo xtask demo --no-install` says what is missing");
    };
    let linker = bpf_linker(llvm_major(&compiler)?)?;
    if !linker.is_file() {
        bail!("no linker for the probes: `cargo xtask demo --no-install` says what is missing");
    }
    let architecture = std::env::consts::ARCH;
    // v3: 32-bit registers; without them LLVM widens arithmetic on pointers, and the verifier refuses it.
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Ctarget-cpu=v3".to_owned(),
    ];
    let mut cargo = command("cargo");
    match compiler {
        BpfCompiler::Nightly => {
            println!("probes: compiled by rustup's nightly, with a core library of its own");
            cargo.args(["+nightly", "build", "-Z", "build-std=core"]);
        }
        BpfCompiler::Debian => {
            println!("probes: compiled by Debian's rustc with its prebuilt core library");
            // aya-ebpf needs one unstable feature, asm_experimental_arch.
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
        }
    }
    cargo
        .args(["--release", "--target", BPF_TARGET, "--manifest-path", "profiler-ebpf/Cargo.toml"])
        .args(["--target-dir", "target/ebpf", "--locked"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run(cargo)?;
    copy_if_changed(
        &Path::new("target/ebpf").join(BPF_TARGET).join("release/virtax-probes"),
        Path::new("target/artifacts/virtax-probes"),
    )
}

/// The program that speaks to libvirt; where there are no headers of it, virtax is built without.
fn way_to_libvirt() -> Result<()> {
    const NAME: &str = "virtax-libvirt";
    let into = Path::new("target/artifacts").join(NAME);
    if !has_libvirt() {
        println!("no libvirt to build against: this virtax starts QEMU itself");
        return if into.exists() {
            std::fs::remove_file(&into).context("cannot remove the old virtax-libvirt")
        } else {
            Ok(())
        };
    }
    let mut cargo = command("cargo");
    cargo.args(["build", "--release", "--package", "virtax-libvirt", "--features", "libvirt", "--locked"]);
    // A target folder of its own: what is built with the feature and without does not replace each other there.
    cargo.args(["--target-dir", "target/libvirt"]).env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    run(cargo)?;
    copy_if_changed(&Path::new("target/libvirt/release").join(NAME), &into)
}

/// Where Debian has libraries of this host's kind.
pub fn multiarch(name: &str) -> PathBuf {
    Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).join(name)
}

/// Whether programs can be built against libvirt.
pub fn has_libvirt() -> bool {
    let mut probe = command("pkg-config");
    probe.args(["--exists", "libvirt"]);
    succeeds(probe)
}

/// A binary that needs nothing but a kernel.
fn static_binary(package: &str, name: &str) -> Result<()> {
    let host = compiler_says(command("rustc"), "host:")?;
    let mut cargo = command("cargo");
    // Naming the target keeps the flag away from build scripts and procedural macros.
    cargo
        .args(["build", "--release", "--package", package, "--bin", name, "--target", &host])
        .args(["--target-dir", "target/static", "--locked"])
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // Function names stay: sampled stacks show them.
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    run(cargo)?;
    copy_if_changed(
        &Path::new("target/static").join(host).join("release").join(name),
        &Path::new("target/artifacts").join(name),
    )
}
