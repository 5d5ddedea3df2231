//! Clients: what asks, and says what it saw of every phase.

mod foreign;
mod own;

use std::{net::SocketAddrV4, time::Duration};

use workloads::protocol::{PhaseReport, Window};

use crate::{
    engine::{Bench, Server},
    error::{Error, Result},
    workload::{ClientProgram, Settings, Workload},
};

/// A client at work; dropping it ends it.
pub trait Client {
    /// Number of the client's process.
    fn pid(&self) -> u32;
    /// Sees to it that it works from now on, at least for as long as a phase of this length takes with all that goes
    /// around it.
    ///
    /// # Errors
    /// If it fails, or the server does.
    fn prepare(&mut self, length: Duration) -> Result<()>;
    /// Whether its report is about a whole run around a phase, which ends before it can be had.
    fn reports_whole_runs(&self) -> bool {
        false
    }
    /// Announces a phase.
    ///
    /// # Errors
    /// If it is gone.
    fn begin_phase(&mut self, open_ns: u64, close_ns: u64) -> Result<()>;
    /// What it saw of the last phase.
    ///
    /// # Errors
    /// If it fails, or does not answer.
    fn report(&mut self) -> Result<PhaseReport>;
    /// Announces windows: in these only, it asks from now on, and rests otherwise. Its report is then of them.
    ///
    /// # Errors
    /// If it is gone, or cannot.
    fn ask_in(&mut self, _windows: &[Window]) -> Result<()> {
        Err(Error::workload("the client cannot be asked in turns with others", "it knows no windows"))
    }
}

/// Whether a workload's client can be told windows, and rests between them.
pub fn knows_windows(workload: &dyn Workload, settings: &Settings) -> bool {
    let nowhere = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
    // Who works on files works inside of the server.
    let is_own = matches!(workload.client(settings, nowhere, false), ClientProgram::Own(_));
    is_own && workload.network().is_some()
}

/// Starts the client of a workload in the wire's namespace on these CPUs (none: any), which may be its own
/// (`has_cpu`), and waits until all its connections work.
///
/// # Errors
/// If it cannot be executed, fails, or does not get through to the server; if the server fails, its last words.
pub fn start(
    bench: &Bench,
    workload: &dyn Workload,
    settings: &Settings,
    (cpus, has_cpu): (&[usize], bool),
    name: &str,
    server: &mut dyn Server,
) -> Result<Box<dyn Client>> {
    let alive = |server: &mut dyn Server| match server.failure() {
        Some(why) => Err(Error::workload(format!("the server of `{name}` failed"), why)),
        None => Ok(()),
    };
    let address: SocketAddrV4 = server.address();
    match workload.client(settings, address, has_cpu) {
        ClientProgram::Own(arguments) => {
            let mut client = own::Own::start(bench, &arguments)?;
            if !cpus.is_empty() {
                crate::process::pin(client.pid(), cpus)?;
            }
            client.wait_ready(workload.patience(settings), || alive(server))?;
            Ok(Box::new(client))
        }
        ClientProgram::Foreign(program) => {
            Ok(Box::new(foreign::Runs::start(bench, program, address, cpus, || alive(server))?))
        }
    }
}
