//! `virtax clean`: removes what dead runs left, and nothing else.

use std::{
    mem::discriminant,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    cgroup, engine,
    ledger::{self, Item, RUNS, Remains},
    net,
    removal::remove,
};
use virtax_model::error::{Error, Result};

/// What cleaning did.
pub struct Cleaned {
    /// What was removed, for a person.
    pub removed: Vec<String>,
    /// Runs that live, and were left alone.
    pub alive: Vec<String>,
    /// What could not be removed.
    pub errors: Vec<Error>,
}

/// Removes what the ledgers of dead runs say, then whatever carries the name of a run that does not live: for a ledger
/// that was lost.
///
/// # Errors
/// If the folder of runs cannot be read.
pub fn clean() -> Result<Cleaned> {
    let (alive, dead) = ledger::survey(Path::new(RUNS))?;
    let mut cleaned = Cleaned { removed: Vec::new(), alive, errors: Vec::new() };
    for remains in dead {
        let under_way = may_be_under_way(&remains);
        let names: Vec<String> = remains.items().map(|item| format!("{item} (run {})", remains.run_id)).collect();
        let run_id = remains.run_id.clone();
        cleaned.errors.extend(remains.remove(remove));
        cleaned.removed.extend(names);
        cleaned.removed.push(format!("working files of run {run_id}"));
        if under_way {
            cleaned.take(remove_latecomers(&run_id));
        }
    }
    // Listed first, the living asked afterwards: a run that began in between is not taken for dead.
    let candidates = named_after_runs();
    let (alive, _) = ledger::survey(Path::new(RUNS))?;
    let left = candidates.into_iter().filter(|(run_id, _)| !alive.contains(run_id)).map(|(_, item)| item).collect();
    cleaned.take(left);
    Ok(cleaned)
}

impl Cleaned {
    /// Removes these items.
    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match remove(&item) {
                Ok(()) => self.removed.push(item.to_string()),
                Err(error) => self.errors.push(error),
            }
        }
    }
}

/// How long a daemon may take for a request whose asker was killed.
const UNDER_WAY: Duration = Duration::from_secs(3);

/// Whether the daemon may be making the run's last item yet: it is noted, and not there. What was noted before it was
/// made.
fn may_be_under_way(remains: &Remains) -> bool {
    let Some(last) = remains.items().next().filter(|item| item.engine().is_some()) else { return false };
    let is_alike = |item: &Item| discriminant(item) == discriminant(last) && item.engine() == last.engine();
    !labelled().iter().any(|(run_id, item)| *run_id == remains.run_id && is_alike(item))
}

/// What engines have made for runs. No daemon, no containers: that is no error here.
fn labelled() -> Vec<(String, Item)> {
    engine::all().iter().flat_map(|engine| engine.labelled().unwrap_or_default()).collect()
}

/// Waits for what a daemon is still making for a run that was killed.
fn remove_latecomers(run_id: &str) -> Vec<Item> {
    let deadline = Instant::now() + UNDER_WAY;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        let found: Vec<Item> = labelled().into_iter().filter(|(of, _)| of == run_id).map(|(_, item)| item).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Objects named after runs, with the runs' ids.
fn named_after_runs() -> Vec<(String, Item)> {
    let mut items = labelled();
    for name in net::links_here().unwrap_or_default() {
        if let Some(run_id) = link_of_run(&name).map(str::to_owned) {
            items.push((run_id, Item::Link { name }));
        }
    }
    for (run_id, path) in cgroup::of_runs().into_iter().filter(|(run_id, _)| is_run_id(run_id)) {
        items.push((run_id, Item::Cgroup { path }));
    }
    for name in net::namespaces_named("virtax-") {
        let run_id = name.split('-').nth(1).unwrap_or_default().to_owned();
        if is_run_id(&run_id) {
            items.push((run_id, Item::Namespace { name }));
        }
    }
    items
}

fn is_run_id(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The run's id in a link's name: `vx`, five hexadecimal digits, and what it is: a wire's end, or a tap.
fn link_of_run(name: &str) -> Option<&str> {
    let run_id = name.strip_prefix("vx")?.get(..5)?;
    let is_ours = name.len() == 9 && matches!(name.get(7..8), Some("w" | "t"));
    (is_run_id(run_id) && is_ours).then_some(run_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runs_are_taken_for_theirs() {
        assert_eq!(link_of_run("vxa1b2cw0"), Some("a1b2c"));
        assert_eq!(link_of_run("vxa1b2ct7"), Some("a1b2c"));
        for other in ["vxlan0", "vxa1b2c", "vxlan1234", "eth0", "vxA1B2Cw0", "vxa1b2cw00", "vx", "vxa1b2c12"] {
            assert_eq!(link_of_run(other), None, "{other}");
        }
    }
}
