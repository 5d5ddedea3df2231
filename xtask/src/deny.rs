//! cargo-deny, on the rules of `deny.toml`: where it is installed, and in the longer tests always.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cache, command, find, run};

/// The version that the longer tests build.
const VERSION: &str = "0.20.2";

/// Checks licences, bans and sources. (Advisories would need the network at every check.) Where there is no
/// cargo-deny, `install` has it built, which takes some minutes; without, the same lists are checked by the tests of
/// `dependencies`.
///
/// # Errors
/// If it cannot be built, or a rule is broken.
pub fn check(install: bool) -> Result<()> {
    let Some(program) = program(install)? else {
        println!("rules: there is no cargo-deny; the tests of xtask have checked licences, versions and sources");
        return Ok(());
    };
    for manifest in ["Cargo.toml", "profiler-ebpf/Cargo.toml", "profiler/fuzz/Cargo.toml"] {
        // What it needs of crates that nothing has been built of yet: the fuzzer's, above all.
        let mut fetch = command("cargo");
        fetch.args(["fetch", "--locked", "--manifest-path", manifest]);
        run(fetch)?;
        let mut checks = command(&program);
        checks.args(["--offline", "--locked", "--log-level", "error", "--manifest-path", manifest]);
        checks.args(["--config", "deny.toml", "check", "licenses", "bans", "sources"]);
        run(checks)?;
    }
    Ok(())
}

fn program(install: bool) -> Result<Option<PathBuf>> {
    let folder = cache()?.join(format!("cargo-deny-{VERSION}"));
    let own = folder.join("bin/cargo-deny");
    if let Some(found) = find("cargo-deny").or_else(|| own.is_file().then(|| own.clone())) {
        return Ok(Some(found));
    }
    if !install {
        return Ok(None);
    }
    let mut build = command("cargo");
    build.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--root"]).arg(&folder);
    run(build)?;
    Ok(Some(own))
}
