//! A Docker daemon for the time of a task, if none runs.

use std::{
    fs::File,
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::shell::{self, command, find};

const SOCKET: &str = "/var/run/docker.sock";
const LOG: &str = "target/dockerd.log";
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// A daemon that was there, or one that ends with this.
pub struct Docker(Option<Child>);

fn answers() -> bool {
    UnixStream::connect(SOCKET).is_ok()
}

impl Docker {
    /// Uses the daemon that runs (or that DOCKER_HOST names); starts one if there is none.
    pub fn ensure() -> Result<Self> {
        if std::env::var_os("DOCKER_HOST").is_some() || answers() {
            return Ok(Self(None));
        }
        shell::outlive_interrupts();
        let program = find("dockerd").context("dockerd is not installed")?;
        let log = File::create(LOG).with_context(|| format!("cannot write {LOG}"))?;
        println!("starting dockerd (its log: {LOG}); it is stopped again at the end");
        let child = command(program)
            // The default bridge's usual networks are private ones: all addresses stay in the range for benchmarks.
            .args(["--bip", "198.18.255.1/24"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of the terminal's reach: on Ctrl-C virtax still has containers to remove.
            .process_group(0)
            .spawn()
            .context("cannot start dockerd")?;
        let mut daemon = Self(Some(child));
        let deadline = Instant::now() + START;
        while !answers() {
            let ended = daemon.0.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                bail!("dockerd does not answer; the end of its log:\n{}", tail(Path::new(LOG)));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        // SAFETY: a signal to our own child, which is not reaped yet.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
