//! A container with the server.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use bollard::{
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, Mount, MountTmpfsOptions, MountType, NetworkingConfig,
        PortBinding,
    },
    query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions},
};
use futures_util::TryStreamExt;

use super::{Client, LABEL, NAME, image, network::Network};
use crate::{
    child::NOBODY,
    engine::configuration::Configuration,
    engine::{Bench, DATA, Server, port_remedy},
    ledger::{Item, Lease},
};
use virtax_model::error::{Error, Result};
use virtax_probes::{Names, process};

struct Container {
    // First, so removed first: everything else only describes it.
    _lease: Lease,
    client: Client,
    name: String,
    pid: u32,
    address: SocketAddrV4,
    bridge: Option<String>,
}

pub(super) fn start(
    client: &Client,
    bench: &Bench,
    image: &image::Image,
    network: Option<&Network>,
    configuration: &Configuration,
) -> Result<Box<dyn Server>> {
    let mode = configuration.key("net");
    if bench.server.first_writes().is_some() && configuration.key("fs") == "overlay" {
        let why = "its image has no files that were never written to: give ns:fs=overlay, which is the same mechanism";
        return Err(Error::Usage(format!("`kind=first-write` cannot be in `{configuration}`: {why}")));
    }
    let name = format!("virtax-{}", bench.name_of(configuration));
    let lease = bench.ledger.note(Item::Container { engine: NAME.to_owned(), name: name.clone() })?;
    let body = body(bench, image, network, configuration);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    client.make("cannot create the container", client.api.create_container(Some(options), body))?;
    client
        .make("cannot start the container", client.api.start_container(&name, None::<StartContainerOptions>))
        .map_err(|error| {
            let remedy = port_remedy(&error.to_string(), bench.port_of(configuration));
            if remedy.is_empty() {
                error
            } else {
                Error::workload("the server cannot be started", format!("{error}{remedy}"))
            }
        })?;
    let found = client.ask("cannot inspect the container", client.api.inspect_container(&name, None))?;
    let mut container = Container {
        _lease: lease,
        client: client.clone(),
        name,
        pid: 0,
        address: SocketAddrV4::new(bench.wire.subnets.host(), bench.port_of(configuration)),
        bridge: network.filter(|_| mode != "host").map(|network| network.bridge.clone()),
    };
    container.pid = found.state.and_then(|state| state.pid).unwrap_or(0) as u32;
    if container.pid == 0 {
        let why = container.failure().unwrap_or_else(|| "it has no process".to_owned());
        return Err(Error::workload("the server's container does not run", why));
    }
    let id = found.id.unwrap_or_default();
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid)).unwrap_or_default();
    if id.is_empty() || !cgroup.contains(&id) {
        return Err(Error::engine(
            "the container does not run on this machine",
            format!("process {} here is another one", container.pid),
            "use the local daemon: unset DOCKER_HOST",
        ));
    }
    if let (Some(network), "bridge") = (network, mode) {
        let address = found
            .network_settings
            .and_then(|settings| settings.networks?.get(&network.name)?.ip_address.clone()?.parse::<Ipv4Addr>().ok())
            .ok_or_else(|| {
                Error::engine("the container has no address", "Docker names none", "see the daemon's log")
            })?;
        container.address = SocketAddrV4::new(address, bench.port_of(configuration));
    }
    Ok(Box::new(container))
}

fn body(
    bench: &Bench,
    image: &image::Image,
    network: Option<&Network>,
    configuration: &Configuration,
) -> ContainerCreateBody {
    let mode = configuration.key("net");
    let host = bench.wire.subnets.host();
    let listen = if mode == "host" { host } else { Ipv4Addr::UNSPECIFIED };
    let number = bench.port_of(configuration);
    let port = format!("{number}/tcp");
    let (program, arguments) = bench.server.packed(SocketAddrV4::new(listen, number), configuration.injection);
    let mut command = vec![program.display().to_string()];
    command.extend(arguments);
    let network_name = match network {
        Some(network) if mode != "host" => network.name.clone(),
        _ => "host".to_owned(),
    };
    let published = (mode == "nat").then(|| {
        let binding = PortBinding { host_ip: Some(host.to_string()), host_port: Some(number.to_string()) };
        HashMap::from([(port.clone(), Some(vec![binding]))])
    });
    ContainerCreateBody {
        image: Some(image.name.clone()),
        cmd: Some(command),
        user: Some(format!("{NOBODY}:{NOBODY}")),
        exposed_ports: (mode == "nat").then(|| vec![port]),
        labels: Some(HashMap::from([(LABEL.to_owned(), bench.run_id.clone())])),
        host_config: Some(HostConfig {
            network_mode: Some(network_name.clone()),
            port_bindings: published,
            mounts: mount_of(configuration).map(|mount| vec![mount]),
            ..HostConfig::default()
        }),
        networking_config: (mode != "host").then(|| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network_name, EndpointSettings::default())])),
        }),
        ..ContainerCreateBody::default()
    }
}

/// What is mounted for the server's files.
fn mount_of(configuration: &Configuration) -> Option<Mount> {
    let target = Some(DATA.to_owned());
    match configuration.key("fs") {
        // Without a name: it goes with the container.
        "volume" => Some(Mount { target, typ: Some(MountType::VOLUME), ..Mount::default() }),
        "tmpfs" => {
            let options = MountTmpfsOptions { mode: Some(0o1777), ..MountTmpfsOptions::default() };
            Some(Mount { target, typ: Some(MountType::TMPFS), tmpfs_options: Some(options), ..Mount::default() })
        }
        _ => None,
    }
}

impl Container {
    fn last_words(&self) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
        let lines = self.client.ask("cannot read the container's log", async {
            self.client.api.logs(&self.name, Some(options)).try_collect::<Vec<_>>().await
        });
        lines.map_or_else(
            |error| error.to_string(),
            |lines| lines.iter().map(|line| line.to_string()).collect::<String>().trim().to_owned(),
        )
    }
}

impl Server for Container {
    fn address(&self) -> SocketAddrV4 {
        self.address
    }
    fn pid(&self) -> u32 {
        self.pid
    }
    fn label(&self, names: &mut Names) -> Result<()> {
        let host = process::network_namespace(std::process::id())?;
        names.namespace(process::network_namespace(self.pid)?, "server");
        let Some(bridge) = &self.bridge else { return Ok(()) };
        names.device(host, bridge, "bridge");
        // The container's end of its pair is the only port of the bridge: the run's network has one container.
        let ports = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
        for port in ports.into_iter().flatten().flatten() {
            names.device(host, &port.file_name().to_string_lossy(), "veth");
        }
        Ok(())
    }
    fn failure(&mut self) -> Option<String> {
        if self.pid != 0 && process::started(self.pid).is_some() {
            return None;
        }
        let words = self.last_words();
        let remedy = port_remedy(&words, self.address.port());
        Some(format!("its container ended: {words}{remedy}"))
    }
}
