//! Single requests in the Trace Event Format (JSON), which Perfetto and Chromium's tracing read: a process for each
//! configuration, in it a track for each holder, a slice for each time that it had a request, and an arrow for each
//! hand-over.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use virtax_analysis::tail;
use virtax_model::{
    points,
    records::{Pass, Record},
};

/// The trace: of each configuration as many requests, the slowest first chosen, each at its own time.
pub fn trace(of_configurations: &[(&str, Vec<Record>)], requests: usize) -> Value {
    let mut events = Vec::new();
    for (process, (name, records)) in of_configurations.iter().enumerate() {
        let process = process + 1;
        events.push(json!({ "ph": "M", "pid": process, "name": "process_name", "args": { "name": name } }));
        let mut tracks: BTreeMap<String, usize> = BTreeMap::new();
        let chosen = tail::slowest_of(records, requests);
        let start_ns = chosen.iter().filter_map(|record| Some(record.passes.first()?.at_ns)).min().unwrap_or(0);
        for (number, record) in chosen.into_iter().enumerate() {
            request(process, number, record, start_ns, &mut tracks, &mut events);
        }
        for (holder, track) in tracks {
            let of = json!({ "name": holder });
            events.push(json!({ "ph": "M", "pid": process, "tid": track, "name": "thread_name", "args": of }));
        }
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events })
}

/// Who has a request from one point to the next: what the point handed it over to.
fn holder(from: &Pass, to: &Pass) -> String {
    let kind = points::row(from.place.point).map_or("", |row| row.passes.1.name());
    match &from.place.device {
        Some(device) => format!("{} {kind} at {device}", to.role.name()),
        None => format!("{} {kind}", to.role.name()),
    }
}

fn request(
    process: usize,
    number: usize,
    record: &Record,
    start_ns: u64,
    tracks: &mut BTreeMap<String, usize>,
    events: &mut Vec<Value>,
) {
    let micros = |ns: u64| ns.saturating_sub(start_ns) as f64 / 1000.0;
    let passes: Vec<&Pass> = record.passes.iter().filter(|pass| !points::is_part(pass.place.point)).collect();
    let flow = format!("{process}.{number}");
    for (step, pair) in passes.windows(2).enumerate() {
        let count = tracks.len() + 1;
        let track = *tracks.entry(holder(pair[0], pair[1])).or_insert(count);
        let (at, length) = (micros(pair[0].at_ns), pair[1].at_ns.saturating_sub(pair[0].at_ns) as f64 / 1000.0);
        let arguments =
            json!({ "request": number, "round": record.round + 1, "cpu": pair[1].cpu, "thread": pair[1].tid });
        events.push(json!({ "ph": "X", "pid": process, "tid": track, "ts": at, "dur": length,
            "name": format!("{} → {}", pair[0].place, pair[1].place), "cat": "stage", "args": arguments }));
        // An arrow from slice to slice.
        let phase = match step {
            0 => "s",
            _ if step + 2 == passes.len() => "f",
            _ => "t",
        };
        events.push(json!({ "ph": phase, "pid": process, "tid": track, "ts": at, "id": flow, "bp": "e",
            "name": "hand-over", "cat": "request" }));
    }
}
