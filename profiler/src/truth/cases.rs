//! The table of cases: a known cost, and the stages in which it must be found.

use crate::{injection::Kind, placement::Placement};

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
    /// Ids of the stages that are to show it, or their beginnings with a `*`.
    pub target: &'static [&'static str],
    /// Where client and server run.
    pub placement: Placement,
    /// Whether it is one of those that are run without `--full`.
    pub quick: bool,
    /// Fewest events (throttles) that a round must have.
    pub fewest_events: u64,
    /// Whether it is one request in fifty: to be seen in the tail, and not in the median.
    pub in_tail: bool,
}

const SERVERS_TIME: &[&str] = &["request/received→send"];

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
const FORWARDED: &[&str] =
    &["request/receive(wire@host)→xmit(veth@host)", "response/receive(veth@host)→xmit(wire@host)"];

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
        target: &["request/send→xmit(wire@client)"],
        quick: true,
        ..case("queue-wire-request", VETH, Kind::QueueWireRequestUs, QUEUE)
    },
    Case {
        established: Established::QueuesRate,
        target: &["response/receive(veth@host)→xmit(wire@host)"],
        ..case("queue-wire-response", VETH, Kind::QueueWireResponseUs, QUEUE)
    },
    Case {
        established: Established::QueuesRate,
        target: &["request/receive(wire@host)→xmit(veth@host)"],
        ..case("queue-veth-request", VETH, Kind::QueueVethRequestUs, QUEUE)
    },
    Case {
        established: Established::QueuesRate,
        target: &["response/send→xmit(eth0@server)"],
        ..case("queue-veth-response", VETH, Kind::QueueVethResponseUs, QUEUE)
    },
    Case {
        target: FORWARDED,
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
        target: &["request/ready→received", "request/received→send", "response/send→*"],
        fewest_events: 100,
        quick: true,
        ..case("quota", "ns:net=host", Kind::QuotaPercent, &[35, 30, 25, 20])
    },
    Case {
        // On one CPU, which never idles: with the client elsewhere, a hog also keeps the server's CPU awake and its
        // core's sibling fast, which is a gain of microseconds in other stages. It is picked where one of the two
        // goes to sleep for the other, or comes with the clock's tick to whatever runs.
        established: Established::KernelsAccount,
        target: &["request/ready→received", "response/ready→received", "request/received→send", "response/send→*"],
        ..case("hog", "ns:net=host", Kind::Hogs, &[1])
    },
    Case {
        // Filters run at the entry of a call, before anything sees it: of the reading one in the wait for the server,
        // of the writing one in the server's own time.
        target: &["request/ready→received", "request/received→send"],
        ..case("filters", "ns:net=host", Kind::Filters, &[3, 5, 7, 8])
    },
    Case {
        target: &[
            "request/xmit(bridge@host)→*",
            "request/xmit(link*",
            "request/xmit(br1@*",
            "request/receive(link*",
            "response/receive(link*",
            "response/xmit(link*",
            "response/receive(veth@host)→*",
            "response/xmit(br*",
            "response/receive(br*",
        ],
        ..case("second-bridge", "ns:net=bridge", Kind::Bridges, &[3, 5, 7, 9])
    },
    Case {
        established: Established::ClientsClockTraced,
        // From the router on, a request belongs to the proxy instead of the client, and a response from there back.
        target: &[
            "request/proxy/*",
            "response/proxy/*",
            // On one CPU, who was woken waits until the proxy has gone to sleep.
            "request/ready→received",
            "response/ready→received",
            "request/receive(wire@host)→*",
            "request/xmit(bridge@host)→*",
            "request/xmit(veth@host)→*",
            "request/receive(eth0@server)→*",
            "response/receive(bridge@host)→*",
            "response/xmit(wire@host)→*",
            "response/receive(wire@client)→*",
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
        target: &["request/issue(loop*"],
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
    pub fn is_target(&self, id: &str) -> bool {
        self.target.iter().any(|target| match target.strip_suffix('*') {
            Some(beginning) => id.starts_with(beginning),
            None => id == *target,
        })
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
        assert!(quota.is_target("request/ready→received") && quota.is_target("response/send→xmit(wire@host)"));
        assert!(!quota.is_target("response/ready→received"));
    }
}
