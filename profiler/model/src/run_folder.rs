//! The files of a run's folder: what each is called, and which of a folder's files are a run's.

use std::path::{Path, PathBuf};

/// What is known before the first repetition.
pub const HEADER: &str = "run.json";
/// What the repetitions counted, one a line.
pub const REPETITIONS: &str = "repetitions.jsonl";
/// The result.
pub const RESULT: &str = "result.json";
/// The page.
pub const PAGE: &str = "report.html";
/// What the rungs of a ladder add.
pub const LADDER: &str = "ladder.json";
/// The ladder as a picture.
pub const LADDER_CHART: &str = "ladder.svg";
/// The end of the name of a file that is being written.
pub const NEW: &str = ".new";

/// Files of which there is one a run.
const SINGLE: [&str; 6] = [HEADER, REPETITIONS, RESULT, PAGE, LADDER, LADDER_CHART];
/// What the names of a configuration's records and stacks begin with.
const RECORDS: &str = "records.";
const STACKS: &str = "stacks.";
/// What the names of flame graphs begin with , and end with.
const FLAME_GRAPHS: [&str; 3] = ["latency.", "cpu.", "off-cpu."];
const PICTURE: &str = ".svg";
const FOLDED: &str = ".folded";

/// A configuration's name with what file systems and shells dislike replaced.
#[must_use]
pub fn file_stem(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// The file that holds the records of a configuration.
#[must_use]
pub fn records_path(folder: &Path, configuration: &str) -> PathBuf {
    folder.join(format!("{RECORDS}{}.jsonl.gz", file_stem(configuration)))
}

/// The file that holds the stacks of a configuration.
#[must_use]
pub fn stacks_path(folder: &Path, configuration: &str) -> PathBuf {
    folder.join(format!("{STACKS}{}.jsonl.gz", file_stem(configuration)))
}

/// Whether a file of this name is a run's: what `--force` may remove.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(NEW).unwrap_or(name);
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    SINGLE.contains(&name)
        || begins(&[RECORDS, STACKS])
        || begins(&FLAME_GRAPHS) && [PICTURE, FOLDED].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_files_are_known_and_no_others() {
        let ours = ["report.html", "report.html.new", "ladder.svg", "records.native.jsonl.gz", "cpu.native.folded"];
        assert!(ours.iter().all(|name| is_ours(name)));
        let others = ["notes.md", "index.html", "latency.csv", "cpu.txt", ".new", "result.json.bak"];
        assert!(!others.iter().any(|name| is_ours(name)));
    }
}
