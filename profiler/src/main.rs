//! The `virtax` command.

mod cli;

use std::{
    io::{IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::ExitCode,
};

use profiler::{
    artifact, clean, doctor,
    engine::{self, configuration},
    error::{Error, Result, did_you_mean},
    guest::{self, Image, Kernel},
    injection, ladder,
    pack::Pack,
    render::terminal::{self, Look},
    result::{RunResult, schema},
    run, signals, truth, workload,
};
use workloads::init::{Execute, Task};

fn main() -> ExitCode {
    log::set_logger(&Stderr).map(|()| log::set_max_level(log::LevelFilter::Info)).ok();
    let arguments = cli::Arguments::read();
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
            signals::install()?;
            run_command(options)
        }
        cli::Command::Ladder(options) => {
            signals::install()?;
            ladder_command(options)
        }
        cli::Command::Report(options) => {
            let run::Report { result, pictures, page } = run::report(&options.folder)?;
            if options.html {
                return print_bytes(format!("{}\n", page.display()).as_bytes());
            }
            show(&result, options.json)?;
            let ladder = ladder::again(&options.folder, &result)?;
            if !options.json {
                list_pictures(&pictures, &page);
                if let Some((ladder, chart)) = ladder {
                    println!("\n{}\nchart: {}", ladder::show::table(&ladder, look()), chart.display());
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Show(options) => {
            print_bytes(terminal::stage(&run::built(&options.folder)?, &options.stage, look())?.as_bytes())
        }
        cli::Command::Export(options) => export_command(options),
        cli::Command::Diff(options) => diff_command(options),
        cli::Command::Requests(options) => requests_command(options),
        cli::Command::Completions { shell } => print_bytes(&cli::completions(*shell)),
        cli::Command::Manual { page, list } => manual_command(page, *list),
        cli::Command::Schema => print_bytes(format!("{:#}\n", schema()).as_bytes()),
        cli::Command::List => {
            print!("{}", listing());
            Ok(ExitCode::SUCCESS)
        }
        cli::Command::Vm { what: cli::VmCommand::Xml { configuration, domain } } => {
            let snippet = domain.as_deref().map(engine::vm::read_snippet).transpose()?;
            let (configuration, _) = configuration::parse(configuration)?;
            print_bytes(format!("{}\n", engine::vm::domain_xml(&configuration, snippet.as_ref())?).as_bytes())
        }
        cli::Command::Enter { specification } => engine::ns::enter(specification).map(ExitCode::from),
        cli::Command::Clean => clean_command(),
        cli::Command::GuestImage(options) => guest_image(options),
        cli::Command::Truth(options) => {
            signals::install()?;
            truth_command(options)
        }
        cli::Command::Bench(options) => {
            signals::install()?;
            bench_command(options)
        }
        cli::Command::Doctor => {
            let (text, able) = doctor::examine();
            print!("{text}");
            Ok(if able { ExitCode::SUCCESS } else { ExitCode::from(3) })
        }
    }
}

fn export_command(options: &cli::ExportOptions) -> Result<ExitCode> {
    let bytes = run::export(&options.folder, options.format, options.kind, options.requests)?;
    match &options.out {
        Some(path) => {
            std::fs::write(path, bytes).map_err(|error| Error::file("write", path, error))?;
            Ok(ExitCode::SUCCESS)
        }
        None => print_bytes(&bytes),
    }
}

fn diff_command(options: &cli::DiffOptions) -> Result<ExitCode> {
    let found = run::diff(&options.first, &options.second, options.of.as_deref(), options.with.as_deref())?;
    if options.json {
        print_json(&found)?;
    } else {
        let tables: Vec<String> = found.iter().map(|diff| terminal::runs_diff(diff, look())).collect();
        print!("{}", tables.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn requests_command(options: &cli::RequestsOptions) -> Result<ExitCode> {
    let mut text = String::new();
    for (name, records) in run::requests(&options.folder, options.configuration.as_deref())? {
        text += &terminal::requests(&name, &records, options.slowest, look());
    }
    print_bytes(text.as_bytes())
}

fn run_command(options: &cli::RunOptions) -> Result<ExitCode> {
    if options.common.verbose {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let outcome = match &options.again {
        Some(folder) => {
            let (vms, probes) = (options.common.vms(), options.common.probes()?);
            let (request, plan) = run::plan_again(folder, options.common.spec.rounds, vms, probes)?;
            run::run_again(&request, &plan, folder)?
        }
        None => {
            let request = options.request()?;
            let (plan, notes) = run::plan(&request)?;
            notes.iter().for_each(|note| eprintln!("virtax: {note}"));
            run::run(&request, &plan)?
        }
    };
    show(&outcome.result, options.common.json)?;
    if !options.common.json {
        list_pictures(&outcome.pictures, &outcome.page);
        println!("result: {}", outcome.folder.display());
    }
    end_of(outcome)
}

fn end_of(outcome: run::Outcome) -> Result<ExitCode> {
    match outcome.ended_by {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            eprintln!("virtax: the run ended early, what it has is in {}", outcome.folder.display());
            Err(error)
        }
    }
}

fn ladder_command(options: &cli::LadderOptions) -> Result<ExitCode> {
    if options.common.verbose {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let climbed = ladder::climb(&options.request()?, &options.options())?;
    if options.common.json {
        print_json(&climbed.ladder)?;
    } else {
        print!("{}", ladder::show::table(&climbed.ladder, look()));
        println!("\nchart: {}", climbed.chart.display());
        println!("result: {} (`virtax report` shows the waterfalls)", climbed.outcome.folder.display());
    }
    end_of(climbed.outcome)
}

fn bench_command(options: &cli::BenchOptions) -> Result<ExitCode> {
    let request = options.run.request()?;
    let (plan, _) = run::plan(&request)?;
    let script = match &options.script {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
            Some(text.replace("\"rr\"", "\"virtax-workload\""))
        }
        None => None,
    };
    let benchmark = run::benchmark(&request, &plan, request.spec.rounds, script.as_deref())?;
    print!("{}", terminal::benchmark(&benchmark, look()));
    Ok(ExitCode::SUCCESS)
}

fn truth_command(options: &cli::TruthOptions) -> Result<ExitCode> {
    let wanted = options.options();
    let truth = if let Some(count) = options.aa {
        wanted.make_folder()?;
        let mut truth = truth::Truth::new(&wanted);
        let again = truth::run_again(&wanted, count as usize)?;
        print!("{}", truth::show::again(&again));
        truth.again = Some(again);
        truth.save(&wanted.out)?;
        truth
    } else {
        truth::run_cases(&wanted, &mut |judged| println!("{}", truth::show::case(judged, look())))?
    };
    print!("{}", truth::show::summary(&truth));
    println!("result: {}", wanted.out.join("truth.json").display());
    Ok(if truth.holds() { ExitCode::SUCCESS } else { ExitCode::from(NOT_TRUE) })
}

/// A known cost was not found, or a configuration differs from itself.
const NOT_TRUE: u8 = 1;

fn look() -> Look {
    let terminal = std::io::stdout().is_terminal();
    Look { width: (!terminal).then_some(160), styled: terminal && std::env::var_os("NO_COLOR").is_none() }
}

fn show(result: &RunResult, json: bool) -> Result<()> {
    if json {
        print_json(result)?;
    } else {
        print!("{}", terminal::report(result, look()));
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Files { what: "cannot write the result".to_owned(), why: error.to_string() })?;
    println!("{text}");
    Ok(())
}

fn list_pictures(pictures: &[std::path::PathBuf], page: &Path) {
    println!();
    for picture in pictures {
        println!("flame graph: {}", picture.display());
    }
    println!("page: {}", page.display());
}

/// Whoever reads it may stop early: that is no failure.
fn print_bytes(bytes: &[u8]) -> Result<ExitCode> {
    let _ = std::io::stdout().write_all(bytes);
    Ok(ExitCode::SUCCESS)
}

fn manual_command(page: &str, list: bool) -> Result<ExitCode> {
    let pages = cli::manual()?;
    if list {
        let names: String = pages.keys().map(|name| format!("{name}\n")).collect();
        return print_bytes(names.as_bytes());
    }
    let text = pages.get(page).ok_or_else(|| {
        let near = did_you_mean(page, pages.keys().map(String::as_str));
        Error::Usage(format!("no manual page `{page}`{near}; `virtax manual --list` has them all"))
    })?;
    print_bytes(text)
}

fn guest_image(options: &cli::GuestImageOptions) -> Result<ExitCode> {
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err(Error::Usage("no program is given".to_owned()));
    };
    let kernel = Kernel::at(&options.kernel)?;
    let program = std::path::absolute(program).map_err(|error| Error::file("find", Path::new(program), error))?;
    let mut whole = Pack::of(&program)?;
    for file in &options.files {
        let mode = file.metadata().map_err(|error| Error::file("read", file, error))?.permissions().mode();
        whole.add_copy(file, file, mode);
    }
    if let Some(image) = &options.guest_kernel {
        guest::add_kernel(&mut whole, &Kernel::at(image)?)?;
    }
    let others = options.programs.iter().map(|program| Pack::of(program)).collect::<Result<Vec<_>>>()?;
    let drivers: Vec<&str> = options.drivers.iter().map(String::as_str).collect();
    let packs: Vec<&Pack> = std::iter::once(&whole).chain(&others).collect();
    let (arguments, environment) = (arguments.to_vec(), options.environment.clone());
    let task = Task::Execute(Execute { program, arguments, environment });
    Image { kernel: &kernel, drivers: &drivers, wishes: &[], binary: artifact::workload()?, packs: &packs, task }
        .write(&options.out)?;
    Ok(ExitCode::SUCCESS)
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
        text += &format!("  {:<17} {}\n", workload.name(), workload.summary());
        for setting in workload.settings() {
            text += &format!("    --set {:<22} {}\n", format!("{}={}", setting.name, setting.default), setting.help);
        }
    }
    text += "engines\n";
    for engine in engine::all() {
        text += &format!("  {:<10} {}\n", engine.name(), engine.summary());
        for (name, pairs) in engine.presets() {
            text += &format!("    {}:{name} is {}:{pairs}\n", engine.name(), engine.name());
        }
        for key in engine.keys() {
            text += &format!("    {}={} (default {})\n      {}\n", key.name, key.range("|"), key.default, key.help);
        }
    }
    text += "known costs, to see whether they are found: CONFIG+NAME=VALUE\n";
    for (name, help) in injection::all() {
        text += &format!("  {name:<24} {help}\n");
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
