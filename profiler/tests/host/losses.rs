//! Losses are made, cause by cause, and each is found counted at its own event.

use crate::common::{Feature, alone, has, run_tcp_rr};
use profiler::{
    analysis::comparison::Verdict,
    result::{ConfigurationResult, RunResult},
};
use profiler_common::Counter;

const SHAPE: &[&str] = &["--rounds", "1", "--duration", "0.6"];

fn starved(tables: &[&str], more: &[&str]) -> RunResult {
    let mut arguments: Vec<&str> = SHAPE.to_vec();
    arguments.extend(tables.iter().flat_map(|table| ["--starve", table]));
    arguments.extend(more);
    run_tcp_rr(&arguments)
}

/// Whatever happens, every request that was followed is completed, unfinished or lost.
fn books_close(found: &ConfigurationResult) {
    let losses = &found.losses;
    let lost: u64 = losses.lost.values().sum();
    assert!(losses.followed > 100, "{losses:?}");
    assert_eq!(losses.followed, losses.completed + losses.unfinished + lost, "{losses:?}");
    let records = found.records;
    assert_eq!(records.started, records.committed + records.lost + records.unfinished, "{records:?}");
}

fn no_verdict(result: &RunResult) {
    for comparison in &result.comparisons {
        assert_eq!(comparison.verdict, Verdict::Incomplete, "{comparison:?}");
    }
}

/// A loss by this cause and no other, above the limit: the result says so and is incomplete.
fn lost_by(found: &ConfigurationResult, cause: &str) {
    books_close(found);
    let lost = &found.losses.lost;
    assert!(lost[cause] > 0, "{lost:?}");
    assert_eq!(lost.values().sum::<u64>(), lost[cause], "{lost:?}");
    assert!(found.incomplete.iter().any(|reason| reason.contains("were lost")), "{:?}", found.incomplete);
}

/// Numbers of phases are used up, and begin again: what an earlier phase of the same number left must not be taken for
/// this one's.
pub fn numbers_of_phases_begin_again() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = starved(&["phases=1"], &["--in", "ns:net=veth,native", "--set", "connections=8"]);
    for found in &result.configurations {
        books_close(found);
        assert_eq!(found.losses.lost.values().sum::<u64>(), 0, "{:?}", found.losses);
        assert!(found.conservation_percent.abs() < 0.5, "{}", found.conservation_percent);
        assert!(found.residual_ns_per_op.abs() < 0.05 * found.traced_latency.mean_ns, "{}", found.residual_ns_per_op);
        assert!(found.stages.iter().all(|stage| !stage.label.contains('?')), "{:?}", found.stages);
    }
}

pub fn full_tables_of_tokens_are_losses_by_name() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let one = |table: &str, connections: &str| {
        let connections = format!("connections={connections}");
        starved(&[table], &["--in", "native", "--set", &connections]).configurations.remove(0)
    };
    // Where the kernel puts what a table is of decides what finds a place in it: a table is found that some do not
    // fit into, and from which a request gets at least beyond its first stage.
    let too_small = |table: &str, sizes: &[u32], connections: &str, cause: &str| {
        let found = sizes
            .iter()
            .map(|size| one(&format!("{table}={size}"), connections))
            .find(|found| found.losses.followed > 100 && found.losses.lost[cause] > 0);
        lost_by(&found.unwrap_or_else(|| panic!("no table of {table} was too small")), cause);
    };
    too_small("packets", &[1024, 512, 256, 128, 64, 32], "32", "packet_table_full");
    too_small("sockets", &[4096, 2048, 1024, 512, 256, 128, 64], "32", "unknown_socket");
    // Two devices are on the path, and at most one has a place.
    let found = one("devices=1", "1");
    lost_by(&found, "stage_table_full");
    assert!(found.counters.of(Counter::DeviceTable) > 0, "{:?}", found.counters);
    too_small("stages", &[500, 450, 440, 400, 350, 300, 250, 200, 150, 100], "1", "stage_table_full");
}

