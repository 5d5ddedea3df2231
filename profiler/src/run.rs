//! A whole run, and a report of one: what the commands `run` and `report` do.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::unistd::{AccessFlags, access};
use virtax_model::{
    header::{Again, Header, SCHEMA_VERSION},
    phases::phases,
    whole,
};

use crate::{
    engine::configuration::{self, Configuration},
    engine::{self, vm},
    environment::{self, Environment, other_programs},
    error::{Error, Result, did_you_mean},
    experiment::{
        Lab, Plan, RunSpec, bench, lab,
        plan::{MOST_ROUNDS, new_run_id, with_baseline},
        profiles, schedule,
        store::{self, Store},
    },
    export,
    injection::{Injection, Kind},
    interrupt,
    ledger::{Ledger, RUNS},
    placement::{Cpus, Placement},
    privileges, probes,
    records::{self, Record},
    removal::remove,
    render::{flame, html},
    result::{
        Built, Inputs, RunResult, Told,
        bench::Benchmark,
        build, precision,
        runs::{self, RunsDiff},
    },
    run_folder, symbols,
    workload::{self, ClientProgram, ServerProgram},
};

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The workload's name.
    pub workload: String,
    /// The list of configurations.
    pub configurations: String,
    /// The baseline, if named.
    pub baseline: Option<String>,
    /// How it is measured.
    pub spec: RunSpec,
    /// How long `RunSpec::until_precision` may take.
    pub budget: Duration,
    /// `key=value` settings of the workload.
    pub settings: Vec<String>,
    /// Where the result goes.
    pub out: Option<PathBuf>,
    /// Whether an earlier run there may be replaced.
    pub force: bool,
    /// How the probes are loaded.
    pub probes: probes::Options,
    /// How VMs are started.
    pub vms: VmSettings,
}

/// How VMs are started, as the user says it.
#[derive(Debug, Clone, Default)]
pub struct VmSettings {
    /// libvirt's address, or "none".
    pub connect: Option<String>,
    /// The file of their own part of the domain.
    pub domain: Option<PathBuf>,
}

impl VmSettings {
    fn read(&self) -> Result<vm::VmOptions> {
        let snippet = self.domain.as_deref().map(vm::read_snippet).transpose()?;
        let wishes = vm::VmOptions { connect: self.connect.clone(), snippet };
        vm::check(&wishes).map(|()| wishes)
    }
}

/// What a run brought.
#[derive(Debug)]
pub struct Outcome {
    /// The result of everything that was saved.
    pub result: RunResult,
    /// Where it is.
    pub folder: PathBuf,
    /// The pictures drawn.
    pub pictures: Vec<PathBuf>,
    /// The page that shows all of it.
    pub page: PathBuf,
    /// What ended the run early, if anything did.
    pub ended_by: Option<Error>,
}

/// A plan from a request, and notes for the user.
///
/// # Errors
/// [`Error::Usage`] for everything that does not exist or fit together.
pub fn plan(request: &Request) -> Result<(Plan, Vec<String>)> {
    let workload = workload::by_name(&request.workload)?;
    let settings = workload::parse_settings(workload, &request.settings)?;
    let parsed = configuration::parse_list(&request.configurations)?;
    check_injections(workload, &parsed.configurations)?;
    check_fit(workload, &settings, &parsed.configurations)?;
    let baseline = baseline(request.baseline.as_deref(), &parsed.configurations)?;
    phases(request.spec.duration(), request.spec.samples())?;
    if !request.spec.samples() && request.spec.samples_until.is_some() {
        return Err(Error::Usage("`--samples-until` needs samples: leave out `--sample-rate 0`".to_owned()));
    }
    if request.spec.turns.window().is_some_and(|window| 2 * window > request.spec.duration()) {
        let two = "two windows of each configuration do not fit into a round";
        return Err(Error::Usage(format!("{two}: shorten `--window`, or raise `--duration`")));
    }
    if request.spec.rounds == 0 {
        return Err(Error::Usage("`--rounds` must be at least 1".to_owned()));
    }
    let plan = Plan {
        workload,
        settings,
        compared: with_baseline(parsed.configurations.len(), baseline),
        configurations: parsed.configurations,
        baseline,
        spec: request.spec.clone(),
        first_round: 0,
        vms: request.vms.read()?,
    };
    Ok((plan, parsed.notes))
}

