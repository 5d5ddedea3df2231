//! The command line.

mod reports;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use clap_complete::Shell;
use virtax_model::spec::said;

use profiler::{
    error,
    experiment::RunSpec,
    ladder::{self, Order},
    probes::{self, KINDS, Limits, Preference},
    run::{Request, VmSettings},
    truth,
};

pub use reports::{DiffOptions, ExportOptions, ReportOptions, RequestsOptions, ShowOptions};

/// Shows where, on the path of a request, virtualization charges its toll
#[derive(Parser)]
#[command(name = "virtax", version, about, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 2 wrong usage, 3 this machine or kernel lacks something, 4 a container \
engine refused, 5 the workload failed, 6 files, 130 interrupted.";

const RUN_EXAMPLES: &str = "Examples:
  virtax run tcp-rr --in native,docker:net=host,docker:net=nat --baseline docker:net=host
  virtax run tcp-rr --in native,docker --placement split --set connections=16
  virtax run redis-set --in native,docker --set clients=50 --samples-until 4%
  virtax run tcp-rr --in native --rounds 1 --duration 0.5 --json > result.json
  virtax run --again virtax-tcp-rr-1a2b3 --rounds 10

See `virtax list` for workloads, engines and their keys, `virtax doctor` for what this machine lacks.";

const LADDER_EXAMPLES: &str = "Examples:
  virtax ladder network tcp-rr
  virtax ladder isolation redis-set --rounds 20 --duration 2
  virtax ladder network tcp-rr --until-precision 1% --budget 3600";

#[derive(Subcommand)]
pub enum Command {
    /// Measure a workload in several configurations
    Run(Box<RunOptions>),
    /// Measure what each mechanism costs: configurations that each add one
    Ladder(Box<LadderOptions>),
    /// Compute and show the result of a run's folder again
    Report(ReportOptions),
    /// Open one stage of a run: how long it takes, its layers, and the functions on top
    Show(ShowOptions),
    /// Write a run's result, stacks or requests in a form that other tools read
    Export(ExportOptions),
    /// Compare configurations of two runs
    Diff(DiffOptions),
    /// List the slowest requests of a run, each with its own waterfall
    Requests(RequestsOptions),
    /// Print the JSON Schema of `result.json`
    Schema,
    /// List workloads, engines, and their keys
    List,
    /// Remove what runs left that were killed
    Clean,
    /// Say what this kernel and host have and lack
    Doctor,
    /// Print completions for a shell: put them where it looks for them
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page (roff): `virtax manual virtax-run | man -l -`
    Manual {
        /// The page
        #[arg(default_value = "virtax")]
        page: String,
        /// List the pages
        #[arg(long)]
        list: bool,
    },
    /// Look at VMs without starting one
    Vm {
        #[command(subcommand)]
        what: VmCommand,
    },
    /// Enter namespaces and become a server: what engine `ns` starts
    #[command(hide = true)]
    Enter {
        /// What to enter
        specification: String,
    },
    /// Write the initial file system of a VM that executes a program (`cargo xtask lab`)
    #[command(hide = true)]
    GuestImage(GuestImageOptions),
    /// Put known costs in, and see whether they are found where they were put
    Truth(TruthOptions),
    /// Measure what watching costs (`cargo xtask bench`)
    #[command(hide = true)]
    Bench(Box<BenchOptions>),
}

#[derive(Subcommand)]
pub enum VmCommand {
    /// Print the domain that libvirt is given for a configuration; RUN stands for the run's number
    Xml {
        /// Such as tcg or kvm:vhost=on
        configuration: String,
        /// Put the elements of this domain in: each takes the place of virtax's own of that name, devices come beside
        /// virtax's
        #[arg(long, value_name = "FILE")]
        domain: Option<PathBuf>,
    },
}

#[derive(Args)]
#[command(after_help = RUN_EXAMPLES, allow_negative_numbers = true)]
pub struct RunOptions {
    /// What client and server do, such as tcp-rr
    #[arg(required_unless_present = "again")]
    pub workload: Option<String>,
    /// How the server is run: engine:key=value,key=value, several separated by commas
    #[arg(long = "in", value_name = "CONFIG,…", required_unless_present = "again")]
    pub configurations: Option<String>,
    /// Add --rounds to the run in this folder, after a boot into another kernel, too; all else is as it was
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "workload", "configurations", "baseline", "until_precision", "budget", "equivalent_within", "duration_s",
        "turns", "placement", "records_per_s", "sample_rate_hz", "samples_until", "seed", "settings", "out", "force",
    ])]
    pub again: Option<PathBuf>,
    /// The configuration that the others are compared with [default: the first]
    #[arg(long, value_name = "CONFIG")]
    pub baseline: Option<String>,
    /// Go on until every configuration's mean latency is known to ± this share of it, or the budget ends
    #[arg(long, value_name = "PERCENT", value_parser = said::half_width)]
    pub until_precision: Option<f64>,
    /// Seconds that --until-precision may take
    #[arg(long, default_value = "1800", value_name = "S", value_parser = said::duration)]
    pub budget: Duration,
    /// Say `equivalent` where the difference, with its interval, is less than this share of the baseline's latency
    #[arg(long, value_name = "PERCENT", value_parser = said::half_width)]
    pub equivalent_within: Option<f64>,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// What a run and a ladder can be told.
