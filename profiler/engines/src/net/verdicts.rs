//! Firewall rules without a counter: nftables says of a traced packet which rule had which verdict on it (nft(8),
//! `monitor trace`).

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddrV4, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::refusals::inside;

/// The table that has packets traced. It belongs to the process that makes it: the kernel removes it when that ends,
/// however it does.
const TABLE: &str = "virtax_trace";
/// How long one attempt to connect, and then the trace of it, may take.
const ATTEMPT: Duration = Duration::from_millis(200);
/// Attempts, until those that trace are ready.
const ATTEMPTS: usize = 5;

/// Rules by which nftables drops or rejects the first segment of a connection; `None`: it cannot be traced here.
#[must_use]
pub fn refusing(from: &Path, to: SocketAddrV4, through: &[&Path]) -> Option<Vec<String>> {
    // In the host's namespace, others connect as well; in the server's, the address may have been translated.
    let (address, port) = (to.ip(), to.port());
    let filters = [format!("ip daddr {address} tcp dport {port}"), "tcp flags == syn".to_owned()];
    let tracers: Vec<Tracer> = through
        .iter()
        .zip(filters)
        .filter_map(|(namespace, filter)| inside(namespace, move || Tracer::start(&filter)).flatten())
        .collect();
    let mut lines = vec![Vec::new(); tracers.len()];
    for _ in 0..ATTEMPTS {
        inside(from, move || TcpStream::connect_timeout(&to.into(), ATTEMPT).is_ok())?;
        for (tracer, lines) in tracers.iter().zip(&mut lines) {
            while let Ok(line) = tracer.lines.recv_timeout(ATTEMPT) {
                lines.push(line);
            }
        }
        if lines.iter().any(|lines| !lines.is_empty()) {
            break;
        }
    }
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    if lines.is_empty() { None } else { Some(verdicts(&lines)) }
}

/// The two processes that trace in one namespace.
struct Tracer {
    owner: Child,
    monitor: Child,
    lines: Receiver<String>,
}

impl Tracer {
    fn start(filter: &str) -> Option<Self> {
        let mut nft = Command::new("nft");
        nft.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut owner = nft.arg("--interactive").stdout(Stdio::null()).spawn().ok()?;
        let mut rules = format!("add table ip {TABLE} {{ flags owner; }}\n");
        for hook in ["prerouting", "output"] {
            rules += &format!("add chain ip {TABLE} {hook} {{ type filter hook {hook} priority -400; }}\n");
            rules += &format!("add rule ip {TABLE} {hook} {filter} meta nftrace set 1\n");
        }
        // Kept open: the process lives, and with it its table, until this closes.
        let written = owner.stdin.as_mut()?.write_all(rules.as_bytes());
        let monitor = Command::new("nft")
            .args(["monitor", "trace"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let (Ok(()), Ok(mut monitor)) = (written, monitor) else {
            end(&mut owner);
            return None;
        };
        let (out, (sender, lines)) = (monitor.stdout.take()?, channel());
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Some(Self { owner, monitor, lines })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        end(&mut self.owner);
        end(&mut self.monitor);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Rules and policies whose verdict was to drop, of lines such as `trace id 97 ip mine pre rule tcp dport 7777 drop
/// (verdict drop)` and `trace id 97 ip mine pre policy drop`.
fn verdicts(lines: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in lines {
        let Some((_, traced)) = line.strip_prefix("trace id ").and_then(|rest| rest.split_once(' ')) else { continue };
        let mut words = traced.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (family, table, chain, kind, rest) = (word(), word(), word(), word(), word().trim());
        let verdict = match kind {
            "rule" => rest.strip_suffix("(verdict drop)").map(|rule| {
                format!("the rule `{}` of the chain {chain} in nftables' table {family} {table}", rule.trim())
            }),
            "policy" if rest == "drop" => {
                Some(format!("the policy of the chain {chain} in nftables' table {family} {table} (drop)"))
            }
            _ => None,
        };
        found.extend(verdict.filter(|verdict| !found.contains(verdict)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_named_once() {
        let lines = [
            "trace id 6013f6ec ip virtax_trace pre packet: iif \"lo\" ip saddr 127.0.0.1 tcp flags == syn ",
            "trace id 6013f6ec ip virtax_trace pre rule ip daddr 127.0.0.1 meta nftrace set 1 (verdict continue)",
            "trace id 6013f6ec ip virtax_trace pre policy accept ",
            "trace id 6013f6ec ip mine pre rule tcp dport 7777 drop (verdict drop)",
            "trace id 9749a943 ip mine pre rule tcp dport 7777 drop (verdict drop)",
            "trace id 9749a944 inet other forward policy drop ",
            "garbage",
            "trace id 1",
        ];
        let found = verdicts(&lines.map(str::to_owned));
        assert_eq!(
            found,
            [
                "the rule `tcp dport 7777 drop` of the chain pre in nftables' table ip mine",
                "the policy of the chain forward in nftables' table inet other (drop)",
            ]
        );
    }
}