/// The request and the plan that add `rounds` to an earlier run, all else being as it was.
///
/// # Errors
/// If the folder holds no run, or one that this version cannot go on with.
pub fn plan_again(folder: &Path, rounds: u32, vms: VmSettings, probes: probes::Options) -> Result<(Request, Plan)> {
    let (header, repetitions) = store::load(folder)?;
    let settings = header.settings.iter().map(|(key, value)| format!("{key}={value}"));
    let request = Request {
        workload: header.workload.clone(),
        configurations: header.configurations.join(","),
        baseline: Some(header.baseline.clone()),
        spec: RunSpec { rounds, until_precision: None, ..header.spec.clone() },
        budget: Duration::ZERO,
        settings: settings.collect(),
        out: Some(folder.to_owned()),
        force: false,
        probes,
        vms,
    };
    let (mut plan, _) = plan(&request)?;
    let found: Vec<String> = plan.configurations.iter().map(ToString::to_string).collect();
    if found != header.configurations {
        let why = format!("they are called {} by now, not {}", found.join(","), header.configurations.join(","));
        return Err(Error::file("go on with", folder, why));
    }
    // One more is left out: a run that was killed may have left records of a round that it never saved.
    plan.first_round = repetitions.iter().map(|repetition| repetition.round + 2).max().unwrap_or(0);
    if plan.first_round.saturating_add(rounds) > MOST_ROUNDS {
        return Err(Error::Usage(format!("`--rounds {rounds}` makes more than {MOST_ROUNDS} rounds of it")));
    }
    Ok((request, plan))
}

/// Adds a plan's rounds to the run in a folder ([`plan_again`]).
///
/// # Errors
/// As [`run`].
pub fn run_again(request: &Request, plan: &Plan, folder: &Path) -> Result<Outcome> {
    check_needs(plan)?;
    let (header_before, _) = store::load(folder)?;
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| Error::file("write to", folder, error))?;
    let run_id = new_run_id();
    let other_bpf_programs = other_programs();
    let ledger = Ledger::create(Path::new(RUNS), &run_id, remove)?;
    let mut lab = Lab::new(plan, ledger, &run_id, request.probes)?;
    let now = header(request, plan, &run_id, lab.cpus(), other_bpf_programs)?;
    let mut store = Store::reopen(folder)?;
    let mut whole = header_before;
    whole.spec.rounds = whole.spec.rounds.max(plan.first_round) + plan.spec.rounds;
    whole.again.push(Again {
        run_id: now.run_id,
        virtax_version: now.virtax_version,
        started_unix_s: now.started_unix_s,
        first_round: plan.first_round,
        environment: now.environment,
    });
    store.begin(&whole)?;
    let ended_by = schedule::run(plan, &mut lab, &mut store, &mut |_| Ok(false));
    drop(lab);
    outcome(folder.to_owned(), ended_by)
}

/// Refuses known costs that only our own server, or its messages of known size, can have.
fn check_injections(workload: &dyn workload::Workload, configurations: &[Configuration]) -> Result<()> {
    let own = workload.server_program() == ServerProgram::Own && workload.network().is_some();
    let needs_own = |configuration: &&Configuration| {
        configuration.injection.is_some_and(|injection| injection.kind.is_servers() || injection.kind.is_queue())
    };
    match configurations.iter().find(needs_own).filter(|_| !own) {
        None => Ok(()),
        Some(configuration) => Err(Error::Usage(format!(
            "`{configuration}` needs a server of virtax's own that answers requests, which workload `{}` has not; tcp-rr has",
            workload.name()
        ))),
    }
}

