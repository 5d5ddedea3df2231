//! The table of cases: a known cost, and the stages in which it must be found.

use crate::{
    analysis::{describe::direction, path::StageKey},
    counts::{Direction, Place, Point, Role},
    injection::Kind,
    placement::Placement,
};

/// The means, none of them virtax's probes, by which it is known how large the cost is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Established {
    /// The server's own clock around what it does before its answers.
    ServersClock,
    /// The queue's rate and the bytes that the kernel counted in it: a message's time at that rate, less the time
    /// that a whole operation takes the base. Once the queue is the slowest, an operation takes the former.
    QueuesRate,
    /// The kernel's account of time lost (throttled: `cpu.stat`; on run queues: `schedstat`), for each operation.
    KernelsAccount,
    /// The client's clock, with no probe attached: nobody else can tell.
    ClientsClock,
    /// The client's clock in the traced phases themselves: of what costs more while probes are attached, because it
    /// brings switches between processes and points of its own, by more than the probes' own time; or that comes in
    /// pieces so large that phases differ.
    ClientsClockTraced,
}

impl Established {
    /// Name of the means, as shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServersClock => "the server's clock",
            Self::QueuesRate => "the queue's rate and bytes",
            Self::KernelsAccount => "the kernel's account",
            Self::ClientsClock => "the client's clock, nothing attached",
            Self::ClientsClockTraced => "the client's clock, in the same phases",
        }
    }
}

/// A case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Name of the case.
    pub name: &'static str,
    /// The workload, and settings of it that are not the usual ones.
    pub workload: &'static str,
    /// See [`Self::workload`].
    pub settings: &'static [&'static str],
    /// How many times as long as usual a round is: of costs that come in large pieces, the ends of a phase cut some.
    pub longer: u32,
    /// What it is put into.
    pub base: &'static str,
    /// What is put in.
    pub kind: Kind,
    /// How much: four sizes, or one where it does not scale.
    pub sizes: &'static [u32],
    /// How its size is known.
    pub established: Established,
    /// The stages that are to show it.
    pub target: &'static [Target],
    /// Where client and server run.
    pub placement: Placement,
    /// Whether it is one of those that are run without `--full`.
    pub quick: bool,
    /// Fewest events (throttles) that a round must have.
    pub fewest_events: u64,
    /// Whether it is one request in fifty: to be seen in the tail, and not in the median.
    pub in_tail: bool,
}

/// Stages that are to show a cost: by where they begin, and where they end, if that matters.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    direction: Direction,
    is_proxys: bool,
    from: Option<Spot>,
    to: Option<Spot>,
}

/// A point, at a device or at any place.
#[derive(Debug, Clone, Copy)]
struct Spot {
    point: Point,
    device: Option<Label>,
}

/// The label of a device, or the beginning of one.
#[derive(Debug, Clone, Copy)]
struct Label {
    text: &'static str,
    is_beginning: bool,
}

impl Spot {
    fn is(self, place: &Place) -> bool {
        let is_there = |label: Label| {
            let found = place.device.as_ref().map_or("", |device| device.label());
            if label.is_beginning { found.starts_with(label.text) } else { found == label.text }
        };
        place.point == self.point && self.device.is_none_or(is_there)
    }
}

impl Target {
    /// The target's stages that end there.
    const fn to(self, spot: Spot) -> Self {
        Self { to: Some(spot), ..self }
    }

    fn is(&self, key: &StageKey) -> bool {
        // What QEMU does for its guest is no stage of a request's.
        let is_whose = key.role.is_proxy() == self.is_proxys && key.role != Role::Vmm;
        is_whose
            && direction(key.role, key.from.point) == self.direction
            && self.from.is_none_or(|spot| spot.is(&key.from))
            && self.to.is_none_or(|spot| spot.is(&key.to))
    }
}

const fn at(point: Point) -> Spot {
    Spot { point, device: None }
}

const fn on(point: Point, text: &'static str) -> Spot {
    Spot { point, device: Some(Label { text, is_beginning: false }) }
}

/// All devices whose labels begin so.
const fn on_all(point: Point, text: &'static str) -> Spot {
    Spot { point, device: Some(Label { text, is_beginning: true }) }
}

const fn request(from: Spot) -> Target {
    Target { direction: Direction::Request, is_proxys: false, from: Some(from), to: None }
}

const fn response(from: Spot) -> Target {
    Target { direction: Direction::Response, is_proxys: false, from: Some(from), to: None }
}

/// All of a proxy's.
const fn proxied(direction: Direction) -> Target {
    Target { direction, is_proxys: true, from: None, to: None }
}

