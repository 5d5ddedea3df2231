//! Layouts of tracepoints' records from several kernels, and what damage to them does.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use profiler::{
    points::{Hook, PROBES},
    probes::format::Format,
};
use rand::{RngExt, SeedableRng};

/// `category/name` and text of every event of every file in the corpus, by file.
fn corpus() -> BTreeMap<String, BTreeMap<String, String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats");
    std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            assert!(text.starts_with("# "), "{:?} says where it is from", entry.path());
            let events = text.split("\n=== ").skip(1).map(|block| {
                let (name, text) = block.split_once('\n').unwrap();
                (name.trim().to_owned(), text.to_owned())
            });
            (entry.file_name().to_string_lossy().into_owned(), events.collect())
        })
        .collect()
}

/// What the probes want of every record, kernel by kernel: offsets, or why the alternative is not to be had there.
pub fn every_kernel_of_the_corpus_is_understood() {
    let corpus = corpus();
    assert!(corpus.len() >= 5);
    let mut words = String::new();
    for (file, events) in &corpus {
        words += &format!("{file}: {} events\n", events.len());
        for (event, text) in events {
            let format = Format::parse(text).unwrap_or_else(|why| panic!("{file}, {event}: {why}"));
            assert!(event.ends_with(&format.name), "{file}: {event} is called {}", format.name);
            assert!(format.fields.contains_key("common_pid"), "{file}, {event}");
        }
        for alternative in PROBES.iter().flat_map(|probe| probe.alternatives) {
            let Hook::Tracepoint { event, fields } = alternative.hook else { continue };
            let Some(text) = events.get(event) else { continue };
            let format = Format::parse(text).unwrap();
            let found: Vec<String> = fields
                .iter()
                .map(|(_, field, size)| match format.offset_of(field, *size) {
                    Ok(offset) => format!("{field} at {offset}"),
                    Err(why) => why,
                })
                .collect();
            words += &format!("  {event}: {}\n", found.join(", "));
        }
    }
    insta::assert_snapshot!(words);
}

/// The wider header of real-time kernels moves every field of their own; ours are found where they are.
pub fn a_wider_header_moves_the_fields() {
    let corpus = corpus();
    let offset = |file: &str| {
        let format = Format::parse(&corpus[file]["sched/sched_waking"]).unwrap();
        assert_eq!(format.fields.contains_key("common_preempt_lazy_count"), file.contains("-rt"), "{file}");
        format.offset_of("pid", 4).unwrap()
    };
    assert!(offset("debian-6.1-rt.txt") > offset("debian-6.1.txt"));
}

/// The fuzz target of the parser: damaged files of the corpus, for `VIRTAX_FUZZ_SECONDS` (2). Whatever it takes for a
/// field lies inside a record.
pub fn damaged_formats_never_panic_and_never_lead_outside_of_a_record() {
    let seconds = std::env::var("VIRTAX_FUZZ_SECONDS").map_or(2, |text| text.parse().expect("seconds"));
    let texts: Vec<String> = corpus().into_values().flat_map(BTreeMap::into_values).collect();
    let seed = rand::random::<u64>();
    let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut tried, mut taken) = (0u64, 0u64);
    while Instant::now() < end {
        let mut bytes = texts[random.random_range(0..texts.len())].clone().into_bytes();
        for _ in 0..random.random_range(1..6) {
            damage(&mut bytes, &mut random);
        }
        tried += 1;
        if let Ok(format) = Format::parse(&String::from_utf8_lossy(&bytes)) {
            taken += 1;
            for (name, field) in &format.fields {
                assert!(field.offset + field.size <= 8192, "seed {seed}: {name} {field:?}");
            }
        }
    }
    assert!(tried > 100 && taken > 0 && taken < tried, "{taken} of {tried}");
}

fn damage(bytes: &mut Vec<u8>, random: &mut rand_pcg::Pcg64) {
    const WORDS: [&[u8]; 8] =
        [b";", b":", b"\n", b"field:", b"4294967295", b"-1", b"offset:", b"99999999999999999999999"];
    if bytes.is_empty() {
        return;
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..5) {
        0 => bytes[at] = random.random(),
        1 => bytes.truncate(at),
        2 => drop(bytes.remove(at)),
        3 => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
        _ => {
            let end = (at + random.random_range(1..80)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}
