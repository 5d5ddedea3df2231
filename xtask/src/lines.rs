//! The lines that people read, prose and comments: how wide they are, and how documentation begins.

/// The most columns of a line.
const COLUMNS: usize = 120;

/// Lines of prose in Markdown: neither code, tables, pictures nor HTML.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code && !["|", "!", "<", "    "].iter().any(|first| line.starts_with(first))
    })
}

/// Lines of comments in Rust, without tables.
fn comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| line.trim_start().starts_with("//") && !line.contains("/ |"))
}

/// First words of what does not begin with its subject.
const NO_SUBJECT: [&str; 6] = ["Its ", "It ", "The same ", "The same,", "As [", "Of "];

/// First lines of comments that document something, without the marks.
fn beginnings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let document = |line: &str| ["/// ", "//! "].iter().any(|mark| line.trim_start().starts_with(mark));
    let mut was_one = false;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        let is_first = document(line) && !was_one;
        was_one = line.trim_start().starts_with("///") || line.trim_start().starts_with("//!");
        is_first.then(|| (number, &line.trim_start()[4..]))
    })
}

/// All files of the project that are there, with their names.
fn files() -> Vec<(String, String)> {
    let listed = std::process::Command::new("git").args(["ls-files", "-z", ".."]).output().unwrap();
    let names: Vec<&str> = std::str::from_utf8(&listed.stdout).unwrap().split_terminator('\0').collect();
    assert!(names.len() > 100, "{names:?}");
    // One that is deleted may be in the index still, and pictures are no text.
    let read = |name: &&str| Some(((*name).to_owned(), std::fs::read_to_string(name).ok()?));
    names.iter().filter_map(read).collect()
}

#[test]
fn documentation_begins_with_its_subject() {
    let rust = files().into_iter().filter(|(name, _)| name.ends_with(".rs"));
    let found: Vec<String> = rust
        .flat_map(|(name, text)| {
            let has_none = |(_, begin): &(usize, &str)| NO_SUBJECT.iter().any(|words| begin.starts_with(words));
            let places = beginnings(&text).filter(has_none).map(|(number, _)| format!("{name}:{number}"));
            places.collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_line_of_prose_or_comment_is_too_wide() {
    let mut wide = Vec::new();
    for (file, text) in files() {
        let lines: Vec<(usize, &str)> = match std::path::Path::new(&file).extension().and_then(|kind| kind.to_str()) {
            Some("md") => prose(&text).collect(),
            Some("rs") => comments(&text).collect(),
            _ => continue,
        };
        let is_wide = |(_, line): &&(usize, &str)| line.chars().count() > COLUMNS;
        wide.extend(lines.iter().filter(is_wide).map(|(number, _)| format!("{file}:{number}")));
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn beginnings_are_first_lines() {
    let text = "/// One\n/// Its second line\nlet a;\n    /// Its length\n#[a]\n/// Two\n///\n/// Its\n";
    assert_eq!(beginnings(text).collect::<Vec<_>>(), [(1, "One"), (4, "Its length"), (6, "Two")]);
}

#[test]
fn code_and_tables_are_no_prose() {
    let text = "one\n```\ncode\n```\n| a table |\ntwo\n";
    assert_eq!(prose(text).map(|(number, _)| number).collect::<Vec<_>>(), [1, 6]);
    assert_eq!(
        comments("let a = 1;\n    // why\n/// | a table |\n").map(|(number, _)| number).collect::<Vec<_>>(),
        [2]
    );
}
