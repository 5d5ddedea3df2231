//! Everything that comes from outside, damaged at random: an error is an answer, a panic is none, and neither is
//! silence.
//!
//! Each parser is a target with seeds that it understands; mutations of them get further into it than noise would.
//! Inputs that make one panic are kept (`target/fuzz`), and the number that the random ones came from is said.

use std::{
    fs,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use profiler::{
    agent::wire, analysis::layers::Rules, engine::configuration, injection::Injection, outside, probes::format::Format,
    run,
};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

use crate::common::full;

/// In all 60 s, shared by the targets; with `--full`, ten times that.
const SECONDS: f64 = 60.0;
/// What one input may take at most: longer is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// What numbers and texts end with, or begin to mean something else at.
const TOKENS: &[&str] = &[
    "0",
    "-1",
    "1e308",
    "-0.0",
    "18446744073709551616",
    "9223372036854775807",
    "0.1e-400",
    "null",
    "[]",
    "{}",
    "\"\"",
    "\"",
    "\\",
    ",",
    ":",
    "=",
    ";",
    "\n",
    "\r\n",
    "\0",
    "\u{feff}",
    "ns:",
    "docker:net=",
    "+",
    "%",
    "𝛍",
    "(",
    "]",
    "}",
    "<a>",
    "&#0;",
    "NaN",
    "inf",
    "\t",
    "  ",
];

/// What is done with an input; whether it was understood.
type Feed = dyn Fn(&[u8]) -> bool;

struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    feed: Box<Feed>,
}

fn target(name: &'static str, seeds: Vec<Vec<u8>>, feed: impl Fn(&[u8]) -> bool + 'static) -> Target {
    Target { name, seeds, feed: Box::new(feed) }
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn lines(bytes: &[u8], most: usize) -> Vec<u8> {
    bytes.split_inclusive(|byte| *byte == b'\n').take(most).flatten().copied().collect()
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    file.write_all(bytes).unwrap();
    file.finish().unwrap()
}

/// One file of a recorded run, in a folder with the others whole.
fn file_of_run(name: &'static str, file: &'static str, most_lines: usize) -> Target {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(here("tests/data/run-file")).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        let is_counts = entry.file_name() == "repetitions.jsonl";
        fs::write(folder.path().join(entry.file_name()), if is_counts { lines(&bytes, 2) } else { bytes }).unwrap();
    }
    let path = folder.path().join(file);
    let is_packed = file.ends_with(".gz");
    let seed = if is_packed { unpacked(&path) } else { fs::read(&path).unwrap() };
    target(name, vec![lines(&seed, most_lines)], move |bytes| {
        fs::write(&path, if is_packed { packed(bytes) } else { bytes.to_vec() }).unwrap();
        run::requests(folder.path(), None).is_ok() && run::compute(folder.path()).is_ok()
    })
}

fn formats() -> Vec<Vec<u8>> {
    let files = fs::read_dir(here("tests/data/formats")).unwrap().flatten();
    let texts = files.map(|entry| fs::read_to_string(entry.path()).unwrap());
    texts
        .flat_map(|text| {
            text.split("\n=== ").skip(1).take(4).map(|event| event.as_bytes().to_vec()).collect::<Vec<_>>()
        })
        .collect()
}

/// A line of the protocol.
fn said(what: &impl serde::Serialize) -> Vec<u8> {
    let mut line = Vec::new();
    wire::say(&mut line, what).unwrap();
    line
}

fn phase() -> workloads::protocol::PhaseReport {
    let mut histogram = workloads::protocol::new_histogram();
    [900, 20_000, 20_100, 3_000_000].iter().for_each(|ns| histogram.saturating_record(*ns));
    workloads::protocol::PhaseReport {
        heard_ns: 1,
        operations: 4,
        latency_sum_ns: 3_041_000,
        histogram: workloads::protocol::encode_histogram(&histogram),
        ..Default::default()
    }
}

