//! Recorded runs, computed again: every number of waterfalls, layers, stacks, tails and comparisons stays what it was.
//!
//! A line a run and configuration has a digest of each of them, with all digits. Which number changed is seen in
//! `golden_runs` of the offline tests, which compare all that is shown; this one says *whether* one did in a second,
//! and without anything but this crate. `VIRTAX_MAKE_GOLDEN=1` makes the lines anew.

use std::{
    fmt::{Debug, Write},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use virtax_analysis::{
    comparison::compare,
    label::Label,
    layers::Rules,
    profile, stacks, tail,
    waterfall::{self, Waterfall},
};
use virtax_model::{
    counts::Repetition,
    header::Header,
    profile::Profile,
    records::{self, Record},
    run_folder,
};

const LINES: &str = "tests/recorded.txt";

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(path) {
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    }
    text
}

fn lines<T: DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// FNV-1a (64 bits) of all digits.
fn digest(value: &impl Debug) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in format!("{value:?}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn of_run(folder: &Path, into: &mut String) {
    let header: Header = serde_json::from_str(&fs::read_to_string(folder.join("run.json")).unwrap()).unwrap();
    let repetitions: Vec<Repetition> = lines(&unpacked(&folder.join("repetitions.jsonl.gz")));
    let rules = Rules::own();
    let run = folder.file_name().unwrap().to_string_lossy().into_owned();
    let mut waterfalls: Vec<Waterfall> = Vec::new();
    for name in &header.configurations {
        let of_name: Vec<&Repetition> = repetitions.iter().filter(|found| found.configuration == *name).collect();
        if of_name.is_empty() {
            continue;
        }
        let found = waterfall::build(name, &of_name);
        let profiles: Vec<Profile> = lines(&unpacked(&run_folder::stacks_path(folder, name)));
        let records: Vec<Record> = records::read(&run_folder::records_path(folder, name)).unwrap();
        let profiled = profile::build(rules, &profiles, &found);
        let drawn = stacks::build(rules, &profiles, &found, &profiled.stages);
        let rows = found.rows.iter().zip(&profiled.stages);
        let labels: Vec<String> =
            rows.map(|(row, layers)| Label::of(row, found.has_inside(), layers).to_string()).collect();
        let digests = [
            ("waterfall", digest(&found)),
            ("layers", digest(&profiled)),
            ("stacks", digest(&drawn)),
            ("labels", digest(&labels)),
            ("tail", digest(&tail::slowest(&records))),
            ("paths", digest(&tail::illegal_transitions(&records))),
        ];
        let words: Vec<String> = digests.iter().map(|(what, digest)| format!("{what}={digest}")).collect();
        writeln!(into, "{run} {name}: {}", words.join(" ")).unwrap();
        waterfalls.push(found);
    }
    for baseline in &waterfalls {
        for candidate in waterfalls.iter().filter(|other| other.configuration != baseline.configuration) {
            for within in [None, Some(0.05)] {
                let compared = compare(baseline, candidate, true, within);
                let (one, other) = (&baseline.configuration, &candidate.configuration);
                writeln!(into, "{run} {one} | {other} | {within:?}: {}", digest(&compared)).unwrap();
            }
        }
    }
}

#[test]
fn recorded_runs_are_computed_into_the_same() {
    let mut folders: Vec<PathBuf> =
        fs::read_dir("../tests/data/golden").unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 14, "{folders:?}");
    let mut found = String::new();
    folders.iter().for_each(|folder| of_run(folder, &mut found));
    if std::env::var_os("VIRTAX_MAKE_GOLDEN").is_some() {
        fs::write(LINES, &found).unwrap();
    }
    let expected = fs::read_to_string(LINES).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
