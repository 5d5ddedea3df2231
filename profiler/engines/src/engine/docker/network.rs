//! The containers' network: a bridge of the run's own, with addresses from the range for benchmarks.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};

use super::{Client, LABEL, NAME};
use crate::{
    engine::Bench,
    ledger::{Item, Lease},
    net::{Subnets, add_rule},
};
use virtax_model::error::Result;

/// A network of the run.
pub(super) struct Network {
    // First, so removed first: the rules name the bridge.
    _rules: Vec<Lease>,
    pub name: String,
    pub bridge: String,
    _lease: Lease,
}

/// Whether a daemon of this version drops what others send to a container's own address, unless its network is
/// unprotected: since 28.
fn drops_direct(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 28)
}

impl Network {
    pub fn create(client: &Client, bench: &Bench, forward: bool) -> Result<Self> {
        let name = format!("virtax-{}-net", bench.run_id);
        let bridge = format!("vx{}b0", bench.run_id);
        let lease = bench.ledger.note(Item::Network { engine: NAME.to_owned(), name: name.clone() })?;
        let subnet = format!("{}/{}", bench.wire.subnets.containers(), Subnets::PREFIX);
        let mut options = HashMap::from([("com.docker.network.bridge.name".to_owned(), bridge.clone())]);
        if forward && drops_direct(&client.version()?) {
            options.insert("com.docker.network.bridge.gateway_mode_ipv4".to_owned(), "nat-unprotected".to_owned());
        }
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig { subnet: Some(subnet), ..IpamConfig::default() }]),
                ..Ipam::default()
            }),
            options: Some(options),
            labels: Some(HashMap::from([(LABEL.to_owned(), bench.run_id.clone())])),
            ..NetworkCreateRequest::default()
        };
        client.make("cannot create the containers' network", client.api.create_network(request))?;
        let rules = if forward { Self::open(bench, &bridge)? } else { Vec::new() };
        Ok(Self { _rules: rules, name, bridge, _lease: lease })
    }

    /// Docker drops what comes from other links to a container's own address: let the wire through. `DOCKER-USER` is
    /// the chain that Docker leaves to its users.
    fn open(bench: &Bench, bridge: &str) -> Result<Vec<Lease>> {
        let comment = format!("virtax-{}", bench.run_id);
        let rule = ["-i", bench.wire.host_link(), "-o", bridge, "-m", "comment", "--comment", &comment, "-j", "ACCEPT"];
        Ok(vec![add_rule(&bench.ledger, "DOCKER-USER", &rule)?])
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn daemons_that_drop_are_known_by_their_version() {
        for (version, drops) in [
            ("20.10.24+dfsg1", false),
            ("27.5.1", false),
            ("28.0.0", true),
            ("29.1.0-rc.1", true),
            ("of unknown version", false),
        ] {
            assert_eq!(super::drops_direct(version), drops, "{version}");
        }
    }
}
