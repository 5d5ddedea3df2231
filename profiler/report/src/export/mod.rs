//! A run's result, requests and stacks in the forms that other tools read.

mod firefox;
mod perfetto;
pub mod pprof;
mod speedscope;
mod text;

use clap::ValueEnum;

use crate::{render::flame, result::Built};
use virtax_model::{
    error::{Error, Result},
    records::Record,
};

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Stages, one a line: RFC 4180.
    Csv,
    /// Stages and changes, as tables of a text.
    Markdown,
    /// Stages, latencies and losses as metrics: OpenMetrics 1.0.
    Openmetrics,
    /// Stacks, a line each: `frame;frame ns`.
    Folded,
    /// Stacks: speedscope's own file format.
    Speedscope,
    /// Stacks: the format of pprof, packed by gzip.
    Pprof,
    /// Stacks: the Firefox Profiler's processed profile.
    Firefox,
    /// Single requests, one track a holder: the Trace Event Format, which Perfetto reads.
    Perfetto,
}

/// Which stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What operations take.
    Latency,
    /// CPU time.
    Cpu,
    /// Waiting.
    OffCpu,
}

/// Requests that are exported of each configuration, unless others are asked for.
pub const REQUESTS: usize = 200;

/// Writes a run in a form; `records`: of a configuration, by its name.
///
/// # Errors
/// If records cannot be read, or a number has no form.
pub fn export(
    built: &Built,
    format: Format,
    kind: Kind,
    requests: usize,
    records: &dyn Fn(&str) -> Result<Vec<Record>>,
) -> Result<Vec<u8>> {
    let stacks = || {
        built.result.configurations.iter().zip(&built.stacks).map(|(configuration, stacks)| {
            let stacks = match kind {
                Kind::Latency => &stacks.latency,
                Kind::Cpu => &stacks.cpu,
                Kind::OffCpu => &stacks.off_cpu,
            };
            (configuration.name.as_str(), stacks.as_slice())
        })
    };
    match format {
        Format::Csv => text::csv(&built.result).map(String::into_bytes),
        Format::Markdown => Ok(text::markdown(&built.result).into_bytes()),
        Format::Openmetrics => Ok(text::openmetrics(&built.result).into_bytes()),
        Format::Folded => {
            let lines = stacks().flat_map(|(name, stacks)| flame::folded(name, stacks)).map(|line| line + "\n");
            Ok(lines.collect::<String>().into_bytes())
        }
        Format::Speedscope => json(&speedscope::file(&built.result, stacks())),
        Format::Pprof => pprof::file(&built.result, stacks()),
        Format::Firefox => json(&firefox::file(&built.result, stacks())?),
        Format::Perfetto => {
            let mut all = Vec::new();
            for configuration in &built.result.configurations {
                all.push((configuration.name.as_str(), records(&configuration.name)?));
            }
            json(&perfetto::trace(&all, requests))
        }
    }
}

fn json(value: &serde_json::Value) -> Result<Vec<u8>> {
    serde_json::to_string(value).map(|text| (text + "\n").into_bytes()).map_err(|error| no_form(&error))
}

fn no_form(error: &dyn std::fmt::Display) -> Error {
    Error::Files { what: "cannot export".to_owned(), why: error.to_string() }
}
