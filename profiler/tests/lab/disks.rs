//! Disks that pass bios on: the kernel's device mapper, which delays them on the way, and its RAID.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MsFlags, mount, umount};
use profiler::{
    counts::{Phase, PhaseKind, Place, Point, Repetition},
    result::{ConfigurationResult, RunResult},
};
use profiler_common::Counter;

use crate::{
    common::{Out, Running, Traces, alone, check, is_wanted_in_full, repetitions, run_workload, virtax, wait_until},
    only_in_lab,
};

/// ms that the mapper delays each bio, round by round. Its timer has a resolution of 4 ms in Debian's kernels.
/// Without any, there would be no other thread that has to be woken: that is not what is injected.
const DELAYS: [u32; 5] = [4, 8, 12, 16, 20];
const DISKS: &str = "/sys/kernel/config/nullb";
const MIB: u64 = 64;
const SECTORS: u64 = MIB * 2048;

fn execute(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// A disk in memory, which makes requests of its bios.
struct Memory {
    folder: PathBuf,
    name: String,
}

impl Memory {
    fn make(name: &str) -> Self {
        let none: Option<&str> = None;
        if !Path::new(DISKS).exists() {
            mount(Some("configfs"), "/sys/kernel/config", Some("configfs"), MsFlags::empty(), none).unwrap();
        }
        let folder = Path::new(DISKS).join(name);
        fs::create_dir(&folder).unwrap();
        for (name, value) in [("memory_backed", "1"), ("size", &MIB.to_string()), ("irqmode", "0"), ("power", "1")] {
            fs::write(folder.join(name), value).unwrap();
        }
        // Some kernels call it as its folder, some by its number.
        let numbered = format!("nullb{}", fs::read_to_string(folder.join("index")).unwrap().trim());
        let name = if Path::new("/dev").join(name).exists() { name.to_owned() } else { numbered };
        Self { folder, name }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("power"), "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A disk of the device mapper's.
struct Mapped(&'static str);

impl Mapped {
    fn make(name: &'static str, table: &str) -> Self {
        execute("dmsetup", &["--noudevsync", "--verifyudev", "create", name, "--table", table]);
        Self(name)
    }

    fn change(&self, table: &str) {
        execute("dmsetup", &["suspend", self.0]);
        execute("dmsetup", &["load", self.0, "--table", table]);
        execute("dmsetup", &["--noudevsync", "resume", self.0]);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup").args(["--noudevsync", "--verifyudev", "remove", self.0]).status();
    }
}

/// A file system, for everybody.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn make(device: &str) -> Self {
        execute("mkfs.ext4", &["-q", "-O", "^has_journal", device]);
        let folder = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        mount(Some(device), folder.path(), Some("ext4"), MsFlags::empty(), none).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    /// Operations on a file in it.
    fn run(&self, out: &Out, more: &[&str]) -> Measured {
        let folder = format!("folder={}", self.0.path().display());
        let arguments = ["--in", "native", "--placement", "free", "--sample-rate", "0", "--set", &folder];
        let result = run_workload("block", out, &[&arguments[..], &["--set", "size=8"], more].concat());
        let result = result.configurations[0].clone();
        check(&result);
        let measured = Measured { result, rounds: rounds(out) };
        // The file system's; those of disks below are made of it.
        let bios = measured.result.counters.of(Counter::Bios) as f64 / measured.result.losses.completed as f64;
        assert!(measured.is_one(bios), "{bios} bios an operation: {:#?}", measured.ways());
        measured
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}

struct Measured {
    result: ConfigurationResult,
    rounds: Vec<Repetition>,
}

fn rounds(out: &Out) -> Vec<Repetition> {
    let text = fs::read_to_string(out.path().join("repetitions.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn traced(round: &Repetition) -> Vec<&Phase> {
    round.phases.iter().filter(|phase| phase.kind == PhaseKind::Traced).collect()
}

impl Measured {
    /// Whether something happens once an operation. Those that an end of a phase cuts have some of it inside.
    fn is_one(&self, count: f64) -> bool {
        let phases: usize = self.rounds.iter().map(|round| traced(round).len()).sum();
        (count - 1.0).abs() < 0.02 + 2.0 * phases as f64 / self.result.losses.completed as f64
    }

    /// Each row, and how often an operation goes through it.
    fn ways(&self) -> Vec<(&str, f64)> {
        self.result.stages.iter().map(|stage| (stage.id.as_str(), stage.count_per_op)).collect()
    }
}

fn is(place: &Place, (point, device): (&str, &str)) -> bool {
    place.point.name() == point && place.device.as_ref().map_or("", |device| device.label()) == device
}

/// Each step of the way, which may go through any of the last disks, is taken once an operation.
fn check_way(found: &Measured, above: &[&str], last: &[&str]) {
    let wanted: Vec<Vec<(&str, &str)>> = last
        .iter()
        .map(|last| {
            let down = above.iter().map(|disk| ("bio", *disk));
            let up = above.iter().rev().map(|disk| ("complete", *disk));
            let at_last = [("bio", *last), ("issue", *last), ("complete", *last)];
            [("enter", "")].into_iter().chain(down).chain(at_last).chain(up).chain([("exit", "")]).collect()
        })
        .collect();
    for step in 0..wanted[0].len() - 1 {
        let of = |way: &Vec<(&str, &str)>| {
            let stages =
                found.result.stages.iter().filter(|stage| is(&stage.from, way[step]) && is(&stage.to, way[step + 1]));
            stages.map(|stage| stage.count_per_op).sum::<f64>()
        };
        let mut together: Vec<f64> = wanted.iter().map(of).collect();
        // What several ways share is there only once.
        if wanted.iter().all(|way| way[step..=step + 1] == wanted[0][step..=step + 1]) {
            together.truncate(1);
        }
        let count: f64 = together.iter().sum();
        assert!(found.is_one(count), "{:?}: {count} in {:#?}", &wanted[0][step..=step + 1], found.ways());
    }
}

/// Mean latency by the program's own clock, and what lies between two points, ns per operation of a round's traced
/// phases.
fn means(repetition: &Repetition, from: (&str, &str), to: (&str, &str)) -> (f64, f64) {
    let traced = traced(repetition);
    let operations: u64 = traced.iter().map(|phase| phase.client.operations).sum();
    let latency_ns: u64 = traced.iter().map(|phase| phase.client.latency_sum_ns).sum();
    let stages = traced.iter().flat_map(|phase| &phase.probes.as_ref().unwrap().stages);
    let stages = stages.filter(|stage| !stage.part && is(&stage.from, from) && is(&stage.to, to));
    let stage_ns: u64 = stages.map(|stage| stage.total_ns).sum();
    // Operations that a phase's end cuts are with their disks nearly all of their time, and of a phase that has
    // twenty, one counts.
    let unfinished_ns: u64 = traced.iter().map(|phase| phase.probes.as_ref().unwrap().unfinished_ns).sum();
    let stage_ns = stage_ns + unfinished_ns;
    (latency_ns as f64 / operations as f64, stage_ns as f64 / operations as f64)
}

/// Two mapped disks above another: each hand-over once an operation, and what the one that delays does stands between
/// it and the next.
pub fn what_a_mapped_disk_delays_is_its_own() {
    let _alone = alone();
    only_in_lab();
    let disk = Memory::make("virtax");
    let table = |ms: u32| format!("0 {SECTORS} delay /dev/{} 0 {ms}", disk.name);
    let delaying = Mapped::make("virtax-delay", &table(DELAYS[0]));
    let _above = Mapped::make("virtax-above", &format!("0 {SECTORS} linear /dev/mapper/virtax-delay 0"));
    let (mounted, out) = (Mounted::make("/dev/mapper/virtax-above"), Out::new());
    let before = Traces::now();
    let rounds = DELAYS.len().to_string();
    let native = std::thread::scope(|scope| {
        let run = scope.spawn(|| mounted.run(&out, &["--rounds", &rounds, "--duration", "3"]));
        for (round, ms) in DELAYS.iter().enumerate().skip(1) {
            wait_until("a round", || repetitions(&out) >= round || run.is_finished());
            delaying.change(&table(*ms));
        }
        run.join().unwrap()
    });
    assert_eq!(before, Traces::now());
    // The first that was made is the lower one.
    check_way(&native, &["dm-1", "dm-0"], &[&disk.name]);

    let (from, to) = (("bio", "dm-0"), ("bio", disk.name.as_str()));
    let rounds: Vec<(f64, f64)> = native.rounds.iter().map(|round| means(round, from, to)).collect();
    let (mut over, mut under) = (0.0, 0.0);
    for ((latency, stage), ms) in rounds.iter().zip(DELAYS).skip(1) {
        let (injected, attributed) = (latency - rounds[0].0, stage - rounds[0].1);
        // At least as long as it is told, and then until its timer's next tick.
        let told = f64::from(ms) * 1e6;
        assert!((0.95 * told..told + 12e6).contains(latency), "{ms} ms: {rounds:?}");
        over += injected * attributed;
        under += injected * injected;
    }
    let slope = over / under;
    println!("{slope:.4}, (latency, stage) ns: {rounds:.0?}");
    assert!((0.9..=1.1).contains(&slope), "{slope}: {rounds:?}");
}

/// A RAID, gone with this.
struct Raid;

impl Raid {
    fn make(level: &str, disks: &[&Memory; 2]) -> Self {
        let paths = disks.map(|disk| format!("/dev/{}", disk.name));
        let kind = format!("--level={level}");
        let build = ["--build", "/dev/md0", &kind, "--raid-devices=2", "--assume-clean", "--run", &paths[0], &paths[1]];
        execute("mdadm", &build);
        Self
    }
}

impl Drop for Raid {
    fn drop(&mut self) {
        let _ = Command::new("mdadm").args(["--stop", "/dev/md0"]).output();
    }
}

/// One of the longer tests. What a mirror writes to both of its disks is done when the second is; what it reads comes
/// from one, as everything does of disks that are striped.
pub fn operations_go_through_a_raid() {
    let _alone = alone();
    only_in_lab();
    if !is_wanted_in_full() {
        return;
    }
    let disks = ["virtax-a", "virtax-b"].map(Memory::make);
    let names = [disks[0].name.as_str(), disks[1].name.as_str()];
    for (level, kind) in [("1", "kind=read"), ("1", "kind=write"), ("0", "kind=read")] {
        let _raid = Raid::make(level, &[&disks[0], &disks[1]]);
        let mounted = Mounted::make("/dev/md0");
        println!("RAID {level}, {kind}");
        let native = mounted.run(&Out::new(), &["--rounds", "1", "--duration", "2", "--set", kind]);
        check_way(&native, &["md0"], &names);
    }
}

/// Bios that a group of version 2 holds back (`io.max`) are found as those of version 1: whoever queues them, they
/// are their operation's.
pub fn a_bio_that_io_max_holds_back_is_found() {
    const GROUPS: &str = "/sys/fs/cgroup";
    let _alone = alone();
    only_in_lab();
    let disk = Memory::make("limited");
    let mounted = Mounted::make(&format!("/dev/{}", disk.name));
    let number = fs::read_to_string(format!("/sys/block/{}/dev", disk.name)).unwrap();
    // Groups made from now on have the files.
    fs::write(Path::new(GROUPS).join("cgroup.subtree_control"), "+io").unwrap();
    let out = Out::new();
    let mut command = virtax();
    command.args([
        "run",
        "block",
        "--verbose",
        "--in",
        "native",
        "--rounds",
        "1",
        "--duration",
        "6",
        "--placement",
        "free",
    ]);
    command.args(["--sample-rate", "0", "--set", "size=8", "--set", "kind=write", "--set"]);
    command.arg(format!("folder={}", mounted.0.path().display())).arg("--out").arg(out.path());
    let mut run = Running::start(command);
    run.wait_for("step: warm-up");
    let group = fs::read_dir(GROUPS).unwrap().flatten().find(|entry| {
        let name = entry.file_name().into_string().unwrap_or_default();
        name.starts_with("virtax-") && name.contains("-server")
    });
    fs::write(group.expect("the server has a group").path().join("io.max"), format!("{} wiops=100", number.trim()))
        .unwrap();
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");
    let result = RunResult::load(&out.path()).unwrap();
    let found = &result.configurations[0];
    let rows: Vec<_> = found.stages.iter().filter(|stage| stage.from.point == Point::HeldBack).collect();
    let held: f64 = rows.iter().map(|stage| stage.ns_per_op).sum();
    assert!(held > 0.5 * found.traced_latency.mean_ns, "{held}: {:#?}", found.stages);
    assert!(rows.iter().all(|stage| stage.label == "held back by the group's limit"), "{rows:#?}");
    assert!((found.residual_ns_per_op / found.traced_latency.mean_ns).abs() < 0.05, "{}", found.residual_ns_per_op);
}