fn targets() -> Vec<Target> {
    let counted = wire::Reply::Counted(Box::default());
    let symbols = tempfile::NamedTempFile::new().unwrap();
    let kallsyms = "ffffffff81000000 T _text\nffffffff81000120 t do_syscall_64\nffffffffc0000000 t bpf_prog_0123456789abcdef_x\t[bpf]\n";
    let redis = "  throughput summary: 45045.04 requests per second\n  latency summary (msec):\n          avg       min\n        0.021     0.008\n\
                 Latency by percentile distribution:\n0.000% <= 0.007 milliseconds (cumulative count 1)\n50.000% <= 0.023 milliseconds (cumulative count 9)\n\n";
    vec![
        file_of_run("run.json", "run.json", usize::MAX),
        file_of_run("repetitions", "repetitions.jsonl", 2),
        file_of_run("records", "records.native.jsonl.gz", 200),
        file_of_run("stacks", "stacks.native.jsonl.gz", 40),
        target("tracepoint formats", formats(), |bytes| {
            let format = Format::parse(&String::from_utf8_lossy(bytes));
            format
                .is_ok_and(|format| format.offset_of("common_pid", 4).is_ok() || format.offset_of("skbaddr", 8).is_ok())
        }),
        target("kallsyms", texts(&[kallsyms]), move |bytes| {
            fs::write(symbols.path(), bytes).unwrap();
            outside::kallsyms(symbols.path())
        }),
        target("redis-benchmark", texts(&[redis]), outside::redis_benchmark),
        target("fio", vec![fs::read(here("../workloads/src/fio/said.txt")).unwrap()], |bytes| {
            let mut from = std::io::Cursor::new(bytes);
            workloads::fio::read_next(&mut from).is_ok_and(|status| status.is_some())
        }),
        target("redis replies", texts(&["+OK\r\n", "$5\r\nhello\r\n", "$-1\r\n", "-ERR x\r\n"]), |bytes| {
            workloads::redis::resp::parse(bytes).is_ok_and(|reply| reply.is_some())
        }),
        target("phases", vec![said(&phase())], |bytes| {
            let report = wire::understand::<workloads::protocol::PhaseReport>(bytes);
            report.is_ok_and(|report| workloads::protocol::decode_histogram(&report.histogram).is_ok())
        }),
        target("histograms", vec![phase().histogram.into_bytes()], |bytes| {
            workloads::protocol::decode_histogram(&String::from_utf8_lossy(bytes)).is_ok()
        }),
        target("guests", vec![said(&wire::Reply::Clock { now_ns: 5 }), said(&counted)], |bytes| {
            wire::hear::<wire::Reply>(&mut std::io::Cursor::new(bytes)).is_ok()
        }),
        target("hosts", vec![said(&wire::Request::Clock), said(&wire::Request::Hello { version: 4 })], |bytes| {
            wire::hear::<wire::Request>(&mut std::io::Cursor::new(bytes)).is_ok()
        }),
        target(
            "configurations",
            texts(&["native+spin-us=20,docker:net=nat,ns:net=own,fs=overlay", "kvm:tuned,tcg:vcpus=2"]),
            |bytes| {
                let text = String::from_utf8_lossy(bytes);
                let Ok(parsed) = configuration::parse_list(&text) else { return false };
                // What is understood is said in a form that is understood as the same.
                for found in &parsed.configurations {
                    let (again, _) = configuration::parse(&found.to_string()).unwrap();
                    assert_eq!(again, *found, "{text}");
                }
                true
            },
        ),
        target("injections", texts(&["spin-us=20", "read-iops=4000"]), |bytes| {
            Injection::parse(&String::from_utf8_lossy(bytes)).is_ok()
        }),
        target("layers", vec![fs::read(here("analysis/src/layers/rules.txt")).unwrap()], |bytes| {
            let rules = Rules::parse(&String::from_utf8_lossy(bytes));
            rules.is_ok_and(|rules| rules.layer_of(&["do_syscall_64", "tcp_sendmsg"]).is_some())
        }),
        target("domains", texts(&["<domain><devices><rng model='virtio'/></devices></domain>"]), outside::domain),
    ]
}

/// Damages bytes in a few places.
fn damage(bytes: &mut Vec<u8>, random: &mut impl Rng) {
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..40)).min(bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                // In the place of a number, as often as beside it.
                let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(at..at + digits, token.bytes());
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
}

/// Feeds one target for a time; how many inputs it took.
fn feed(target: &Target, length: Duration, number: u64) -> u64 {
    let mut random = SmallRng::seed_from_u64(number);
    let (began, mut fed) = (Instant::now(), 0);
    for seed in &target.seeds {
        assert!((target.feed)(seed), "{}: this seed is not understood: {}", target.name, String::from_utf8_lossy(seed));
    }
    while began.elapsed() < length {
        let mut bytes = target.seeds[random.random_range(0..target.seeds.len())].clone();
        damage(&mut bytes, &mut random);
        let at = Instant::now();
        let survived = catch_unwind(AssertUnwindSafe(|| (target.feed)(&bytes))).is_ok();
        if !survived || at.elapsed() > PATIENCE {
            let folder = here("../target/fuzz");
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(format!("{}-{number}", target.name.replace(' ', "-")));
            fs::write(&path, &bytes).unwrap();
            panic!("{}: {} ({number})", target.name, path.display());
        }
        fed += 1;
    }
    fed
}

/// Every second target, from this one on: the halves are two tests, for two CPUs.
fn feed_half(first: usize) {
    let targets = targets();
    let seconds = if full() { 10.0 * SECONDS } else { SECONDS } / targets.len() as f64;
    // The same inputs for the same code, as far as the time goes; the longer suite looks further every time.
    let number = if full() { std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() } else { 1 };
    for target in targets.iter().skip(first).step_by(2) {
        let fed = feed(target, Duration::from_secs_f64(seconds), number);
        println!("{}: {fed} inputs", target.name);
        assert!(fed > 20, "{}: only {fed} inputs", target.name);
    }
}

pub fn nothing_from_outside_makes_a_parser_panic() {
    feed_half(0);
}

pub fn nothing_from_outside_makes_another_parser_panic() {
    feed_half(1);
}
