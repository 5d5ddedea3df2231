//! A container with servers, one after another.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    rc::Rc,
    time::{Duration, Instant},
};

use bollard::{
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, Mount, MountTmpfsOptions, MountType, NetworkingConfig,
        PortBinding,
    },
    query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions},
};
use futures_util::TryStreamExt;

use super::{Client, KEEPER, LABEL, NAME, image, network::Network};
use crate::{
    child::NOBODY,
    engine::configuration::Configuration,
    engine::{Bench, DATA, Server, port_remedy},
    ledger::{Item, Lease},
};
use virtax_model::error::{Error, Result};
use virtax_probes::{Names, interrupt, process};
use workloads::keep;

/// A container; it may outlive its servers, one after another.
pub(super) struct Container {
    // First, so removed first: everything else only describes it.
    _lease: Lease,
    /// The first process in it: a daemon that has died removes nothing.
    _process: Lease,
    client: Client,
    name: String,
    /// What keeps its servers ([`workloads::keep`]).
    keeper: Process,
    address: SocketAddrV4,
    bridge: Option<String>,
}

/// A process that is told from others with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    started: u64,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        process::started(pid).map(|started| Self { pid, started })
    }

    fn lives(self) -> bool {
        process::started(self.pid) == Some(self.started)
    }
}

/// A server in it.
pub(super) struct Inside {
    server: Process,
    container: Rc<Container>,
}

/// How long a server may take to be there, or to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
impl Container {
    /// Makes it; its first server starts with it.
    pub(super) fn start(
        client: &Client,
        bench: &Bench,
        image: &image::Image,
        network: Option<&Network>,
        configuration: &Configuration,
    ) -> Result<Self> {
        let mode = configuration.key("net");
        if bench.server.first_writes().is_some() && configuration.key("fs") == "overlay" {
            let why =
                "its image has no files that were never written to: give ns:fs=overlay, which is the same mechanism";
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
        let pid = found.state.and_then(|state| state.pid).unwrap_or(0) as u32;
        let mut address = SocketAddrV4::new(bench.wire.subnets.host(), bench.port_of(configuration));
        let Some(keeper) = Process::of(pid).filter(|_| pid != 0) else {
            return Err(Error::workload("the server's container does not run", ending(client, &name, address.port())));
        };
        let process = bench.ledger.note(Item::Process { pid: keeper.pid, started: keeper.started })?;
        let id = found.id.unwrap_or_default();
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if keeper.lives() && (id.is_empty() || !cgroup.contains(&id)) {
            return Err(Error::engine(
                "the container does not run on this machine",
                format!("process {pid} here is another one"),
                "use the local daemon: unset DOCKER_HOST",
            ));
        }
        if let (Some(network), "bridge") = (network, mode) {
            let inside = found.network_settings.and_then(|settings| {
                settings.networks?.get(&network.name)?.ip_address.clone()?.parse::<Ipv4Addr>().ok()
            });
            let inside = inside.ok_or_else(|| {
                Error::engine("the container has no address", "Docker names none", "see the daemon's log")
            })?;
            address = SocketAddrV4::new(inside, bench.port_of(configuration));
        }
        let bridge = network.filter(|_| mode != "host").map(|network| network.bridge.clone());
        Ok(Self { _lease: lease, _process: process, client: client.clone(), name, keeper, address, bridge })
    }

    /// Starts a server, if there is none.
    pub(super) fn serve(self: &Rc<Self>) -> Result<Inside> {
        self.tell(keep::START)?;
        let command = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Between its fork and its execution it looks like the keeper.
        let is_server = |pid: &u32| !command(*pid).is_empty() && command(*pid) != command(self.keeper.pid);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = process::family(self.keeper.pid);
            if let Some(server) = children.into_iter().skip(1).find(is_server).and_then(Process::of) {
                return Ok(Inside { server, container: self.clone() });
            }
            if !self.keeper.lives() || Instant::now() > deadline {
                let why = ending(&self.client, &self.name, self.address.port());
                return Err(Error::workload("the server's container does not run", why));
            }
            interrupt::sleep(Duration::from_millis(1))?;
        }
    }

    fn tell(&self, signal: i32) -> Result<()> {
        process::tell(self.keeper.pid, self.keeper.started, signal)
    }
}

/// How a container has ended.
fn ending(client: &Client, name: &str, port: u16) -> String {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
    let lines = client.ask("cannot read the container's log", async {
        client.api.logs(name, Some(options)).try_collect::<Vec<_>>().await
    });
    let words = lines.map_or_else(
        |error| error.to_string(),
        |lines| lines.iter().map(|line| line.to_string()).collect::<String>().trim().to_owned(),
    );
    let remedy = port_remedy(&words, port);
    format!("its container ended: {words}{remedy}")
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
    let program = bench.server.packed(SocketAddrV4::new(listen, number), configuration.injection);
    let mut command = vec![KEEPER.to_owned(), "keep".to_owned(), program.path.display().to_string()];
    command.extend(program.arguments);
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

impl Server for Inside {
    fn address(&self) -> SocketAddrV4 {
        self.container.address
    }
    fn pid(&self) -> u32 {
        self.server.pid
    }
    fn label(&self, names: &mut Names) -> Result<()> {
        let host = process::network_namespace(std::process::id())?;
        names.namespace(process::network_namespace(self.server.pid)?, "server");
        let Some(bridge) = &self.container.bridge else { return Ok(()) };
        names.device(host, bridge, "bridge");
        // The ends of the containers' pairs are the only ports of the bridge.
        let ports = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
        for port in ports.into_iter().flatten().flatten() {
            names.device(host, &port.file_name().to_string_lossy(), "veth");
        }
        Ok(())
    }
    fn failure(&mut self) -> Option<String> {
        let container = &self.container;
        (!self.server.lives()).then(|| ending(&container.client, &container.name, container.address.port()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // What has ended is no error; the container goes with the run.
        if let Err(error) = self.container.tell(keep::END) {
            log::warn!("{error}");
        }
        let deadline = Instant::now() + PATIENCE;
        while self.server.lives() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
