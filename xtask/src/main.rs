//! `cargo xtask`: sets up, builds, demonstrates, tests and benchmarks virtax.

mod bench;
mod build;
mod daemon;
mod setup;
mod shell;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::{daemon::Docker, shell::run};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set everything up, build, and show what NAT costs over host networking
    Demo {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// Where the result goes
        #[arg(long, default_value = "target/demo")]
        out: PathBuf,
    },
    /// Set everything up, build, and pass all tests
    Test {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// The longer suites too
        #[arg(long)]
        full: bool,
        /// Arguments for cargo test
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Compile the probes, the workloads' static binary, and target/release/virtax
    Build,
    /// Measure what watching costs, against the same work under a bpftrace script
    Bench {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// Interleaved rounds
        #[arg(long, default_value_t = 12)]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(task: Task) -> Result<()> {
    shell::enter_project()?;
    match task {
        Task::Build => build::all(),
        Task::Demo { no_install, out } => demo(no_install, &out),
        Task::Test { no_install, full, arguments } => test(no_install, full, &arguments),
        Task::Bench { no_install, rounds } => {
            setup::all(no_install, setup::BENCH)?;
            build::all()?;
            bench::run_all(rounds)
        }
    }
}

fn demo(no_install: bool, out: &std::path::Path) -> Result<()> {
    setup::all(no_install, setup::RUN)?;
    build::all()?;
    let _docker = Docker::ensure()?;
    let mut command = shell::command("target/release/virtax");
    command
        .args(["run", "tcp-rr", "--in", "native,docker:net=host,docker:net=nat"])
        // Long enough for the layers to have error bars that tell something.
        .args(["--samples-until", "4%"])
        .args(["--baseline", "docker:net=host", "--force", "--out"])
        .arg(out);
    run(command)
}

fn test(no_install: bool, full: bool, arguments: &[String]) -> Result<()> {
    setup::all(no_install, setup::RUN)?;
    build::all()?;
    let _docker = Docker::ensure()?;
    let mut command = shell::command("cargo");
    command.args(["test", "--release", "--workspace", "--no-fail-fast"]).args(arguments);
    // Everything is set up: a test that finds something missing now fails instead of skipping.
    command.env("VIRTAX_NO_SKIP", "1");
    if full {
        command.env("VIRTAX_FULL", "1");
    }
    let counts = shell::run_tests(command)?;
    println!("tests: {} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if counts.failed > 0 || counts.passed == 0 || !counts.success {
        bail!("tests failed");
    }
    Ok(())
}
