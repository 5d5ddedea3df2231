//! Everything that comes from outside, damaged at random: an error is an answer, a panic is none, and neither is silence.
//!
//! Each parser is a target with seeds that it understands; mutations of them get further into it than noise would. Inputs that make one
//! panic are kept (`target/fuzz`), and the number that the random ones came from is said.

use std::{
    fs,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use profiler::{
    agent::wire, analysis::layers::Rules, configuration, injection::Injection, outside, probes::format::Format, run,
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

/// What is done with an input.
type Feed = dyn Fn(&[u8]);

struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    feed: Box<Feed>,
}

fn target(name: &'static str, seeds: Vec<Vec<u8>>, feed: impl Fn(&[u8]) + 'static) -> Target {
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
        let _ = run::compute(folder.path());
        let _ = run::requests(folder.path(), None);
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

fn targets() -> Vec<Target> {
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
            if let Ok(format) = Format::parse(&String::from_utf8_lossy(bytes)) {
                let _ = ["skbaddr", "common_pid"].map(|field| format.offset_of(field, 8));
            }
        }),
        target("kallsyms", texts(&[kallsyms]), move |bytes| {
            fs::write(symbols.path(), bytes).unwrap();
            outside::kallsyms(symbols.path());
        }),
        target("redis-benchmark", texts(&[redis]), outside::redis_benchmark),
        target("fio", vec![fs::read(here("../workloads/src/fio/said.txt")).unwrap()], |bytes| {
            let _ = workloads::fio::Status::parse(&String::from_utf8_lossy(bytes));
            let _ = workloads::fio::read_next(&mut std::io::Cursor::new(bytes));
        }),
        target("redis replies", texts(&["+OK\r\n", "$5\r\nhello\r\n", "*2\r\n:1\r\n$-1\r\n", "-ERR x\r\n"]), |bytes| {
            let _ = workloads::redis::resp::parse(bytes);
        }),
        target("phases", texts(&["HISTFAAAABx4nJNpmSzMwMDAxQABzFCaEUzOZwADAD+pAbQ="]), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = workloads::protocol::decode_histogram(&text);
            let _ = wire::understand::<workloads::protocol::PhaseReport>(bytes);
        }),
        target("guests", texts(&["{\"Clock\":{\"ns\":5}}\n", "{\"Ready\":{\"version\":4}}\n"]), |bytes| {
            let _ = wire::hear::<wire::Reply>(&mut std::io::Cursor::new(bytes));
            let _ = wire::hear::<wire::Request>(&mut std::io::Cursor::new(bytes));
        }),
        target(
            "configurations",
            texts(&["native,docker:net=nat,ns:net=bridge,fs=overlay+rules=100", "kvm:tuned,tcg:vcpus=2"]),
            |bytes| {
                let text = String::from_utf8_lossy(bytes);
                if let Ok(parsed) = configuration::parse_list(&text) {
                    // What is understood is said in a form that is understood as the same.
                    for found in &parsed.configurations {
                        let (again, _) = configuration::parse(&found.to_string()).unwrap();
                        assert_eq!(again, *found, "{text}");
                    }
                }
            },
        ),
        target("injections", texts(&["rules=100", "read-iops=4000"]), |bytes| {
            let _ = Injection::parse(&String::from_utf8_lossy(bytes));
        }),
        target("layers", vec![fs::read(here("src/analysis/layers/rules.txt")).unwrap()], |bytes| {
            if let Ok(rules) = Rules::parse(&String::from_utf8_lossy(bytes)) {
                let _ = rules.layer_of(&["do_syscall_64", "tcp_sendmsg"]);
            }
        }),
        target(
            "domains",
            texts(&["<domain><memory unit='MiB'>5</memory><devices><rng model='virtio'/></devices></domain>"]),
            outside::domain,
        ),
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
    target.seeds.iter().for_each(|seed| (target.feed)(seed));
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
    let number = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for target in targets.iter().skip(first).step_by(2) {
        let fed = feed(target, Duration::from_secs_f64(seconds), number);
        println!("{}: {fed} inputs", target.name);
        assert!(fed > 20, "{}: only {fed} inputs", target.name);
    }
}

#[test]
fn nothing_from_outside_makes_a_parser_panic() {
    feed_half(0);
}

#[test]
fn nothing_from_outside_makes_another_parser_panic() {
    feed_half(1);
}
