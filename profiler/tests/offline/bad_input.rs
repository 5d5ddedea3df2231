//! Bad input of every kind: refused with words that help, by the documented exit codes, never with a panic.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::common::{text, virtax};
use profiler::{render::terminal, result::RunResult, run};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Exit codes that the help documents.
const DOCUMENTED: &[i32] = &[2, 3, 4, 5, 6];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/run")
}

/// A copy of the recorded run, as short as it can be: one round.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture()).unwrap().flatten() {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let copy = Self(folder);
        let repetitions = copy.read("repetitions.jsonl");
        let first: Vec<&str> = repetitions.lines().take(2).collect();
        copy.write("repetitions.jsonl", (first.join("\n") + "\n").as_bytes());
        copy
    }
    /// A run without stacks and records: most fields have nothing to do with them.
    fn small() -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(copy.0.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".gz") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        copy
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }
    fn write_gzip(&self, name: &str, text: &str) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        self.write(name, &gzip.finish().unwrap());
    }
    fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_str(self.read(name).lines().next().unwrap_or_default())
            .or_else(|_| serde_json::from_str(&self.read(name)))
            .unwrap();
        edit(&mut value);
        self.write(name, format!("{value}\n").as_bytes());
    }
    fn report(&self) -> (i32, String) {
        let output = virtax().arg("report").arg(self.0.path()).output().unwrap();
        (output.status.code().unwrap_or(-1), text(&output.stderr).replace(&self.0.path().display().to_string(), "RUN"))
    }
}

/// What the command line refuses before anything happens.
const ARGUMENTS: &[&str] = &[
    "",
    "frobnicate",
    "rnu tcp-rr --in native",
    "run",
    "run tcp-rr",
    "run tcp-rr --in",
    "run tcp-rr --in native --frobnicate",
    "run tcp-rr --in native --round 3",
    "run tcp-rr --in native native",
    "run tcp-rr --in native --rounds 0",
    "run tcp-rr --in native --window 0",
    "run tcp-rr --in native --window turns",
    "run tcp-rr --in native --window 600 --duration 1",
    "run tcp-rr --in native --rounds 10001",
    "run tcp-rr --in native --rounds -1",
    "run tcp-rr --in native --rounds ten",
    "run tcp-rr --in native --rounds 99999999999999999999",
    "run tcp-rr --in native --duration 0",
    "run tcp-rr --in native --duration 0.29",
    "run tcp-rr --in native --duration 3601",
    "run tcp-rr --in native --duration nan",
    "run tcp-rr --in native --duration inf",
    "run tcp-rr --in native --duration 1e400",
    "run tcp-rr --in native --duration 1m",
    "run tcp-rr --in native --placement here",
    "run tcp-rr --in native --placement spilt",
    "run tcp-rr --in native --records -1",
    "run tcp-rr --in native --records nan",
    "run tcp-rr --in native --records 1e7",
    "run tcp-rr --in native --sample-rate -1",
    "run tcp-rr --in native --sample-rate 10001",
    "run tcp-rr --in native --sample-rate fast",
    "run tcp-rr --in native --samples-until 0",
    "run tcp-rr --in native --samples-until 51%",
    "run tcp-rr --in native --samples-until x",
    "run tcp-rr --in native --samples-until 3% --sample-rate 0",
    "run tcp-rr --in native --seed -1",
    "run tcp-rr --in native --seed 18446744073709551616",
    "run tcp-rr --in native --set",
    "run tcp-rr --in native --set connections",
    "run tcp-rr --in native --set connections=",
    "run tcp-rr --in native --set connections=0",
    "run tcp-rr --in native --set connections=10001",
    "run tcp-rr --in native --set conections=1",
    "run tcp-rr --in native --set server=thread",
    "run tcp-rr --in native --set rate=nan",
    "run tcp-rr --in native --set request=0",
    "run tcp-rr --in native --set response=1e3",
    "run tcp-rr --in native --set chunk=-1",
    "run tcp-rr --in native --set connections=1 --set connections=2",
    "run tcp-r --in native",
    "run redis --in native",
    "run redis-set --in native --set clients=0",
    "run redis-set --in native --set pipeline=16",
    "run redis-get --in native --set client=redis-bench",
    "run redis-get --in native --set keyspace=x",
    "run tcp-rr --in natve",
    "run tcp-rr --in native:net=host",
    "run tcp-rr --in docker:net",
    "run tcp-rr --in docker:net=hst",
    "run tcp-rr --in docker:nte=host",
    "run tcp-rr --in docker:net=host,net=nat",
    "run tcp-rr --in docker:",
    "run tcp-rr --in native,",
    "run tcp-rr --in ,",
    "run tcp-rr --in native+copy=2,native+copy=2",
    "run tcp-rr --in native+spin-us=0",
    "run tcp-rr --in native+spin=5",
    "run tcp-rr --in native+bridges=2",
    "run redis-set --in native+spin-us=5",
    "run redis-set --in ns:net=veth+queue-veth-request-us=5",
    "run tcp-rr --in ns:net=host,hooks=on",
    "run tcp-rr --in ns:net=nat,proxy=on",
    "run tcp-rr --in ns:fs=zfs",
    "ladder",
    "ladder network",
    "ladder netwrok tcp-rr",
    "ladder network tcp-r",
    "ladder network tcp-rr --in native",
    "ladder network tcp-rr --precision 0",
    "ladder network tcp-rr --precision 2 --until-precision 3",
    "ladder network tcp-rr --budget -1",
    "truth --case server-spin",
    "truth --aa 0",
    "truth --aa --full",
    "truth --rounds 0",
    "truth --duration nan",
    "enter {",
    "run tcp-rr --in podman",
    "run tcp-rr --in native,../../etc",
    "run tcp-rr --in native --baseline docker:net=host",
    "run tcp-rr --in native,docker:net=host --baseline docker:net=hots",
    "run tcp-rr --in native --starve packet=1",
    "run tcp-rr --in native --starve packets=0",
    "run tcp-rr --in native --starve record-ring=5000",
    "report",
    "report RUN EXTRA",
    "list --all",
    "clean --force",
    "doctor now",
    "completions",
    "completions csh",
    "manual virtax-rnu",
];

