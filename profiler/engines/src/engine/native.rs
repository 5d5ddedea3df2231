//! The server as an ordinary process of the host.

use std::{fs::File, net::SocketAddrV4, path::PathBuf, process::Child};

use super::{Account, Bench, Engine, Host, Key, Server, Values, last_lines, port_remedy, servers_account};
use crate::{
    cgroup::Cgroup,
    child::{self, ChildLease},
    engine::configuration::Configuration,
};
use virtax_model::error::{Error, Result};
use virtax_probes::Names;

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
        &[Key {
            name: "cgroup",
            values: Values::Words(&["own", "root"]),
            default: "own",
            help: "own: a control group of its own, as systemd gives each service one, and the client has one; root: whatever virtax is in",
        }]
    }
    fn tells_first_key(&self) -> bool {
        false
    }
    fn phrase(&self, configuration: &Configuration) -> String {
        match configuration.key("cgroup") {
            "root" => "the native server without a control group of its own".to_owned(),
            _ => "the native server".to_owned(),
        }
    }
    fn prepare(&self, _bench: &Bench, _configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        Ok(Box::new(Native))
    }
}

impl Host for Native {
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let address = SocketAddrV4::new(bench.wire.subnets.host(), bench.port_of(configuration));
        let super::Program { path, arguments, account } = bench.server.native(address, configuration.injection)?;
        // A file, because a pipe that nobody reads would stop a server that says much.
        let log = bench.log_of(configuration);
        let output = File::create(&log)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|error| Error::file("write", &log, error))?;
        let mut command = child::command(&path);
        command.args(arguments).stdout(output.0).stderr(output.1);
        let cgroup = match configuration.key("cgroup") {
            "root" => None,
            _ => Some(Cgroup::create(&bench.ledger, &bench.name_of(configuration))?),
        };
        cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.is_joined_by(&mut command))?;
        child::unprivileged(&mut command, None);
        let (child, lease) = child::spawn(&bench.ledger, command).map_err(|error| {
            // It may have had time to say why.
            let words = last_lines(&log);
            let separator = if words.is_empty() { "" } else { ": " };
            Error::workload("cannot start the server", format!("{error}{separator}{words}"))
        })?;
        Ok(Box::new(Process { child, address, log, account, _lease: lease, _cgroup: cgroup }))
    }
}

struct Process {
    child: Child,
    address: SocketAddrV4,
    log: PathBuf,
    account: Option<PathBuf>,
    _lease: ChildLease,
    // Last: it is busy as long as the server is in it.
    _cgroup: Option<Cgroup>,
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
    fn account(&mut self, _client: u32) -> Result<Option<Account>> {
        servers_account(self.account.as_deref())
    }
    fn failure(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let words = last_lines(&self.log);
        let remedy = port_remedy(&words, self.address.port());
        Some(format!("it ended ({status}): {words}{remedy}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}
