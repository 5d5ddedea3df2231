//! Netfilter hooks of a network namespace: a host where Docker runs has them on the native path, too.

use std::{fs::File, io, os::fd::AsRawFd, os::unix::process::CommandExt, process::Command};

use serde::{Deserialize, Serialize};

/// What hangs on the IPv4 hooks of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// `hook priority function`, in the order in which packets meet them.
    pub functions: Vec<String>,
    /// Why they are not known; empty: they are.
    pub unknown_because: String,
}

impl Hooks {
    /// Whether connection tracking sees packets of this namespace.
    #[must_use]
    pub fn tracks_connections(&self) -> bool {
        self.functions.iter().any(|function| function.contains("conntrack_in"))
    }
}

/// The hooks in a process's network namespace, as `nft list hooks` says.
#[must_use]
pub fn hooks_of(pid: u32) -> Hooks {
    match list(pid) {
        Ok(text) => Hooks { functions: parse(&text), unknown_because: String::new() },
        Err(why) => Hooks { functions: Vec::new(), unknown_because: why },
    }
}

fn list(pid: u32) -> Result<String, String> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| error.to_string())?;
    let fd = namespace.as_raw_fd();
    let mut command = Command::new("nft");
    command.args(["list", "hooks", "ip"]);
    // SAFETY: one async-signal-safe system call on a descriptor that outlives it.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(fd, libc::CLONE_NEWNET) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let output = command.output().map_err(|error| format!("nft: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// `family ip { hook NAME { priority function [module] … } }`
fn parse(text: &str) -> Vec<String> {
    let mut hook = "";
    let mut functions = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("hook ") {
            hook = name.trim_end_matches('{').trim();
        } else if let Some((priority, function)) = line.split_once(' ') {
            if let Ok(priority) = priority.parse::<i64>() {
                functions.push(format!("{hook} {priority} {}", function.trim()));
            }
        }
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_read_with_their_place() {
        let text = "family ip {\n\thook prerouting {\n\t\t-0000000400 ipv4_conntrack_defrag [nf_defrag_ipv4]\n\t\t\
            -0000000200 ipv4_conntrack_in [nf_conntrack]\n\t\t-0000000100 nf_nat_ipv4_pre_routing [nf_nat]\n\t}\n\thook input {\n\t\t\
            +2147483647 nf_confirm [nf_conntrack]\n\t}\n}\n";
        let hooks = Hooks { functions: parse(text), unknown_because: String::new() };
        assert_eq!(hooks.functions[1], "prerouting -200 ipv4_conntrack_in [nf_conntrack]");
        assert_eq!(hooks.functions[3], "input 2147483647 nf_confirm [nf_conntrack]");
        assert!(hooks.tracks_connections());
        assert!(!Hooks::default().tracks_connections());
    }
}
