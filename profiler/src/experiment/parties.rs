//! Who takes part in a run, and their CPU time.

use std::collections::BTreeMap;

use crate::{counts::Role, engine::Boundary, process};

/// The first processes of client and server, whose children are followed as well.
#[derive(Debug, Clone, Copy)]
pub struct Parties {
    /// The client's.
    pub client: u32,
    /// The server's.
    pub server: u32,
    /// That of a proxy between them.
    pub proxy: Option<u32>,
    /// The device behind which the server answers from a virtual machine.
    pub boundary: Option<Boundary>,
    /// The port on which the client reaches them.
    pub port: u16,
}

impl Parties {
    /// All their processes, with their roles.
    #[must_use]
    pub fn roles(self) -> BTreeMap<u32, Role> {
        let mut roles = BTreeMap::new();
        roles.extend(process::family(self.client).into_iter().map(|pid| (pid, Role::Client)));
        roles.extend(process::family(self.server).into_iter().map(|pid| (pid, Role::Server)));
        roles.extend(self.proxy.into_iter().flat_map(process::family).map(|pid| (pid, Role::ProxyIn)));
        roles
    }
}

/// CPU time by role, by the scheduler's account.
pub(super) fn schedstat_ns(roles: &BTreeMap<u32, Role>) -> BTreeMap<Role, u64> {
    let mut times = BTreeMap::new();
    for (pid, role) in roles {
        *times.entry(*role).or_default() += process::schedstat_ns(*pid);
    }
    times
}
