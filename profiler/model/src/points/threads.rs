//! Probes of threads, their system calls and softirqs.

use super::{
    kinds::{Alternative, At, Edge, Holder, Hook, Leg, Passes, Point, Probe, Row, Set, Splits},
    words::{Next, to},
};

/// The probes, in the order in which they are attached and shown.
pub(super) const PROBES: &[Probe] = &[WAKING, WAKEUP, SWITCH, FORK, EXIT, CALL, RETURN, SOFTIRQ, SOFTIRQ_END];

/// What may follow while a thread is woken and reads.
const GROUP: &[Next] = &[
    to(Point::Waking),
    to(Point::Wakeup),
    to(Point::SwitchIn),
    to(Point::IdleSwitchIn),
    to(Point::PollReturn),
    to(Point::ReceiveCall),
    to(Point::Received),
    to(Point::Exit),
];

const WAKING: Probe = Probe {
    name: "waking",
    set: Set::Schedule,
    without: Some("the group ready → received is not split"),
    alternatives: hooks!("waking", "sched_waking",
            "waking_record" record!("sched/sched_waking", "WAKING_PID": "pid"[4])),
    points: &[
        Row {
            point: Point::Waking,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: GROUP,
            splits: Splits::Waiting,
            rank: 3,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::IoWaking,
            at: At::NoDevice,
            passes: Passes(Holder::GuestOrVm, Holder::Vm),
            next: &[
                to(Point::IoRunning).says("QEMU's thread being woken, and its run queue"),
                to(Point::Enter).says("QEMU's thread being woken, and its run queue"),
            ],
            splits: Splits::GuestsDisk,
            rank: 9,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::BackWaking,
            at: At::NoDevice,
            passes: Passes(Holder::Vm, Holder::TheSame),
            next: &[
                to(Point::BackRunning).says("QEMU's thread being woken, and its run queue"),
                to(Point::Injected).says("QEMU's thread being woken, and its run queue"),
            ],
            splits: Splits::GuestsDisk,
            rank: 13,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const WAKEUP: Probe = Probe {
    name: "wakeup",
    set: Set::Schedule,
    without: Some("the group ready → received is not split"),
    alternatives: hooks!("wakeup", "sched_wakeup",
            "wakeup_record" record!("sched/sched_wakeup", "WAKEUP_PID": "pid"[4])),
    points: &[Row {
        point: Point::Wakeup,
        at: At::NoDevice,
        passes: Passes(Holder::Socket, Holder::Socket),
        next: &[
            to(Point::Waking),
            to(Point::Wakeup),
            to(Point::SwitchIn).says("waiting for a CPU"),
            to(Point::IdleSwitchIn).says("waiting for an idle CPU to come to it"),
            to(Point::PollReturn),
            to(Point::ReceiveCall),
            to(Point::Received),
            to(Point::Exit),
        ],
        splits: Splits::Waiting,
        rank: 4,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const SWITCH: Probe = Probe {
    name: "switch",
    set: Set::Schedule,
    without: Some("run-queue latency is not told from the rest of the group ready → received"),
    alternatives: hooks!("switch", "sched_switch"),
    points: &[
        Row {
            point: Point::SwitchIn,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: GROUP,
            splits: Splits::Waiting,
            rank: 5,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::IdleSwitchIn,
            at: At::NoDevice,
            passes: Passes(Holder::Call, Holder::Call),
            next: GROUP,
            splits: Splits::Waiting,
            rank: 6,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::IoRunning,
            at: At::NoDevice,
            passes: Passes(Holder::Vm, Holder::TheSame),
            next: &[
                to(Point::IoWaking).says("QEMU: virtio's ring, until a worker is being woken"),
                to(Point::Enter).says("QEMU: virtio's ring, until its own operation"),
                to(Point::Bio).says("the worker: file system, making the bio"),
            ],
            splits: Splits::GuestsDiskOrWorker,
            rank: 10,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::BackRunning,
            at: At::NoDevice,
            passes: Passes(Holder::Vm, Holder::TheSame),
            next: &[
                to(Point::BackWaking).says("QEMU: until its main loop is being woken"),
                to(Point::Injected).says("QEMU: virtio's ring, the interrupt"),
            ],
            splits: Splits::GuestsDisk,
            rank: 14,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::VcpuRunning,
            at: At::NoDevice,
            passes: Passes(Holder::Vm, Holder::TheSame),
            next: &[
                to(Point::Entered).says("the rest of the exit, entry into the guest"),
                to(Point::Notified).says("until the guest was left to hand on the answer"),
                to(Point::Receive).says("until the answer came out"),
            ],
            splits: Splits::Vm,
            rank: 16,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const FORK: Probe = Probe {
    name: "fork",
    set: Set::Processes,
    without: Some("processes that the server starts later are not followed"),
    alternatives: hooks!("fork", "sched_process_fork"),
    points: &[],
};

const EXIT: Probe = Probe {
    name: "exit",
    set: Set::Processes,
    without: Some("a process id that is used again may be taken for the server's"),
    alternatives: hooks!("exit", "sched_process_exit"),
    points: &[],
};

const CALL: Probe = Probe {
    name: "call",
    set: Set::Detail,
    without: Some("the rows call → send and received → return cannot be told apart"),
    alternatives: hooks!("call", "sys_enter",
            "call_record" record!("raw_syscalls/sys_enter", "CALL_ID": "id"[8])),
    points: &[
        Row {
            point: Point::Call,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Send).says("from the sending call to TCP")],
            splits: Splits::StageThatEndsAt(Point::Send),
            rank: 2,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::ReceiveCall,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Received)],
            splits: Splits::Waiting,
            rank: 8,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const RETURN: Probe = Probe {
    name: "return",
    set: Set::Detail,
    without: Some("the rows call → send and received → return cannot be told apart"),
    alternatives: hooks!("return", "sys_exit",
            "return_record" record!("raw_syscalls/sys_exit")),
    points: &[
        Row {
            point: Point::Return,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Call), to(Point::Send)],
            splits: Splits::StageThatEndsAt(Point::Send),
            rank: 1,
            leg: Leg::Receives,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::PollReturn,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::ReceiveCall), to(Point::Received)],
            splits: Splits::Waiting,
            rank: 7,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const SOFTIRQ: Probe = Probe {
    name: "softirq",
    set: Set::Schedule,
    without: Some("waiting for the softirq is not told from its work"),
    alternatives: hooks!("softirq", "softirq_entry",
            "softirq_record" record!("irq/softirq_entry", "SOFTIRQ_VEC": "vec"[4])),
    points: &[Row {
        point: Point::Softirq,
        at: At::NetworkDevice,
        passes: Passes(Holder::Skb, Holder::Skb),
        next: &[to(Point::Receive)],
        splits: Splits::StageThatEndsAt(Point::Receive),
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const SOFTIRQ_END: Probe = Probe {
    name: "softirq-end",
    set: Set::Schedule,
    without: Some("waiting for the softirq is not told from its work"),
    alternatives: hooks!("softirq_end", "softirq_exit",
            "softirq_end_record" record!("irq/softirq_exit", "SOFTIRQ_END_VEC": "vec"[4])),
    points: &[],
};
