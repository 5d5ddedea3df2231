//! The containers' network: a bridge of the run's own, with addresses from the range for benchmarks.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};

use super::{Client, LABEL};
use crate::{
    engine::Bench,
    error::Result,
    ledger::{Item, Lease},
    net::{Subnets, add_rule},
};

/// A network of the run.
pub(super) struct Network {
    // First, so removed first: the rules name the bridge.
    _rules: Vec<Lease>,
    pub name: String,
    pub bridge: String,
    _lease: Lease,
}

impl Network {
    pub fn create(client: &Client, bench: &Bench, forward: bool) -> Result<Self> {
        let name = format!("virtax-{}-net", bench.run_id);
        let bridge = format!("vx{}b0", bench.run_id);
        let lease = bench.ledger.note(Item::Network { name: name.clone() })?;
        let subnet = format!("{}/{}", bench.wire.subnets.containers(), Subnets::PREFIX);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig { subnet: Some(subnet), ..IpamConfig::default() }]),
                ..Ipam::default()
            }),
            options: Some(HashMap::from([("com.docker.network.bridge.name".to_owned(), bridge.clone())])),
            labels: Some(HashMap::from([(LABEL.to_owned(), bench.run_id.clone())])),
            ..NetworkCreateRequest::default()
        };
        client.ask("cannot create the containers' network", client.api.create_network(request))?;
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
