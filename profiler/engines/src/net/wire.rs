//! The wire: the client sits in a namespace of its own, joined to the host by a pair of links, in every configuration.

use std::rc::Rc;

use super::{Namespace, Subnets, links, subnets};
use crate::ledger::{Item, Lease, Ledger};
use virtax_model::error::{Error, Result};
use virtax_probes::{Names, interrupt::Watch, process};

/// A namespace for the client, and its link to the host.
pub struct Wire {
    // First, so ended first: from then on the link may vanish.
    _watch: Watch,
    // Before the namespace, so removed before it: a namespace takes its links along, but only some time later.
    _link: Lease,
    /// Where the client runs.
    pub namespace: Rc<Namespace>,
    /// The networks.
    pub subnets: Subnets,
    host_link: String,
    client_link: String,
}

impl Wire {
    /// Builds it. From now on the waits of this thread end when its link vanishes.
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
        let watched = host_link.clone();
        let watch = Watch::begin(move || check_link(&watched));
        Ok(Self { namespace, subnets, host_link, client_link, _link: link, _watch: watch })
    }

    /// An error of a party, unless what lies between them is gone: then that.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match check_link(&self.host_link) {
            Err(vanished) if !matches!(error, Error::Interrupted) => {
                log::debug!("without the link: {error}");
                vanished
            }
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

/// The wire's link, in the host's namespace, is still there.
fn check_link(name: &str) -> Result<()> {
    match nix::net::if_::if_nametoindex(name) {
        Err(nix::errno::Errno::ENODEV) => Err(Error::engine(
            format!("the link {name} to the client's namespace has vanished"),
            "something outside of this run has removed it",
            "find out what removes links on this machine (a network manager?), and run again",
        )),
        // What cannot be asked for is not known to be gone.
        _ => Ok(()),
    }
}
