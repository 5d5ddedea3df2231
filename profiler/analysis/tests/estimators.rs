//! Which estimator of a difference is to be trusted: experiments of five rounds are drawn from recorded ones, as they
//! are and with what a shared host does to some of their blocks, and it is counted how often each estimator's interval
//! holds the truth, and how wide it is. The table is in `docs/method.md`.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use virtax_analysis::statistics::{estimate_one, mean, student};

const EXPERIMENTS: usize = 4000;
const ROUNDS: usize = 5;

/// Differences of NAT and native by block, ns, of 54 rounds (`virtax run tcp-rr --in native,ns:net=nat`).
fn recorded() -> Vec<Vec<f64>> {
    serde_json::from_str(include_str!("data/blocks.json")).unwrap()
}

/// A round's value from its blocks.
type Within = fn(&mut [f64]) -> f64;
/// An interval from the rounds' values.
type Between = fn(&[f64]) -> [f64; 2];

fn trimmed(blocks: &mut [f64]) -> f64 {
    blocks.sort_by(f64::total_cmp);
    let cut = blocks.len() / 10;
    mean(&blocks[cut..blocks.len() - cut])
}

fn median_of_means(blocks: &mut [f64]) -> f64 {
    let mut means: Vec<f64> = blocks.chunks(blocks.len().div_ceil(4)).map(mean).collect();
    means.sort_by(f64::total_cmp);
    f64::midpoint(means[(means.len() - 1) / 2], means[means.len() / 2])
}

fn error(rounds: &[f64]) -> f64 {
    let centre = mean(rounds);
    let squares: f64 = rounds.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (rounds.len() as f64 - 1.0) / rounds.len() as f64).sqrt()
}

/// What virtax does.
fn student_of_rounds(rounds: &[f64]) -> [f64; 2] {
    estimate_one(rounds.to_vec()).ci95.unwrap()
}

fn resampled(rounds: &[f64], mut of: impl FnMut(&[f64])) {
    let mut random = Pcg64::seed_from_u64(9);
    let mut chosen = vec![0.0; rounds.len()];
    for _ in 0..400 {
        chosen.iter_mut().for_each(|value| *value = rounds[random.random_range(0..rounds.len())]);
        of(&chosen);
    }
}

fn ends(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    [at(0.025), at(0.975)]
}

fn percentile_bootstrap(rounds: &[f64]) -> [f64; 2] {
    let mut means = Vec::new();
    resampled(rounds, |chosen| means.push(mean(chosen)));
    ends(means)
}

fn studentized_bootstrap(rounds: &[f64]) -> [f64; 2] {
    let (centre, error_of_all) = (mean(rounds), error(rounds));
    let mut deviations = Vec::new();
    resampled(rounds, |chosen| {
        let error = error(chosen);
        if error > 0.0 {
            deviations.push((mean(chosen) - centre) / error);
        }
    });
    let [low, high] = ends(deviations);
    [centre - high * error_of_all, centre - low * error_of_all]
}

struct Tried {
    name: &'static str,
    within: Within,
    between: Between,
}

const TRIED: [Tried; 5] = [
    Tried { name: "mean, Student's interval over rounds", within: |blocks| mean(blocks), between: student_of_rounds },
    Tried { name: "mean without the outer tenths, Student's", within: trimmed, between: student_of_rounds },
    Tried { name: "median of four means, Student's", within: median_of_means, between: student_of_rounds },
    Tried { name: "mean, percentile bootstrap", within: |blocks| mean(blocks), between: percentile_bootstrap },
    Tried { name: "mean, studentized bootstrap", within: |blocks| mean(blocks), between: studentized_bootstrap },
];

/// Share of experiments whose interval holds the truth, and the mean half width, ns. `disturbed`: the share of blocks
/// in which the host did something else while one of the two was asked, for a time of an exponential distribution.
fn coverage(tried: &Tried, disturbed: f64) -> (f64, f64) {
    const LONGER_NS: f64 = 500.0;
    let recorded = recorded();
    let mut random = Pcg64::seed_from_u64(4);
    let mut draw = |recorded: &[Vec<f64>]| -> f64 {
        let round = &recorded[random.random_range(0..recorded.len())];
        let mut blocks: Vec<f64> = round
            .iter()
            .map(|_| {
                let block = round[random.random_range(0..round.len())];
                let is_disturbed = random.random_bool(disturbed);
                let longer = -LONGER_NS * random.random_range(f64::MIN_POSITIVE..1.0).ln();
                let sign = if random.random_bool(0.5) { 1.0 } else { -1.0 };
                if is_disturbed { block + sign * longer } else { block }
            })
            .collect();
        (tried.within)(&mut blocks)
    };
    // Disturbances meet both alike: they move no mean.
    let all: Vec<f64> = recorded.iter().map(|round| (tried.within)(&mut round.clone())).collect();
    let truth = mean(&all);
    let (mut holds, mut widths) = (0, 0.0);
    for _ in 0..EXPERIMENTS {
        let rounds: Vec<f64> = (0..ROUNDS).map(|_| draw(&recorded)).collect();
        let [low, high] = (tried.between)(&rounds);
        holds += usize::from(low <= truth && truth <= high);
        widths += (high - low) / 2.0;
    }
    (holds as f64 / EXPERIMENTS as f64, widths / EXPERIMENTS as f64)
}

#[test]
fn the_interval_that_is_used_covers_as_it_says() {
    println!("| estimator | coverage | half width, ns | coverage, disturbed | half width, ns |\n|---|---|---|---|---|");
    for tried in &TRIED {
        let ((clean, clean_ns), (disturbed, disturbed_ns)) = (coverage(tried, 0.0), coverage(tried, 0.05));
        let [clean_percent, disturbed_percent] = [clean, disturbed].map(|share| 100.0 * share);
        println!(
            "| {} | {clean_percent:.1} % | {clean_ns:.0} | {disturbed_percent:.1} % | {disturbed_ns:.0} |",
            tried.name
        );
        if tried.name == TRIED[0].name {
            assert!((0.93..=0.97).contains(&clean) && (0.93..=0.97).contains(&disturbed), "{clean} {disturbed}");
        }
    }
    // Five rounds: this is what the interval's width comes from.
    assert!((student::reach(4.0) - 2.776).abs() < 1e-3);
}