const SERVERS_TIME: &[Target] = &[request(at(Point::Received)).to(at(Point::Send))];

const fn case(name: &'static str, base: &'static str, kind: Kind, sizes: &'static [u32]) -> Case {
    Case {
        name,
        workload: "tcp-rr",
        settings: &[],
        longer: 1,
        base,
        kind,
        sizes,
        established: Established::ClientsClock,
        target: SERVERS_TIME,
        placement: Placement::Same,
        quick: false,
        fewest_events: 0,
        in_tail: false,
    }
}

const VETH: &str = "ns:net=veth";
const QUEUE: &[u32] = &[500, 1000, 1500, 2000];
/// What is forwarded passes the rules on its way to the server and back.
const FORWARDED: &[Target] = &[
    request(on(Point::Receive, "wire@host")).to(on(Point::Xmit, "veth@host")),
    response(on(Point::Receive, "veth@host")).to(on(Point::Xmit, "wire@host")),
];

/// All cases.
pub const CASES: &[Case] = &[
    Case {
        established: Established::ServersClock,
        quick: true,
        ..case("server-spins", "native", Kind::SpinUs, &[20, 40, 80, 160])
    },
    Case {
        established: Established::ServersClock,
        ..case("server-sleeps", "native", Kind::SleepUs, &[300, 600, 900, 1200])
    },
    Case {
        established: Established::ServersClock,
        quick: true,
        in_tail: true,
        ..case("one-in-fifty-is-slow", "native", Kind::SlowUs, &[1000, 2000, 3000, 4000])
    },
    Case {
        established: Established::QueuesRate,
        target: &[request(at(Point::Send)).to(on(Point::Xmit, "wire@client"))],
        quick: true,
        ..case("queue-wire-request", VETH, Kind::QueueWireRequestUs, QUEUE)
    },
    Case {
        established: Established::QueuesRate,
        target: &[response(on(Point::Receive, "veth@host")).to(on(Point::Xmit, "wire@host"))],
        ..case("queue-wire-response", VETH, Kind::QueueWireResponseUs, QUEUE)
    },
    Case {
        established: Established::QueuesRate,
        target: &[request(on(Point::Receive, "wire@host")).to(on(Point::Xmit, "veth@host"))],
        ..case("queue-veth-request", VETH, Kind::QueueVethRequestUs, QUEUE)
    },
    Case {
        established: Established::QueuesRate,
        target: &[response(at(Point::Send)).to(on(Point::Xmit, "eth0@server"))],
        ..case("queue-veth-response", VETH, Kind::QueueVethResponseUs, QUEUE)
    },
    Case {
        target: FORWARDED,
        // Held against phases in which nothing is attached, and the host does something else.
        longer: 2,
        quick: true,
        ..case("forward-rules", "ns:net=veth,hooks=on", Kind::ForwardRules, &[2000, 4000, 6000, 8000])
    },
    Case {
        // Both directions come in by the same hook, before it is known whither they go.
        target: FORWARDED,
        ..case("raw-rules", "ns:net=veth,hooks=on", Kind::RawRules, &[2000, 4000, 6000, 8000])
    },
    Case {
        established: Established::KernelsAccount,
        target: &[
            request(at(Point::Ready)).to(at(Point::Received)),
            request(at(Point::Received)).to(at(Point::Send)),
            response(at(Point::Send)),
        ],
        fewest_events: 100,
        // Periods of 5 ms.
        longer: 2,
        quick: true,
        ..case("quota", "ns:net=host", Kind::QuotaPercent, &[35, 30, 25, 20])
    },
    Case {
        // On one CPU, which never idles: with the client elsewhere, a hog also keeps the server's CPU awake and its
        // core's sibling fast, which is a gain of microseconds in other stages. It is picked where one of the two
        // goes to sleep for the other, or comes with the clock's tick to whatever runs.
        established: Established::KernelsAccount,
        target: &[
            request(at(Point::Ready)).to(at(Point::Received)),
            response(at(Point::Ready)).to(at(Point::Received)),
            request(at(Point::Received)).to(at(Point::Send)),
            response(at(Point::Send)),
        ],
        ..case("hog", "ns:net=host", Kind::Hogs, &[1])
    },
    Case {
        // Filters run at the entry of a call, before anything sees it: of the reading one in the wait for the server,
        // of the writing one in the server's own time.
        target: &[request(at(Point::Ready)).to(at(Point::Received)), request(at(Point::Received)).to(at(Point::Send))],
        ..case("filters", "ns:net=host", Kind::Filters, &[3, 5, 7, 8])
    },
    Case {
        target: &[
            request(on(Point::Xmit, "bridge@host")),
            request(on_all(Point::Xmit, "link")),
            request(on_all(Point::Xmit, "br1@")),
            request(on_all(Point::Receive, "link")),
            response(on_all(Point::Receive, "link")),
            response(on_all(Point::Xmit, "link")),
            response(on(Point::Receive, "veth@host")),
            response(on_all(Point::Xmit, "br")),
            response(on_all(Point::Receive, "br")),
        ],
        ..case("second-bridge", "ns:net=bridge", Kind::Bridges, &[3, 5, 7, 9])
    },
    Case {
        established: Established::ClientsClockTraced,
        // From the router on, a request belongs to the proxy instead of the client, and a response from there back.
        target: &[
            proxied(Direction::Request),
            proxied(Direction::Response),
            // On one CPU, who was woken waits until the proxy has gone to sleep.
            request(at(Point::Ready)).to(at(Point::Received)),
            response(at(Point::Ready)).to(at(Point::Received)),
            request(on(Point::Receive, "wire@host")),
            request(on(Point::Xmit, "bridge@host")),
            request(on(Point::Xmit, "veth@host")),
            request(on(Point::Receive, "eth0@server")),
            response(on(Point::Receive, "bridge@host")),
            response(on(Point::Xmit, "wire@host")),
            response(on(Point::Receive, "wire@client")),
        ],
        ..case("userland-proxy", "ns:net=bridge", Kind::Proxies, &[1])
    },
    Case {
        // The kernel lets a tenth of a second's reads pass, and then none until that is over: of the disk below,
        // while the loop device has the operation.
        workload: "block",
        settings: &["size=16"],
        longer: 4,
        established: Established::ClientsClockTraced,
        target: &[request(on_all(Point::Issue, "loop"))],
        ..case("reads-are-limited", "ns:net=host,fs=loop", Kind::ReadIops, &[8000, 5000, 3500, 2500])
    },
];

