//! Netfilter hooks of a network namespace: a host where Docker runs has them on the native path, too.

use std::{fs, fs::File, path::Path, process::Command};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use virtax_model::counts::Hooks;

fn unknown(why: String) -> Hooks {
    Hooks { unknown_because: why, ..Hooks::default() }
}

/// The hooks in a process's network namespace.
#[must_use]
pub fn hooks_of(pid: u32) -> Hooks {
    hooks_in(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// The hooks in the network namespace of this file.
#[must_use]
pub fn hooks_in(namespace: &Path) -> Hooks {
    let namespace = match File::open(namespace) {
        Ok(namespace) => namespace,
        Err(error) => return unknown(error.to_string()),
    };
    // In a thread of its own: it, and what it starts, look from inside.
    let inside = std::thread::spawn(move || match setns(&namespace, CloneFlags::CLONE_NEWNET) {
        Ok(()) => look(),
        Err(error) => unknown(error.to_string()),
    });
    inside.join().unwrap_or_else(|_| unknown("looking at them failed".to_owned()))
}

fn look() -> Hooks {
    let tracked_connections =
        fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok().and_then(|text| text.trim().parse().ok());
    // Kernels without CONFIG_NETFILTER_NETLINK_HOOK answer with an empty list.
    let functions = nft(&["list", "hooks", "ip"]).map(|text| parse_hooks(&text)).and_then(|functions| {
        if functions.is_empty() {
            nft(&["--json", "list", "chains"]).map(|text| parse_chains(&text))
        } else {
            Ok(functions)
        }
    });
    match functions {
        Ok(functions) => Hooks { functions, tracked_connections, unknown_because: String::new() },
        Err(why) => Hooks { functions: Vec::new(), tracked_connections, unknown_because: why },
    }
}

fn nft(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("nft").args(arguments).output().map_err(|error| format!("nft: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// `family ip { hook NAME { priority function [module] … } }`
fn parse_hooks(text: &str) -> Vec<String> {
    let mut hook = "";
    let mut functions = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("hook ") {
            hook = name.trim_end_matches('{').trim();
        } else if let Some((priority, function)) = line.split_once(' ')
            && let Ok(priority) = priority.parse::<i64>()
        {
            functions.push(format!("{hook} {priority} {}", function.trim()));
        }
    }
    functions
}

/// Base chains in `nft --json list chains` (libnftables-json(5)).
fn parse_chains(text: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(text).unwrap_or_default();
    let mut chains: Vec<(String, i64, String)> = list["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["chain"])
        .filter_map(|chain| {
            let word = |key: &str| chain[key].as_str().map(str::to_owned);
            let described = format!("{} chain {} {} {}", word("type")?, word("family")?, word("table")?, word("name")?);
            Some((word("hook")?, chain["prio"].as_i64()?, described))
        })
        .collect();
    chains.sort();
    chains.into_iter().map(|(hook, priority, chain)| format!("{hook} {priority} {chain}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_read_with_their_place() {
        let text = "family ip {\n\thook prerouting {\n\t\t-0000000400 ipv4_conntrack_defrag [nf_defrag_ipv4]\n\t\t\
            -0000000200 ipv4_conntrack_in [nf_conntrack]\n\t\t-0000000100 nf_nat_ipv4_pre_routing [nf_nat]\n\t}\n\thook input {\n\t\t\
            +2147483647 nf_confirm [nf_conntrack]\n\t}\n}\n";
        let hooks = Hooks { functions: parse_hooks(text), ..Hooks::default() };
        assert_eq!(hooks.functions[1], "prerouting -200 ipv4_conntrack_in [nf_conntrack]");
        assert_eq!(hooks.functions[3], "input 2147483647 nf_confirm [nf_conntrack]");
        assert!(hooks.tracks_connections());
        assert!(!Hooks::default().tracks_connections());
    }

    #[test]
    fn base_chains_stand_in_where_the_kernel_lists_no_hooks() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "nat", "name": "DOCKER", "handle": 1}},
            {"chain": {"family": "ip", "table": "nat", "name": "PREROUTING", "type": "nat", "hook": "prerouting", "prio": -100}}]}"#;
        let hooks = Hooks { functions: parse_chains(text), ..Hooks::default() };
        assert_eq!(hooks.functions, ["prerouting -100 nat chain ip nat PREROUTING"]);
        assert!(hooks.tracks_connections());
        assert!(parse_chains("garbage").is_empty());
    }
}