pub fn arguments_are_refused_with_2_before_anything_happens() {
    let mut words = String::new();
    for line in ARGUMENTS {
        let output = virtax().args(line.split(' ').filter(|word| !word.is_empty())).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}: {}", text(&output.stdout));
        assert!(!said.contains("panicked"), "{line}: {said}");
        // The usage that clap appends is the help's business.
        let said = said.split("\n\nUsage:").next().unwrap_or_default();
        let said = said.split("\n\nFor more information").next().unwrap_or_default().trim_end().to_owned();
        let said = if line.is_empty() { "(the help)".to_owned() } else { said };
        words += &format!("$ virtax {line}\n{said}\n\n");
    }
    assert!(ARGUMENTS.len() >= 60);
    insta::assert_snapshot!(words);
}

type Breakage = (&'static str, fn(&Copy));

const FILES: &[Breakage] = &[
    ("no run.json", |run| fs::remove_file(run.path("run.json")).unwrap()),
    ("run.json is a folder", |run| {
        fs::remove_file(run.path("run.json")).unwrap();
        fs::create_dir(run.path("run.json")).unwrap();
    }),
    ("run.json is empty", |run| run.write("run.json", b"")),
    ("run.json is cut off", |run| run.write("run.json", &run.read("run.json").as_bytes()[..200])),
    ("run.json is not UTF-8", |run| run.write("run.json", b"\xff\xfe\x00{")),
    ("run.json is a hundred thousand brackets", |run| run.write("run.json", "[".repeat(100_000).as_bytes())),
    ("run.json is larger than the limit", |run| {
        fs::File::create(run.path("run.json")).unwrap().set_len((64 << 20) + 1).unwrap();
    }),
    ("run.json of a newer version, of another shape", |run| {
        run.write("run.json", b"{\"schema_version\":3,\"run\":\"12345\"}");
    }),
    ("run.json of an older version", |run| run.edit("run.json", |value| value["schema_version"] = json!(1))),
    ("run.json without a version", |run| run.write("run.json", b"{}")),
    ("run.json with a version that is no number", |run| {
        run.edit("run.json", |value| value["schema_version"] = json!("two"));
    }),
    ("a number beyond all", |run| {
        let text = run.read("run.json").replace("\"duration_s\": ", "\"duration_s\": 1e999, \"x\": ");
        run.write("run.json", text.as_bytes());
    }),
    ("a duration of 0", |run| run.edit("run.json", |value| value["duration_s"] = json!(0))),
    ("a negative limit", |run| run.edit("run.json", |value| value["residual_limit"] = json!(-1))),
    ("a baseline that is not there", |run| run.edit("run.json", |value| value["baseline"] = json!("native"))),
    ("a configuration that leads elsewhere", |run| {
        run.edit("run.json", |value| {
            value["configurations"] = json!(["../../../etc/passwd"]);
            value["baseline"] = json!("../../../etc/passwd");
        });
    }),
    ("a configuration with terminal control", |run| {
        run.edit("run.json", |value| {
            value["configurations"] = json!(["\u{1b}[2Jx"]);
            value["baseline"] = json!("\u{1b}[2Jx");
        });
    }),
    ("an unknown placement", |run| run.edit("run.json", |value| value["placement"] = json!("there"))),
    ("no repetitions.jsonl", |run| fs::remove_file(run.path("repetitions.jsonl")).unwrap()),
    ("repetitions.jsonl is empty", |run| run.write("repetitions.jsonl", b"")),
    ("a broken line among whole ones", |run| {
        let text = run.read("repetitions.jsonl");
        run.write("repetitions.jsonl", format!("{{\"round\": 0}}\n{text}").as_bytes());
    }),
    ("a repetition of another run's configuration", |run| {
        run.edit("repetitions.jsonl", |value| value["configuration"] = json!("native"));
    }),
    ("a round beyond the last", |run| run.edit("repetitions.jsonl", |value| value["round"] = json!(4_000_000_000u32))),
    ("a phase of no length", |run| run.edit("repetitions.jsonl", |value| value["phases"][0]["length_ns"] = json!(0))),
    ("a count beyond all", |run| {
        run.edit("repetitions.jsonl", |value| value["phases"][0]["client"]["operations"] = json!(u64::MAX));
    }),
    ("a histogram that is none", |run| {
        run.edit("repetitions.jsonl", |value| value["phases"][0]["client"]["histogram"] = json!("AAAA"));
    }),
    ("records that are no gzip", |run| {
        run.write("records.docker-net-nat.jsonl.gz", b"these are no records at all, nor gzip")
    }),
    ("records that name a place that is not there", |run| {
        run.write_gzip(
            "records.docker-net-nat.jsonl.gz",
            "{\"round\":0,\"places\":[]}\n[\"traced\",1,[[7,\"client\",1,0,1]]]\n",
        );
    }),
    ("records with impossible times", |run| {
        run.write_gzip(
            "records.docker-net-nat.jsonl.gz",
            "{\"round\":0,\"places\":[{\"point\":\"send\"}]}\n[\"traced\",18446744073709551615,[[0,\"client\",1,0,1]]]\n",
        );
    }),
    ("a record with too many points", |run| {
        let points = vec!["[0,\"client\",1,0,1]"; 129].join(",");
        run.write_gzip(
            "records.docker-net-nat.jsonl.gz",
            &format!("{{\"round\":0,\"places\":[{{\"point\":\"send\"}}]}}\n[\"traced\",1,[{points}]]\n"),
        );
    }),
    ("stacks that are no gzip", |run| {
        run.write("stacks.docker-net-nat.jsonl.gz", b"these are no stacks at all, nor gzip")
    }),
    ("stacks that are no stacks", |run| run.write_gzip("stacks.docker-net-nat.jsonl.gz", "{\"round\":0}\n")),
];

pub fn broken_and_hostile_files_are_refused_with_6() {
    let mut words = String::new();
    for (name, damage) in FILES {
        let run = Copy::new();
        damage(&run);
        let (code, said) = run.report();
        assert_eq!(code, 6, "{name}: {said}");
        assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{name}: {said}");
        words += &format!("{name}\n{said}\n");
    }
    insta::assert_snapshot!(words);
}

/// A line of 80 MB, compressed to a few kilobytes.
pub fn a_file_that_unpacks_without_end_is_refused() {
    let run = Copy::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..80 {
        gzip.write_all(&chunk).unwrap();
    }
    run.write("records.docker-net-nat.jsonl.gz", &gzip.finish().unwrap());
    let (code, said) = run.report();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("longer than 64 MB"), "{said}");
}

