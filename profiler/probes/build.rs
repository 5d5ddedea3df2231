//! Embeds the probes, which `cargo xtask build` compiled before. Without them the crate still builds (for editors,
//! lints and tests that do not need them); what wants to load them then says what it lacks.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let source = folder.join("../../target/artifacts/virtax-probes");
    println!("cargo:rerun-if-changed={}", source.display());
    fs::write(out.join("virtax-probes"), fs::read(source).unwrap_or_default())
        .expect("cargo's output folder can be written");
}