#[derive(Args)]
pub struct CommonOptions {
    #[command(flatten)]
    pub spec: RunSpec,
    /// A setting of the workload; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Folder for the result [default: virtax-WORKLOAD-RUN]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace an earlier run in --out
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// libvirt for VMs, such as qemu:///system; none: QEMU without libvirt [default: qemu:///embed,
    /// where there is one and it knows the VM]
    #[arg(long, value_name = "URI")]
    pub connect: Option<String>,
    /// Put the elements of this libvirt domain into those of VMs: see `virtax vm xml`
    #[arg(long, value_name = "FILE")]
    pub domain: Option<PathBuf>,
    /// Say what is being done, step by step
    #[arg(long, short)]
    pub verbose: bool,
    /// Print faults of the probes, ten a second at most
    #[arg(long)]
    pub debug_probes: bool,
    /// Use this kind of programs even where better ones load
    #[arg(long, hide = true, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    pub probes: Option<String>,
    /// Give a table of the probes fewer entries, so that it overflows
    #[arg(long, hide = true, value_name = "TABLE=ENTRIES")]
    pub starve: Vec<String>,
}

#[derive(Args)]
#[command(after_help = LADDER_EXAMPLES, allow_negative_numbers = true)]
pub struct LadderOptions {
    /// Which mechanisms
    #[arg(value_enum)]
    pub order: Order,
    /// What client and server do, such as tcp-rr
    pub workload: String,
    /// Differences of less than this share of the latency are nothing
    #[arg(long, default_value = "2", value_name = "PERCENT", value_parser = said::half_width)]
    pub precision: f64,
    /// Go on until every mechanism's cost is told to this precision, or the budget ends
    #[arg(long, value_name = "PERCENT", value_parser = said::half_width, conflicts_with = "precision")]
    pub until_precision: Option<f64>,
    /// Seconds that --until-precision may take
    #[arg(long, default_value = "1800", value_name = "S", value_parser = said::duration)]
    pub budget: Duration,
    #[command(flatten)]
    pub common: CommonOptions,
}

impl LadderOptions {
    /// # Errors
    /// [`error::Error::Usage`] for tables that do not exist.
    pub fn request(&self) -> error::Result<Request> {
        // The ladder fills in its configurations.
        self.common.request(&self.workload, "native", None)
    }
    pub fn options(&self) -> ladder::Options {
        ladder::Options {
            order: self.order,
            precision_percent: 100.0 * self.until_precision.unwrap_or(self.precision),
            budget: self.until_precision.map(|_| self.budget),
        }
    }
}

impl RunOptions {
    /// # Errors
    /// [`error::Error::Usage`] for tables that do not exist.
    pub fn request(&self) -> error::Result<Request> {
        // Both are there, unless a run goes on.
        let [workload, configurations] =
            [&self.workload, &self.configurations].map(|given| given.as_deref().unwrap_or_default());
        let mut request = self.common.request(workload, configurations, self.baseline.as_deref())?;
        request.spec.until_precision = self.until_precision;
        request.spec.equivalent_within = self.equivalent_within;
        request.budget = self.budget;
        Ok(request)
    }
}

#[derive(Args)]
pub struct TruthOptions {
    /// All cases, not only the half chosen for speed
    #[arg(long)]
    pub full: bool,
    /// This case alone; may be given several times
    #[arg(long = "case", value_name = "CASE")]
    pub cases: Vec<String>,
    /// Instead: compare configurations with themselves, so many times
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "40", conflicts_with_all = ["full", "cases"],
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub aa: Option<u32>,
    /// How often every configuration is measured; intervals from 5
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Measured seconds per configuration and round
    #[arg(long, default_value = "0.6", value_name = "S", value_parser = said::duration)]
    pub duration: Duration,
    /// Folder for the runs and truth.json
    #[arg(long, default_value = "virtax-truth", value_name = "DIR")]
    pub out: PathBuf,
    /// Replace an earlier result in --out
    #[arg(long)]
    pub force: bool,
}

impl TruthOptions {
    pub fn options(&self) -> truth::Options {
        truth::Options {
            full: self.full,
            cases: self.cases.clone(),
            rounds: self.rounds,
            duration: self.duration,
            out: self.out.clone(),
            force: self.force,
        }
    }
}

