//! The load generators against a server that computes for a known time: what they report is that time and the waiting
//! that it causes, and nothing of their own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use workloads::{
    clock::now_ns,
    epoll::Epoll,
    protocol::{PhaseReport, Reply, Request, decode_histogram},
    tcp_rr::schedule::{Arrivals, Schedule},
};

/// CPUs that this test may use.
fn cpus() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid one; the call fills it.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) }, 0);
    // SAFETY: the indices are those of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// The calling thread stays on this CPU.
fn stay_on(cpu: usize) -> std::io::Result<()> {
    // SAFETY: an all-zero set is a valid one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a local, the CPU is one of a set.
    let done = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Keeps the CPUs from idling, at the scheduler's least class, which anybody else takes them from: after it has idled
/// for a while, a VM's CPU takes hundreds of microseconds for what it else does in ten, and that would
/// hide what a generator adds.
struct Awake(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Awake {
    fn keep() -> Self {
        let ends = Arc::<AtomicBool>::default();
        let keep = |cpu: usize| {
            let end = ends.clone();
            std::thread::spawn(move || {
                stay_on(cpu).unwrap();
                let none = libc::sched_param { sched_priority: 0 };
                // SAFETY: one system call with a local.
                assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) }, 0);
                while !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = cpus().into_iter().map(keep).collect();
        Self(ends, threads)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A request as the server had it.
#[derive(Clone, Copy)]
struct Served {
    /// When it was read, ns.
    read_ns: u64,
    /// How long the server really computed for it, ns.
    computed_ns: u64,
}

/// A server that computes before every answer, on one thread, one request after the other.
struct Server {
    address: SocketAddr,
    served: Arc<Mutex<Vec<Served>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(cpu: usize, spin_ns: u64, answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, ends, served) = (listener.local_addr().unwrap(), Arc::default(), Arc::default());
        let (end, log) = (Arc::clone(&ends), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            stay_on(cpu).unwrap();
            serve(&listener, spin_ns, answer, &end, &log);
        });
        Self { address, served, ends, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, spin_ns: u64, answer: &[u8], end: &AtomicBool, log: &Mutex<Vec<Served>>) {
    const LISTENER: u64 = u64::MAX;
    let mut epoll = Epoll::new().unwrap();
    epoll.add(listener.as_raw_fd(), LISTENER).unwrap();
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut request = [0; 4096];
    while !end.load(Ordering::Relaxed) {
        for key in epoll.wait(50).unwrap() {
            if key == LISTENER {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                epoll.add(stream.as_raw_fd(), streams.len() as u64).unwrap();
                streams.push(stream);
                continue;
            }
            // A client that has ended: its connection stays ready, for as long as the server lives.
            let stream = &mut streams[key as usize];
            if !matches!(stream.read(&mut request), Ok(bytes) if bytes > 0) {
                return;
            }
            let read_ns = now_ns();
            while now_ns() - read_ns < spin_ns {
                std::hint::spin_loop();
            }
            let computed_ns = now_ns() - read_ns;
            // Whether the server is one, the generator for Redis asks first.
            let is_ping = request.windows(4).any(|bytes| bytes == b"PING");
            if stream.write_all(if is_ping { b"+PONG\r\n" } else { answer }).is_err() {
                return;
            }
            log.lock().unwrap().push(Served { read_ns, computed_ns });
        }
    }
}

/// A client that is at work.
struct Client {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(cpu: usize, arguments: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtax-workload"));
        command.args(arguments).args(["--lifetime", "60"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: one system call.
        unsafe { command.pre_exec(move || stay_on(cpu)) };
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let requests = child.stdin.take();
        let mut client = Self { child, requests, answers };
        assert!(matches!(client.answer(), Reply::Ready { .. }));
        client
    }
    fn answer(&mut self) -> Reply {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }
    fn ask(&mut self, request: Request) {
        let line = serde_json::to_string(&request).unwrap() + "\n";
        self.requests.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }
    /// A phase of so many seconds from now on.
    fn phase(&mut self, seconds: f64) -> (PhaseReport, [u64; 2]) {
        let open_ns = now_ns() + 20_000_000;
        let close_ns = open_ns + (seconds * 1e9) as u64;
        self.ask(Request::Phase { open_ns, close_ns });
        // What began in it ends soon after.
        std::thread::sleep(std::time::Duration::from_nanos(close_ns - now_ns() + 100_000_000));
        self.ask(Request::Report);
        let Reply::Phase(report) = self.answer() else { panic!("no report") };
        assert!(report.heard_ns < open_ns && report.unfinished == 0, "{report:?}");
        (report, [open_ns, close_ns])
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// How a generator is asked to work.
#[derive(Debug, Clone, Copy)]
struct Load {
    model: &'static str,
    connections: u32,
    arrivals: Arrivals,
    /// Requests a second; 0: as fast as answers come.
    rate: f64,
    cpus: [usize; 2],
    seconds: f64,
}

/// What came of it.
struct Seen {
    report: PhaseReport,
    phase: [u64; 2],
    served: Vec<Served>,
}

impl Seen {
    fn median_ns(&self) -> f64 {
        decode_histogram(&self.report.histogram).unwrap().value_at_quantile(0.5) as f64
    }
    /// From the sending call to the return: without what waited for an earlier request.
    fn mean_ns(&self) -> f64 {
        self.report.latency_sum_ns as f64 / self.report.operations as f64
    }
    /// Time without what the server computed, which is longer than it was to be where others took its CPU.
    fn besides_ns(&self) -> f64 {
        let computed: Vec<f64> = self.inside().map(|served| served.computed_ns as f64).collect();
        self.mean_ns() - mean(&computed)
    }
    /// The requests of the phase.
    fn inside(&self) -> impl Iterator<Item = &Served> {
        self.served.iter().filter(|served| (self.phase[0]..self.phase[1]).contains(&served.read_ns))
    }
    fn queued_ns(&self) -> f64 {
        self.report.queued_sum_ns.unwrap() as f64 / self.report.operations as f64
    }
}

fn drive(load: &Load, spin_ns: u64) -> Seen {
    let [of_server, of_client] = load.cpus;
    let server = Server::start(of_server, spin_ns, &[7; 200]);
    let arrivals = if load.arrivals == Arrivals::Poisson { "poisson" } else { "constant" };
    // As the profiler has it: on a CPU of its own, the client awaits the last of the time at work.
    let awaits_ns = if of_server == of_client { 0 } else { 50_000 };
    let arguments = format!(
        "tcp-rr-client --connect {} --model {} --connections {} --rate {} --arrivals {arrivals} --spin-ns {awaits_ns}",
        server.address, load.model, load.connections, load.rate
    );
    let mut client = Client::start(of_client, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let (report, phase) = client.phase(load.seconds);
    drop(client);
    let served = server.served.lock().unwrap().clone();
    Seen { report, phase, served }
}

/// One CPU for both, and one for each where there are two.
fn placements() -> Vec<[usize; 2]> {
    let cpus = cpus();
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    if first == last { vec![[first, first]] } else { vec![[last, last], [last, first]] }
}

/// One test at a time: they share CPUs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks again when the answer is not the expected one, because others share this host: the generator's own fault
/// would be there each time.
fn holds(what: &str, mut tried: impl FnMut() -> Result<(), String>) {
    let mut said = Vec::new();
    for _ in 0..6 {
        match tried() {
            Ok(()) => return,
            Err(why) => said.push(why),
        }
    }
    panic!("{what}: {said:#?}");
}

fn is_near(value: f64, expected: f64, share: f64, what: &str) -> Result<(), String> {
    let text = format!("{what}: {value:.0}, expected {expected:.0}");
    if (value - expected).abs() <= share * expected { Ok(()) } else { Err(text) }
}

fn is_within(value: f64, bound: f64, what: &str) -> Result<(), String> {
    if value.abs() <= bound { Ok(()) } else { Err(format!("{what}: {value:.0}, at most {bound:.0}")) }
}

/// Long against everything else that a request costs here.
const SPIN_NS: u64 = 2_000_000;

/// How long a request takes in a closed loop of one connection: what a server is busy with each.
fn capacity_ns(cpus: [usize; 2]) -> f64 {
    let load = Load { model: "epoll", connections: 1, arrivals: Arrivals::Constant, rate: 0.0, cpus, seconds: 0.4 };
    drive(&load, SPIN_NS).median_ns()
}

/// At constant intervals nobody waits: the latency is what the server computes, and what it is without that.
#[test]
fn constant_arrivals_take_as_long_as_the_server_computes() {
    let (_alone, _awake) = (alone(), Awake::keep());
    for cpus in placements() {
        for (model, connections) in [("epoll", 1), ("epoll", 4), ("threads", 4)] {
            for busy in [0.0, 0.5, 0.9] {
                // A closed loop of several is one that queues at the server.
                if busy == 0.0 && connections > 1 {
                    continue;
                }
                holds(&format!("{cpus:?}, {connections} connections by {model}, {busy}"), || {
                    let rate = busy * 1e9 / capacity_ns(cpus);
                    let load = Load { model, connections, arrivals: Arrivals::Constant, rate, cpus, seconds: 0.5 };
                    let (with, without) = (drive(&load, SPIN_NS), drive(&load, 0));
                    is_near(with.median_ns() - without.median_ns(), SPIN_NS as f64, 0.03, "latency")
                });
            }
        }
    }
}

/// Median of the latencies of a client that does nothing but sleep, send, and receive.
fn plain_client_ns(cpus: [usize; 2], spin_ns: u64, interval_ns: u64, count: usize) -> f64 {
    let server = Server::start(cpus[0], spin_ns, &[7; 200]);
    let measuring = std::thread::spawn(move || {
        stay_on(cpus[1]).unwrap();
        let mut stream = TcpStream::connect(server.address).unwrap();
        let mut latencies: Vec<u64> = (0..count)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_nanos(interval_ns));
                let start_ns = now_ns();
                stream.write_all(&[0; 100]).unwrap();
                stream.read_exact(&mut [0; 200]).unwrap();
                now_ns() - start_ns
            })
            .collect();
        latencies.sort_unstable();
        latencies[latencies.len() / 2] as f64
    });
    measuring.join().unwrap()
}

/// At a hundredth of the capacity, caches are cold and CPUs asleep, and a request takes longer by what depends on the
/// host: as long as for a client that does nothing else. An open loop that is late by what a sleep is late for (50
/// to 90 µs) would be told by that.
#[test]
fn rare_requests_take_as_long_as_with_the_plainest_client() {
    let (_alone, _awake) = (alone(), Awake::keep());
    let spin_ns = 300_000;
    for cpus in placements() {
        for (model, connections) in [("epoll", 1), ("epoll", 4), ("threads", 4)] {
            let rate = 0.01 * 1e9 / spin_ns as f64;
            let load = Load { model, connections, arrivals: Arrivals::Constant, rate, cpus, seconds: 0.8 };
            // In turns, until the ratios' median tells; one of them varies by a quarter here.
            let mut ratios = Vec::new();
            let is_alike = |ratios: &mut Vec<f64>| {
                let plain_ns = plain_client_ns(cpus, spin_ns, (1e9 / rate) as u64, 25);
                ratios.push(drive(&load, spin_ns).median_ns() / plain_ns);
                ratios.sort_unstable_by(f64::total_cmp);
                ratios.len() >= 3 && (ratios[ratios.len() / 2] - 1.0).abs() < 0.1
            };
            assert!((0..25).any(|_| is_alike(&mut ratios)), "{load:?}: {ratios:?}");
        }
    }
}

/// Waits of the requests in a phase, as the server saw them, ns.
struct Waits {
    /// From when it was due until it was read, less the shortest way.
    seen: Vec<f64>,
    /// From when it was due until the connection was free again, after the one before it, as it really was: one step
    /// of Lindley, "The theory of queues with a single server", 1952.
    expected: Vec<f64>,
    /// From an answer to the next request, where that was due already.
    turn: f64,
}

impl Waits {
    fn of(seen: &Seen, rate: f64) -> Self {
        let mut schedule = Schedule::new(Arrivals::Poisson, rate, 1, 0, 1);
        let mut due = || {
            let due_ns = schedule.due_ns().unwrap() as f64;
            schedule.advance();
            due_ns
        };
        // The first exchange only shows that the server is there.
        let requests: Vec<(f64, &Served)> = seen.served[1..].iter().map(|served| (due(), served)).collect();
        let late = |(due_ns, served): &(f64, &Served)| served.read_ns as f64 - due_ns;
        let origin_ns = requests.iter().map(late).fold(f64::INFINITY, f64::min);
        let pairs = || requests.windows(2).map(|pair| (pair[0].1, pair[1].1, origin_ns + pair[1].0));
        let ended_ns = |served: &Served| (served.read_ns + served.computed_ns) as f64;
        let turns = pairs().filter(|(before, _, due_ns)| *due_ns < ended_ns(before));
        let turn = median(turns.map(|(before, served, _)| served.read_ns as f64 - ended_ns(before)).collect());
        let is_inside = |served: &Served| (seen.phase[0]..seen.phase[1]).contains(&served.read_ns);
        let inside = pairs().filter(|(_, served, _)| is_inside(served));
        let (seen, expected) = inside
            .map(|(before, served, due_ns)| {
                (served.read_ns as f64 - due_ns, (ended_ns(before) + turn - due_ns).max(0.0))
            })
            .unzip();
        Self { seen, expected, turn }
    }

    /// How much later than expected the ordinary request is.
    fn lateness(&self) -> f64 {
        median(self.seen.iter().zip(&self.expected).map(|(seen, expected)| seen - expected).collect())
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// At random arrivals the same, and the waiting of a queue with one server: exactly that of these arrivals, whose
/// mean over many is that of M/D/1 (`schedule.rs` has the test). Others take the CPUs from both programs meanwhile, so
/// every request is held against how the one before it really went.
#[test]
fn random_arrivals_wait_as_the_theory_of_queues_has_it() {
    let (_alone, _awake) = (alone(), Awake::keep());
    for cpus in placements() {
        for busy in [0.5, 0.9] {
            holds(&format!("{cpus:?}, {busy}"), || {
                let each_ns = capacity_ns(cpus);
                let rate = busy * 1e9 / each_ns;
                let load =
                    Load { model: "epoll", connections: 1, arrivals: Arrivals::Poisson, rate, cpus, seconds: 3.0 };
                let (with, without) = (drive(&load, SPIN_NS), drive(&Load { seconds: 0.5, ..load }, 0));
                is_within(with.besides_ns() - without.besides_ns(), 0.05 * SPIN_NS as f64, "latency besides")?;
                let waits = Waits::of(&with, rate);
                is_near(with.queued_ns(), mean(&waits.seen), 0.05, "wait that is reported")?;
                is_within(waits.lateness(), 0.02 * SPIN_NS as f64, "lateness")?;
                // Of the ways to the client and back, as without computing.
                is_within(waits.turn, 2.0 * without.besides_ns() + 0.025 * SPIN_NS as f64, "turn")
            });
        }
    }
}

/// The other generator of our own: a closed loop.
#[test]
fn the_generator_for_redis_adds_nothing_either() {
    let (_alone, _awake) = (alone(), Awake::keep());
    for [of_server, of_client] in placements() {
        let latency = |spin_ns: u64| {
            let server = Server::start(of_server, spin_ns, b"+OK\r\n");
            let text = format!("redis-client --connect {} --operation set --clients 1 --keyspace 1", server.address);
            let mut client = Client::start(of_client, &text.split(' ').map(str::to_owned).collect::<Vec<_>>());
            let (report, _) = client.phase(0.4);
            decode_histogram(&report.histogram).unwrap().value_at_quantile(0.5) as f64
        };
        holds("redis-client", || is_near(latency(SPIN_NS) - latency(0), SPIN_NS as f64, 0.03, "latency"));
    }
}
