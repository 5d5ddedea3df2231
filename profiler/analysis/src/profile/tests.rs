use virtax_model::{
    counts::StateTotal,
    histogram::Histogram,
    profile::{CpuSamples, RoleCpu},
};

use super::*;
use crate::waterfall;

fn row(role: Role, from: Place, to: Place, ns: f64) -> Row {
    Row {
        key: path::StageKey { role, from, to },
        rounds_ns: vec![ns],
        probes_ns: vec![0.0],
        sampled_ns: vec![Some(ns)],
        rounds_count: vec![1.0],
        count_per_op: 1.0,
        histogram: Histogram::default(),
        side: Side::Host,
        is_limited: false,
        parts: Vec::new(),
    }
}

fn part(to: Point, share: f64) -> Part {
    let (from, to) = (Place::fixed(Point::Ready), Place::fixed(to));
    Part { from, to, share, ci95: Some([share; 2]), rounds_share: vec![Some(share)], count_per_op: 1.0 }
}

/// A sample of one function of the kernel's, which stands for a timer's period of 1 ms.
fn sample(thread: Option<Role>, softirq: Option<&str>, frame: u32) -> Sample {
    Sample {
        thread,
        softirq: softirq.map(str::to_owned),
        stage: None,
        stack: vec![frame],
        count: 1,
        ns: 1e6,
        in_guest: false,
    }
}

/// 100 operations in 100 ms on two CPUs, each with a timer of 1 kHz.
fn profile(samples: Vec<Sample>) -> Profile {
    let frame = |name: &str| Frame(Space::Kernel, name.to_owned());
    Profile {
        round: 0,
        operations: 100,
        length_ns: 100_000_000,
        rate_hz: 1000,
        timers: 2,
        frames: ["tcp_ack", "nf_conntrack_in", "of_another_kernel"].map(frame).into(),
        samples,
        waits: Vec::new(),
        cpus: [(0, CpuSamples { all: 100, idle: 40, foreign: 10 }), (1, CpuSamples { all: 80, idle: 60, foreign: 0 })]
            .into(),
        cpu: vec![RoleCpu { role: Role::Server, schedstat_ns: 30_000_000 }],
        states: Vec::new(),
        guest_states: Vec::new(),
        events: 180,
        lost: 0,
    }
}

fn waterfall_of(rows: Vec<Row>) -> Waterfall {
    let none = waterfall::build("native", &[]);
    let round = waterfall::Round {
        round: 0,
        detached_ns: 1000.0,
        detached_all_ns: 1000.0,
        detached_interval_ns: 1000.0,
        traced_ns: 1000.0,
        detached_queued_ns: 0.0,
        traced_queued_ns: 0.0,
        detached_lateness_ns: 0.0,
        traced_lateness_ns: 0.0,
        turnaround_ns: 0.0,
        residual_ns: 0.0,
    };
    Waterfall { rounds: vec![round], rows, ..none }
}

#[test]
fn time_is_divided_among_alike_operations_of_files_only() {
    let (fixed, at) = (Place::fixed, Place::at);
    let files = [
        row(Role::Client, fixed(Point::Enter), at(Point::Bio, "vda"), 300.0),
        row(Role::Client, fixed(Point::Enter), fixed(Point::Exit), 100.0),
        row(Role::Vmm, fixed(Point::Enter), fixed(Point::Exit), 500.0),
    ];
    assert_eq!(sharing(&files, 1), [(0, 0.75), (1, 0.25)]);
    let requests = [
        row(Role::Client, fixed(Point::Send), at(Point::Xmit, "wire@client"), 300.0),
        row(Role::Client, fixed(Point::Send), fixed(Point::Ready), 100.0),
    ];
    assert_eq!(sharing(&requests, 1), [(1, 1.0)]);
}

