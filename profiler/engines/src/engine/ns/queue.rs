//! Queues that let so much pass a second: a token bucket (tbf, tc(8)) on one end of a link.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::net::{Namespace, enter_before_exec};
use virtax_model::error::{Error, Result};

/// Bytes of Ethernet, IP and TCP headers (with timestamps, as Linux sends them) around a message: what a token bucket
/// counts.
const HEADERS: u64 = 14 + 20 + 32;
/// Bytes that may pass at once: some messages, so that a late timer is made up for and the mean rate is exact.
const BURST: u64 = 4096;
/// Bytes that may wait.
const LIMIT: u64 = 1 << 20;

/// A queue on a link.
pub struct Queue {
    link: String,
    rate_bits_per_s: u64,
}

fn tc(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let refuse = |why: &dyn std::fmt::Display| {
        Error::unsupported(
            "cannot shape a link's queue",
            why,
            "apt-get install iproute2, and a kernel with CONFIG_NET_SCH_TBF",
        )
    };
    let mut command = Command::new("tc");
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    // SAFETY: one async-signal-safe system call.
    unsafe { command.pre_exec(enter_before_exec(namespace.file())) };
    let output = command.output().map_err(|error| refuse(&format!("tc: {error}")))?;
    if !output.status.success() {
        return Err(refuse(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Queue {
    /// Puts it on a link of a namespace, with which it goes: one message of `bytes` passes in every `interval_us`.
    ///
    /// # Errors
    /// If there is no tc, or the kernel lacks tbf.
    pub fn create(namespace: &Namespace, link: &str, bytes: u64, interval_us: u32) -> Result<Self> {
        let rate_bits_per_s = (bytes + HEADERS) * 8 * 1_000_000 / u64::from(interval_us.max(1));
        let (rate, burst, limit) = (format!("{rate_bits_per_s}bit"), BURST.to_string(), LIMIT.to_string());
        let arguments = ["qdisc", "add", "dev", link, "root", "tbf", "rate", &rate, "burst", &burst, "limit", &limit];
        tc(namespace, &arguments)?;
        Ok(Self { link: link.to_owned(), rate_bits_per_s })
    }

    /// Packets that passed it so far, and the time that their bytes take at its rate, ns: by the kernel's own count.
    ///
    /// # Errors
    /// If tc does not tell.
    pub fn account(&self, namespace: &Namespace) -> Result<(u64, u64)> {
        let text = tc(namespace, &["-s", "-j", "qdisc", "show", "dev", &self.link])?;
        let (bytes, packets) = parse(&text)
            .ok_or_else(|| Error::unsupported("cannot read tc's statistics", text.trim(), "report this"))?;
        let ns = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.rate_bits_per_s.max(1));
        Ok((packets, u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

fn parse(text: &str) -> Option<(u64, u64)> {
    let shown: serde_json::Value = serde_json::from_str(text).ok()?;
    let tbf = shown.as_array()?.iter().find(|entry| entry["kind"] == "tbf")?;
    Some((tbf["bytes"].as_u64()?, tbf["packets"].as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_tc() {
        let text =
            r#"[{"kind":"noqueue","bytes":1},{"kind":"tbf","handle":"8001:","bytes":1660,"packets":10,"drops":0}]"#;
        assert_eq!(parse(text), Some((1660, 10)));
        assert_eq!(parse("[]"), None);
        assert_eq!(parse("nonsense"), None);
    }
}