/// What a VM is made of that executes one program.
#[derive(Args)]
pub struct GuestImageOptions {
    /// The file to write
    #[arg(long)]
    pub out: PathBuf,
    /// The kernel that will boot it, with its modules in ../lib/modules
    #[arg(long)]
    pub kernel: PathBuf,
    /// A kernel for guests of the VM
    #[arg(long)]
    pub guest_kernel: Option<PathBuf>,
    /// A driver to load; may be given several times
    #[arg(long = "driver")]
    pub drivers: Vec<String>,
    /// A program to put in with its libraries; may be given several times
    #[arg(long = "program")]
    pub programs: Vec<PathBuf>,
    /// A file to put in at the same place; may be given several times
    #[arg(long = "file")]
    pub files: Vec<PathBuf>,
    /// A variable of the environment; may be given several times
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub environment: Vec<(String, String)>,
    /// The program to execute, with its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "not NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Args)]
pub struct BenchOptions {
    /// A bpftrace script to compare with; processes named "rr" in it become the workload's
    #[arg(long)]
    pub script: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunOptions,
}

/// Completions of the whole command line for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "virtax", &mut text);
    text
}

/// Manual pages, `virtax` and one for each command, by name.
pub fn manual() -> error::Result<BTreeMap<String, Vec<u8>>> {
    let mut whole = Arguments::command();
    whole.build();
    let page = |command: &clap::Command, name: &str| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command.clone().display_name(name.to_owned()))
            .render(&mut text)
            .map_err(|failure| error::Error::file("write", Path::new(name), failure))?;
        Ok((name.to_owned(), text))
    };
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    std::iter::once(page(&whole, "virtax"))
        .chain(commands.map(|command| page(command, &format!("virtax-{}", command.get_name()))))
        .collect()
}

impl Arguments {
    /// Reads the command line; a mistake ends the process, with the nearest command if there is one.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|mut error| {
            let wrong = match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(wrong)) => wrong.clone(),
                _ => error.exit(),
            };
            let command = Self::command();
            let near = error::nearest(&wrong, command.get_subcommands().map(clap::Command::get_name));
            if let (Some(near), None) = (near, error.get(ContextKind::SuggestedSubcommand)) {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near.to_owned()]));
            }
            error.exit()
        })
    }
}

impl CommonOptions {
    fn preference(&self) -> Preference {
        let kind = self.probes.as_ref().and_then(|wanted| KINDS.into_iter().find(|kind| kind == wanted));
        kind.map_or(Preference::Best, Preference::Kind)
    }

    fn request(&self, workload: &str, configurations: &str, baseline: Option<&str>) -> error::Result<Request> {
        Ok(Request {
            workload: workload.to_owned(),
            configurations: configurations.to_owned(),
            baseline: baseline.map(str::to_owned),
            spec: self.spec.clone(),
            budget: Duration::ZERO,
            settings: self.settings.clone(),
            out: self.out.clone(),
            force: self.force,
            probes: self.probes()?,
            vms: self.vms(),
        })
    }

    /// How the probes are loaded.
    ///
    /// # Errors
    /// [`error::Error::Usage`] for tables that do not exist.
    pub fn probes(&self) -> error::Result<probes::Options> {
        let mut limits = Limits::default();
        self.starve.iter().try_for_each(|pair| limits.set(pair))?;
        let (preference, debug) = (self.preference(), self.debug_probes);
        Ok(probes::Options { preference, debug, limits, synchronous: false, vms: false, files: false })
    }

    /// How VMs are started.
    pub fn vms(&self) -> VmSettings {
        VmSettings { connect: self.connect.clone(), domain: self.domain.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(said::duration("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(said::duration("2s").unwrap(), Duration::from_secs(2));
        for bad in ["", "x", "-1", "nan", "1e400"] {
            assert!(said::duration(bad).is_err(), "{bad}");
        }
    }

    /// Words of which command lines are made, and others.
    fn word() -> impl Strategy<Value = String> {
        let known = Arguments::command()
            .get_subcommands()
            .flat_map(|command| command.get_arguments().filter_map(|argument| argument.get_long()).collect::<Vec<_>>())
            .map(|long| format!("--{long}"))
            .chain(
                ["run", "bench", "report", "tcp-rr", "native", "docker:net=nat", "0", "-1", "1e9", "connections=3"]
                    .map(str::to_owned),
            )
            .collect::<Vec<_>>();
        prop_oneof![4 => proptest::sample::select(known), 1 => ".{0,12}"]
    }

    proptest! {
        #[test]
        fn no_command_line_panics(words in proptest::collection::vec(word(), 0..12)) {
            let line = std::iter::once("virtax".to_owned()).chain(words);
            if let Ok(Arguments { command: Command::Run(options) }) = Arguments::try_parse_from(line) {
                let _ = options.request().and_then(|request| profiler::run::plan(&request).map(drop));
            }
        }
    }
}
