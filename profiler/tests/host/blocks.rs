//! A block of windows over two configurations that are alive at once, by the library that virtax itself uses.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use profiler::{
    artifact,
    counts::{Place, Point, ProbeCounts, Role},
    interrupt,
    probes::{
        Alive, Block, ConfigurationId, Expected, Followed, Limits, Loaded, Names, Notes, Offsets, Options, Ready,
        Sampler, Task, Window,
    },
    process,
};
use profiler_common::Counter;
use virtax_model::counts::PhaseKind;
use workloads::{
    clock::now_ns,
    protocol::{PhaseReport, Reply, Request},
};

use super::common::{Feature, alone, has};

/// Seconds after which both end by themselves, should the test be killed.
const LIFETIME: &str = "120";

/// A server, and a client that asks it over the loopback device.
struct Pair {
    server: Child,
    client: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Pair {
    fn start(binary: &Path, connections: &str) -> Self {
        // A port that is free: nobody else takes it so soon.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().to_string();
        let server =
            Command::new(binary).args(["tcp-rr-server", "--listen", &address, "--lifetime", LIFETIME]).spawn().unwrap();
        let mut client = Command::new(binary)
            .args(["tcp-rr-client", "--connect", &address, "--connections", connections, "--lifetime", LIFETIME])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, replies) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
        let mut pair = Self { server, client, requests, replies };
        assert!(matches!(pair.hear(), Reply::Ready { .. }));
        pair
    }

    fn followed(&self) -> Followed {
        let of =
            |child: &Child, role| process::family(child.id()).into_iter().map(move |id| Task { id, role, port: None });
        let tasks = of(&self.client, Role::Client).chain(of(&self.server, Role::Server)).collect();
        Followed { tasks, ..Followed::default() }
    }

    fn say(&mut self, request: &Request) {
        writeln!(self.requests, "{}", serde_json::to_string(request).unwrap()).unwrap();
    }