/// Refuses configurations that do not fit the workload.
fn check_fit(
    workload: &dyn workload::Workload,
    settings: &workload::Settings,
    configurations: &[Configuration],
) -> Result<()> {
    for configuration in configurations {
        let engine = engine::by_name(&configuration.engine);
        engine.map_or(Ok(()), |engine| engine.suits(configuration, workload, settings))?;
    }
    let limits_reads = |found: &&Configuration| Injection::of(found.injection, Kind::ReadIops) > 0;
    if let Some(found) = configurations
        .iter()
        .find(limits_reads)
        .filter(|_| workload.files().is_some_and(|files| files.only_writes(settings)))
    {
        return Err(Error::Usage(format!("`{found}` limits reads, and this workload only writes")));
    }
    Ok(())
}

/// Index of the baseline: the first, unless another is named.
fn baseline(named: Option<&str>, configurations: &[Configuration]) -> Result<usize> {
    let Some(named) = named else { return Ok(0) };
    let (wanted, _) = configuration::parse(named)?;
    configurations.iter().position(|found| *found == wanted).ok_or_else(|| {
        let known: Vec<String> = configurations.iter().map(ToString::to_string).collect();
        Error::Usage(format!(
            "baseline `{wanted}` is not in `--in`{}; it holds {}",
            did_you_mean(&wanted.to_string(), known.iter().map(String::as_str)),
            known.join(", ")
        ))
    })
}

/// `other_bpf_programs`: those of others, counted before virtax loaded its own.
fn header(
    request: &Request,
    plan: &Plan,
    run_id: &str,
    cpus: &Cpus,
    other_bpf_programs: Option<usize>,
) -> Result<Header> {
    let mut environment = Environment { other_bpf_programs, ..environment::read_beside_programs() };
    environment.cpus_client.clone_from(&cpus.client);
    environment.cpus_server.clone_from(&cpus.server);
    environment.cpus_virtax.clone_from(&cpus.virtax);
    for engine in plan.configurations.iter().filter_map(|found| engine::by_name(&found.engine)) {
        engine.describe(&mut environment)?;
    }
    let names: Vec<String> = plan.configurations.iter().map(ToString::to_string).collect();
    Ok(Header {
        schema_version: SCHEMA_VERSION,
        run_id: run_id.to_owned(),
        virtax_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        command: command(request, plan, &names),
        workload: plan.workload.name().to_owned(),
        settings: plan.settings.clone(),
        residual_limit: plan.workload.residual_limit(),
        baseline: names[plan.baseline].clone(),
        configurations: names,
        spec: plan.spec.clone(),
        tables_bytes: 0,
        environment,
        again: Vec::new(),
    })
}

/// The command that repeats a run.
fn command(request: &Request, plan: &Plan, names: &[String]) -> String {
    let mut words = vec![
        format!("virtax run {} --in {}", plan.workload.name(), names.join(",")),
        format!("--baseline {}", names[plan.baseline]),
    ];
    words.extend(plan.spec.arguments());
    words.extend(plan.spec.until_precision.map(|_| format!("--budget {}", request.budget.as_secs_f64())));
    words.extend(request.settings.iter().map(|pair| format!("--set {pair}")));
    words.extend(request.vms.connect.iter().map(|uri| format!("--connect {uri}")));
    words.extend(request.vms.domain.iter().map(|path| format!("--domain {}", path.display())));
    words.join(" ")
}

/// Runs a plan. What was saved is reported, whatever ended the run.
///
/// # Errors
/// If nothing could be measured.
pub fn run(request: &Request, plan: &Plan) -> Result<Outcome> {
    let began = Instant::now();
    run_until(request, plan, &mut |folder| match plan.spec.until_precision {
        Some(share) if began.elapsed() < request.budget => {
            compute(folder).map(|so_far| !precision::is_reached(&so_far, share))
        }
        _ => Ok(false),
    })
}

/// Starts and ends a server of every configuration of a plan, and measures nothing: why each of them cannot be, if it
/// cannot.
///
/// # Errors
/// If none can be, for a reason that is not their own.
pub fn try_out(plan: &Plan) -> Result<Vec<Option<Error>>> {
    check_needs(plan)?;
    let run_id = new_run_id();
    let ledger = Ledger::create(Path::new(RUNS), &run_id, remove)?;
    lab::try_out(plan, ledger, &run_id)
}

