//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use profiler::{
    experiment::{Placement, lab::ProbeOptions},
    probes::Preference,
    run::Request,
};

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

See `virtax list` for workloads, engines and their keys, `virtax doctor` for what this machine lacks.";

#[derive(Subcommand)]
pub enum Command {
    /// Measure a workload in several configurations
    Run(Box<RunOptions>),
    /// Compute and show the result of a run's folder again
    Report(ReportOptions),
    /// List workloads, engines, and their keys
    List,
    /// Remove what runs left that were killed
    Clean,
    /// Say what this kernel and machine have and lack
    Doctor,
    /// Measure what watching costs (`cargo xtask bench`)
    #[command(hide = true)]
    Bench(Box<BenchOptions>),
}

#[derive(Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunOptions {
    /// What client and server do, such as tcp-rr
    pub workload: String,
    /// How the server is run: engine:key=value,key=value, several separated by commas
    #[arg(long = "in", value_name = "CONFIG,…")]
    pub configurations: String,
    /// The configuration that the others are compared with [default: the first]
    #[arg(long, value_name = "CONFIG")]
    pub baseline: Option<String>,
    /// How often every configuration is measured; verdicts from 8
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Measured seconds per configuration and round
    #[arg(long, default_value = "1", value_name = "S", value_parser = seconds)]
    pub duration: Duration,
    /// CPUs: client and server on one, on one each, or anywhere
    #[arg(long, value_enum, default_value = "same")]
    pub placement: Placement,
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
    /// Records of single requests per second; 0: none
    #[arg(long, default_value_t = 2000.0, value_name = "N", value_parser = rate)]
    pub records: f64,
    /// Stacks sampled per second on each CPU, in phases of their own; 0: none
    #[arg(long, default_value_t = 997, value_name = "HZ", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub sample_rate: u32,
    /// Go on sampling until the layers of every stage with 5 % of the samples are known to ± this share of it
    #[arg(long, value_name = "PERCENT", value_parser = half_width)]
    pub samples_until: Option<f64>,
    /// Seed of the order of configurations within rounds
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print faults of the probes, ten a second at most
    #[arg(long)]
    pub debug_probes: bool,
    /// Use raw tracepoints even where typed ones load
    #[arg(long, hide = true)]
    pub raw_probes: bool,
}

#[derive(Args)]
pub struct ReportOptions {
    /// Folder of a run
    pub folder: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchOptions {
    /// A bpftrace script to compare with; processes named "rr" in it become the workload's
    #[arg(long)]
    pub script: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunOptions,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.trim_end_matches('s').parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e6).contains(&rate) => Ok(rate),
        _ => Err("not a number from 0 to 1000000".to_owned()),
    }
}

/// A percentage as a share.
fn half_width(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(percent) if (0.5..=50.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("not a percentage from 0.5 to 50".to_owned()),
    }
}

impl RunOptions {
    pub fn request(&self) -> Request {
        Request {
            workload: self.workload.clone(),
            configurations: self.configurations.clone(),
            baseline: self.baseline.clone(),
            rounds: self.rounds,
            duration: self.duration,
            placement: self.placement,
            settings: self.settings.clone(),
            out: self.out.clone(),
            force: self.force,
            records_per_s: self.records,
            seed: self.seed,
            sample_rate_hz: self.sample_rate,
            samples_until: self.samples_until,
            probes: ProbeOptions {
                preference: if self.raw_probes { Preference::Raw } else { Preference::Best },
                debug: self.debug_probes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(seconds("2s").unwrap(), Duration::from_secs(2));
        for bad in ["", "x", "-1", "nan", "1e400"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