    fn hear(&mut self) -> Reply {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn report(&mut self) -> PhaseReport {
        self.say(&Request::Report);
        match self.hear() {
            Reply::Phase(report) => report,
            other @ (Reply::Ready { .. } | Reply::Failed { .. }) => panic!("{other:?}"),
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Requests that each configuration's client saw begin and end in the windows, and what was counted of it. Every
/// window asks both, so that one's requests fall into the windows of the other. `None`: somebody heard of a window
/// too late.
fn try_to_measure(probes: &mut Loaded, pairs: &mut [Pair; 2], lengths: &[Duration]) -> Option<[(u64, ProbeCounts); 2]> {
    let mut block = Block::from(pairs[0].followed());
    let second = block.add(pairs[1].followed()).unwrap();
    let ready = Ready::attach(probes, PhaseKind::Detailed, Sampler { cpus: &[], rate_hz: 0 }).unwrap();
    let following = ready.follow(probes, block, Notes::default()).unwrap();
    following.lead_in(probes, Expected::Connections(3)).unwrap();
    let begin = |pairs: &mut [Pair; 2], index: usize, length: Duration| {
        let open_ns = now_ns() + 10_000_000;
        let close_ns = open_ns + length.as_nanos() as u64;
        pairs.iter_mut().for_each(|pair| pair.say(&Request::Phase { open_ns, close_ns }));
        // A B B A
        let configuration = if matches!(index % 4, 1 | 2) { second } else { ConfigurationId::FIRST };
        Window { configuration, open_ns, close_ns }
    };
    let (mut operations, mut is_late) = ([0, 0], false);
    let mut end = |pairs: &mut [Pair; 2], probes: &mut Loaded, open: &profiler::probes::Open| {
        let left_ns = open.window().close_ns.saturating_sub(now_ns());
        interrupt::sleep(Duration::from_nanos(left_ns)).unwrap();
        open.drain(probes, Duration::from_secs(5), |_| ()).unwrap();
        for (sum, pair) in operations.iter_mut().zip(pairs) {
            let report = pair.report();
            assert_eq!(report.unfinished, 0);
            is_late |= report.heard_ns >= open.window().open_ns;
            *sum += report.operations;
        }
    };
    let mut open = following.open(probes, begin(pairs, 0, lengths[0]));
    end(pairs, probes, &open);
    for (index, length) in lengths.iter().enumerate().skip(1) {
        open = open.next(probes, begin(pairs, index, *length));
        end(pairs, probes, &open);
    }
    let closed = open.close(probes);
    if is_late || closed.is_late() {
        return None;
    }
    let labels = probes.labels(&Names::default());
    let counts: [ProbeCounts; 2] = closed.counts(probes, &labels).unwrap().try_into().unwrap();
    let [first, second] = counts;
    Some([(operations[0], first), (operations[1], second)])
}

fn measure(probes: &mut Loaded, pairs: &mut [Pair; 2], lengths: &[Duration]) -> [(u64, ProbeCounts); 2] {
    let mut tries = (0..10).filter_map(|_| try_to_measure(probes, pairs, lengths));
    tries.next().expect("windows that everybody heard of in time")
}

/// Whether the books of a configuration close: what was followed of it went through each of its points, and ended, and
/// is what its client counted. That tells the beginning of a request by its call, the probes by what follows in the
/// kernel: at either end of a window, each connection may have one in between.
/// `own`: its windows among them.
fn check((said, counts): &(u64, ProbeCounts), windows: &[Duration], own: &[usize], connections: u64) {
    let followed = counts.counter(Counter::Followed);
    let between = 2 * windows.len() as u64 * connections;
    assert!(*said > 100 && followed.abs_diff(*said) <= between, "{followed} of {said}");
    for counter in [Counter::Completed, Counter::Operations] {
        assert_eq!(counts.counter(counter), followed, "{counter:?}");
    }
    assert_eq!(Counter::losses().map(|loss| counts.counter(loss)).sum::<u64>(), 0);
    assert_eq!(counts.unfinished, 0);
    let through = |role: Role, from: Point| {
        let from = Place::fixed(from);
        let stages = counts.stages.iter().filter(|stage| !stage.part && stage.role == role && stage.from == from);
        stages.map(|stage| stage.count).sum::<u64>()
    };
    assert_eq!(through(Role::Client, Point::Send), followed);
    assert_eq!(through(Role::Server, Point::Received), followed);
    // What the stages hold is how long the requests lived.
    let stages_ns: u64 = counts.stages.iter().filter(|stage| !stage.part).map(|stage| stage.total_ns).sum();
    let lives_ns = counts.lives_ns.unwrap();
    let between: u64 = counts
        .stages
        .iter()
        .filter(|stage| !stage.part && stage.role == Role::Client && stage.from == Place::fixed(Point::Received))
        .map(|stage| stage.total_ns)
        .sum();
    assert_eq!(stages_ns - between, lives_ns, "{stages_ns} {between}");
    // A thread is in some state all the time, in each window of its configuration, its beginning and its end included;
    // what it does in another's is not counted.
    let own_ns: u128 = own.iter().filter_map(|index| windows.get(*index)).map(Duration::as_nanos).sum();
    for role in [Role::Client, Role::Server] {
        let states = counts.states.iter().filter(|state| state.role == role);
        let ns: u64 = states.map(|state| state.total_ns).sum();
        assert!((ns as f64 - own_ns as f64).abs() <= 0.02 * own_ns as f64, "{role:?}: {ns} of {own_ns}");
    }
}

pub fn configurations_alive_at_once_are_counted_apart() {
    let _alone = alone();
    if !has(Feature::Probes) {
        return;
    }
    let alive = Alive { configurations: 2, tokens: 2, threads: 2 };
    let options = Options { limits: Limits::for_plan(alive), ..Options::default() };
    let mut probes = Loaded::new(&Offsets::of_running_kernel().unwrap(), &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("workload");
    fs::write(&binary, artifact::workload().unwrap()).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o700)).unwrap();
    let mut pairs = [Pair::start(&binary, "1"), Pair::start(&binary, "2")];
    let lengths = [40, 20, 60, 30].map(Duration::from_millis);
    let both = measure(&mut probes, &mut pairs, &lengths);
    let of_each: [(u64, &[usize]); 2] = [(1, &[0, 3]), (2, &[1, 2])];
    both.iter().zip(of_each).for_each(|(of, (connections, own))| check(of, &lengths, own, connections));
    // Another block of the same processes begins at nothing.
    let again = measure(&mut probes, &mut pairs, &lengths[..1]);
    again.iter().zip(of_each).for_each(|(of, (connections, own))| check(of, &lengths[..1], own, connections));
    // Tables for one configuration refuse two.
    let mut small = Loaded::new(&Offsets::of_running_kernel().unwrap(), &Options::default()).unwrap();
    let mut block = Block::from(pairs[0].followed());
    block.add(pairs[1].followed()).unwrap();
    let ready = Ready::attach(&mut small, PhaseKind::Traced, Sampler { cpus: &[], rate_hz: 0 }).unwrap();
    let refused = ready.follow(&mut small, block, Notes::default()).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|why| why.contains("room for 1 configurations")));
}
