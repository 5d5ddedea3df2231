//! `cargo xtask bench`: ratios of interleaved measurements; absolute times mean nothing on a shared host.

use anyhow::Result;

use crate::shell::{command, run};

/// Effect of the probes on a request, by set of probes, against the same work under the script of `xtask/baseline`.
pub fn run_all(rounds: u32) -> Result<()> {
    for placement in ["same", "split"] {
        println!("\ntcp-rr, one connection, native, placement {placement}");
        let mut virtax = command("target/release/virtax");
        virtax.args(["bench", "tcp-rr", "--in", "native", "--script", "xtask/baseline/path.bt"]).args([
            "--placement",
            placement,
            "--rounds",
            &rounds.to_string(),
        ]);
        run(virtax)?;
    }
    Ok(())
}
