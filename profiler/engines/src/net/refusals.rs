//! Firewall rules that drop or reject, by their counters: which of them stands in somebody's way shows when one of
//! them rises.

use std::{
    collections::BTreeMap, fs::File, net::SocketAddrV4, net::TcpStream, path::Path, process::Command, time::Duration,
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// How long the first segment of a connection, and the next, may take to be answered: TCP sends the second after a
/// second.
const PATIENCE: Duration = Duration::from_millis(1_300);

/// Packets that each rule, or each chain's policy, has refused so far, by its words.
pub type Refused = BTreeMap<String, u64>;

/// What a first connection met.
#[derive(Debug, PartialEq, Eq)]
pub enum Reached {
    /// An answer, be it a refusal: what is there can be reached.
    Yes,
    /// None; the rules whose counters rose meanwhile, in the namespaces that were looked at.
    No(Vec<String>),
}

/// Tries to connect from a network namespace, and finds the rules of others that refuse it; `None`: nobody could look.
#[must_use]
pub fn try_connection(from: &Path, to: SocketAddrV4, through: &[&Path]) -> Option<Reached> {
    let look = || through.iter().map(|namespace| inside(namespace, counters)).collect::<Option<Vec<Refused>>>();
    let before = look()?;
    let answered = inside(from, move || match TcpStream::connect_timeout(&to.into(), PATIENCE) {
        Ok(_) => true,
        // A rule may also say "unreachable" on another's behalf.
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
    })?;
    if answered {
        return Some(Reached::Yes);
    }
    let after = look()?;
    Some(Reached::No(before.iter().zip(&after).flat_map(|(before, after)| risen(before, after)).collect()))
}

/// What a function finds from inside a network namespace, in a thread of its own; `None`: it cannot be entered.
pub(super) fn inside<T: Send + 'static>(namespace: &Path, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let file = File::open(namespace).ok()?;
    let looking = std::thread::spawn(move || setns(&file, CloneFlags::CLONE_NEWNET).ok().map(|()| look()));
    looking.join().ok().flatten()
}

/// Rules whose counters have risen.
fn risen(before: &Refused, after: &Refused) -> Vec<String> {
    let rose = |(rule, count): (&String, &u64)| (*count > before.get(rule).copied().unwrap_or(0)).then(|| rule.clone());
    after.iter().filter_map(rose).collect()
}

/// The counters of this namespace's rules, of both backends of iptables and of nftables' own rules.
fn counters() -> Refused {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    let mut found = of_iptables(&said("iptables-nft-save", &["-c"]));
    found.extend(of_iptables(&said("iptables-legacy-save", &["-c"])));
    if found.is_empty() {
        found = of_iptables(&said("iptables-save", &["-c"]));
    }
    // Rules that iptables has made are among them, with the counters that it shows itself: one name is enough.
    let own = of_nftables(&said("nft", &["--json", "list", "ruleset"]));
    let is_known = |count: u64, found: &Refused| found.values().any(|known| *known == count && count > 0);
    for (rule, count) in own {
        if !is_known(count, &found) {
            found.insert(rule, count);
        }
    }
    found
}

/// Targets of iptables that refuse.
const REFUSING: [&str; 2] = ["DROP", "REJECT"];

/// `*TABLE`, `:CHAIN POLICY [packets:bytes]` and `[packets:bytes] -A CHAIN …` (iptables-save(8)).
fn of_iptables(text: &str) -> Refused {
    let packets = |counter: &str| counter.trim_matches(['[', ']']).split(':').next()?.parse::<u64>().ok();
    let mut table = "";
    let mut found = Refused::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            if let (Some(name), Some(policy), Some(count)) =
                (words.next(), words.next(), words.next().and_then(packets))
                && REFUSING.contains(&policy)
            {
                found.insert(format!("the policy of the chain {name} in the table {table} ({policy})"), count);
            }
        } else if let Some((counter, rule)) = line.split_once(' ') {
            let target = rule.split_whitespace().skip_while(|word| *word != "-j").nth(1).unwrap_or_default();
            if let Some(count) = packets(counter).filter(|_| REFUSING.contains(&target)) {
                found.insert(format!("iptables -t {table} {rule}"), count);
            }
        }
    }
    found
}

/// Rules of `nft --json list ruleset` with a counter and a verdict that refuses (libnftables-json(5)).
fn of_nftables(text: &str) -> Refused {
    let list: Value = serde_json::from_str(text).unwrap_or_default();
    let rules = list["nftables"].as_array().into_iter().flatten().map(|entry| &entry["rule"]);
    rules
        .filter_map(|rule| {
            let parts = rule["expr"].as_array()?;
            let refuses = parts.iter().any(|part| part.get("drop").is_some() || part.get("reject").is_some());
            let packets = parts.iter().find_map(|part| part["counter"]["packets"].as_u64())?;
            let word = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            let name = format!(
                "nft rule {} {} {} handle {}",
                word("family"),
                word("table"),
                word("chain"),
                rule["handle"].as_u64().unwrap_or(0)
            );
            refuses.then_some((name, packets))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated by iptables-save v1.8.9\n*raw\n:PREROUTING ACCEPT [12:720]\n\
        [3:180] -A PREROUTING -s 198.18.0.0/16 -d 198.19.0.0/16 -j DROP\n\
        [9:90] -A PREROUTING -p tcp -j ACCEPT\nCOMMIT\n*filter\n:FORWARD DROP [7:420]\n\
        [0:0] -A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";

    #[test]
    fn rules_and_policies_that_refuse_are_found() {
        let found = of_iptables(SAVED);
        let counts: Vec<(&str, u64)> = found.iter().map(|(rule, count)| (rule.as_str(), *count)).collect();
        assert_eq!(
            counts,
            [
                ("iptables -t filter -A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable", 0),
                ("iptables -t raw -A PREROUTING -s 198.18.0.0/16 -d 198.19.0.0/16 -j DROP", 3),
                ("the policy of the chain FORWARD in the table filter (DROP)", 7),
            ]
        );
    }

    #[test]
    fn the_rule_that_rose_is_named() {
        let before = of_iptables(SAVED);
        let after = of_iptables(&SAVED.replace("[3:180]", "[5:300]"));
        assert_eq!(risen(&before, &after), ["iptables -t raw -A PREROUTING -s 198.18.0.0/16 -d 198.19.0.0/16 -j DROP"]);
        assert!(risen(&before, &before).is_empty());
    }

    #[test]
    fn rules_of_nftables_own_are_read() {
        let text = r#"{"nftables": [{"metainfo": {}}, {"rule": {"family": "ip", "table": "mine", "chain": "pre", "handle": 4,
            "expr": [{"match": {}}, {"counter": {"packets": 6, "bytes": 1}}, {"drop": null}]}},
            {"rule": {"family": "ip", "table": "mine", "chain": "pre", "handle": 5,
            "expr": [{"counter": {"packets": 6, "bytes": 1}}, {"accept": null}]}}]}"#;
        let found = of_nftables(text);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("nft rule ip mine pre handle 4".to_owned(), 6)]);
        assert!(of_nftables("garbage").is_empty());
    }
}
