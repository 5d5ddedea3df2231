//! `cargo xtask`: sets up, builds, demonstrates, tests and benchmarks virtax.

#[cfg(test)]
mod additions;
mod bench;
mod build;
mod daemon;
mod deny;
#[cfg(test)]
mod dependencies;
mod fuzz;
mod kernel;
mod lab;
#[cfg(test)]
mod lines;
#[cfg(test)]
mod modules;
mod package;
mod precision;
mod setup;
mod shell;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, anyhow, bail};
use clap::{Parser, Subcommand};

use crate::{
    daemon::Docker,
    kernel::Suite,
    setup::Purpose,
    shell::{TestCounts, run},
};

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
    /// Set everything up, build, and see whether known costs are found where they are put
    Truth {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// All cases, not only those chosen for speed
        #[arg(long)]
        full: bool,
        /// Instead: compare configurations with themselves, forty times
        #[arg(long)]
        aa: bool,
        /// Where the result goes
        #[arg(long, default_value = "target/truth")]
        out: PathBuf,
    },
    /// Compile the probes, the workloads' static binary, and target/release/virtax
    Build,
    /// Build a Debian package, target/package/virtax_VERSION_ARCHITECTURE.deb
    Package {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// Install it on a minimal Debian in a folder, and run it there
        #[arg(long = "try")]
        try_out: bool,
    },
    /// Fetch Debian's kernel for VMs, and print the folder that VIRTAX_GUEST_KERNEL is to name
    GuestKernel {
        /// The newer one of Debian's backports
        #[arg(long)]
        backports: bool,
    },
    /// Boot an emulated VM in which KVM's exits are real, and execute a command in it, as root
    Lab {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// The VM's kernel, with its modules in ../lib/modules [default: Debian's, as for guests]
        #[arg(long)]
        kernel: Option<PathBuf>,
        /// Take Debian's newer kernel, of its backports
        #[arg(long, conflicts_with = "kernel")]
        backports: bool,
        /// Processors of the VM: more than one are emulated less faithfully
        #[arg(long, default_value_t = 1)]
        cpus: u32,
        /// Execute the tests of profiler/tests/lab; the command are their arguments
        #[arg(long)]
        test: bool,
        /// The longer ones of these tests too
        #[arg(long, requires = "test")]
        full: bool,
        /// `virtax`, or a program of this host, with its arguments
        #[arg(last = true, required_unless_present = "test")]
        command: Vec<String>,
    },
    /// Fuzz what reads things from outside, guided by coverage; what leads further becomes part of profiler/fuzz/corpus
    Fuzz {
        /// Only the targets with this word in their names
        #[arg(default_value = "")]
        filter: String,
        /// How long each, s
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Number that the random inputs come from
        #[arg(long, default_value_t = 1)]
        seed: u32,
        /// Instead: print which lines of the parsers the corpora reach
        #[arg(long)]
        coverage: bool,
    },
    /// Measure how well differences are known, and print it as a table
    Precision {
        /// Install nothing: say what is missing and how it is brought
        #[arg(long)]
        no_install: bool,
        /// How often each difference is measured
        #[arg(long, default_value_t = 5)]
        tries: u32,
        /// Instead: each difference by windows of several lengths, and by whole rounds
        #[arg(long)]
        bias: bool,
        /// Rounds of each run, with --bias
        #[arg(long, default_value_t = 8)]
        rounds: u32,
    },
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
        Task::GuestKernel { backports } => {
            kernel::fetched(suite(backports)).map(|folder| println!("{}", folder.display()))
        }
        Task::Demo { no_install, out } => demo(no_install, &out),
        Task::Test { no_install, full, arguments } => test(no_install, full, &arguments),
        Task::Package { no_install, try_out } => {
            setup::all(no_install, if try_out { Purpose::Test } else { Purpose::Run })?;
            build::all()?;
            let package = package::build()?;
            if try_out {
                package::Minimal::debian()?.try_out(&package)?;
            }
            println!("package: {}", package.display());
            Ok(())
        }
        Task::Truth { no_install, full, aa, out } => {
            setup::all(no_install, Purpose::Test)?;
            build::all()?;
            let mut command = shell::command("target/release/virtax");
            command.args(["truth", "--force", "--out"]).arg(out);
            // As few as have intervals; a case that is not clear by then goes on.
            let quick = ["--rounds", "8", "--duration", "0.4"];
            command.args((!full && !aa).then_some(quick).into_iter().flatten());
            command.args(full.then_some("--full")).args(aa.then_some("--aa"));
            run(command)
        }
        Task::Lab { no_install, kernel, backports, cpus, test, full, command } => {
            setup::all(no_install, Purpose::Test)?;
            build::all()?;
            let mut vm = lab::Lab::new(suite(backports))?;
            vm.cpus = cpus;
            if let Some(kernel) = kernel {
                vm.kernel = kernel;
            }
            if test {
                let counts = vm.test(full, &command)?;
                println!("tests: {} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
                return if counts.success { Ok(()) } else { bail!("tests failed") };
            }
            match vm.execute(&command, std::io::stdout())? {
                0 => Ok(()),
                code => bail!("the command ended with exit code {code}"),
            }
        }
        Task::Fuzz { coverage: true, .. } => fuzz::coverage(),
        Task::Fuzz { filter, seconds, seed, .. } => fuzz::all(&filter, seconds, seed),
        Task::Precision { no_install, tries, bias, rounds } => {
            setup::all(no_install, Purpose::Test)?;
            build::all()?;
            if bias { precision::bias(rounds) } else { precision::run_all(tries) }
        }
        Task::Bench { no_install, rounds } => {
            setup::all(no_install, Purpose::Bench)?;
            build::all()?;
            bench::run_all(rounds)
        }
    }
}

