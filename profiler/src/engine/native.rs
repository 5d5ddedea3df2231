//! The server as an ordinary process of the host.

use std::{
    fs::{self, File},
    net::SocketAddrV4,
    path::PathBuf,
    process::Child,
};

use super::{Bench, Engine, Host, Key, Server, port_remedy};
use crate::{
    child::{self, ChildLease},
    configuration::Configuration,
    error::{Error, Result},
    probes::Names,
};

/// Lines of a server's log that a message shows.
const LAST_LINES: usize = 3;

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
    fn start(&mut self, bench: &Bench, _configuration: &Configuration) -> Result<Box<dyn Server>> {
        let address = SocketAddrV4::new(bench.wire.subnets.host(), bench.server.port);
        let (program, arguments) = bench.server.native(address);
        // A file, because a pipe that nobody reads would stop a server that says much.
        let log = bench.ledger.folder().join("server.log");
        let output = File::create(&log)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|error| Error::file("write", &log, error))?;
        let mut command = child::command(&program);
        command.args(arguments).stdout(output.0).stderr(output.1);
        let (child, lease) =
            child::spawn(&bench.ledger, command).map_err(|error| Error::workload("cannot start the server", error))?;
        Ok(Box::new(Process { child, address, log, _lease: lease }))
    }
}

struct Process {
    child: Child,
    address: SocketAddrV4,
    log: PathBuf,
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
        let words = fs::read(&self.log).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        let remedy = port_remedy(&words, self.address.port());
        Some(format!("it ended ({status}): {}{remedy}", last.join("; ")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}
