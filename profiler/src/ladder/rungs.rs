//! Orders of ladders: which mechanism comes on top of which.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a ladder goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// From a process of the host to a published port of a Docker container.
    Network,
    /// What keeps a container apart, on the host's network.
    Isolation,
    /// What lies between a server and its files.
    Storage,
}

impl Order {
    /// Name of the order, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Isolation => "isolation",
            Self::Storage => "storage",
        }
    }
}

/// A rung: one mechanism more.
#[derive(Debug, Clone, Copy)]
pub struct Rung {
    /// The mechanism.
    pub mechanism: &'static str,
    /// The configuration that has it.
    pub configuration: &'static str,
    /// The mechanism that it comes on top of; `None`: the one before.
    pub on: Option<&'static str>,
    /// Layers in which it runs, if it has any of its own.
    pub layers: &'static [&'static str],
}

const fn rung(mechanism: &'static str, configuration: &'static str, layers: &'static [&'static str]) -> Rung {
    Rung { mechanism, configuration, on: None, layers }
}

const NETWORK: &[Rung] = &[
    rung("native", "native:cgroup=root", &[]),
    rung("cgroup", "ns:net=host", &[]),
    rung("namespaces", "ns:net=host,pid=on,user=on", &[]),
    rung("seccomp", "ns:net=host,pid=on,user=on,seccomp=docker", &["seccomp"]),
    // Before the links: what rules the host has for others (a Docker daemon's) is left behind here.
    rung("own network", "ns:net=own,pid=on,user=on,seccomp=docker", &[]),
    rung("veth", "ns:net=veth,pid=on,user=on,seccomp=docker", &["veth"]),
    rung("bridge", "ns:net=bridge,pid=on,user=on,seccomp=docker", &["bridge"]),
    rung(
        "netfilter hooks",
        "ns:net=bridge,pid=on,user=on,seccomp=docker,hooks=on",
        &["iptables/nftables", "netfilter"],
    ),
    rung("conntrack", "ns:net=bridge,pid=on,user=on,seccomp=docker,conntrack=on", &["conntrack"]),
    rung("NAT", "ns:net=nat,pid=on,user=on,seccomp=docker", &["NAT"]),
    rung("Docker NAT", "docker:net=nat", &[]),
    Rung { on: Some("bridge"), ..rung("userland proxy", "ns:net=bridge,pid=on,user=on,seccomp=docker,proxy=on", &[]) },
];

const ISOLATION: &[Rung] = &[
    rung("native", "native:cgroup=root", &[]),
    rung("cgroup", "ns:net=host", &[]),
    rung("process namespace", "ns:net=host,pid=on", &[]),
    rung("user namespace", "ns:net=host,pid=on,user=on", &[]),
    rung("overlayfs", "ns:net=host,pid=on,user=on,fs=overlay", &["overlayfs"]),
    rung("seccomp", "ns:net=host,pid=on,user=on,fs=overlay,seccomp=docker", &["seccomp"]),
    rung("own network", "ns:net=own,pid=on,user=on,fs=overlay,seccomp=docker", &[]),
    Rung { on: Some("seccomp"), ..rung("Docker, host network", "docker:net=host", &[]) },
];

const STORAGE: &[Rung] = &[
    rung("native", "native", &[]),
    rung("bind mount", "ns:net=host,fs=bind", &[]),
    rung("overlayfs", "ns:net=host,fs=overlay", &["overlayfs"]),
    rung("Docker, host network", "docker:net=host", &[]),
    Rung { on: Some("bind mount"), ..rung("Docker volume", "docker:net=host,fs=volume", &[]) },
];

/// The rungs of an order, from below.
#[must_use]
pub const fn rungs(order: Order) -> &'static [Rung] {
    match order {
        Order::Network => NETWORK,
        Order::Isolation => ISOLATION,
        Order::Storage => STORAGE,
    }
}

/// Index of the rung that another one comes on top of, among those that `stand`: `None` for the first.
#[must_use]
pub fn below(rungs: &[Rung], index: usize, stands: &dyn Fn(usize) -> bool) -> Option<usize> {
    let named = rungs[index].on.and_then(|wanted| rungs.iter().position(|rung| rung.mechanism == wanted));
    let from = named.map_or(index, |named| named + 1);
    (0..from).rev().find(|candidate| stands(*candidate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::configuration::parse;

    #[test]
    fn every_rung_can_be_and_stands_on_one_below() {
        for order in [Order::Network, Order::Isolation, Order::Storage] {
            let rungs = rungs(order);
            for (index, rung) in rungs.iter().enumerate() {
                parse(rung.configuration).unwrap();
                assert_eq!(below(rungs, index, &|_| true).is_none(), index == 0, "{}", rung.mechanism);
            }
        }
    }

    #[test]
    fn a_missing_rung_is_stepped_over() {
        let at = |name: &str| NETWORK.iter().position(|rung| rung.mechanism == name).unwrap();
        assert_eq!(below(NETWORK, at("NAT"), &|index| index != at("conntrack")), Some(at("netfilter hooks")));
        assert_eq!(below(NETWORK, at("userland proxy"), &|_| true), Some(at("bridge")));
        assert_eq!(below(NETWORK, at("userland proxy"), &|index| index != at("bridge")), Some(at("veth")));
    }
}
