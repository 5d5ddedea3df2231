//! What reads things from outside: a target each, for random damage here and for a fuzzer that is guided by coverage
//! (`profiler/fuzz`, `cargo xtask fuzz`).
//!
//! What the latter found, an input for each way through a parser, lies in `profiler/fuzz/corpus`, base64 line by line.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use profiler::{
    agent::wire, analysis::layers::Rules, engine::configuration, injection::Injection, outside, probes::format::Format,
    run,
};

/// What is done with an input; whether it was understood.
pub type Feed = dyn Fn(&[u8]) -> bool;

pub struct Target {
    pub name: &'static str,
    /// Inputs that are understood.
    pub seeds: Vec<Vec<u8>>,
    /// Inputs that are refused, each for another reason.
    pub refused: Vec<Vec<u8>>,
    pub feed: Box<Feed>,
}

impl Target {
    /// The target, which refuses these.
    fn refusing(self, refused: &[&str]) -> Self {
        Self { refused: texts(refused), ..self }
    }
    /// The target, which refuses its first seed with a piece of it in the place of another.
    fn refusing_changed(self, changes: &[(&str, &str)]) -> Self {
        let seed = String::from_utf8(self.seeds[0].clone()).expect("text");
        let change = |(from, to): &(&str, &str)| {
            assert!(seed.contains(from), "{}: no `{from}`", self.name);
            seed.replacen(from, to, 1).into_bytes()
        };
        Self { refused: changes.iter().map(change).collect(), ..self }
    }
    /// Where its corpus lies.
    pub fn corpus_path(&self) -> PathBuf {
        here(&format!("fuzz/corpus/{}.txt", self.name.replace(' ', "-")))
    }
    /// Inputs for each way through it.
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let text = fs::read_to_string(self.corpus_path()).unwrap_or_default();
        text.lines().map(|line| BASE64_STANDARD.decode(line).expect("base64")).collect()
    }
}

fn target(name: &'static str, seeds: Vec<Vec<u8>>, feed: impl Fn(&[u8]) -> bool + 'static) -> Target {
    Target { name, seeds, refused: Vec::new(), feed: Box::new(feed) }
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// A path in the folder `profiler`, whose or whose fuzzer's this file is a part of.
pub fn here(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let profiler = if package.ends_with("fuzz") { package.join("..") } else { package.to_owned() };
    profiler.join(path)
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

/// A field of a tracepoint's record.
const FIELD: &str = "\tfield:int a;\toffset:0;\tsize:4;\tsigned:1;\n";

/// What fio says of one job.
fn fio_job(error: &str, mean: &str) -> String {
    let direction = format!("{{\"lat_ns\": {{\"mean\": {mean}, \"N\": 1}}}}");
    format!("{{\n\"timestamp_ms\": 1, \"jobs\": [{{{error} \"read\": {direction}, \"write\": {direction}}}]\n}}\n")
}

pub fn targets() -> Vec<Target> {
    let counted = wire::Reply::Counted(Box::default());
    let symbols = tempfile::NamedTempFile::new().unwrap();
    let kallsyms = "ffffffff81000000 T _text\nffffffff81000120 t do_syscall_64\nffffffffc0000000 t bpf_prog_0123456789abcdef_x\t[bpf]\n";
    let redis = "  throughput summary: 45045.04 requests per second\n  latency summary (msec):\n          avg       min\n        0.021     0.008\n\
                 Latency by percentile distribution:\n0.000% <= 0.007 milliseconds (cumulative count 1)\n50.000% <= 0.023 milliseconds (cumulative count 9)\n\n";
    vec![
        file_of_run("run.json", "run.json", usize::MAX).refusing_changed(&[
            ("\"schema_version\": 2", "\"schema_version\": 99"),
            ("\"schema_version\": 2", "\"schema_version\": 1"),
        ]),
        file_of_run("repetitions", "repetitions.jsonl", 2),
        file_of_run("records", "records.native.jsonl.gz", 200).refusing_changed(&[
            ("[[0,", &format!("[{}[0,", "[0,\"client\",0,1,1],".repeat(200))),
            ("\"vda\"", &format!("\"{}\"", "a".repeat(200))),
            ("[0,\"client\",0,", "[0,\"client\",18446744073709551615,"),
            ("[[0,", "[[99,"),
        ]),
        file_of_run("stacks", "stacks.native.jsonl.gz", 40)
            .refusing_changed(&[("\"stack\":[", "\"stack\":[99999,"), ("\"ns\":", "\"ns\":-")]),
        target("tracepoint formats", formats(), |bytes| {
            let format = Format::parse(&String::from_utf8_lossy(bytes));
            format
                .is_ok_and(|format| format.offset_of("common_pid", 4).is_ok() || format.offset_of("skbaddr", 8).is_ok())
        })
        .refusing(&[&("name: x\nID: 1\nformat:\n".to_owned() + &FIELD.repeat(300))]),
        target("kallsyms", texts(&[kallsyms]), move |bytes| {
            fs::write(symbols.path(), bytes).unwrap();
            outside::kallsyms(symbols.path())
        }),
        target("redis-benchmark", texts(&[redis]), outside::redis_benchmark),
        target("fio", vec![fs::read(here("../workloads/src/fio/said.txt")).unwrap()], |bytes| {
            let mut from = std::io::Cursor::new(bytes);
            workloads::fio::read_next(&mut from).is_ok_and(|status| status.is_some())
        })
        .refusing(&[
            &fio_job("\"error\": 22,", "1.0"),
            &fio_job("\"error\": 28,", "1.0"),
            &fio_job("\"error\": 5,", "1.0"),
            &fio_job("", "-1.0"),
        ]),
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
        )
        .refusing(&["native+spin-us=1,native+spin-us=1", "ns:net=veth,net=veth"]),
        target("injections", texts(&["spin-us=20", "read-iops=4000"]), |bytes| {
            Injection::parse(&String::from_utf8_lossy(bytes)).is_ok()
        }),
        target("layers", vec![fs::read(here("analysis/src/layers/rules.txt")).unwrap()], |bytes| {
            let rules = Rules::parse(&String::from_utf8_lossy(bytes));
            rules.is_ok_and(|rules| rules.layer_of(&["do_syscall_64", "tcp_sendmsg"]).is_some())
        }),
        target("domains", texts(&["<domain><devices><rng model='virtio'/></devices></domain>"]), outside::domain)
            .refusing(&["<domain><name>x</name></domain>", "<network/>", "<domain/>"]),
    ]
}
