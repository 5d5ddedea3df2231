//! Containers from the kernel's bare mechanisms, without a daemon: exactly what the configuration names, and nothing
//! else.

mod launch;
mod loops;
pub(super) mod network;
mod queue;
mod rules;
mod seccomp;
mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

pub use launch::{COMMAND, enter};

use self::network::{Network, QueueAt, Shape, Wanted};
use super::{Bench, DATA, Engine, Host, Key, Server, Values, image};
use crate::{
    engine::configuration::Configuration,
    finding::Finding,
    injection::{Injection, Kind},
    ledger::PROGRAMS,
    workload::{Settings, Workload},
};
use virtax_model::error::{Error, Result};

/// See the module.
pub struct Ns;

const SWITCH: Values = Values::Words(&["on", "off"]);

const KEYS: [Key; 9] = [
    Key {
        name: "net",
        values: Values::Words(&["host", "own", "veth", "bridge", "nat"]),
        default: "nat",
        help: "host: the host's network; own: a namespace in the host's place; veth: a pair of links behind that; bridge: with a \
               bridge; nat: a bridge and a published port",
    },
    Key {
        name: "fs",
        values: Values::Words(&["host", "bind", "overlay", "loop"]),
        default: "host",
        help: "root: the host's, a folder, overlayfs; loop: a folder, with the files that the server reads and writes in a file system behind a \
               loop device",
    },
    Key { name: "pid", values: SWITCH, default: "off", help: "a process namespace" },
    Key { name: "user", values: SWITCH, default: "off", help: "a user namespace" },
    Key {
        name: "cgroup",
        values: SWITCH,
        default: "on",
        help: "a control group of its own, version 2 or 1, without limits; the client has one",
    },
    Key {
        name: "seccomp",
        values: Values::Words(&["off", "docker"]),
        default: "off",
        help: "a filter of the size and shape of Docker's default profile",
    },
    Key { name: "hooks", values: SWITCH, default: "off", help: "rules like Docker's on the path (on with conntrack)" },
    Key { name: "conntrack", values: SWITCH, default: "off", help: "connection tracking on the path (on with nat)" },
    Key { name: "proxy", values: SWITCH, default: "off", help: "a userland proxy in the way" },
];

impl Engine for Ns {
    fn name(&self) -> &'static str {
        "ns"
    }
    fn summary(&self) -> &'static str {
        "a container of the kernel's bare mechanisms, without a daemon"
    }
    fn keys(&self) -> &'static [Key] {
        &KEYS
    }
    fn default_of(&self, key: &Key, given: &BTreeMap<String, String>) -> &'static str {
        let has = |key: &str, value: &str| given.get(key).is_some_and(|found| found == value);
        let net = given.get("net").map_or(KEYS[0].default, String::as_str);
        match key.name {
            // Rules need a network of the run's own: the host's is left alone.
            "net" if has("proxy", "on") => "bridge",
            "conntrack" if net == "nat" && !has("proxy", "on") => "on",
            "hooks" if net == "nat" && !has("proxy", "on") || has("conntrack", "on") => "on",
            _ => key.default,
        }
    }
    fn check(&self, configuration: &Configuration) -> Result<()> {
        check(configuration).map_err(|why| Error::Usage(format!("`{configuration}` cannot be: {why}")))
    }
    fn suits(&self, configuration: &Configuration, workload: &dyn Workload, _settings: &Settings) -> Result<()> {
        if configuration.key("fs") == "loop" && workload.files().is_none() {
            let why = "has a disk for files, which this workload has not: take fs=bind, or the workload block";
            return Err(Error::Usage(format!("`{configuration}` {why}")));
        }
        Ok(())
    }
    fn needs(&self, configuration: &Configuration, workload: &dyn Workload) -> Result<()> {
        if configuration.key("fs") == "loop" && workload.files().is_some() {
            image::MKFS.find_of_root()?;
            // Where loop devices are a module, the kernel loads it now: its types are read before the first is
            // attached.
            let _ = std::fs::File::open("/dev/loop-control");
        }
        Ok(())
    }
    fn findings(&self) -> Vec<Finding> {
        vec![Finding::program(
            image::MKFS,
            &image::MKFS.find_of_root(),
            "for `ns:fs=loop` and the disks of virtual machines",
        )]
    }
    fn accepts(&self, _kind: Kind) -> bool {
        true
    }
    fn file_system(&self, configuration: &Configuration) -> Option<&'static str> {
        match configuration.key("fs") {
            "overlay" => Some("overlay"),
            "loop" => Some(image::FILE_SYSTEM),
            _ => None,
        }
    }
    fn phrase(&self, configuration: &Configuration) -> String {
        let net = match configuration.key("net") {
            _ if configuration.key("proxy") == "on" => "the userland proxy",
            "host" => "bare namespaces on the host's network",
            "own" => "bare namespaces with a network of their own",
            "veth" => "a bare pair of links",
            "bridge" => "a bare bridge",
            _ => "bare NAT",
        };
        let root = match configuration.key("fs") {
            "bind" => Some("a root of its own"),
            "overlay" => Some("overlayfs"),
            "loop" => Some("a loop device"),
            _ => None,
        };
        let others: Vec<&str> = ["pid", "user", "seccomp", "hooks", "conntrack"]
            .into_iter()
            .filter(|key| !["off", "host"].contains(&configuration.key(key)))
            .chain(root)
            .collect();
        if others.is_empty() || net.ends_with("NAT") {
            net.to_owned()
        } else {
            format!("{net} with {}", others.join(", "))
        }
    }
    fn prepare(&self, bench: &Bench, configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        let root = configurations.iter().any(|configuration| configuration.key("fs") != "host");
        let root = if root { Some(unpack(bench)?) } else { None };
        let mut networks = BTreeMap::new();
        for configuration in configurations {
            if let Some(wanted) = wanted(configuration) {
                let network = Network::create(bench, bench.next_segment(), bench.port_of(configuration), wanted)
                    .map_err(|error| about(configuration, error))?;
                networks.insert(configuration.to_string(), Rc::new(network));
            }
        }
        Ok(Box::new(Prepared { root, networks }))
    }
}

