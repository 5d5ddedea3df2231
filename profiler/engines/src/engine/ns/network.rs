//! Networks of bare links: a router in the host's place, with a link to the client and one to the server.
//!
//! The router is a namespace of the run, because the host's own may have rules on the path (a Docker daemon's, say):
//! here stands what the configuration names, and nothing else.

use std::{
    fs,
    net::Ipv4Addr,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    queue::Queue,
    rules::{Rules, Tool},
};
use crate::{
    engine::{Account, Bench},
    net::{Namespace, Segment, links},
};
use virtax_model::error::{Error, Result};
use virtax_probes::{Names, process};

/// How the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The server is in the router's own namespace.
    Own,
    /// A pair of links leads to it.
    Veth,
    /// A pair of links leads to it, one end of which is a port of a bridge; this many bridges in a row.
    Bridge(u32),
    /// The server is in a VM, whose process brings the link.
    Tap,
}

/// What a network is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// How the server is reached.
    pub shape: Shape,
    /// Whether there are rules at all.
    pub hooks: bool,
    /// Whether connections are tracked.
    pub conntrack: bool,
    /// Whether the server is reached at the router's address.
    pub nat: bool,
    /// Useless rules in the way of what is forwarded, and before anything else.
    pub useless: [u32; 2],
    /// Where a queue stands, and how long a message takes to pass it, µs.
    pub queue: Option<(QueueAt, u32)>,
}

/// Where a queue can stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueAt {
    /// The client's end of the wire: requests.
    WireRequest,
    /// The router's end of the wire: responses.
    WireResponse,
    /// The router's end of the server's link: requests.
    VethRequest,
    /// The server's end of its link: responses.
    VethResponse,
}

/// A network of one configuration; it goes with its namespaces.
pub struct Network {
    /// The router's namespace.
    pub router: Namespace,
    /// The server's, if it has one of its own.
    pub inner: Option<Namespace>,
    /// Addresses.
    pub segment: Segment,
    /// The program that took the rules, if there are any.
    pub tool: Option<Tool>,
    queue: Option<(QueueAt, Queue)>,
    // Kept open: the client's namespace outlives every network.
    client: Rc<Namespace>,
    client_link: String,
}

/// Ends of the links, each in a namespace of its own.
const WIRE: &str = "wire0";
/// The router's end of the link to the server.
const TO_SERVER: &str = "veth0";
/// The link to a VM.
pub(in crate::engine) const TAP: &str = "tap0";
/// The server's end.
const SERVERS: &str = "eth0";

fn bridge(index: u32) -> String {
    format!("br{index}")
}

/// What the router leads to: name of the link that has its inner address.
fn inside(shape: Shape) -> String {
    match shape {
        Shape::Bridge(_) => bridge(0),
        Shape::Tap => TAP.to_owned(),
        Shape::Own | Shape::Veth => TO_SERVER.to_owned(),
    }
}