pub fn losses_withhold_the_verdict() {
    let _alone = alone();
    if !has(Feature::Probes) || !has(Feature::Docker) {
        return;
    }
    let losing =
        |result: &RunResult| result.configurations.iter().all(|found| found.losses.lost["packet_table_full"] > 0);
    let result = ["packets=1024", "packets=256"]
        .iter()
        .map(|table| starved(&[table], &["--in", "native,docker:net=host", "--set", "connections=16"]))
        .find(losing)
        .expect("a table that is too small");
    result.configurations.iter().for_each(books_close);
    assert!(!result.comparisons.is_empty());
    no_verdict(&result);
}

pub fn full_rings_and_long_paths_lose_records_and_stacks_and_never_tokens() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let complete = |found: &ConfigurationResult| {
        books_close(found);
        assert_eq!(found.losses.lost.values().sum::<u64>(), 0, "{:?}", found.losses);
    };
    let run = |tables: &[&str]| {
        let mut result = starved(tables, &["--in", "native", "--records", "50000"]);
        result.configurations.remove(0)
    };

    let found = run(&["record-ring=4096"]);
    complete(&found);
    assert!(found.counters.of(Counter::RecordsRingFull) > 0 && found.records.committed > 0, "{:?}", found.counters);
    assert_eq!(found.records.lost, found.counters.of(Counter::RecordsRingFull));

    let found = run(&["record-ring=65536", "reader=0"]);
    complete(&found);
    assert!(found.counters.of(Counter::RecordsRingFull) > 0, "{:?}", found.counters);

    let found = run(&["record-points=5"]);
    complete(&found);
    assert_eq!(found.counters.of(Counter::RecordsTooLong), found.records.lost, "{:?}", found.counters);
    assert!(found.records.lost > 0 && found.records.committed == 0, "{:?}", found.records);

    let found = starved(&["event-ring=4096", "reader=0"], &["--in", "native"]).configurations.remove(0);
    complete(&found);
    assert!(found.samples.lost > 0, "{:?}", found.samples);
    assert!(found.incomplete.iter().any(|reason| reason.contains("stacks")), "{:?}", found.incomplete);
}

/// Without a slot for any thread, no socket is known to be the run's: nothing is followed, and that is said.
pub fn unknown_threads_mean_no_result() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let result = starved(&["threads=1"], &["--in", "native"]);
    let found = &result.configurations[0];
    assert_eq!(found.losses.followed, 0);
    assert!(!found.incomplete.is_empty());
}

/// Kernel memory of the probes' tables: what `docs/overhead.md` promises, whatever the workload.
pub fn tables_take_a_bounded_memory() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let out = crate::common::Out::new();
    let mut command = crate::common::virtax();
    command.args(["run", "tcp-rr", "--verbose", "--in", "native", "--rounds", "1", "--out"]).arg(out.path());
    let mut run = crate::common::Running::start(command);
    run.wait_for("step: traced phase");
    let mut bytes = 0u64;
    for entry in std::fs::read_dir(format!("/proc/{}/fdinfo", run.child.id())).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if text.contains("map_type:") {
            let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    assert_eq!(run.end().0, Some(0));
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    eprintln!("{} KB of tables on {cpus} CPUs", bytes >> 10);
    assert!(bytes > 1 << 20, "the kernel tells the size of maps");
    assert!(bytes <= (28 << 20) + cpus * (1 << 20), "{bytes} bytes");
}

/// A thousand connections, and two hundred threads on each side, at the default rates: nothing is lost.
pub fn many_connections_and_threads_lose_nothing() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let cases: [&[&str]; 2] =
        [&["--set", "connections=1000"], &["--set", "connections=200", "--set", "server=threads"]];
    for settings in cases {
        let mut arguments = vec!["--in", "native", "--rounds", "1", "--duration", "3", "--placement", "split"];
        arguments.extend(settings);
        let found = run_tcp_rr(&arguments).configurations.remove(0);
        books_close(&found);
        assert_eq!(found.losses.lost.values().sum::<u64>(), 0, "{settings:?}: {:?}", found.losses);
        assert_eq!(found.records.lost, 0, "{settings:?}: {:?}", found.records);
        assert_eq!(found.samples.lost, 0, "{settings:?}: {:?}", found.samples);
        for counter in [Counter::SocketTable, Counter::UnknownSocket, Counter::DeviceTable, Counter::DetailsTable] {
            assert_eq!(found.counters.of(counter), 0, "{settings:?}: {:?}", found.counters);
        }
    }
}