/// Says of which configuration an error is.
fn about(configuration: &Configuration, error: Error) -> Error {
    match error {
        Error::Unsupported { what, why, remedy } => {
            Error::Unsupported { what: format!("`{configuration}`: {what}"), why, remedy }
        }
        Error::Engine { what, why, remedy } => {
            Error::Engine { what: format!("`{configuration}`: {what}"), why, remedy }
        }
        Error::Usage(_) | Error::Workload { .. } | Error::Files { .. } | Error::Interrupted => error,
    }
}

fn check(configuration: &Configuration) -> std::result::Result<(), String> {
    let net = configuration.key("net");
    let on = |key: &str| configuration.key(key) == "on";
    let behind = ["veth", "bridge", "nat"].contains(&net);
    if on("hooks") && net == "host" {
        return Err("no rules are added to the host's own; give net=own, veth, bridge or nat".to_owned());
    }
    if on("conntrack") && !on("hooks") {
        return Err("connections are tracked where a rule asks for it; give hooks=on".to_owned());
    }
    if on("proxy") && !["veth", "bridge"].contains(&net) {
        return Err("a proxy stands in for NAT between two addresses; give net=veth or bridge".to_owned());
    }
    if net == "nat" && !on("conntrack") {
        return Err("NAT tracks connections; give net=bridge to go without".to_owned());
    }
    if on("user") && configuration.key("fs") == "loop" {
        return Err("the kernel mounts no disk in a user namespace; give fs=bind".to_owned());
    }
    let Some(injection) = configuration.injection else { return Ok(()) };
    match injection.kind {
        Kind::QueueWireRequestUs | Kind::QueueWireResponseUs if net == "host" => {
            Err("the wire of net=host is shared; give net=own, veth, bridge or nat".to_owned())
        }
        Kind::QueueVethRequestUs | Kind::QueueVethResponseUs if !behind => {
            Err("there is no link to the server; give net=veth, bridge or nat".to_owned())
        }
        Kind::ForwardRules | Kind::RawRules if !on("hooks") || !behind => {
            Err("there are no rules on the path; give net=veth, bridge or nat, and hooks=on".to_owned())
        }
        Kind::ReadIops if !on("cgroup") || configuration.key("fs") != "loop" => {
            Err("the reads of a loop device's disk are limited by a group: give fs=loop and cgroup=on".to_owned())
        }
        Kind::QuotaPercent if !on("cgroup") => Err("a quota needs cgroup=on".to_owned()),
        Kind::QuotaPercent if server::quota(injection.value) < server::SMALLEST_QUOTA => {
            Err("the kernel takes no quota below 1 ms; give at least 20 %".to_owned())
        }
        Kind::Proxies if !["veth", "bridge"].contains(&net) || on("proxy") => {
            Err("a proxy stands between two addresses, once; give net=veth or bridge without proxy=on".to_owned())
        }
        Kind::Bridges if !["bridge", "nat"].contains(&net) => Err("there is no bridge; give net=bridge".to_owned()),
        // The others can be put into any configuration of this engine.
        Kind::Copy
        | Kind::SleepUs
        | Kind::SpinUs
        | Kind::SlowUs
        | Kind::QueueWireRequestUs
        | Kind::QueueWireResponseUs
        | Kind::QueueVethRequestUs
        | Kind::QueueVethResponseUs
        | Kind::ForwardRules
        | Kind::RawRules
        | Kind::QuotaPercent
        | Kind::Hogs
        | Kind::Filters
        | Kind::Bridges
        | Kind::ReadIops
        | Kind::Proxies => Ok(()),
    }
}