impl Network {
    /// Builds the network number `index` of a run, for a server on this port.
    ///
    /// # Errors
    /// If the kernel refuses a part of it.
    pub fn create(bench: &Bench, index: u8, port: u16, wanted: Wanted) -> Result<Self> {
        let segment = bench.wire.subnets.segment(index).ok_or_else(|| {
            Error::Usage(format!(
                "more than {} configurations with networks of their own; leave some out",
                crate::net::Subnets::SEGMENTS
            ))
        })?;
        let named = |what: &str| format!("virtax-{}-{what}{index}", bench.run_id);
        let router = Namespace::create(&bench.ledger, &named("router"))?;
        // The kernel may still hold the end of an earlier one that could not be finished: no name is used twice.
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let client_link = format!("wire{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = bench.wire.namespace.file();
        router.run(|| {
            links::bring_up("lo", None)?;
            links::create_veth(WIRE, &client_link, client)?;
            links::bring_up(WIRE, Some((segment.router, Segment::PREFIX)))?;
            forward()
        })?;
        // From here on, its end takes the wire away.
        let client = bench.wire.namespace.clone();
        let mut network = Self { router, inner: None, segment, tool: None, queue: None, client, client_link };
        network.client.run(|| {
            links::bring_up(&network.client_link, Some((segment.client, Segment::PREFIX)))?;
            links::add_route(segment.inner, Segment::PREFIX, segment.router)
        })?;
        if !matches!(wanted.shape, Shape::Own | Shape::Tap) {
            network.inner = Some(Self::add_server(bench, &named("server"), &network.router, segment, wanted.shape)?);
        }
        if wanted.hooks {
            network.tool = Some(network.add_rules(port, wanted)?);
        }
        if let Some((at, interval_us)) = wanted.queue {
            let (namespace, link) = network.queue_place(at);
            let [request, response] = bench.server.message_bytes();
            let bytes = if matches!(at, QueueAt::WireRequest | QueueAt::VethRequest) { request } else { response };
            let queue = Queue::create(namespace, link, bytes, interval_us)?;
            network.queue = Some((at, queue));
        }
        Ok(network)
    }

    fn add_rules(&self, port: u16, wanted: Wanted) -> Result<Tool> {
        let tool = Tool::find()?;
        let rules = Rules {
            inside: &inside(wanted.shape),
            segment: self.segment,
            port,
            conntrack: wanted.conntrack,
            nat: wanted.nat,
            forward: wanted.useless[0],
            raw: wanted.useless[1],
        };
        rules.apply(tool, &self.router)?;
        Ok(tool)
    }

    fn queue_place(&self, at: QueueAt) -> (&Namespace, &str) {
        match at {
            QueueAt::WireRequest => (&self.client, &self.client_link),
            QueueAt::WireResponse => (&self.router, WIRE),
            QueueAt::VethRequest => (&self.router, TO_SERVER),
            QueueAt::VethResponse => (self.inner.as_ref().unwrap_or(&self.router), SERVERS),
        }
    }

    /// What passed its queue so far, if it has one.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn account(&self) -> Result<Option<Account>> {
        let Some((at, queue)) = &self.queue else { return Ok(None) };
        let (events, ns) = queue.account(self.queue_place(*at).0)?;
        Ok(Some(Account { events, ns }))
    }

    /// The server's namespace, and all between it and the router.
    fn add_server(bench: &Bench, name: &str, router: &Namespace, segment: Segment, shape: Shape) -> Result<Namespace> {
        let server = Namespace::create(&bench.ledger, name)?;
        let file = server.file();
        router.run(|| {
            links::create_veth(TO_SERVER, SERVERS, file)?;
            if let Shape::Bridge(count) = shape {
                add_bridges(count)?;
                links::bring_up(TO_SERVER, None)?;
            }
            links::bring_up(&inside(shape), Some((segment.gateway, Segment::PREFIX)))
        })?;
        server.run(|| {
            links::bring_up("lo", None)?;
            links::bring_up(SERVERS, Some((segment.server, Segment::PREFIX)))?;
            links::add_route(Ipv4Addr::UNSPECIFIED, 0, segment.gateway)
        })?;
        Ok(server)
    }

    /// Labels for its namespaces and links: those of the host and of Docker's networks, so that stages can be compared.
    ///
    /// # Errors
    /// If a namespace cannot be looked at.
    pub fn label(&self, bench_client: &Namespace, names: &mut Names) -> Result<()> {
        let router = process::namespace_inode(self.router.path())?;
        names.namespace(router, "host");
        names.device(router, WIRE, "wire");
        names.device(router, TO_SERVER, "veth");
        names.device(router, &bridge(0), "bridge");
        names.device(router, TAP, "tap");
        let client = process::namespace_inode(bench_client.path())?;
        names.device(client, &self.client_link, "wire");
        match &self.inner {
            Some(inner) => names.namespace(process::namespace_inode(inner.path())?, "server"),
            None => names.namespace(router, "server"),
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Namespaces take their links along, but only some time later; the client's end is in the way of the next
        // network.
        if let Err(error) = self.router.run(|| crate::net::delete_link(WIRE)) {
            log::warn!("{error}");
        }
    }
}

/// Bridges in a row, joined by pairs of links; the server's link is a port of the last.
fn add_bridges(count: u32) -> Result<()> {
    for index in 0..count {
        links::create_bridge(&bridge(index))?;
        if index > 0 {
            let (near, far) = (format!("link{index}a"), format!("link{index}b"));
            links::create_veth_here(&near, &far)?;
            links::add_port(&bridge(index - 1), &near)?;
            links::add_port(&bridge(index), &far)?;
            for link in [&near, &far, &bridge(index)] {
                links::bring_up(link, None)?;
            }
        }
    }
    links::add_port(&bridge(count.max(1) - 1), TO_SERVER)
}

/// Lets this namespace forward.
fn forward() -> Result<()> {
    let path = std::path::Path::new("/proc/sys/net/ipv4/ip_forward");
    fs::write(path, "1").map_err(|error| Error::file("write", path, error))
}