#[test]
fn work_that_is_known_exactly_and_has_no_sample_is_called_so() {
    let layers = |parts: Vec<Part>| {
        let found =
            Row { parts, ..row(Role::Server, Place::fixed(Point::Ready), Place::fixed(Point::Received), 1000.0) };
        let layers = stage_layers(&found, &Counts { period_ns: 1e6, ..Counts::default() }, 100.0, 1000.0);
        layers.into_iter().map(|layer| (layer.layer, layer.share)).collect::<Vec<_>>()
    };
    let own = points::READER.iter().find(|row| row.is_own_work).unwrap().point;
    let waits = Point::ReaderRunnable;
    let name = waits.name().to_owned();
    assert_eq!(layers(vec![part(own, 0.25), part(waits, 0.75)]), [(name.clone(), 0.75), (UNSAMPLED.to_owned(), 0.25)]);
    // Nothing is left to be called anything.
    assert_eq!(layers(vec![part(own, 0.0), part(waits, 1.0)]), [(name, 1.0)]);
}

#[test]
fn every_row_has_layers_or_none() {
    let rows = || vec![row(Role::Server, Place::fixed(Point::Ready), Place::fixed(Point::Received), 1000.0); 3];
    assert_eq!(build(Rules::own(), &[], &waterfall_of(rows())).stages, vec![Vec::new(); 3]);
    // Without samples of its own, all of a row is nobody's.
    let found = build(Rules::own(), &[profile(Vec::new())], &waterfall_of(rows()));
    assert_eq!(found.stages.len(), 3);
    assert!(found.stages.iter().all(|layers| layers.len() == 1 && layers[0].share == 1.0), "{:?}", found.stages);
}

#[test]
fn cpu_time_is_divided_by_owner_and_layer_and_the_rest_idles() {
    let in_guest = Sample { in_guest: true, ..sample(Some(Role::Server), None, 0) };
    let samples = vec![
        sample(Some(Role::Server), None, 0),
        sample(Some(Role::Server), None, 0),
        sample(Some(Role::Server), None, 1),
        // A softirq on top of the client, and one on top of nobody.
        sample(Some(Role::Client), Some("net_rx"), 0),
        sample(None, Some("net_rx"), 2),
        in_guest,
    ];
    // By the scheduler's points, the server ran for 6 ms, of which three samples show 3.
    let state = |state, total_ns| StateTotal { role: Role::Server, state, count: 1, total_ns };
    let states = vec![state(ThreadState::Running, 6_000_000), state(ThreadState::Switching, 1_000_000)];
    let found = build(Rules::own(), &[Profile { states, ..profile(samples) }], &waterfall_of(Vec::new()));
    let of = |owner: CpuOwner, layer: &str| {
        let layers = found.cpu.iter().filter(|found| (found.owner, found.layer.as_str()) == (owner, layer));
        layers.map(|found| found.ns_per_op).sum::<f64>()
    };
    let server = CpuOwner::Threads(Role::Server);
    assert_eq!((of(server, "tcp"), of(server, "conntrack"), of(server, "switching")), (40_000.0, 20_000.0, 10_000.0));
    assert_eq!((of(CpuOwner::Softirqs, "tcp"), of(CpuOwner::Softirqs, UNMATCHED)), (10_000.0, 10_000.0));
    assert_eq!(of(CpuOwner::Guest, "tcp"), 10_000.0);
    assert_eq!(found.cpu.iter().map(|layer| layer.ns_per_op).sum::<f64>(), 100_000.0);
    // Ten samples of others; the guest's time is its processors'. Two CPUs make 2 ms for each operation.
    assert_eq!((found.foreign_ns, found.idle_ns), (100_000.0, 2_000_000.0 - 100_000.0 - 90_000.0));
    assert_eq!(found.busiest, 0.6);
    assert_eq!((found.samples, found.on_path), (180, 0));
    // One of six samples in the kernel is of no layer.
    assert!((found.unmatched_share - 1.0 / 6.0).abs() < 1e-12);
    assert_eq!(found.unmatched[0].function, "of_another_kernel");
    let time = found.roles.iter().find(|time| time.role == Role::Server).unwrap();
    assert_eq!((time.running_ns, time.sampled_ns, time.softirq_ns), (70_000.0, 30_000.0, 0.0));
    assert_eq!(time.schedstat_ns, 300_000.0);
}
