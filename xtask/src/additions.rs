//! What an addition takes, made real: an engine, a workload and a point are added to a copy of the tree, in no more
//! files than CONTRIBUTING says, and compile there. And what must not compile does not: a point's row without one of
//! its fields, a value of the model that a match has forgotten.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders and files that the library is made of.
const TREE: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", "profiler", "profiler-common", "profiler-ebpf", "workloads", "xtask"];

/// What is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A package's library.
    Library(&'static str),
    /// Clients and servers, with their program.
    Workloads,
    /// The probes, by the host's compiler: what only BPF has is put aside by `cfg`.
    Kernel,
}

const WHOLE: Part = Part::Library("profiler");

/// A copy of the tree, in which everything is built again and again.
struct Copied(PathBuf);

/// A change of a file: text that is replaced by other text, or a file that is new.
enum Change {
    Replace(&'static str, &'static str, &'static str),
    New(&'static str, &'static str),
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        // What has not changed keeps its time, so that it need not be built again.
        if fs::read(from).ok() != fs::read(to).ok() {
            fs::copy(from, to).unwrap();
        }
        return;
    }
    fs::create_dir_all(to).unwrap();
    // What the tree has no more is no part of its copy either.
    for entry in fs::read_dir(to).unwrap().flatten().filter(|entry| !from.join(entry.file_name()).exists()) {
        match entry.path() {
            path if path.is_dir() => fs::remove_dir_all(path).unwrap(),
            path => fs::remove_file(path).unwrap(),
        }
    }
    for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.file_name() != "target") {
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

impl Copied {
    fn new() -> Self {
        let folder = Path::new("../target/additions/tree").to_owned();
        for name in TREE {
            fs::create_dir_all(&folder).unwrap();
            copy(&Path::new("..").join(name), &folder.join(name));
        }
        Self(folder)
    }

    /// Whether a part compiles; if not, why.
    fn check(&self, part: Part) -> Result<(), String> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["check", "--quiet", "--locked", "--offline"]).env_remove("RUSTFLAGS").current_dir(&self.0);
        match part {
            Part::Library(package) => cargo.args(["--lib", "--package", package]),
            Part::Workloads => cargo.args(["--lib", "--bins", "--package", "workloads"]),
            // The profile for releases has no unwinding: with it, the probes do not compile.
            Part::Kernel => cargo.args(["--release", "--manifest-path", "profiler-ebpf/Cargo.toml"]),
        };
        // The kernel's part is a workspace of its own.
        cargo.env("CARGO_TARGET_DIR", if part == Part::Kernel { "../target-of-kernel" } else { "../target" });
        let output = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// Makes changes, looks at the tree, and takes them back.
    fn with<T>(&self, changes: &[Change], look: impl FnOnce(&Self) -> T) -> T {
        let mut before: Vec<(PathBuf, Option<String>)> = Vec::new();
        for change in changes {
            let (path, text) = match change {
                Change::New(path, text) => (self.0.join(path), (*text).to_owned()),
                Change::Replace(path, from, to) => {
                    let path = self.0.join(path);
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(text.contains(from), "{} has no `{from}`", path.display());
                    (path, text.replacen(from, to, 1))
                }
            };
            before.push((path.clone(), fs::read_to_string(&path).ok()));
            fs::write(path, text).unwrap();
        }
        let found = look(self);
        for (path, text) in before.into_iter().rev() {
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        found
    }

    /// Adds something in so many files at most.
    fn add(&self, what: &str, most: usize, parts: &[Part], changes: &[Change]) {
        let mut files: Vec<&str> = changes
            .iter()
            .map(|change| match change {
                Change::New(path, _) | Change::Replace(path, ..) => *path,
            })
            .collect();
        files.sort_unstable();
        files.dedup();
        assert!(files.len() <= most, "{what} takes {} files: {files:?}", files.len());
        let check = |tree: &Self| parts.iter().try_for_each(|part| tree.check(*part));
        if let Err(said) = self.with(changes, check) {
            panic!("{what} does not compile:\n{said}");
        }
    }

    /// This change must not compile, for this reason.
    fn refuse(&self, what: &str, reason: &str, change: Change) {
        self.refuse_in("virtax-model", what, reason, change);
    }

    fn refuse_in(&self, package: &'static str, what: &str, reason: &str, change: Change) {
        match self.with(&[change], |tree| tree.check(Part::Library(package))) {
            Ok(()) => panic!("{what} compiles"),
            Err(said) => assert!(said.contains(reason), "{what} does not compile, but why?\n{said}"),
        }
    }
}

const ENGINE: &str = r#"//! An engine on paper.

use super::{Bench, Engine, Host, Key};
use virtax_model::error::{Error, Result};

use crate::engine::configuration::Configuration;

/// See the module.
pub struct Paper;

impl Engine for Paper {
    fn name(&self) -> &'static str {
        "paper"
    }
    fn summary(&self) -> &'static str {
        "an engine on paper"
    }
    fn keys(&self) -> &'static [Key] {
        &[]
    }
    fn phrase(&self, _configuration: &Configuration) -> String {
        "the server on paper".to_owned()
    }
    fn version(&self) -> Result<Option<String>> {
        Ok(Some("1".to_owned()))
    }
    fn prepare(&self, _bench: &Bench, _configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        Err(Error::engine("cannot start", "it is on paper", "none"))
    }
}
"#;

