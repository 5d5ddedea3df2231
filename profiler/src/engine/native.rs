//! The server as an ordinary process of the host.

use std::{
    io::Read,
    net::SocketAddrV4,
    process::{Child, Stdio},
};

use super::{Bench, Engine, Host, Key, Server, ServerSpec};
use crate::{
    child::{self, ChildLease},
    configuration::Configuration,
    error::{Error, Result},
    probes::Names,
};

/// See the module.
pub struct Native;

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }
    fn summary(&self) -> &'static str {
        "an ordinary process of the host"
    }
    fn keys(&self) -> &'static [Key] {
        &[]
    }
    fn phrase(&self, _configuration: &Configuration) -> String {
        "the native server".to_owned()
    }
    fn prepare(&self, _bench: &Bench, _configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        Ok(Box::new(Native))
    }
}

impl Host for Native {
    fn start(&mut self, bench: &Bench, _configuration: &Configuration, spec: &ServerSpec) -> Result<Box<dyn Server>> {
        let address = SocketAddrV4::new(bench.wire.subnets.host(), spec.port);
        let mut command = child::command(&bench.binary);
        command.args(&spec.arguments).arg("--listen").arg(address.to_string()).stderr(Stdio::piped());
        let (child, lease) =
            child::spawn(&bench.ledger, command).map_err(|error| Error::workload("cannot start the server", error))?;
        Ok(Box::new(Process { child, address, _lease: lease }))
    }
}

struct Process {
    child: Child,
    address: SocketAddrV4,
    _lease: ChildLease,
}

impl Server for Process {
    fn address(&self) -> SocketAddrV4 {
        self.address
    }
    fn pid(&self) -> u32 {
        self.child.id()
    }
    fn label(&self, _names: &mut Names) -> Result<()> {
        Ok(())
    }
    fn failure(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let mut words = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut words);
        }
        Some(format!("it ended ({status}): {}", words.trim()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}
