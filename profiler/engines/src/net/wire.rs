//! The wire: the client sits in a namespace of its own, joined to the host by a pair of links, in every configuration.

use std::rc::Rc;

use super::{Namespace, Subnets, links, subnets};
use crate::ledger::{Item, Lease, Ledger};
use virtax_model::error::{Error, Result};
use virtax_probes::{Names, process};

/// A namespace for the client, and its link to the host.
pub struct Wire {
    // First, so removed first: a namespace takes its links along, but only some time later.
    _link: Lease,
    /// Where the client runs.
    pub namespace: Rc<Namespace>,
    /// The networks.
    pub subnets: Subnets,
    host_link: String,
    client_link: String,
}

impl Wire {
    /// Builds it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn create(ledger: &Ledger, run_id: &str) -> Result<Self> {
        let subnets = Subnets::choose(run_id)?;
        let (host_link, client_link) = (format!("vx{run_id}w0"), format!("vx{run_id}w1"));
        let namespace = Rc::new(Namespace::create(ledger, &format!("virtax-{run_id}-client"))?);
        let link = ledger.note(Item::Link { name: host_link.clone() })?;
        links::create_veth(&host_link, &client_link, namespace.file())?;
        links::bring_up(&host_link, Some((subnets.host(), Subnets::PREFIX)))?;
        namespace.run(|| {
            links::bring_up("lo", None)?;
            links::bring_up(&client_link, Some((subnets.client(), Subnets::PREFIX)))?;
            let (range, prefix) = subnets::RANGE;
            links::add_route(range, prefix, subnets.host())
        })?;
        Ok(Self { namespace, subnets, host_link, client_link, _link: link })
    }

    /// An error of client or server, unless what lies between them is gone: then that.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match links::links_here() {
            Ok(links) if !links.contains(&self.host_link) && !matches!(error, Error::Interrupted) => Error::engine(
                format!("the link {} to the client's namespace has vanished", self.host_link),
                error,
                "find out what removes links on this machine (a network manager?), and run again",
            ),
            _ => error,
        }
    }

    /// Name of the host's end.
    #[must_use]
    pub fn host_link(&self) -> &str {
        &self.host_link
    }

    /// Labels for both namespaces and both ends.
    ///
    /// # Errors
    /// If a namespace cannot be looked at.
    pub fn names(&self) -> Result<Names> {
        let host = process::network_namespace(std::process::id())?;
        let client = process::namespace_inode(self.namespace.path())?;
        let mut names = Names::default();
        names.namespace(host, "host");
        names.namespace(client, "client");
        names.device(host, &self.host_link, "wire");
        names.device(client, &self.client_link, "wire");
        Ok(names)
    }
}
