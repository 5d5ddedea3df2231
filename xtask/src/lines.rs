//! The width of the lines that people read: prose and comments.

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

#[test]
fn no_line_of_prose_or_comment_is_too_wide() {
    let listed = std::process::Command::new("git").args(["ls-files", "-z", ".."]).output().unwrap();
    let files: Vec<&str> = std::str::from_utf8(&listed.stdout).unwrap().split_terminator('\0').collect();
    assert!(files.len() > 100, "{files:?}");
    let mut wide = Vec::new();
    for file in files {
        // A file that is deleted, but not yet in the index.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        let lines: Vec<(usize, &str)> = match std::path::Path::new(file).extension().and_then(|kind| kind.to_str()) {
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
fn code_and_tables_are_no_prose() {
    let text = "one\n```\ncode\n```\n| a table |\ntwo\n";
    assert_eq!(prose(text).map(|(number, _)| number).collect::<Vec<_>>(), [1, 6]);
    assert_eq!(
        comments("let a = 1;\n    // why\n/// | a table |\n").map(|(number, _)| number).collect::<Vec<_>>(),
        [2]
    );
}
