//! The kernel's own record of what happens beside a run, and perf's.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command},
};

use crate::common::{send, text, wait_until};

/// From exit to entry of the virtual processor: reason, from, to, ns.
pub type Exits = Vec<(String, u64, u64)>;

/// The kernel's own record of entries and exits, by its own clock, beside a run.
pub struct Trace(&'static Path);

impl Trace {
    pub fn start() -> Self {
        Self::of(&["kvm/kvm_entry", "kvm/kvm_exit"])
    }

    pub fn of(events: &[&str]) -> Self {
        let trace = Self(Path::new("/sys/kernel/tracing/instances/virtax-test"));
        fs::create_dir(trace.0).unwrap();
        let switches = events.iter().map(|event| (format!("events/{event}/enable"), "1"));
        let clock = [("trace_clock".to_owned(), "mono"), ("buffer_size_kb".to_owned(), "65536")];
        for (file, value) in clock.into_iter().chain(switches) {
            fs::write(trace.0.join(file), value).unwrap();
        }
        trace
    }

    pub fn text(&self) -> String {
        fs::write(self.0.join("tracing_on"), "0").unwrap();
        fs::read_to_string(self.0.join("trace")).unwrap()
    }

    /// From exit to entry: reason, from, to, ns; the clock of the text has microseconds.
    pub fn exits(&self) -> Exits {
        parse_exits(&self.text())
    }
}

/// Reads lines `THREAD [CPU] … TIME: kvm_exit: vcpu 0 reason REASON rip …` and `…: kvm_entry: vcpu 0, …`, s. A thread
/// is one virtual processor.
fn parse_exits(text: &str) -> Exits {
    let (mut left, mut found) = (BTreeMap::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((head, event)) = line.split_once("kvm_") else { continue };
        let (thread, head) = head.split_once('[').unwrap();
        let at = head.trim_end().trim_end_matches(':').rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        let at_ns = (at * 1e9).round() as u64;
        if let Some(rest) = event.strip_prefix("exit: vcpu 0 reason ") {
            left.insert(thread, (rest.split(" rip ").next().unwrap().to_owned(), at_ns));
        } else if event.starts_with("entry: vcpu 0")
            && let Some((reason, from)) = left.remove(thread)
        {
            found.push((reason, from, at_ns));
        }
    }
    found
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("events/enable"), "0");
        let _ = fs::remove_dir(self.0);
    }
}

/// `perf kvm stat`, beside a run.
pub struct Perf {
    recorder: Child,
    folder: tempfile::TempDir,
}

impl Perf {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("perf");
        command.args(["kvm", "--host", "stat", "record", "--all-cpus", "--mmap-pages", "8M", "--output"]);
        command.arg(folder.path().join("data")).stderr(fs::File::create(folder.path().join("said")).unwrap());
        let recorder = command.spawn().unwrap();
        wait_until("perf's recording", || folder.path().join("data").exists());
        Self { recorder, folder }
    }

    /// Exits by reason: their number, and their sum in ns, out of the mean that perf prints.
    pub fn report(mut self) -> BTreeMap<String, (u64, f64)> {
        send(self.recorder.id(), libc::SIGTERM);
        self.recorder.wait().unwrap();
        let mut report = Command::new("perf");
        report.args(["kvm", "--host", "--input"]).arg(self.folder.path().join("data")).args(["stat", "report"]);
        let output = report.output().unwrap();
        // Where it is no terminal, this perf writes its table to the wrong one of the two.
        let table = text(&output.stdout) + &text(&output.stderr);
        let said = fs::read_to_string(self.folder.path().join("said")).unwrap();
        parse_perf(&table).unwrap_or_else(|| panic!("{said}{table}"))
    }
}

/// `REASON SAMPLES SAMPLES% TIME% MINIMUM MAXIMUM MEANus ( +- … )`, under a heading.
fn parse_perf(report: &str) -> Option<BTreeMap<String, (u64, f64)>> {
    let mut found = BTreeMap::new();
    for line in report.lines().skip_while(|line| !line.contains("VM-EXIT")).skip(1) {
        let Some((values, _)) = line.split_once("us ( +-") else { continue };
        let mut words = values.split_whitespace().rev();
        let mean_us: f64 = words.next()?.parse().ok()?;
        let count: u64 = words.nth(4)?.parse().ok()?;
        let reason: Vec<&str> = words.collect::<Vec<_>>().into_iter().rev().collect();
        found.insert(reason.join(" "), (count, mean_us * 1000.0 * count as f64));
    }
    (!found.is_empty()).then_some(found)
}
/// From the exit that notifies a disk to the waking of QEMU's I/O thread, in the kernel's own record: when, and how
/// long before the exit was, ns. Lines as for [`parse_exits`], and `CPU 0/KVM-… TIME: sched_waking: comm=IO io0 …`.
pub fn parse_notifications(text: &str) -> Vec<(u64, u64)> {
    let (mut left_ns, mut found) = (0, Vec::new());
    for line in text.lines().filter(|line| line.trim_start().starts_with("CPU 0/KVM-")) {
        let Some((head, event)) = line.split_once(": kvm_exit: ").or_else(|| line.split_once(": sched_waking: "))
        else {
            continue;
        };
        let at_ns = (head.rsplit(' ').next().unwrap().parse::<f64>().unwrap() * 1e9).round() as u64;
        if event.starts_with("vcpu ") {
            left_ns = at_ns;
        } else if event.starts_with("comm=IO io0") && left_ns > 0 {
            found.push((at_ns, at_ns - left_ns));
        }
    }
    found
}
