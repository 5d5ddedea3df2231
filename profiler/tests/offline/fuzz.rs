//! Everything that comes from outside, damaged at random: an error is an answer, a panic is none, and neither is
//! silence.
//!
//! Each parser is a target with seeds that it understands, and with a corpus of inputs that reach the rest of it;
//! mutations of them get further into it than noise would.
//! Inputs that make one panic are kept (`target/fuzz`), and the number that the random ones came from is said.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    common::full,
    targets::{Target, here, targets},
};

/// Seconds in all, shared by the targets; with `--full`, ten times that.
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
    for refused in &target.refused {
        let text = String::from_utf8_lossy(refused);
        assert!(!(target.feed)(refused), "{}: this is understood: {}", target.name, &text[..text.len().min(300)]);
    }
    let corpus = target.corpus();
    corpus.iter().for_each(|input| survive(target, input, number));
    let known: Vec<&Vec<u8>> = target.seeds.iter().chain(&target.refused).chain(&corpus).collect();
    while began.elapsed() < length {
        let mut bytes = known[random.random_range(0..known.len())].clone();
        damage(&mut bytes, &mut random);
        survive(target, &bytes, number);
        fed += 1;
    }
    fed
}

/// Feeds one input, and keeps it if that is too much.
fn survive(target: &Target, bytes: &[u8], number: u64) {
    let at = Instant::now();
    let survived = catch_unwind(AssertUnwindSafe(|| (target.feed)(bytes))).is_ok();
    if !survived || at.elapsed() > PATIENCE {
        let folder = here("../target/fuzz");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}-{number}", target.name.replace(' ', "-")));
        fs::write(&path, bytes).unwrap();
        panic!("{}: {} ({number})", target.name, path.display());
    }
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