fn suite(backports: bool) -> Suite {
    if backports { Suite::Backports } else { Suite::Release }
}

fn demo(no_install: bool, out: &std::path::Path) -> Result<()> {
    setup::all(no_install, Purpose::Run)?;
    build::all()?;
    let docker = Docker::ensure();
    let (configurations, baseline) = match &docker {
        Ok(_) => ("native,docker:net=host,docker:net=nat", "docker:net=host"),
        Err(error) => {
            println!("no Docker daemon ({error:#}): bare namespaces stand in for its containers");
            ("native,ns:net=own,ns:net=nat", "ns:net=own")
        }
    };
    let mut command = shell::command("target/release/virtax");
    command
        .args(["run", "tcp-rr", "--in", configurations])
        // Long enough for the layers to have error bars that tell something.
        .args(["--samples-until", "4%"])
        .args(["--baseline", baseline, "--force", "--out"])
        .arg(out);
    run(command)
}

fn test(no_install: bool, full: bool, arguments: &[String]) -> Result<()> {
    setup::all(no_install, if full { Purpose::LongTest } else { Purpose::Test })?;
    // Beside the compiler, which no measurement is: it waits for the network mostly.
    let (minimal, built) = std::thread::scope(|scope| {
        let making = arguments.is_empty().then(|| scope.spawn(package::Minimal::debian));
        let built = build::all();
        (making.map(|making| making.join()), built)
    });
    built?;
    let minimal = match minimal {
        Some(made) => Some(made.map_err(|_| anyhow!("the minimal Debian could not be made"))??),
        None => None,
    };
    let guest_kernel = kernel::fetched(Suite::Release)?;
    let _docker = Docker::ensure()?;
    let cargo_test = |which: &[&str]| {
        let mut command = shell::command("cargo");
        command.args(["test", "--release", "--workspace", "--no-fail-fast"]).args(which).args(arguments);
        // Everything is set up: a test that finds something missing now fails instead of skipping.
        command.env("VIRTAX_NO_SKIP", "1").env("VIRTAX_GUEST_KERNEL", &guest_kernel);
        if full {
            command.env("VIRTAX_FULL", "1");
        }
        command
    };
    if !arguments.is_empty() {
        return judge(&shell::run_tests(cargo_test(&[]))?);
    }
    run(cargo_test(&["--no-run"]))?;
    let mut counts = shell::run_tests(cargo_test(&["--test", "host", "--test", "generator"]))?;
    // The lab's emulator has one processor, and what measures nothing needs no quiet: it takes what that leaves, at
    // the scheduler's lowest weight.
    let others = cargo_test(&BESIDE_THE_LAB);
    let (in_lab, (beside, package)) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            shell::be_nice();
            let tests = shell::run_tests(others);
            let package = lint().and_then(|()| deny::check(full)).and_then(|()| package::build());
            let package = if full { fuzz::coverage().and(package) } else { package };
            (tests, package)
        });
        let in_lab = test_in_lab(full);
        let died = || (Err(anyhow!("the other tests were not executed")), Err(anyhow!("no package was built")));
        (in_lab, beside.join().unwrap_or_else(|_| died()))
    });
    for found in [in_lab, beside] {
        match found {
            Ok(found) => counts = counts.plus(&found),
            Err(error) => {
                eprintln!("xtask: {error:#}");
                counts.success = false;
            }
        }
    }
    judge(&counts)?;
    let package = package?;
    if let Some(minimal) = minimal {
        minimal.try_out(&package)?;
        println!("package: installs, runs, and is removed");
    }
    Ok(())
}

