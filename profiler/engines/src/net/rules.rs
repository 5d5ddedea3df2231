//! Firewall rules of a run, by the `iptables` that Docker itself uses.

use std::{os::unix::process::CommandExt, process::Command};

use crate::ledger::{Item, Lease, Ledger};
use virtax_model::error::{Error, Result};

fn iptables(action: &str, arguments: &[String]) -> std::result::Result<(), String> {
    let output = Command::new("iptables")
        .arg("--wait")
        .arg(action)
        .args(arguments)
        // Out of the terminal's reach: Ctrl-C must not end it in the middle of a clean-up.
        .process_group(0)
        .output()
        .map_err(|error| format!("iptables: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Inserts a rule at the head of a chain, for as long as the lease lives.
///
/// # Errors
/// If there is no iptables, or it refuses.
pub fn add_rule(ledger: &Ledger, chain: &str, rule: &[&str]) -> Result<Lease> {
    let arguments: Vec<String> = std::iter::once(chain).chain(rule.iter().copied()).map(str::to_owned).collect();
    let lease = ledger.note(Item::Rule { arguments: arguments.clone() })?;
    iptables("-I", &arguments).map_err(|why| {
        Error::engine(
            format!("cannot add a rule to chain {chain}"),
            why,
            "install iptables, or leave out the configuration that needs it",
        )
    })?;
    Ok(lease)
}

/// Removes a rule; one that is gone is no error.
///
/// # Errors
/// If it is still there afterwards.
pub fn delete_rule(arguments: &[String]) -> Result<()> {
    match iptables("-C", arguments) {
        // Its own words for a rule, and for a chain, that is not there.
        Err(why) if why.contains("Bad rule") || why.contains("No chain") => return Ok(()),
        Err(why) => return Err(Error::engine("cannot look for a firewall rule", why, "remove it by hand")),
        Ok(()) => {}
    }
    iptables("-D", arguments).map_err(|why| Error::engine("cannot remove a firewall rule", why, "remove it by hand"))
}
