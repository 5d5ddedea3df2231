//! Embeds what `cargo xtask build` compiled before: the probes, the workloads' static binary, the agent for guests,
//! and what speaks to libvirt. Without them the crate still builds (for editors, lints and tests that need neither);
//! the binary then says what it lacks.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let artifacts =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../target/artifacts");
    // The agent is made of the same library, and must not carry itself.
    let only_probes = env::var_os("CARGO_FEATURE_HOST").is_none();
    for name in ["virtax-probes", "virtax-workload", "virtax-agent", "virtax-libvirt"] {
        let source = artifacts.join(name);
        let wanted = !only_probes || name == "virtax-probes";
        if wanted {
            println!("cargo:rerun-if-changed={}", source.display());
        }
        let bytes = if wanted { fs::read(source).unwrap_or_default() } else { Vec::new() };
        fs::write(out.join(name), bytes).expect("cargo's output folder can be written");
    }
}
