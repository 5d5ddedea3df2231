//! Parsers of what comes from outside, under libFuzzer, which is guided by coverage: what it finds goes into
//! `profiler/fuzz/corpus`, from where tests take it.

use std::{
    collections::BTreeMap,
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
/// If LLVM's tools are missing, a corpus fails, or the corpora reach fewer than [`LEAST_REACHED`].
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
    let mut export = command(cov);
    export.arg("export").arg(&program).arg(format!("-instr-profile={}", merged.display())).arg("-format=lcov");
    export.args(PARSERS.map(|(file, _)| file));
    judge(&output(export)?)
}

/// Share of the parsers' lines that the corpora are to reach.
const LEAST_REACHED: f64 = 0.95;

/// Where the parsers are: files, and the functions in them that read what comes from outside.
const PARSERS: [(&str, &[&str]); 14] = [
    ("profiler/agent/src/wire.rs", &["hear", "understand"]),
    ("profiler/analysis/src/layers.rs", &["matches", "parse"]),
    (
        "profiler/engines/src/engine/configuration.rs",
        &["parse", "parse_list", "parse_pair", "split_injection", "split_preset", "fill_in"],
    ),
    ("profiler/engines/src/engine/vm/domain.rs", &["parse_snippet"]),
    ("profiler/engines/src/injection.rs", &["parse"]),
    ("profiler/engines/src/workload/redis_benchmark.rs", &["parse"]),
    ("profiler/model/src/input.rs", &["document", "parse", "check", "check_text", "next_line"]),
    ("profiler/model/src/records.rs", &["read", "record"]),
    ("profiler/probes/src/format.rs", &["parse", "offset_of", "number", "field"]),
    ("profiler/probes/src/symbols.rs", &["check_kernel_symbols", "plain", "kernel_of"]),
    ("profiler/src/experiment/profiles.rs", &["read", "check"]),
    ("workloads/src/fio/status.rs", &["parse", "hint", "read_next"]),
    ("workloads/src/protocol.rs", &["decode_histogram", "check_header"]),
    ("workloads/src/redis/resp.rs", &["parse"]),
];

/// Lines of a function in a file's text: numbers of the first and the last.
fn lines_of(text: &str, function: &str) -> Option<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins =
        |line: &&str| [format!("fn {function}("), format!("fn {function}<")].iter().any(|name| line.contains(name));
    let first = lines.iter().position(begins)?;
    let indent = &lines[first][..lines[first].len() - lines[first].trim_start().len()];
    let last = first + lines[first..].iter().position(|line| *line == format!("{indent}}}"))?;
    Some((first + 1, last + 1))
}

/// How often each line of each file was reached, by lcov's own format: `SF:file`, then `DA:line,count`.
fn reached(lcov: &str) -> BTreeMap<String, BTreeMap<usize, u64>> {
    let mut files: BTreeMap<String, BTreeMap<usize, u64>> = BTreeMap::new();
    let mut file = String::new();
    for line in lcov.lines() {
        if let Some(name) = line.strip_prefix("SF:") {
            name.clone_into(&mut file);
        } else if let Some((number, count)) = line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse())
        {
            files.entry(file.clone()).or_default().insert(number, count);
        }
    }
    files
}

/// Prints what is reached, and what is not; an error, if that is too much.
fn judge(lcov: &str) -> Result<()> {
    let files = reached(lcov);
    let (mut all, mut missed) = (0, 0);
    for (file, functions) in PARSERS {
        let counts = files.iter().find(|(name, _)| name.ends_with(file)).map(|(_, counts)| counts);
        let counts = counts.with_context(|| format!("nothing is known of {file}"))?;
        let text = fs::read_to_string(file)?;
        for function in functions {
            let (first, last) = lines_of(&text, function).with_context(|| format!("{file} has no {function}"))?;
            let of_function: Vec<(&usize, &u64)> = counts.range(first..=last).collect();
            let not: Vec<String> =
                of_function.iter().filter(|(_, count)| **count == 0).map(|(line, _)| line.to_string()).collect();
            println!("{:>4} of {:>3} lines of {function} ({file})", of_function.len() - not.len(), of_function.len());
            if !not.is_empty() {
                println!("     not reached: {}", not.join(", "));
            }
            (all, missed) = (all + of_function.len(), missed + not.len());
        }
    }
    let share = 1.0 - missed as f64 / all.max(1) as f64;
    println!("reached: {:.1} % of {all} lines", 100.0 * share);
    if share < LEAST_REACHED {
        bail!(
            "the corpora reach {:.1} % of the parsers' lines, of {:.0} % at least",
            100.0 * share,
            100.0 * LEAST_REACHED
        );
    }
    Ok(())
}

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
    use super::*;

    #[test]
    fn parsers_are_where_they_are_said_to_be() {
        for (file, functions) in PARSERS {
            let text = fs::read_to_string(Path::new("..").join(file)).unwrap();
            for function in functions {
                assert!(lines_of(&text, function).is_some(), "{file} has no {function}");
            }
        }
    }

    #[test]
    fn lines_are_those_of_a_function() {
        let text = "fn one() {\n}\nimpl A {\n    fn two<T>(a: T) {\n        if a {\n        }\n    }\n}\n";
        assert_eq!(
            (lines_of(text, "one"), lines_of(text, "two"), lines_of(text, "three")),
            (Some((1, 2)), Some((4, 7)), None)
        );
        let counts = reached("SF:/a/b.rs\nFN:1,x\nDA:1,5\nDA:2,0\nend_of_record\nSF:c.rs\nDA:7,1\n");
        assert_eq!((counts["/a/b.rs"][&1], counts["/a/b.rs"][&2], counts["c.rs"][&7]), (5, 0, 1));
    }
}
