//! Options of the commands that read a run's folder.

use std::path::PathBuf;

use clap::Args;
use profiler::export::{Format, Kind, REQUESTS};

#[derive(Args)]
pub struct ReportOptions {
    /// Folder of a run
    pub folder: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Print where the page is, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub html: bool,
}

#[derive(Args)]
pub struct ExportOptions {
    /// Folder of a run
    pub folder: PathBuf,
    /// The form
    #[arg(long, value_enum)]
    pub format: Format,
    /// Which stacks
    #[arg(long, value_enum, default_value = "latency")]
    pub kind: Kind,
    /// How many requests of each configuration, the slowest ones
    #[arg(long, value_name = "N", default_value_t = REQUESTS)]
    pub requests: usize,
    /// Write into this file instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct DiffOptions {
    /// Folder of a run
    pub first: PathBuf,
    /// Folder of another
    pub second: PathBuf,
    /// A configuration of the first [default: all that both have]
    #[arg(long, value_name = "CONFIG")]
    pub of: Option<String>,
    /// The one of the second that it is compared with [default: the same]
    #[arg(long, value_name = "CONFIG", requires = "of")]
    pub with: Option<String>,
    /// Print the differences as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ShowOptions {
    /// Folder of a run
    pub folder: PathBuf,
    /// The stage's id, as `virtax report` prints differences, such as `request/send→xmit(lo)`
    pub stage: String,
}

#[derive(Args)]
pub struct RequestsOptions {
    /// Folder of a run
    pub folder: PathBuf,
    /// How many of each configuration
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub slowest: usize,
    /// Show this configuration alone
    #[arg(long = "in", value_name = "CONFIG")]
    pub configuration: Option<String>,
}
