//! Runs of every kind, recorded once, and all that is made of them, byte by byte: what rebuilds the way from saved
//! counts to the picture must not change any of it.
//!
//! `tests/data/golden/NAME` holds a run's files, packed; `NAME/made` what was made of them, packed. After a change that
//! is meant: `VIRTAX_MAKE_GOLDEN=1 cargo test -p profiler --test offline golden_runs`, and say in the commit what is
//! different and why.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use crate::common::{Out, text};
use profiler::{
    export::{Format, Kind},
    render::terminal::{self, Look},
    run, run_folder,
};

/// What each run is for. Every one that step by step rebuilding could break has its own.
const RUNS: &[(&str, &str)] = &[
    ("tcg-net", "a guest of an emulated machine behind a tap, followed by its agent: sides, and clocks that differ"),
    ("tcg-threads", "files in a guest, handed on by QEMU's workers: the guest's operations hold the host's"),
    ("tcg-io-uring", "the same by io_uring"),
    ("lab-kvm", "exits, and the steps of a request through a guest (recorded in the lab)"),
    ("lab-kvm-block", "exits, and the steps of an operation on a guest's disk (recorded in the lab)"),
    ("proxy", "a userland proxy: four roles on one path"),
    ("redis-50", "50 clients: what a message's reader did meanwhile"),
    ("parts", "messages that are received in parts"),
    ("io-uring-workers", "operations that io_uring's workers make"),
    ("loop", "disks below disks: a loop device"),
    ("dm", "disks below disks: the device mapper, twice (recorded in the lab)"),
    ("losses", "tokens that are lost, by cause"),
    ("detached", "nothing but latencies"),
    ("sampled", "stacks of one configuration, and no records"),
];

const SETS: [Format; 5] = [Format::Csv, Format::Markdown, Format::Openmetrics, Format::Perfetto, Format::Pprof];
const STACKS: [Format; 3] = [Format::Folded, Format::Speedscope, Format::Firefox];
const KINDS: [Kind; 3] = [Kind::Latency, Kind::Cpu, Kind::OffCpu];

fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn pack(path: &Path, bytes: &[u8]) {
    let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap();
}

/// A recorded run in a folder of the test's own. Records and stacks are packed in a run's folder, too.
fn run_of(name: &str) -> Out {
    let out = Out::new();
    fs::create_dir(out.path()).unwrap();
    for entry in fs::read_dir(folder_of(name)).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let file = entry.file_name().to_string_lossy().into_owned();
        match file.strip_suffix(".gz").filter(|file| !run_folder::is_ours(&format!("{file}.gz"))) {
            Some(plain) => fs::write(out.path().join(plain), unpacked(&entry.path())).unwrap(),
            None => drop(fs::copy(entry.path(), out.path().join(&file)).unwrap()),
        }
    }
    out
}

/// All that is made of a run, by the names of files. Left out: what names the folder it was made in (a path that the
/// test chose), and the version of virtax that made it.
fn made_of(name: &str) -> BTreeMap<String, Vec<u8>> {
    let out = run_of(name);
    let run::Report { result, .. } = run::report(&out.path()).unwrap();
    let shown = terminal::report(&result, Look { width: Some(160), styled: false });
    let mut made = BTreeMap::from([("terminal.txt".to_owned(), shown.into_bytes())]);
    for entry in fs::read_dir(out.path()).unwrap().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let is_made = file == run_folder::RESULT || file.ends_with(".folded");
        if is_made {
            made.insert(file, fs::read(entry.path()).unwrap());
        } else if file == run_folder::PAGE {
            made.insert("page-data.json".to_owned(), data_of_page(&text(&fs::read(entry.path()).unwrap())));
        }
    }
    let mut export = |format: Format, kind: Kind, file: String| {
        // A form that a run has nothing for says so, and that is kept as well.
        let bytes = run::export(&out.path(), format, kind, 20).unwrap_or_else(|error| error.to_string().into_bytes());
        let bytes = if format == Format::Pprof && bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        } else {
            bytes
        };
        made.insert(file, bytes);
    };
    SETS.iter().for_each(|format| export(*format, Kind::Latency, format!("export.{format:?}").to_lowercase()));
    for kind in KINDS {
        STACKS.iter().for_each(|format| export(*format, kind, format!("export.{format:?}.{kind:?}").to_lowercase()));
    }
    let path = out.path().display().to_string();
    made.values_mut().for_each(|bytes| *bytes = without(bytes, &[&path, env!("CARGO_PKG_VERSION")]));
    made
}

/// The page's data, without its program and style: those may change for their own reasons.
fn data_of_page(page: &str) -> Vec<u8> {
    let (_, rest) = page.split_once("type=\"application/json\"").expect("the page holds its data");
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once("</script>").unwrap().0.as_bytes().to_vec()
}

/// Bytes with these words taken out.
fn without(bytes: &[u8], words: &[&str]) -> Vec<u8> {
    // A profile of pprof is no text, and holds neither.
    let Ok(content) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    words.iter().fold(content.to_owned(), |content, word| content.replace(word, "-")).into_bytes()
}

/// The first lines that differ.
fn difference(before: &[u8], now: &[u8]) -> String {
    let (before, now) = (String::from_utf8_lossy(before), String::from_utf8_lossy(now));
    let cut = |line: &str| line.chars().take(300).collect::<String>();
    let lines = before.lines().zip(now.lines()).enumerate().filter(|(_, (before, now))| before != now);
    let shown = lines
        .take(3)
        .map(|(number, (before, now))| format!("line {}:\n  - {}\n  + {}", number + 1, cut(before), cut(now)));
    format!("{} → {} lines\n{}", before.lines().count(), now.lines().count(), shown.collect::<Vec<_>>().join("\n"))
}

pub fn golden_runs_are_made_into_the_same() {
    let is_made_anew = std::env::var_os("VIRTAX_MAKE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, what_for) in RUNS {
        let (made, folder) = (made_of(name), folder_of(name).join("made"));
        if is_made_anew {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            made.iter().for_each(|(file, bytes)| pack(&folder.join(format!("{file}.gz")), bytes));
            continue;
        }
        let before: BTreeMap<String, Vec<u8>> = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| {
                let file = entry.file_name().to_string_lossy().into_owned();
                (file.trim_end_matches(".gz").to_owned(), unpacked(&entry.path()))
            })
            .collect();
        if before.keys().ne(made.keys()) {
            wrong.push(format!("{name}: {:?} became {:?}", before.keys(), made.keys()));
        }
        for (file, bytes) in &made {
            if let Some(before) = before.get(file).filter(|before| *before != bytes) {
                wrong.push(format!("{name} ({what_for}), {file}: {}", difference(before, bytes)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

pub fn every_recorded_run_is_small_and_has_its_purpose() {
    let listed = fs::read_dir(folder_of("")).unwrap().flatten();
    let mut names: Vec<String> = listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let mut known: Vec<&str> = RUNS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names, known);
    for name in known {
        let files = fs::read_dir(folder_of(name)).unwrap().flatten().filter(|entry| entry.path().is_file());
        let bytes: u64 = files.map(|entry| entry.metadata().unwrap().len()).sum();
        assert!(bytes <= 300_000, "{name} has {bytes} bytes");
    }
}
