//! Dependencies: their licences, where they come from, and whether they are used at all, by the lists of `deny.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// Crates that are used without being named in the code, and why.
const UNNAMED: [(&str, &str); 1] =
    [("serde_core", "it asks for features, so that tests are of the virtax that was built")];

/// What the crates within virtax may depend on, and nothing else: where the borders are.
const BORDERS: [(&str, &[&str]); 6] = [
    (
        "virtax-model",
        &["clap", "flate2", "profiler-common", "schemars", "serde", "serde_json", "strsim", "thiserror", "workloads"],
    ),
    // Pure functions: nothing that reaches the kernel, the network or a file.
    ("virtax-analysis", &["profiler-common", "rand", "rand_pcg", "schemars", "serde", "virtax-model"]),
    (
        "virtax-probes",
        &[
            "aya",
            "aya-log",
            "blazesym",
            "btf-rs",
            "libc",
            "log",
            "nix",
            "procfs",
            "profiler-common",
            "syscalls",
            "virtax-model",
            "workloads",
        ],
    ),
    // Knows neither how a run is measured nor what is made of it.
    (
        "virtax-engines",
        &[
            "aya",
            "bollard",
            "bytes",
            "flate2",
            "futures-util",
            "lddtree",
            "libc",
            "log",
            "lzma-rust2",
            "nix",
            "object",
            "procfs",
            "rtnetlink",
            "ruzstd",
            "seccompiler",
            "serde",
            "serde_json",
            "syscalls",
            "tar",
            "tokio",
            "virtax-agent",
            "virtax-model",
            "virtax-probes",
            "workloads",
            "xmltree",
        ],
    ),
    // Reads a run's folder and shows it: neither an engine nor the kernel.
    (
        "virtax-report",
        &[
            "clap",
            "comfy-table",
            "flate2",
            "fxprof-processed-profile",
            "hdrhistogram",
            "inferno",
            "profiler-common",
            "prost",
            "schemars",
            "serde",
            "serde_json",
            "virtax-analysis",
            "virtax-model",
            "workloads",
        ],
    ),
    ("virtax-agent", &["profiler-common", "serde", "serde_json", "virtax-model", "virtax-probes", "workloads"]),
];

/// All packages of this platform, as cargo knows them.
fn packages() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
    };
    let used: BTreeSet<String> = ids(&metadata["resolve"]["nodes"]).into_iter().collect();
    let all = metadata["packages"].as_array().unwrap().clone();
    all.into_iter().filter(|package| used.contains(package["id"].as_str().unwrap())).collect()
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// What is quoted in a list of `deny.toml` that begins with these words.
fn list(begin: &str) -> BTreeSet<String> {
    let rules = fs::read_to_string("../deny.toml").unwrap();
    let (_, rest) = rules.split_once(begin).unwrap_or_else(|| panic!("deny.toml has no `{begin}`"));
    let body = rest.split("\n]").next().unwrap();
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether one of a licence's alternatives has only allowed terms: `A OR B`, `(A OR B) AND C`, and the older `A/B`.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let terms = licence.replace(" / ", " OR ").replace('/', " OR ");
    terms.split(" AND ").all(|part| {
        let part = part.trim().trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ").any(|term| allowed.contains(term.trim()))
    })
}

/// Licences that single crates may have beside those that all may.
fn exceptions() -> BTreeMap<String, String> {
    let rules = fs::read_to_string("../deny.toml").unwrap();
    let lines = rules.lines().filter(|line| line.trim_start().starts_with("{ crate = ") && line.contains("allow = "));
    let pair = |line: &str| {
        let mut quoted = line.split('"').skip(1).step_by(2).map(str::to_owned);
        (quoted.next().unwrap(), quoted.next().unwrap())
    };
    lines.map(pair).collect()
}

#[test]
fn licences_and_sources_are_allowed() {
    let (allowed, mut exceptions) = (list("\nallow = ["), exceptions());
    assert!(allowed.len() > 5 && exceptions.contains_key("virt"), "{allowed:?} {exceptions:?}");
    for package in packages() {
        let (name, licence) = (text(&package, "name"), text(&package, "license"));
        let is_excepted = exceptions.remove(name).is_some_and(|only| licence == only);
        assert!(is_allowed(licence, &allowed) || is_excepted, "{name}: {licence}");
        let source = text(&package, "source");
        assert!(source.is_empty() || source.starts_with("registry+"), "{name} comes from {source}");
    }
    // These are in workspaces of their own, which cargo-deny looks at.
    exceptions.retain(|name, _| !["profiler-ebpf", "libfuzzer-sys"].contains(&name.as_str()));
    assert!(exceptions.is_empty(), "nobody needs them: {exceptions:?}");
}

#[test]
fn no_dependency_has_two_versions_but_those_that_are_listed() {
    let listed = list("\nskip = [");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let name = text(&package, "name").to_owned();
        versions.entry(name).or_default().insert(text(&package, "version").to_owned());
    }
    let double: BTreeSet<String> =
        versions.into_iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name).collect();
    assert_eq!(double, listed);
}

#[test]
fn crates_keep_to_their_borders() {
    let packages = packages();
    for (name, allowed) in BORDERS {
        let package = packages.iter().find(|package| text(package, "name") == name).unwrap();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let found: BTreeSet<&str> = normal.map(|dependency| text(dependency, "name")).collect();
        assert_eq!(found, allowed.iter().copied().collect(), "{name}");
    }
}

/// All Rust code of a package, without that of packages inside.
fn code(folder: &Path) -> String {
    let mut code = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.file_name() != "target") {
        let path = entry.path();
        if path.join("Cargo.toml").exists() {
            continue;
        }
        if path.is_dir() {
            code += &self::code(&path);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            code += &fs::read_to_string(path).unwrap();
        }
    }
    code
}

/// A dependency that a package's code uses nowhere is none.
#[test]
fn every_dependency_is_used() {
    let own = packages().into_iter().filter(|package| package["source"].is_null());
    let mut unused = Vec::new();
    for package in own {
        let code = code(Path::new(text(&package, "manifest_path")).parent().unwrap());
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["rename"].as_str().unwrap_or_else(|| text(dependency, "name"));
            let word = name.replace('-', "_");
            // As code names one: a word of a comment is none.
            let is_used = |at: usize| {
                let (before, after) = (&code[..at], &code[at + word.len()..]);
                let is_inner = |letter: char| letter.is_alphanumeric() || letter == '_';
                let begins = !before.ends_with(is_inner) && !after.starts_with(is_inner);
                begins && (after.starts_with("::") || after.starts_with('!') || before.ends_with("use "))
            };
            let is_named = code.match_indices(&word).any(|(at, _)| is_used(at));
            if !is_named && !UNNAMED.iter().any(|(known, _)| *known == name) {
                unused.push(format!("{}: {name}", text(&package, "name")));
            }
        }
    }
    assert_eq!(unused, Vec::<String>::new());
}

#[test]
fn alternatives_of_licences_are_understood() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Unicode-3.0".to_owned()]);
    for good in ["MIT", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "MIT/Apache-2.0", "Apache-2.0 / MIT"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR LGPL-3.0) AND MIT", ""] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