const WORKLOAD: &str = r#"//! A workload on paper.

use std::net::SocketAddrV4;

use super::{ClientProgram, NetworkRequests, Setting, Settings, Start, Workload};

/// See the module.
pub struct Paper;

impl NetworkRequests for Paper {
    fn connections(&self, _settings: &Settings) -> u32 {
        1
    }
}

impl Workload for Paper {
    fn name(&self) -> &'static str {
        "paper"
    }
    fn summary(&self) -> &'static str {
        "a workload on paper"
    }
    fn settings(&self) -> &'static [Setting] {
        &[]
    }
    fn network(&self) -> Option<&dyn NetworkRequests> {
        Some(self)
    }
    fn server_arguments(&self, _settings: &Settings, _start: Start<'_>) -> Vec<String> {
        Vec::new()
    }
    fn client(&self, _settings: &Settings, _server: SocketAddrV4, _has_cpu: bool) -> ClientProgram {
        ClientProgram::Own(vec!["paper-client".to_owned()])
    }
    fn residual_limit(&self) -> f64 {
        0.05
    }
}
"#;

const CLIENT: &str = r#"//! A client on paper.

/// What it does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Connections.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
}

/// Asks nothing, on paper.
///
/// # Errors
/// None.
pub fn drive(_options: &Options) -> std::io::Result<()> {
    Ok(())
}
"#;

const HANDLER: &str = "/// `sched:sched_paper`
#[inline(always)]
pub fn paper(_control: &Control) -> Fault {
    let mut thread = current()?;
    thread.waking_ns = now();
    None
}
/// `sched:sched_wakeup`
";

