//! Tables in the documentation that are made of the table of points. After a change of rows:
//! `VIRTAX_MAKE_DOCS=1 cargo test -p profiler --test offline docs`.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use profiler::points::{At, Hook, PROBES, READER, Row, Splits, Words};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The hook in the kernel's words.
fn hook(hook: Hook) -> String {
    match hook {
        Hook::TypedTracepoint(name) | Hook::RawTracepoint(name) => format!("`{name}`"),
        Hook::Tracepoint { event, .. } => format!("`{event}`"),
        Hook::Fentry(name) | Hook::Fexit(name) | Hook::Kprobe(name) => format!("`{name}()`"),
        Hook::KretprobePair { function, .. } => format!("`{function}()`"),
    }
}

fn name(row: &Row) -> String {
    match row.at {
        At::NoDevice => format!("`{}`", row.point),
        At::NetworkDevice => format!("`{}(device)`", row.point),
        At::Disk => format!("`{}(disk)`", row.point),
    }
}

fn splits(splits: Splits) -> String {
    match splits {
        Splits::Nothing => "ends a stage, and begins one".to_owned(),
        Splits::StageThatEndsAt(point) => format!("splits the stage that ends at `{point}`"),
        Splits::Waiting => "splits the wait for a thread".to_owned(),
        Splits::Retransmission => "splits the wait for a segment to be sent again".to_owned(),
        Splits::Vm => "splits the time that a machine holds a request".to_owned(),
        Splits::GuestsDisk => "splits a guest's wait for its disk".to_owned(),
        Splits::GuestsDiskOrWorker => {
            "splits a guest's wait for its disk, or the way to one of io_uring's workers".to_owned()
        }
    }
}

fn words(words: Words) -> String {
    match words {
        Words::None => String::new(),
        Words::Are(words) => words.to_owned(),
        Words::WithRole(before, after) => format!("{before}client, server or proxy{after}"),
        Words::ByDevice(_) => "*depends on the device*".to_owned(),
        Words::OrAtGuestsDisk(words, there) => format!("{words}; at a guest's disk: {there}"),
    }
}

fn points() -> String {
    let mut text =
        "# Points\n\nMade of the table of points (`profiler/model/src/points`) by the test `docs`; do not edit it.\n\n\
                    ## Where a request is seen\n\n\
                    | point | by the kernel's | what holds the request: before → after | |\n|---|---|---|---|\n"
            .to_owned();
    let rows = || PROBES.iter().flat_map(|probe| probe.points.iter().map(move |row| (probe, row)));
    for (probe, row) in rows() {
        let by = hook(probe.alternatives[0].hook);
        writeln!(text, "| {} | {by} | {} | {} |", name(row), row.passes, splits(row.splits)).unwrap();
    }
    text += "\n## What may come next\n\nIn records, points that split stages stand between those that end them.\n\n\
             | from | to | until then |\n|---|---|---|\n";
    for (_, row) in rows() {
        for next in row.next {
            writeln!(text, "| `{}` | `{}` | {} |", row.point, next.to, words(next.words)).unwrap();
        }
    }
    text + "\n## What the reader of a socket did\n\n" + &readers()
}

fn readers() -> String {
    let mut text = "| part | the reader was |\n|---|---|\n".to_owned();
    for row in READER {
        writeln!(text, "| {} | {} |", row.point, row.meaning).unwrap();
    }
    text
}

/// A file's text with the table that begins with the same two lines replaced.
fn with_table(text: &str, table: &str) -> String {
    let head: String = table.split_inclusive('\n').take(2).collect();
    let (before, rest) = text.split_once(&head).expect("the document has the table");
    let after: String = rest.split_inclusive('\n').skip_while(|line| line.starts_with('|')).collect();
    format!("{before}{table}{after}")
}

pub fn tables_are_those_of_the_points() {
    let method = folder().join("method.md");
    let text = fs::read_to_string(&method).unwrap();
    for (path, wanted) in [(folder().join("points.md"), points()), (method, with_table(&text, &readers()))] {
        if std::env::var_os("VIRTAX_MAKE_DOCS").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "{} is not what the table of points says: VIRTAX_MAKE_DOCS=1", path.display());
    }
}