/// Runs as [`run`] does, with further rounds for as long as `goes_on` says so of the run's folder.
///
/// # Errors
/// As [`run`].
pub fn run_until(request: &Request, plan: &Plan, goes_on: &mut dyn FnMut(&Path) -> Result<bool>) -> Result<Outcome> {
    check_needs(plan)?;
    let run_id = new_run_id();
    let other_bpf_programs = other_programs();
    let folder =
        request.out.clone().unwrap_or_else(|| PathBuf::from(format!("virtax-{}-{run_id}", plan.workload.name())));
    Store::check(&folder, request.force)?;
    let ledger = Ledger::create(Path::new(RUNS), &run_id, remove)?;
    log::debug!("step: set-up of run {run_id}");
    let mut lab = Lab::new(plan, ledger, &run_id, request.probes)?;
    // Once the engines are there: what they have set up is part of what is measured.
    let tables_bytes = lab.tables_bytes();
    let header = Header { tables_bytes, ..header(request, plan, &run_id, lab.cpus(), other_bpf_programs)? };
    let mut store = Store::create(&folder, request.force)?;
    store.begin(&header)?;
    let ended_by = schedule::run(plan, &mut lab, &mut store, goes_on);
    log::debug!("step: removal");
    drop(lab);
    outcome(folder, ended_by)
}

/// What a run's folder says once it has ended.
fn outcome(folder: PathBuf, ended_by: Option<Error>) -> Result<Outcome> {
    match (report(&folder), ended_by) {
        (Err(Error::Interrupted), None) => {
            log::warn!("what was measured is in {folder}: virtax report {folder}", folder = folder.display());
            Err(Error::Interrupted)
        }
        (Ok(Report { result, pictures, page }), ended_by) if !result.configurations.is_empty() => {
            Ok(Outcome { result, folder, pictures, page, ended_by })
        }
        (_, Some(error)) | (Err(error), None) => Err(error),
        (Ok(_), None) => Err(Error::workload("nothing was measured", "no repetition was saved")),
    }
}

/// Says what is missing before anything is changed.
fn check_needs(plan: &Plan) -> Result<()> {
    privileges::check(plan.spec.samples(), plan.spec.placement != Placement::Free)?;
    if plan.spec.samples() {
        symbols::check_kernel_symbols(Path::new(symbols::KALLSYMS))?;
    }
    if let ServerProgram::System(tool) = plan.workload.server_program() {
        tool.find()?;
    }
    plan.workload.server_executes().map_or(Ok(()), |tool| tool.find().map(drop))?;
    for configuration in &plan.configurations {
        engine::by_name(&configuration.engine).map_or(Ok(()), |engine| engine.needs(configuration, plan.workload))?;
    }
    let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    match plan.workload.client(&plan.settings, nowhere, false) {
        ClientProgram::Own(_) => Ok(()),
        ClientProgram::Foreign(client) => client.tool.find().map(drop),
    }
}

/// Measures what watching costs, on the first configuration of a plan.
///
/// # Errors
/// If client, server, probes or script fail.
pub fn benchmark(request: &Request, plan: &Plan, rounds: u32, script: Option<&str>) -> Result<Benchmark> {
    check_needs(plan)?;
    let run_id = new_run_id();
    let ledger = Ledger::create(Path::new(RUNS), &run_id, remove)?;
    let mut lab = Lab::new(plan, ledger, &run_id, request.probes)?;
    bench::run(&mut lab, rounds, script)
}

/// Computes the result of what a run's directory holds so far, and writes nothing.
///
/// # Errors
/// If the directory holds no run.
pub fn compute(folder: &Path) -> Result<RunResult> {
    built_since(folder, interrupt::arrived()).map(|built| built.result)
}

/// Computes all that a run's directory says, and writes nothing.
///
/// # Errors
/// If the directory holds no run.
pub fn built(folder: &Path) -> Result<Built> {
    built_since(folder, interrupt::arrived())
}

