//! Rounds: every configuration once in each, in shuffled order, saved one by one.

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    plan::{Plan, orders},
    records::Record,
    store::Store,
};
use crate::{
    configuration::Configuration,
    counts::Repetition,
    error::{Error, Result},
    interrupt,
};

/// Measures a configuration once. The real one is [`super::Lab`]; tests have another.
pub trait Repeater {
    /// One repetition with a fresh server, and the records of its requests.
    ///
    /// # Errors
    /// If it cannot be completed; nothing of it counts then.
    fn repeat(&mut self, configuration: &Configuration, round: u32, position: u32)
    -> Result<(Repetition, Vec<Record>)>;
}

/// Runs all rounds; an error ends them, and what was saved stays. Returns the error that did, if any.
pub fn run(plan: &Plan, repeater: &mut dyn Repeater, store: &mut Store) -> Option<Error> {
    let count = plan.configurations.len();
    let bar = progress_bar(u64::from(plan.rounds) * count as u64);
    for (round, order) in (0..plan.rounds).zip(orders(count, plan.rounds, plan.seed)) {
        for (position, index) in (0u32..).zip(order) {
            let configuration = &plan.configurations[index];
            bar.set_message(format!("round {} of {}: {configuration}", round + 1, plan.rounds));
            let saved = interrupt::check()
                .and_then(|()| repeater.repeat(configuration, round, position))
                .and_then(|(repetition, records)| store.save(&repetition, &records));
            if let Err(error) = saved {
                bar.finish_and_clear();
                return Some(error);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    None
}

/// A bar on standard error; hidden when that is no terminal.
fn progress_bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    // The template is a constant: a mistake in it shows in every test.
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (ends in {eta})") {
        bar.set_style(style);
    }
    bar
}
