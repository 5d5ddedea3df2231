//! Firewall rules in a run's own namespace, in the shape of those that a Docker daemon writes: by nft, or by iptables
//! where that is what the host has.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::{
    net::{Namespace, Segment, enter_before_exec},
    pack::find_program,
};
use virtax_model::error::{Error, Result};

/// The program that takes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// nftables.
    Nft,
    /// iptables, whichever variant the host's alternatives choose.
    Iptables,
}

impl Tool {
    /// The one that this host has.
    ///
    /// # Errors
    /// If it has neither.
    pub fn find() -> Result<Self> {
        let nft = find_program("nft", "nftables").map(|_| Self::Nft);
        nft.or_else(|_| find_program("iptables-restore", "iptables").map(|_| Self::Iptables)).map_err(|_| {
            Error::unsupported(
                "no program for firewall rules",
                "neither nft nor iptables-restore is in PATH",
                "apt-get install nftables",
            )
        })
    }
    /// Name of the program, as shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        }
    }
}

/// What is to stand in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules<'a> {
    /// The link to the server, or the bridge that it is behind.
    pub inside: &'a str,
    /// Addresses.
    pub segment: Segment,
    /// The server's port.
    pub port: u16,
    /// Accept by the state of connections, which makes the kernel track them.
    pub conntrack: bool,
    /// Publish the server's port at the router's own address.
    pub nat: bool,
    /// Rules that match nothing, in the way of what is forwarded.
    pub forward: u32,
    /// Rules before anything else, in the raw table.
    pub raw: u32,
}

/// An address that nobody has: documentation's own (RFC 5737).
const NOBODYS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

