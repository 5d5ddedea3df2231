//! Parsers of what comes from outside, under libFuzzer, which is guided by coverage: what it finds goes into
//! `profiler/fuzz/corpus`, from where tests take it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::shell::{command, find, output, run};

const TARGET_FOLDER: &str = "target/fuzz-build";
const WORK: &str = "target/fuzz";
/// Counters on every edge, and comparisons whose operands the fuzzer sees: LLVM's SanitizerCoverage, by stable options.
const COUNTERS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// The longest inputs, relative to the longest seed, and where seeds are short.
const LONGER: u64 = 2;
const LONGEST_OF_SHORT: u64 = 4096;
/// A slower input is a hang, a larger process a leak.
const LIMITS: &[&str] = &["-timeout=20", "-rss_limit_mb=1024", "-malloc_limit_mb=256"];

/// Fuzzes the targets with this word in their names, each for so many seconds, and keeps what leads further.
///
/// # Errors
/// If there is no compiler for libFuzzer, and if an input makes a parser panic, hang, or take too much memory: it is
/// kept, and named.
pub fn all(filter: &str, seconds: u32, seed: u32) -> Result<()> {
    if find("c++").is_none() {
        bail!("no C++ compiler for libFuzzer: apt-get install g++");
    }
    let program = build(TARGET_FOLDER, COUNTERS)?;
    for name in targets(&program)?.iter().filter(|name| name.contains(filter)) {
        fuzz(&program, name, seconds, seed)?;
    }
    Ok(())
}

/// Lines of the parsers that the corpora reach, function by function.
///
/// # Errors
/// If LLVM's tools are missing, or a corpus fails.
pub fn coverage() -> Result<()> {
    let (profdata, cov) = (llvm("llvm-profdata")?, llvm("llvm-cov")?);
    let program = build("target/fuzz-coverage", &["-Cinstrument-coverage"])?;
    let merged = Path::new(WORK).join("all.profdata");
    let mut merge = command(profdata);
    merge.args(["merge", "-sparse", "-o"]).arg(&merged);
    for name in targets(&program)? {
        let inputs = fresh(&name, "in")?;
        run(of_target(&program, &name, "VIRTAX_FUZZ_UNPACK", &inputs))?;
        let profile = inputs.with_extension("profraw");
        let mut replay = command(&program);
        replay.env("VIRTAX_FUZZ_TARGET", &name).env("LLVM_PROFILE_FILE", &profile).arg("-runs=0").arg(&inputs);
        run(replay)?;
        merge.arg(profile);
    }
    run(merge)?;
    let mut show = command(cov);
    show.arg("report").arg(&program).arg(format!("-instr-profile={}", merged.display()));
    show.args(["-show-functions", "-show-branch-summary=false", "-show-region-summary=false"]).args(PARSERS);
    run(show)
}

/// Where the parsers are.
const PARSERS: &[&str] = &[
    "profiler/agent/src/wire.rs",
    "profiler/analysis/src/layers.rs",
    "profiler/engines/src/engine/configuration.rs",
    "profiler/engines/src/engine/vm/domain.rs",
    "profiler/engines/src/injection.rs",
    "profiler/engines/src/workload/redis_benchmark.rs",
    "profiler/model/src/input.rs",
    "profiler/model/src/records.rs",
    "profiler/probes/src/format.rs",
    "profiler/probes/src/symbols.rs",
    "profiler/src/experiment/profiles.rs",
    "workloads/src/fio/status.rs",
    "workloads/src/protocol.rs",
    "workloads/src/redis/resp.rs",
];

/// Compiles `profiler/fuzz` with these flags. Its platform is named, so that programs of the build have none of them.
fn build(folder: &str, flags: &[&str]) -> Result<PathBuf> {
    let mut rustc = command("rustc");
    rustc.args(["--print", "host-tuple"]);
    let platform = output(rustc)?;
    let platform = platform.trim();
    let mut cargo = command("cargo");
    cargo.args(["build", "--release", "--locked", "--manifest-path", "profiler/fuzz/Cargo.toml"]);
    cargo.args(["--target", platform, "--target-dir", folder]).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run(cargo)?;
    fs::canonicalize(Path::new(folder).join(platform).join("release/virtax-fuzz")).context("there is no fuzzer")
}

/// A tool of the compiler's LLVM: others cannot read its profiles.
fn llvm(tool: &str) -> Result<PathBuf> {
    let mut rustc = command("rustc");
    rustc.arg("-vV");
    let said = output(rustc)?;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: ")).context("rustc names no LLVM")?;
    let major = version.split('.').next().unwrap_or_default();
    let path = Path::new("/usr/lib").join(format!("llvm-{major}/bin")).join(tool);
    if path.is_file() { Ok(path) } else { bail!("no {tool} of LLVM {major}: apt-get install llvm-{major}") }
}

fn targets(program: &Path) -> Result<Vec<String>> {
    let mut list = command(program);
    list.env("VIRTAX_FUZZ_LIST", "1").env("LLVM_PROFILE_FILE", "/dev/null");
    Ok(output(list)?.lines().map(str::to_owned).collect())
}

/// The fuzzer, told to do something else with a folder.
fn of_target(program: &Path, name: &str, what: &str, folder: &Path) -> Command {
    let mut command = command(program);
    command.env("VIRTAX_FUZZ_TARGET", name).env(what, folder).env("LLVM_PROFILE_FILE", "/dev/null");
    command
}

/// An empty folder of a target's.
fn fresh(name: &str, what: &str) -> Result<PathBuf> {
    let folder = Path::new(WORK).join(name.replace(' ', "-")).join(what);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn fuzz(program: &Path, name: &str, seconds: u32, seed: u32) -> Result<()> {
    println!("fuzzing: {name}");
    let (known, found, least) = (fresh(name, "in")?, fresh(name, "found")?, fresh(name, "least")?);
    run(of_target(program, name, "VIRTAX_FUZZ_UNPACK", &known))?;
    let lengths = fs::read_dir(&known)?.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len()));
    let longest = (LONGER * lengths.max().unwrap_or(0)).max(LONGEST_OF_SHORT);
    let libfuzzer = || {
        let mut libfuzzer = command(program);
        libfuzzer.env("VIRTAX_FUZZ_TARGET", name).args(LIMITS).args(["-verbosity=0", "-print_final_stats=1"]);
        libfuzzer.arg(format!("-artifact_prefix={WORK}/"));
        libfuzzer
    };
    let mut search = libfuzzer();
    search.args([format!("-seed={seed}"), format!("-max_total_time={seconds}"), format!("-max_len={longest}")]);
    search.args([&found, &known]);
    run(search).with_context(|| format!("{name}: the input is kept in {WORK}"))?;
    let mut merge = libfuzzer();
    merge.arg("-merge=1").args([&least, &known, &found]);
    run(merge)?;
    run(of_target(program, name, "VIRTAX_FUZZ_PACK", &least))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn parsers_are_where_they_are_said_to_be() {
        for file in super::PARSERS {
            assert!(Path::new("..").join(file).is_file(), "{file}");
        }
    }
}