/// `before`: signals that had arrived and are no reason to stop.
fn built_since(folder: &Path, before: usize) -> Result<Built> {
    let (header, repetitions) = store::load(folder)?;
    interrupt::check_since(before)?;
    if repetitions.is_empty() {
        return Err(Error::file("report", folder, "no repetition of it was finished"));
    }
    let workload = workload::by_name(&header.workload).ok();
    let told = Told {
        phrase: &engine::phrase,
        rate_per_s: workload.and_then(|known| known.network()?.rate_per_s(&header.settings)),
        scaled: workload.and_then(|known| known.scaling(&header.settings)),
    };
    build(&Inputs {
        header: &header,
        told: &told,
        repetitions: &repetitions,
        records: &|name| records::read(&run_folder::records_path(folder, name)),
        profiles: &|name| profiles::read(&run_folder::stacks_path(folder, name)),
    })
}

/// Computes the result of a run's directory anew from its raw counts, saves it, and draws its pictures.
///
/// # Errors
/// If the directory holds no run, or cannot be written.
pub fn report(folder: &Path) -> Result<Report> {
    let before = interrupt::arrived();
    log::debug!("step: report");
    let built = built_since(folder, before)?;
    built.result.save(folder)?;
    log::debug!("step: pictures");
    // The result is saved: a signal now costs the pictures.
    let pictures = flame::write_all(&built, folder, &|| interrupt::check_since(before))?;
    let page = folder.join(run_folder::PAGE);
    whole::write_whole(&page, html::page(&built)?.as_bytes())?;
    Ok(Report { result: built.result, pictures, page })
}

/// A run's result, stacks or requests in a form that other tools read.
///
/// # Errors
/// If the directory holds no run, or its records cannot be read.
pub fn export(folder: &Path, format: export::Format, kind: export::Kind, requests: usize) -> Result<Vec<u8>> {
    let built = built_since(folder, interrupt::arrived())?;
    export::export(&built, format, kind, requests, &|name| records::read(&run_folder::records_path(folder, name)))
}

/// Compares configurations of two runs: one of each, or all that both have.
///
/// # Errors
/// If a directory holds no run, or the runs cannot be compared.
pub fn diff(first: &Path, second: &Path, of: Option<&str>, with: Option<&str>) -> Result<Vec<RunsDiff>> {
    let before = interrupt::arrived();
    let (first, second) = (built_since(first, before)?, built_since(second, before)?);
    let named = |text: &str| Ok::<_, Error>(configuration::parse(text)?.0.to_string());
    if let Some(of) = of {
        let of = named(of)?;
        let with = with.map_or_else(|| Ok(of.clone()), named)?;
        return Ok(vec![runs::diff(&first, &second, [&of, &with])?]);
    }
    let has = |built: &Built, name: &str| built.result.configurations.iter().any(|found| found.name == name);
    let both: Vec<&str> = first.result.configurations.iter().map(|found| found.name.as_str()).collect();
    let both: Vec<&str> = both.into_iter().filter(|name| has(&second, name)).collect();
    if both.is_empty() {
        let why = "the runs have no configuration in common: name one of each with `--of` and `--with`";
        return Err(Error::Usage(why.to_owned()));
    }
    both.into_iter().map(|name| runs::diff(&first, &second, [name, name])).collect()
}

/// Recorded requests of a run's configurations, or of one.
///
/// # Errors
/// If the directory holds no run, or not this configuration.
pub fn requests(folder: &Path, wanted: Option<&str>) -> Result<Vec<(String, Vec<Record>)>> {
    let (header, _) = store::load(folder)?;
    let names: Vec<&String> = match wanted {
        None => header.configurations.iter().collect(),
        Some(wanted) => {
            let name = configuration::parse(wanted)?.0.to_string();
            let found = header.configurations.iter().find(|known| **known == name).ok_or_else(|| {
                let known = header.configurations.join(", ");
                Error::Usage(format!("the run has no configuration `{name}`; it has {known}"))
            })?;
            vec![found]
        }
    };
    let read = |name: &String| Ok((name.clone(), records::read(&run_folder::records_path(folder, name))?));
    names.into_iter().map(read).collect()
}

/// What a run's directory says, and where it is drawn.
#[derive(Debug)]
pub struct Report {
    /// The result.
    pub result: RunResult,
    /// Flame graphs of the run.
    pub pictures: Vec<PathBuf>,
    /// The page that shows all of it.
    pub page: PathBuf,
}
