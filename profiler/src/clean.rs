//! `virtax clean`: removes what dead runs left, and nothing else.

use std::path::Path;

use crate::{
    engine::docker,
    error::{Error, Result},
    ledger::{self, Item, RUNS},
    net,
};

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
        let names: Vec<String> = remains.items().map(|item| format!("{item} (run {})", remains.run_id)).collect();
        let run_id = remains.run_id.clone();
        cleaned.errors.extend(remains.remove());
        cleaned.removed.extend(names);
        cleaned.removed.push(format!("working files of run {run_id}"));
    }
    // Listed first, the living asked afterwards: a run that began in between is not taken for dead.
    let candidates = named_after_runs();
    let (alive, _) = ledger::survey(Path::new(RUNS))?;
    for (_, item) in candidates.into_iter().filter(|(run_id, _)| !alive.contains(run_id)) {
        match item.remove() {
            Ok(()) => cleaned.removed.push(item.to_string()),
            Err(error) => cleaned.errors.push(error),
        }
    }
    Ok(cleaned)
}

/// Objects named after runs, with the runs' ids.
fn named_after_runs() -> Vec<(String, Item)> {
    let mut items = Vec::new();
    // No daemon, no containers: that is no error here.
    if let Ok(client) = docker::Client::connect() {
        items.extend(client.labelled().unwrap_or_default());
    }
    for name in net::links_here().unwrap_or_default().into_iter().filter(|name| name.contains('w')) {
        if let Some(run_id) = link_of_run(&name).map(str::to_owned) {
            items.push((run_id, Item::Link { name }));
        }
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

/// The run's id in a link's name: `vx`, five hexadecimal digits, and what it is.
fn link_of_run(name: &str) -> Option<&str> {
    let run_id = name.strip_prefix("vx")?.get(..5)?;
    (is_run_id(run_id) && name.len() == 9).then_some(run_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runs_are_taken_for_theirs() {
        assert_eq!(link_of_run("vxa1b2cw0"), Some("a1b2c"));
        for other in ["vxlan0", "vxa1b2c", "vxlan1234", "eth0", "vxA1B2Cw0", "vxa1b2cw00", "vx"] {
            assert_eq!(link_of_run(other), None, "{other}");
        }
    }
}
