//! Docker: host network, bridge, and a published port.

mod client;
mod image;
mod network;
mod server;

pub use client::Client;

use std::{collections::BTreeMap, rc::Rc};

use super::{Bench, Engine, Host, Key, Server, Values};
use crate::{engine::configuration::Configuration, ledger::Item};
use virtax_model::{
    environment::Environment,
    error::{Error, Result},
};

/// Label that every object of a run carries, with the run's id as its value.
pub const LABEL: &str = "org.virtax.run";

/// The engine's name.
const NAME: &str = "docker";

/// Where the program lies in an image that keeps a container's servers.
const KEEPER: &str = "/virtax/keeper";

/// See the module.
pub struct Docker;

impl Engine for Docker {
    fn name(&self) -> &'static str {
        NAME
    }
    fn summary(&self) -> &'static str {
        "a container of the Docker daemon that DOCKER_HOST names, or the local one"
    }
    fn drives(&self) -> Option<&'static str> {
        Some("Docker")
    }
    fn version(&self) -> Result<Option<String>> {
        Client::connect()?.version().map(Some)
    }
    fn describe(&self, environment: &mut Environment) -> Result<()> {
        environment.docker = self.version()?;
        Ok(())
    }
    fn labelled(&self) -> Result<Vec<(String, Item)>> {
        Client::connect()?.labelled()
    }
    fn remove(&self, item: &Item) -> Result<()> {
        let client = Client::connect()?;
        match item {
            Item::Container { name, .. } => client.remove_container(name),
            Item::Network { name, .. } => client.remove_network(name),
            Item::Image { name, .. } => client.remove_image(name),
            Item::Namespace { .. }
            | Item::Link { .. }
            | Item::Rule { .. }
            | Item::Sysctl { .. }
            | Item::Cgroup { .. }
            | Item::Folder { .. }
            | Item::Machine { .. }
            | Item::HugePages { .. }
            | Item::Process { .. } => {
                Err(Error::engine(format!("cannot remove {item}"), "no daemon has made it", "report this"))
            }
        }
    }
    fn keys(&self) -> &'static [Key] {
        &[
            Key {
                name: "net",
                values: Values::Words(&["host", "bridge", "nat"]),
                default: "nat",
                help: "host: the host's network; bridge: the container's own address, no NAT; nat: a published port",
            },
            Key {
                name: "fs",
                values: Values::Words(&["overlay", "volume", "tmpfs"]),
                default: "overlay",
                help: "where the server's files are. overlay: the container's own layer; volume: a volume of the daemon's; tmpfs: memory",
            },
        ]
    }
    fn file_system(&self, configuration: &Configuration) -> Option<&'static str> {
        match configuration.key("fs") {
            "overlay" => Some("overlay"),
            "tmpfs" => Some("tmpfs"),
            _ => None,
        }
    }
    fn is_forwarded(&self, configuration: &Configuration) -> bool {
        configuration.key("net") != "host"
    }
    fn phrase(&self, configuration: &Configuration) -> String {
        let net = match configuration.key("net") {
            "host" => "host networking",
            "bridge" => "the bridge without NAT",
            _ => "NAT",
        };
        match configuration.key("fs") {
            "volume" => format!("{net} with a volume"),
            "tmpfs" => format!("{net} with files in memory"),
            _ => net.to_owned(),
        }
    }
    fn prepare(&self, bench: &Bench, configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        let client = Client::connect()?;
        let image = image::make(&client, bench)?;
        let mode = |wanted: &str| configurations.iter().any(|configuration| configuration.key("net") == wanted);
        let network = if mode("nat") || mode("bridge") {
            Some(network::Network::create(&client, bench, mode("bridge"))?)
        } else {
            None
        };
        Ok(Box::new(Prepared { kept: BTreeMap::new(), client, image, network }))
    }
}

struct Prepared {
    // First, so removed first: containers are made of an image, and on a network.
    /// Containers that live for the run, by configuration: a fresh server in each round is what differs between
    /// rounds, and a container takes fifty times as long to make as a server to start.
    kept: BTreeMap<String, Rc<server::Container>>,
    client: Client,
    image: image::Image,
    network: Option<network::Network>,
}

impl Host for Prepared {
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let name = configuration.to_string();
        let container = match self.kept.get(&name) {
            // A container lives on without its daemon, which then does not remove it: a run does not go on like that.
            Some(container) => self.client.is_there().map(|()| container.clone())?,
            None => {
                let network = self.network.as_ref();
                Rc::new(server::Container::start(&self.client, bench, &self.image, network, configuration)?)
            }
        };
        // A server's files are as fresh as its container's layers.
        if bench.server.data_folder().is_none() {
            self.kept.insert(name, container.clone());
        }
        container.serve().map(|server| Box::new(server) as Box<dyn Server>)
    }
}
