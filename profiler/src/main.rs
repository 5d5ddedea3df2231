//! The `virtax` command.

mod cli;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use profiler::{
    clean, doctor, engine,
    error::{Error, Result},
    interrupt,
    render::terminal::{self, Look},
    result::RunResult,
    run, workload,
};

fn main() -> ExitCode {
    log::set_logger(&Stderr).map(|()| log::set_max_level(log::LevelFilter::Info)).ok();
    let arguments = cli::Arguments::parse();
    match execute(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("virtax: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(arguments: &cli::Arguments) -> Result<ExitCode> {
    match &arguments.command {
        cli::Command::Run(options) => {
            interrupt::install()?;
            run_command(options)
        }
        cli::Command::Report(options) => {
            let (result, pictures) = run::report(&options.folder)?;
            show(&result, options.json)?;
            if !options.json {
                list_pictures(&pictures);
            }
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::List => {
            print!("{}", listing());
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Clean => clean_command(),
        cli::Command::Bench(options) => {
            interrupt::install()?;
            bench_command(options)
        }
        cli::Command::Doctor => {
            let (text, able) = doctor::examine();
            print!("{text}");
            Ok(if able { ExitCode::SUCCESS } else { ExitCode::from(3) })
        }
    }
}

fn run_command(options: &cli::RunOptions) -> Result<ExitCode> {
    let request = options.request();
    let (plan, notes) = run::plan(&request)?;
    for note in notes {
        eprintln!("virtax: {note}");
    }
    let outcome = run::run(&request, &plan)?;
    show(&outcome.result, options.json)?;
    if !options.json {
        list_pictures(&outcome.pictures);
        println!("result: {}", outcome.folder.display());
    }
    match outcome.ended_by {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            eprintln!("virtax: the run ended early, what it has is in {}", outcome.folder.display());
            Err(error)
        }
    }
}

fn bench_command(options: &cli::BenchOptions) -> Result<ExitCode> {
    let request = options.run.request();
    let (plan, _) = run::plan(&request)?;
    let script = match &options.script {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
            Some(text.replace("\"rr\"", "\"virtax-workload\""))
        }
        None => None,
    };
    let benchmark = run::benchmark(&request, &plan, request.rounds, script.as_deref())?;
    print!("{}", terminal::benchmark(&benchmark, look()));
    Ok(ExitCode::SUCCESS)
}

fn look() -> Look {
    let terminal = std::io::stdout().is_terminal();
    Look { width: (!terminal).then_some(160), styled: terminal && std::env::var_os("NO_COLOR").is_none() }
}

fn show(result: &RunResult, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string_pretty(result)
            .map_err(|error| Error::Files { what: "cannot write the result".to_owned(), why: error.to_string() })?;
        println!("{text}");
    } else {
        print!("{}", terminal::report(result, look()));
    }
    Ok(())
}

fn list_pictures(pictures: &[std::path::PathBuf]) {
    println!();
    for picture in pictures {
        println!("flame graph: {}", picture.display());
    }
}

fn clean_command() -> Result<ExitCode> {
    let cleaned = clean::clean()?;
    for what in &cleaned.removed {
        println!("removed {what}");
    }
    for run_id in &cleaned.alive {
        println!("run {run_id} is alive: left alone");
    }
    if cleaned.removed.is_empty() {
        println!("nothing to remove");
    }
    let mut code = ExitCode::SUCCESS;
    for error in &cleaned.errors {
        eprintln!("virtax: {error}");
        code = ExitCode::from(error.exit_code());
    }
    Ok(code)
}

fn listing() -> String {
    let mut text = String::from("workloads\n");
    for workload in workload::all() {
        text += &format!("  {:<10} {}\n", workload.name(), workload.summary());
        for setting in workload.settings() {
            text += &format!("    --set {:<22} {}\n", format!("{}={}", setting.name, setting.default), setting.help);
        }
    }
    text += "engines\n";
    for engine in engine::all() {
        text += &format!("  {:<10} {}\n", engine.name(), engine.summary());
        for key in engine.keys() {
            text +=
                &format!("    {}={} (default {})\n      {}\n", key.name, key.values.join("|"), key.default, key.help);
        }
    }
    text
}

/// Warnings of the library, on standard error.
struct Stderr;
impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // The libraries' own chatter is not for users; the probes' faults are.
        metadata.target().starts_with("profiler") || metadata.target().starts_with("virtax")
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("virtax: {}", record.args());
        }
    }
    fn flush(&self) {}
}
