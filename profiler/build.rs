//! Embeds what `cargo xtask build` compiled before: the probes and the workloads' static binary. Without them the
//! crate still builds (for editors, lints and tests that need neither); the binary then says what it lacks.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let artifacts =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../target/artifacts");
    for name in ["virtax-probes", "virtax-workload"] {
        let source = artifacts.join(name);
        println!("cargo:rerun-if-changed={}", source.display());
        let bytes = fs::read(source).unwrap_or_default();
        fs::write(out.join(name), bytes).expect("cargo's output folder can be written");
    }
}
