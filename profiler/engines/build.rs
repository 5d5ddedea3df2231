//! Embeds what `cargo xtask build` compiled before: the workloads' static binary, the agent for guests, and what speaks
//! to libvirt. Without them the crate still builds (for editors, lints and tests that need none); the binary then says
//! what it lacks.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let artifacts =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../target/artifacts");
    for name in ["virtax-workload", "virtax-agent", "virtax-libvirt"] {
        let source = artifacts.join(name);
        println!("cargo:rerun-if-changed={}", source.display());
        fs::write(out.join(name), fs::read(source).unwrap_or_default()).expect("cargo's output folder can be written");
    }
}
