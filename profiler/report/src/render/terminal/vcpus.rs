//! Virtual processors: what they did, and what for their guests were left.

use comfy_table::Cell;

use super::{Look, lines, micros, number};
use crate::result::{ConfigurationResult, ExitResult, VcpuTimes};

/// Exits below this number per operation are not the workload's.
const FEWEST: f64 = 0.005;
/// Waiting of this length per operation is shown, of whatever exit.
const SHORTEST_NS: f64 = 100.0;

/// All of them; empty where there is no VM of the kernel's.
pub(super) fn tables(configuration: &ConfigurationResult, look: Look) -> String {
    [processors(configuration, look), exits(configuration, look), accesses(configuration, look)].concat()
}

fn processors(configuration: &ConfigurationResult, look: Look) -> String {
    if configuration.vcpus.is_empty() {
        return String::new();
    }
    let states = ["guest", "kernel", "user space", "scheduled out", "blocked", "polled"];
    let header = ["virtual CPU, detailed phases, µs/op"].iter().chain(&states).chain(&["sum off by"]).copied();
    let mut table = look.table(&header.collect::<Vec<_>>());
    for vcpu in &configuration.vcpus {
        let times = |name: String, times: &VcpuTimes, deviation: String| {
            let mut row = vec![Cell::new(name)];
            row.extend(times.all().map(|ns| number(micros(ns))));
            row.push(number(deviation));
            row
        };
        let deviation = format!("{:+.2} %", vcpu.deviation_percent);
        table.add_row(times(format!("  vCPU {}", vcpu.vcpu), &vcpu.times, deviation));
        // Where the kernel does not tell when a VM takes a request, this is not known.
        if vcpu.holding.sum() > 0.0 {
            table.add_row(times("    while its machine holds a request".to_owned(), &vcpu.holding, String::new()));
        }
    }
    lines(&table)
}

fn exits(configuration: &ConfigurationResult, look: Look) -> String {
    let is_shown = |exit: &&ExitResult| exit.count_per_op >= FEWEST || exit.scheduled_out_ns_per_op >= SHORTEST_NS;
    let shown: Vec<_> = configuration.exits.iter().filter(is_shown).collect();
    if shown.is_empty() {
        return String::new();
    }
    let header = [
        "exits by reason",
        "count/op",
        "µs/op",
        "kernel",
        "user space",
        "sched. out",
        "blocked",
        "polled",
        "holding",
        "inside",
        "p50",
        "p99",
    ];
    let mut table = look.table(&header);
    let is_holding_known = configuration.vcpus.iter().any(|vcpu| vcpu.holding.sum() > 0.0);
    for exit in shown {
        let optional = |value: Option<f64>| value.map_or("–".to_owned(), micros);
        let times = [
            exit.ns_per_op,
            exit.kernel_ns_per_op,
            exit.user_ns_per_op,
            exit.scheduled_out_ns_per_op,
            exit.blocked_ns_per_op,
            exit.polled_ns_per_op,
        ];
        let mut row = vec![
            Cell::new(format!("  vCPU {} {}", exit.vcpu, exit.reason)),
            number(format!("{:.4}", exit.count_per_op)),
        ];
        row.extend(times.map(|ns| number(micros(ns))));
        row.push(number(optional(is_holding_known.then_some(exit.holding_ns_per_op))));
        row.push(number(optional(is_holding_known.then_some(exit.inside_ns_per_op))));
        row.extend([exit.p50_ns, exit.p99_ns].map(|ns| number(optional(ns))));
        table.add_row(row);
    }
    lines(&table)
}

fn accesses(configuration: &ConfigurationResult, look: Look) -> String {
    let shown: Vec<_> = configuration.accesses.iter().filter(|access| access.count_per_op >= FEWEST).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut table = look.table(&["handled in user space", "count/op", "µs/op"]);
    for access in shown {
        table.add_row(vec![
            Cell::new(format!("  vCPU {} {}", access.vcpu, access.place)),
            number(format!("{:.4}", access.count_per_op)),
            number(micros(access.ns_per_op)),
        ]);
    }
    lines(&table)
}
