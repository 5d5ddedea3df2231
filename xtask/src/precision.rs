//! `cargo xtask precision`: how well differences are known, and whether windows of other lengths say the same.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::command;

/// A difference that is to be known.
struct Row {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Wall time that it may take, s.
    within_s: f64,
    goal: Goal,
}

/// What makes a try one that reached its goal.
#[derive(Clone, Copy)]
enum Goal {
    /// Half of the difference's interval, ns.
    HalfWidth(f64),
    /// Half of it, as a share of the baseline's latency.
    OfLatency(f64),
    /// The interval leaves 0 out.
    Told,
}

const ROWS: [Row; 4] = [
    Row {
        name: "tcp-rr, NAT − host, Docker",
        arguments: &["tcp-rr", "--in", "docker:net=host,docker:net=nat"],
        within_s: 20.0,
        goal: Goal::HalfWidth(100.0),
    },
    Row {
        name: "tcp-rr, NAT − native, namespaces",
        arguments: &["tcp-rr", "--in", "native,ns:net=nat", "--duration", "0.7"],
        within_s: 15.0,
        goal: Goal::HalfWidth(100.0),
    },
    Row {
        name: "redis-set of 50 clients, NAT − host, Docker",
        arguments: &["redis-set", "--in", "docker:net=host,docker:net=nat"],
        within_s: 20.0,
        goal: Goal::OfLatency(0.02),
    },
    Row {
        name: "tcp-rr on two CPUs, NAT − host, Docker",
        arguments: &["tcp-rr", "--in", "docker:net=host,docker:net=nat", "--placement", "split"],
        within_s: 30.0,
        goal: Goal::Told,
    },
];

/// A comparison as a run says it.
#[derive(Debug, Clone, Copy)]
struct Told {
    difference_ns: f64,
    interval_ns: [f64; 2],
    latency_ns: f64,
    /// How long the run took, and how much of that was measured, s.
    wall_s: f64,
    measured_s: f64,
}

impl Told {
    fn half_ns(self) -> f64 {
        (self.interval_ns[1] - self.interval_ns[0]) / 2.0
    }

    fn reaches(self, row: &Row) -> bool {
        let is_known = match row.goal {
            Goal::HalfWidth(ns) => self.half_ns() <= ns,
            Goal::OfLatency(share) => self.half_ns() <= share * self.latency_ns,
            Goal::Told => self.interval_ns[0] > 0.0 || self.interval_ns[1] < 0.0,
        };
        is_known && self.wall_s <= row.within_s
    }
}

/// Runs virtax, and reads how the second configuration differs from the first.
fn measured(arguments: &[&str]) -> Result<Told> {
    let began = Instant::now();
    let mut virtax = command("target/release/virtax");
    virtax.arg("run").args(arguments).args(["--json", "--force", "--out", "target/precision"]);
    let output = virtax.output().context("cannot execute virtax")?;
    let wall_s = began.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("virtax run {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    let result: Value = serde_json::from_slice(&output.stdout).context("its result is no JSON")?;
    told(&result, wall_s).context("its result has no interval")
}

fn told(result: &Value, wall_s: f64) -> Option<Told> {
    let baseline = result["baseline"].as_str()?;
    let comparison = result["comparisons"].as_array()?.iter().find(|found| found["baseline"] == baseline)?;
    let interval = comparison["ci95_ns"].as_array()?;
    let configurations = result["configurations"].as_array()?;
    let of_baseline = configurations.iter().find(|found| found["name"] == baseline)?;
    let rounds = of_baseline["rounds"].as_f64()?;
    Some(Told {
        difference_ns: comparison["latency_delta_ns"].as_f64()?,
        interval_ns: [interval.first()?.as_f64()?, interval.get(1)?.as_f64()?],
        latency_ns: of_baseline["latency"]["mean_ns"].as_f64()?,
        wall_s,
        measured_s: rounds * result["duration_s"].as_f64()? * configurations.len() as f64,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints how often each goal was reached.
pub fn run_all(tries: u32) -> Result<()> {
    println!(
        "| difference | goal | reached | difference, µs | half width, µs: median, largest | wall, s | beside measuring |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in &ROWS {
        let found = (0..tries).map(|_| measured(row.arguments)).collect::<Result<Vec<Told>>>()?;
        let reached = found.iter().filter(|told| told.reaches(row)).count();
        let of = |value: fn(&Told) -> f64| found.iter().map(value).collect::<Vec<f64>>();
        let halves = of(|told| told.half_ns() / 1e3);
        let goal = match row.goal {
            Goal::HalfWidth(ns) => format!("≤ {:.2} µs in {} s", ns / 1e3, row.within_s),
            Goal::OfLatency(share) => format!("≤ {:.0} % of the latency in {} s", 100.0 * share, row.within_s),
            Goal::Told => format!("leaves 0 out in {} s", row.within_s),
        };
        println!(
            "| {} | {goal} | {reached} of {tries} | {:.2} | {:.3}, {:.3} | {:.1} | {:.0} % |",
            row.name,
            median(of(|told| told.difference_ns / 1e3)),
            median(halves.clone()),
            halves.iter().copied().fold(0.0, f64::max),
            median(of(|told| told.wall_s)),
            100.0 * median(of(|told| 1.0 - told.measured_s / told.wall_s)),
        );
    }
    Ok(())
}

/// Pairs whose difference may depend on how they take turns.
const PAIRS: [(&str, &[&str]); 5] = [
    ("NAT", &["tcp-rr", "--in", "ns:net=bridge,hooks=on,ns:net=nat"]),
    ("overlay", &["tcp-rr", "--in", "ns:net=host,fs=bind,ns:net=host,fs=overlay"]),
    ("seccomp", &["tcp-rr", "--in", "ns:net=host,ns:net=host,seccomp=docker"]),
    ("proxy", &["tcp-rr", "--in", "ns:net=bridge,ns:proxy=on"]),
    ("Redis of 50 clients", &["redis-set", "--in", "native,ns:net=nat"]),
];
/// Windows, ms, and whole rounds.
const WINDOWS: [&str; 6] = ["5", "10", "20", "50", "200", "rounds"];

/// Prints each pair's difference by windows of several lengths and by whole rounds.
pub fn bias(rounds: u32) -> Result<()> {
    println!(
        "| difference, µs, and its 95 % interval | {} |",
        WINDOWS
            .map(|window| match window {
                "rounds" => "whole rounds".to_owned(),
                ms => format!("{ms} ms"),
            })
            .join(" | ")
    );
    println!("|---{}|", "|---".repeat(WINDOWS.len()));
    for (name, arguments) in PAIRS {
        print!("| {name}");
        for window in WINDOWS {
            let more = ["--window", window, "--rounds", &rounds.to_string()];
            let told = measured(&[arguments, &more].concat())?;
            let [low, high] = told.interval_ns.map(|ns| ns / 1e3);
            print!(" | {:.2} [{low:.2}, {high:.2}]", told.difference_ns / 1e3);
        }
        println!(" |");
    }
    Ok(())
}