impl Rules<'_> {
    /// For `nft -f -`.
    fn nft(&self) -> String {
        let Self { inside, port, segment: Segment { router, inner, server, .. }, .. } = self;
        let prefix = Segment::PREFIX;
        let mut text = String::from("table ip virtax {\n");
        let useless = |count: u32| format!("    ip daddr {NOBODYS} drop\n").repeat(count as usize);
        if self.raw > 0 {
            let rules = useless(self.raw);
            let _ = writeln!(text, "  chain raw {{\n    type filter hook prerouting priority raw;\n{rules}  }}");
        }
        let _ = write!(
            text,
            "  chain user {{\n    return\n  }}
  chain isolation-2 {{\n    oifname \"{inside}\" drop\n    return\n  }}
  chain isolation-1 {{\n    iifname \"{inside}\" oifname != \"{inside}\" jump isolation-2\n    return\n  }}
  chain published {{\n    ip daddr {server} iifname != \"{inside}\" oifname \"{inside}\" tcp dport {port} accept\n  }}
  chain input {{\n    type filter hook input priority filter;\n  }}
  chain output {{\n    type filter hook output priority filter;\n  }}
  chain forward {{\n    type filter hook forward priority filter;\n{}    jump user\n    jump isolation-1\n",
            useless(self.forward)
        );
        if self.conntrack {
            let _ = writeln!(text, "    oifname \"{inside}\" ct state related,established accept");
        }
        let _ = write!(
            text,
            "    oifname \"{inside}\" jump published
    iifname \"{inside}\" oifname != \"{inside}\" accept
    iifname \"{inside}\" oifname \"{inside}\" accept\n  }}\n"
        );
        if self.nat {
            let _ = write!(
                text,
                "  chain publish {{\n    iifname \"{inside}\" return
    iifname != \"{inside}\" ip daddr {router} tcp dport {port} dnat to {}\n  }}
  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n    fib daddr type local jump publish\n  }}
  chain postrouting {{\n    type nat hook postrouting priority srcnat;
    ip saddr {inner}/{prefix} oifname != \"{inside}\" masquerade\n  }}\n",
                SocketAddrV4::new(*server, *port)
            );
        }
        text + "}\n"
    }

    /// For `iptables-restore`.
    fn iptables(&self) -> String {
        let Self { inside, port, segment: Segment { router, inner, server, .. }, .. } = self;
        let prefix = Segment::PREFIX;
        let useless = |chain: &str, count: u32| format!("-A {chain} -d {NOBODYS} -j DROP\n").repeat(count as usize);
        let mut text = String::new();
        if self.raw > 0 {
            let _ = write!(text, "*raw\n{}COMMIT\n", useless("PREROUTING", self.raw));
        }
        let _ = write!(
            text,
            "*filter\n:USER - [0:0]\n:ISOLATION-1 - [0:0]\n:ISOLATION-2 - [0:0]\n:PUBLISHED - [0:0]
-A USER -j RETURN
-A ISOLATION-1 -i {inside} ! -o {inside} -j ISOLATION-2\n-A ISOLATION-1 -j RETURN
-A ISOLATION-2 -o {inside} -j DROP\n-A ISOLATION-2 -j RETURN
-A PUBLISHED -d {server}/32 ! -i {inside} -o {inside} -p tcp -m tcp --dport {port} -j ACCEPT
{}-A FORWARD -j USER\n-A FORWARD -j ISOLATION-1\n",
            useless("FORWARD", self.forward)
        );
        if self.conntrack {
            let _ = writeln!(text, "-A FORWARD -o {inside} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        }
        let _ = write!(
            text,
            "-A FORWARD -o {inside} -j PUBLISHED\n-A FORWARD -i {inside} ! -o {inside} -j ACCEPT
-A FORWARD -i {inside} -o {inside} -j ACCEPT\nCOMMIT\n"
        );
        if self.nat {
            let _ = write!(
                text,
                "*nat\n:PUBLISH - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j PUBLISH
-A POSTROUTING -s {inner}/{prefix} ! -o {inside} -j MASQUERADE\n-A PUBLISH -i {inside} -j RETURN
-A PUBLISH -d {router}/32 ! -i {inside} -p tcp -m tcp --dport {port} -j DNAT --to-destination {}\nCOMMIT\n",
                SocketAddrV4::new(*server, *port)
            );
        }
        text
    }

    /// Puts them into a namespace; they go with it.
    ///
    /// # Errors
    /// With the tool's words, if it refuses: the kernel may lack a part of what they need.
    pub fn apply(&self, tool: Tool, namespace: &Namespace) -> Result<()> {
        let (mut command, text) = match tool {
            Tool::Nft => (Command::new("nft"), self.nft()),
            Tool::Iptables => (Command::new("iptables-restore"), self.iptables()),
        };
        if tool == Tool::Nft {
            command.args(["-f", "-"]);
        }
        let refuse = |why: &dyn std::fmt::Display| {
            Error::engine(
                format!("{} does not take the firewall rules", tool.name()),
                why,
                "a kernel with nf_tables, conntrack and NAT; or leave out `hooks`, `conntrack` and `net=nat`",
            )
        };
        // Out of the terminal's reach, as everything that a run starts.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        // SAFETY: one async-signal-safe system call.
        unsafe { command.pre_exec(enter_before_exec(namespace.file())) };
        let mut child = command.spawn().map_err(|error| refuse(&error))?;
        // A tool that refuses a line may not read the rest: its own words say more than a broken pipe.
        let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
        let output = child.wait_with_output().map_err(|error| refuse(&error))?;
        if output.status.success() {
            return written.map_err(|error| refuse(&error));
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(refuse(&words.lines().next().unwrap_or("it ended without a word")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Subnets;

    #[test]
    fn both_tools_are_told_the_same() {
        let segment = Subnets::choose("00000").unwrap().segment(0).unwrap();
        let rules = Rules { inside: "b0", segment, port: 7000, conntrack: true, nat: true, forward: 2, raw: 1 };
        let mask = |text: String| {
            let octets = segment.router.octets();
            text.replace(&format!("198.18.{}.", octets[2]), "198.18.N.")
        };
        insta::assert_snapshot!(format!("{}\n{}", mask(rules.nft()), mask(rules.iptables())));
        let bare = Rules { conntrack: false, nat: false, forward: 0, raw: 0, ..rules };
        for text in [bare.nft(), bare.iptables()] {
            for word in ["ct state", "conntrack", "nat", "raw"] {
                assert!(!text.contains(word), "{word}: {text}");
            }
        }
    }
}