/// Links that a stranger left in place of what a report writes: they are replaced, and what they lead to stays.
pub fn links_in_a_folder_are_not_followed() {
    let precious = tempfile::NamedTempFile::new().unwrap();
    fs::write(precious.path(), "mine").unwrap();
    let run = Copy::new();
    for name in ["result.json", "result.json.new", "latency.docker-net-nat.svg", "latency.docker-net-nat.folded"] {
        std::os::unix::fs::symlink(precious.path(), run.path(name)).unwrap();
    }
    let (code, said) = run.report();
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(precious.path()).unwrap(), "mine");
    assert!(run.read("result.json").contains("schema_version") && run.path("latency.docker-net-nat.svg").is_file());
}

/// What a stranger might put into a field.
fn nasty() -> Vec<Value> {
    vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(1e17),
        json!(900_000_000_000_000_000u64),
        json!(1e-300),
        json!("../../../../tmp/x\u{1b}[2J\u{0}"),
        json!([]),
        json!({}),
        json!(true),
    ]
}

/// Pointers (RFC 6901) to every field; of a list, to its first and last entry.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    if !at.is_empty() {
        found.push(at.to_owned());
    }
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                pointers(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(values) => {
            let ends = [0, values.len().saturating_sub(1)];
            for index in if ends[0] == ends[1] { &ends[..1] } else { &ends[..] } {
                if let Some(inner) = values.get(*index) {
                    pointers(inner, &format!("{at}/{index}"), found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn every_field(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    pointers(value, "", &mut found);
    found
}

/// The report of a folder, and all that is shown of it. The test fails if anything panics.
fn report_of(folder: &Path) {
    match run::report(folder) {
        Ok(run::Report { result, .. }) => {
            let shown = terminal::report(&result, terminal::Look { width: Some(120), styled: false });
            assert!(!shown.contains('\u{1b}'), "control characters reach the terminal: {shown}");
        }
        Err(error) => assert!(DOCUMENTED.contains(&i32::from(error.exit_code())), "{error}"),
    }
}

/// Every field of `run.json` and of a repetition, with everything nasty in it.
pub fn every_field_of_raw_files_may_hold_anything() {
    for name in ["run.json", "repetitions.jsonl"] {
        let whole = Copy::small();
        let original: Value = serde_json::from_str(&whole.read(name))
            .or_else(|_| serde_json::from_str(whole.read(name).lines().next().unwrap()))
            .unwrap();
        let rest = if name == "run.json" { String::new() } else { whole.read(name).lines().skip(1).collect() };
        let fields = every_field(&original);
        assert!(fields.len() > 30, "{name}: {}", fields.len());
        for (number, field) in fields.iter().enumerate() {
            let values = nasty();
            // All of them for short documents; of long ones, whose phases repeat each other, a few in turn.
            let few = if fields.len() > 200 { 2 } else { values.len() };
            for value in values.iter().cycle().skip(number).take(few) {
                let mut changed = original.clone();
                *changed.pointer_mut(field).unwrap() = value.clone();
                whole.write(name, format!("{changed}\n{rest}\n").as_bytes());
                report_of(whole.0.path());
            }
        }
        whole.write(name, format!("{original}\n{rest}\n").as_bytes());
    }
}

/// Every field of `result.json`, with everything nasty in it: what is shown is shown, what is impossible is refused.
pub fn every_field_of_a_result_may_hold_anything() {
    let run = Copy::new();
    run::report(run.0.path()).unwrap();
    let original: Value = serde_json::from_str(&run.read("result.json")).unwrap();
    let fields = every_field(&original);
    assert!(fields.len() > 300, "{}", fields.len());
    for field in &fields {
        for value in nasty() {
            let mut changed = original.clone();
            *changed.pointer_mut(field).unwrap() = value;
            run.write("result.json", changed.to_string().as_bytes());
            match RunResult::load(run.0.path()) {
                Ok(result) => {
                    let shown = terminal::report(&result, terminal::Look { width: Some(100), styled: false });
                    assert!(!shown.contains('\u{1b}'), "{field}: control characters reach the terminal");
                }
                Err(error) => assert_eq!(error.exit_code(), 6, "{field}: {error}"),
            }
        }
    }
}

/// Bytes changed, cut and repeated anywhere in any file of a run.
pub fn damaged_files_never_panic() {
    damaged();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    fn damaged(
        which in 0usize..6,
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let run = Copy::new();
        let mut names: Vec<_> = fs::read_dir(run.0.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        names.sort();
        let path = &names[which % names.len()];
        let mut bytes = fs::read(path).unwrap();
        for (index, byte) in damages {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(path, bytes).unwrap();
        report_of(run.0.path());
    }
}