const PROBE: &str = r#"const PAPER: Probe = Probe {
    name: "paper",
    set: Set::Schedule,
    without: Some("nothing"),
    alternatives: hooks!("paper", "sched_paper"),
    points: &[Row {
        point: Point::Paper,
        at: At::NoDevice,
        passes: Passes(Holder::Socket, Holder::Socket),
        next: GROUP,
        splits: Splits::Waiting,
        rank: 3,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const WAKEUP: Probe = "#;

const PROGRAMS: &str = "profiler-ebpf/src/programs.rs";
const COMMON: &str = "profiler-common/src/point.rs";
const THREADS: &str = "profiler/model/src/points/threads.rs";
const VALUE: (&str, &str) = (
    "    /// The thread is on a run queue",
    "    /// On paper.\n    Paper \"paper\",\n    /// The thread is on a run queue",
);

#[test]
fn additions_are_small_and_omissions_do_not_compile() {
    let tree = Copied::new();
    [WHOLE, Part::Workloads, Part::Kernel].into_iter().try_for_each(|part| tree.check(part)).unwrap();
    tree.add(
        "an engine",
        1 + 3,
        &[WHOLE],
        &[
            Change::New("profiler/engines/src/engine/paper.rs", ENGINE),
            Change::Replace("profiler/engines/src/engine/mod.rs", "mod native;", "mod native;\nmod paper;"),
            Change::Replace(
                "profiler/engines/src/engine/mod.rs",
                "[&dyn Engine; 5] = [",
                "[&dyn Engine; 6] = [&paper::Paper, ",
            ),
        ],
    );
    tree.add(
        "a workload",
        1 + 4,
        &[WHOLE, Part::Workloads],
        &[
            Change::New("profiler/engines/src/workload/paper.rs", WORKLOAD),
            Change::Replace("profiler/engines/src/workload/mod.rs", "mod tcp_rr;", "mod paper;\nmod tcp_rr;"),
            Change::Replace(
                "profiler/engines/src/workload/mod.rs",
                "        &tcp_rr::TcpRr,",
                "        &paper::Paper,\n        &tcp_rr::TcpRr,",
            ),
            Change::New("workloads/src/paper.rs", CLIENT),
            Change::Replace("workloads/src/lib.rs", "pub mod phases;", "pub mod paper;\npub mod phases;"),
            Change::Replace("workloads/src/main.rs", "keep, redis,", "keep, paper, redis,"),
            Change::Replace(
                "workloads/src/main.rs",
                "    /// Userland proxy\n",
                "    /// On paper\n    PaperClient(paper::Options),\n    /// Userland proxy\n",
            ),
            Change::Replace(
                "workloads/src/main.rs",
                "        Command::Relay(options)",
                "        Command::PaperClient(options) => paper::drive(&options),\n        Command::Relay(options)",
            ),
        ],
    );
    tree.add(
        "a point",
        4,
        &[WHOLE, Part::Kernel],
        &[
            Change::Replace(COMMON, VALUE.0, VALUE.1),
            Change::Replace(THREADS, "const WAKEUP: Probe = ", PROBE),
            Change::Replace(THREADS, "[WAKING, WAKEUP,", "[WAKING, PAPER, WAKEUP,"),
            Change::Replace(
                PROGRAMS,
                "    wakeup_typed, wakeup_raw:",
                "    paper_typed, paper_raw: \"sched_paper\" => |_ctx, control, K| sched::paper(&control);\n    \
                 wakeup_typed, wakeup_raw:",
            ),
            Change::Replace("profiler-ebpf/src/sched.rs", "/// `sched:sched_wakeup`\n", HANDLER),
            Change::Replace(THREADS, "to(Point::Wakeup),", "to(Point::Wakeup),\n    to(Point::Paper),"),
        ],
    );
    tree.refuse("a point without a row", "a point has no row", Change::Replace(COMMON, VALUE.0, VALUE.1));
    let row = "profiler/model/src/points/network.rs";
    for field in [
        "point: Point::Send,",
        "at: At::NoDevice,",
        "passes: Passes(Holder::Socket, Holder::Socket),",
        "splits: Splits::Nothing,",
        "rank: 1,",
        "leg: Leg::Sends,",
        "edge: Edge::Begins,",
        "is_waited_for: false,",
    ] {
        tree.refuse(field, "missing field", Change::Replace(row, field, ""));
    }
    for field in [
        "            next: GROUP,\n",
        "    name: \"waking\",\n",
        "    set: Set::Schedule,\n",
        "    without: Some(\"the group ready → received is not split\"),\n",
    ] {
        tree.refuse(field, "missing field", Change::Replace(THREADS, field, ""));
    }
    let counts = "profiler/model/src/terms.rs";
    for arm in ["            Self::Vhost => \"vhost\",\n", "            Self::Throttled => state::THROTTLED,\n"] {
        tree.refuse(arm, "non-exhaustive patterns", Change::Replace(counts, arm, ""));
    }
    let parts = "profiler/analysis/src/waterfall/parts.rs";
    let arm = "Splits::Retransmission | Splits::Vm | ";
    tree.refuse_in("virtax-analysis", arm, "non-exhaustive patterns", Change::Replace(parts, arm, ""));
}