impl Case {
    /// The configurations of its run: the base first.
    #[must_use]
    pub fn configurations(&self) -> Vec<String> {
        let sizes = self.sizes.iter().map(|size| format!("{}+{}={size}", self.base, self.kind.name()));
        std::iter::once(self.base.to_owned()).chain(sizes).collect()
    }

    /// Whether a stage is one that is to show the cost.
    #[must_use]
    pub fn is_target(&self, key: &StageKey) -> bool {
        self.target.iter().any(|target| target.is(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::configuration::parse_list;

    #[test]
    fn every_case_can_be_run() {
        for case in CASES {
            let list = case.configurations().join(",");
            let parsed = parse_list(&list).unwrap().configurations;
            assert_eq!(parsed.len(), 1 + case.sizes.len(), "{}", case.name);
            assert!(case.sizes.len() == 4 || case.sizes.len() == 1, "{}", case.name);
        }
        let quick = CASES.iter().filter(|case| case.quick).count();
        // One of each way to know a cost but those that need the client's clock in the traced phases.
        assert!(quick >= 5 && quick < CASES.len(), "{quick}");
    }

    #[test]
    fn targets() {
        let quota = CASES.iter().find(|case| case.name == "quota").unwrap();
        let key = |role, from, to| StageKey { role, from, to };
        let (ready, received) = (|| Place::fixed(Point::Ready), || Place::fixed(Point::Received));
        let xmit = |device| Place::at(Point::Xmit, device);
        assert!(quota.is_target(&key(Role::Server, ready(), received())));
        assert!(quota.is_target(&key(Role::Server, Place::fixed(Point::Send), xmit("wire@host"))));
        assert!(!quota.is_target(&key(Role::Client, ready(), received())), "a response waits for the client");
        assert!(!quota.is_target(&key(Role::ProxyIn, ready(), received())), "a proxy's stage is its own");
        let bridges = CASES.iter().find(|case| case.name == "second-bridge").unwrap();
        let forwarded = |from| key(Role::Client, xmit(from), Place::at(Point::Receive, "eth0@server"));
        assert!(bridges.is_target(&forwarded("link3@host")) && bridges.is_target(&forwarded("br1@host")));
        assert!(!bridges.is_target(&forwarded("br2@host")) && !bridges.is_target(&forwarded("wire@host")));
        let queue = CASES.iter().find(|case| case.name == "queue-wire-request").unwrap();
        let sent = |device| key(Role::Client, Place::fixed(Point::Send), xmit(device));
        assert!(queue.is_target(&sent("wire@client")) && !queue.is_target(&sent("wire@host")));
    }
}