/// Whether a proxy stands in the way.
fn has_proxy(configuration: &Configuration) -> bool {
    configuration.key("proxy") == "on" || Injection::of(configuration.injection, Kind::Proxies) > 0
}

/// The network of a configuration; `None`: the host's.
fn wanted(configuration: &Configuration) -> Option<Wanted> {
    let on = |key: &str| configuration.key(key) == "on";
    let value = |kind| Injection::of(configuration.injection, kind);
    let shape = match configuration.key("net") {
        "host" => return None,
        "own" => Shape::Own,
        "veth" => Shape::Veth,
        _ => Shape::Bridge(value(Kind::Bridges).max(1)),
    };
    Some(Wanted {
        shape,
        hooks: on("hooks"),
        conntrack: on("conntrack"),
        nat: configuration.key("net") == "nat",
        useless: [value(Kind::ForwardRules), value(Kind::RawRules)],
        queue: configuration.injection.and_then(|injection| Some((queue_at(injection.kind)?, injection.value))),
    })
}

fn queue_at(kind: Kind) -> Option<QueueAt> {
    match kind {
        Kind::QueueWireRequestUs => Some(QueueAt::WireRequest),
        Kind::QueueWireResponseUs => Some(QueueAt::WireResponse),
        Kind::QueueVethRequestUs => Some(QueueAt::VethRequest),
        Kind::QueueVethResponseUs => Some(QueueAt::VethResponse),
        Kind::Copy
        | Kind::SleepUs
        | Kind::SpinUs
        | Kind::SlowUs
        | Kind::ForwardRules
        | Kind::RawRules
        | Kind::QuotaPercent
        | Kind::Hogs
        | Kind::Filters
        | Kind::Bridges
        | Kind::ReadIops
        | Kind::Proxies => None,
    }
}

/// The server's program and files, unpacked: the root of `fs=bind`, the lower layer of `fs=overlay`. Goes with the
/// run's programs.
fn unpack(bench: &Bench) -> Result<PathBuf> {
    let root = Path::new(PROGRAMS).join(&bench.run_id).join("root");
    let fail = |error: std::io::Error| Error::file("unpack into", &root, error);
    let mut bytes = Vec::new();
    bench.server.pack.write_tar(&mut bytes)?;
    fs::create_dir_all(&root).map_err(fail)?;
    tar::Archive::new(bytes.as_slice()).unpack(&root).map_err(fail)?;
    launch::furnish(&root).map_err(fail)?;
    // Whatever the user's umask: the server is nobody.
    open_folders(&root).map_err(fail)?;
    let data = root.join(DATA.trim_start_matches('/'));
    if data.exists() {
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).map_err(fail)?;
    }
    Ok(root)
}

fn open_folders(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

struct Prepared {
    root: Option<PathBuf>,
    networks: BTreeMap<String, Rc<Network>>,
}

impl Host for Prepared {
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let network = self.networks.get(&configuration.to_string());
        server::start(bench, configuration, network, self.root.as_deref()).map_err(|error| about(configuration, error))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::configuration::parse;

    #[test]
    fn what_follows_from_what_is_given() {
        let name = |text: &str| parse(text).unwrap().0.to_string();
        insta::assert_snapshot!(
            ["ns", "ns:net=host", "ns:net=bridge,conntrack=on", "ns:proxy=on", "ns:net=veth"]
                .map(|text| format!("{text:<28} {}", name(text)))
                .join("\n")
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = [
            "ns:net=host,hooks=on",
            "ns:net=bridge,conntrack=on,hooks=off",
            "ns:net=nat,proxy=on",
            "ns:net=nat,conntrack=off",
            "ns:net=host+queue-wire-request-us=50",
            "ns:net=own+queue-veth-request-us=50",
            "ns:net=bridge+forward-rules=5",
            "ns:cgroup=off+quota-percent=50",
            "ns:net=host+quota-percent=19",
            "ns:net=veth+bridges=2",
            "native+bridges=2",
            "ns+bridge=2",
        ];
        insta::assert_snapshot!(refused.map(|text| format!("{text:<40} {}", parse(text).unwrap_err())).join("\n"));
    }
}