/// Lints, and documentation without broken links, of all crates but the one that needs libvirt's headers.
fn lint() -> Result<()> {
    let mut version = shell::command("cargo");
    version.args(["clippy", "--version"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        let mut lints = shell::command("cargo");
        lints.args(["clippy", "--release", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
        run(lints)?;
        // It is no test of this host, so that "all" does not mean it.
        let mut of_lab = shell::command("cargo");
        of_lab.args([
            "clippy",
            "--release",
            "--package",
            "profiler",
            "--test",
            "lab",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]);
        run(of_lab)?;
    } else {
        println!("lints: this toolchain has no clippy, nothing was checked");
    }
    let mut documentation = shell::command("cargo");
    documentation.args(["doc", "--release", "--workspace", "--no-deps", "--quiet", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    run(documentation)
}

/// Tests that measure nothing.
const BESIDE_THE_LAB: [&str; 14] = [
    "--lib",
    "--bin",
    "xtask",
    "--bin",
    "virtax",
    "--test",
    "offline",
    "--test",
    "recorded",
    "--test",
    "estimators",
    "--test",
    "redis_client",
    "keep",
];

fn test_in_lab(full: bool) -> Result<TestCounts> {
    let suites: &[Suite] = if full { &[Suite::Release, Suite::Backports] } else { &[Suite::Release] };
    let mut counts = TestCounts { success: true, ..TestCounts::default() };
    for suite in suites {
        println!("\n     Running profiler/tests/lab in the lab, {suite:?}");
        counts = counts.plus(&lab::Lab::new(*suite)?.test(full, &[])?);
    }
    Ok(counts)
}

fn judge(counts: &TestCounts) -> Result<()> {
    println!("tests: {} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if counts.failed > 0 || counts.passed == 0 || !counts.success {
        bail!("tests failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Each integration test is executed by one of the three ways.
    #[test]
    fn every_test_has_its_place() {
        let within =
            |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        // The crates of the workspace, and those inside `profiler`.
        let crates = ["..", "../profiler"].into_iter().flat_map(|folder| within(Path::new(folder)).collect::<Vec<_>>());
        let files = crates.flat_map(|member| within(&member.join("tests")).collect::<Vec<_>>());
        let tests: Vec<String> = files
            .filter(|path| path.extension().is_some_and(|kind| kind == "rs") || path.join("main.rs").is_file())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert!(tests.len() >= 6, "{tests:?}");
        for name in tests {
            let alone = ["host", "generator", "lab"].contains(&name.as_str());
            assert!(alone != BESIDE_THE_LAB.contains(&name.as_str()), "{name}");
        }
    }
}
