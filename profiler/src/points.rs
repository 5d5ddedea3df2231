//! The table of points: where a request is seen, what that does to its holder, what may come next, and by which of the
//! kernel's hooks it is seen, best first. Probes are rows of it; nothing else knows how one is attached.

mod kinds;
mod lookup;

use profiler_common::point as number;

pub use self::{
    kinds::{Alternative, Field, Hook, Number, Point, Probe, Set},
    lookup::{READER, all, by_name, by_number, is_legal, is_of_files, is_own_work, reader},
};

/// The alternatives of a probe, by its programs' common name; with `plain`, each has its plain program as well.
macro_rules! hooks {
    ($name:literal, plain, $tracepoint:literal $(, $program:literal $hook:expr)*) => {
        hooks!(@ concat!($name, "_typed"), Some(concat!($name, "_plain_typed")),
            concat!($name, "_raw"), Some(concat!($name, "_plain_raw")), $tracepoint $(, $program $hook)*)
    };
    ($name:literal, $tracepoint:literal $(, $program:literal $hook:expr)*) => {
        hooks!(@ concat!($name, "_typed"), None, concat!($name, "_raw"), None, $tracepoint $(, $program $hook)*)
    };
    (@ $typed:expr, $plain_typed:expr, $raw:expr, $plain_raw:expr, $tracepoint:literal $(, $program:literal $hook:expr)*) => {
        &[
            Alternative { program: $typed, plain: $plain_typed, hook: Hook::TypedTracepoint($tracepoint) },
            Alternative { program: $raw, plain: $plain_raw, hook: Hook::RawTracepoint($tracepoint) },
            $(Alternative { program: $program, plain: None, hook: $hook },)*
        ]
    };
}

/// A hook at a tracepoint's record.
macro_rules! record {
    ($event:literal $(, $symbol:literal: $field:literal[$size:literal])*) => {
        Hook::Tracepoint { event: $event, fields: &[$(($symbol, $field, $size)),*] }
    };
}

/// A way to see what has no tracepoint whose arguments are the same in every kernel.
const fn only(program: &'static str, hook: Hook) -> Alternative {
    Alternative { program, plain: None, hook }
}

const fn point(number: Number, name: &'static str, passes: &'static str, successors: &'static [&'static str]) -> Point {
    Point { number, name, passes, successors, is_part: false }
}
const fn part(number: Number, name: &'static str, passes: &'static str, successors: &'static [&'static str]) -> Point {
    Point { number, name, passes, successors, is_part: true }
}

const ON_THE_WAY: &[&str] = &["receive", "softirq", "xmit", "queue", "delivered", "backlog", "dropped", "taken"];
const GROUP: &[&str] =
    &["waking", "wakeup", "switch-in", "idle-switch-in", "poll-return", "receive-call", "received", "exit"];
/// What may follow a segment's loss: its retransmission, which may be lost as well.
const AGAIN: &[&str] =
    &["queue", "xmit", "refused", "rto", "loss-probe", "fast-retransmit", "probe-timer", "other-retransmission"];

/// The table.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "send",
        set: Set::Core,
        without: None,
        alternatives: hooks!("send", plain, "tcp_sendmsg_locked",
            "send_fentry" Hook::Fentry("tcp_sendmsg_locked"), "send_kprobe" Hook::Kprobe("tcp_sendmsg_locked")),
        points: &[point(Number::Fixed(number::SEND), "send", "socket → socket", AGAIN)],
    },
    Probe {
        name: "xmit",
        set: Set::Core,
        without: None,
        alternatives: hooks!("xmit", plain, "net_dev_start_xmit",
            "xmit_record" record!("net/net_dev_start_xmit", "XMIT_SKBADDR": "skbaddr"[8])),
        points: &[
            point(Number::Device(number::AT_XMIT), "xmit", "socket or skb → skb", ON_THE_WAY),
            part(Number::Fixed(number::RTO), "rto", "socket → socket", &["xmit"]),
            part(Number::Fixed(number::LOSS_PROBE), "loss-probe", "socket → socket", &["xmit"]),
            part(Number::Fixed(number::FAST), "fast-retransmit", "socket → socket", &["xmit"]),
            part(Number::Fixed(number::PROBE_TIMER), "probe-timer", "socket → socket", &["xmit"]),
            part(Number::Fixed(number::OTHER_RETRANSMISSION), "other-retransmission", "socket → socket", &["xmit"]),
        ],
    },
    Probe {
        name: "receive",
        set: Set::Core,
        without: None,
        alternatives: hooks!("receive", plain, "netif_receive_skb",
            "receive_record" record!("net/netif_receive_skb", "RECEIVE_SKBADDR": "skbaddr"[8])),
        points: &[point(Number::Device(number::AT_RECEIVE), "receive", "skb → skb", ON_THE_WAY)],
    },
    Probe {
        name: "delivered",
        set: Set::Core,
        without: None,
        alternatives: hooks!("delivered", plain, "tcp_probe"),
        points: &[
            point(Number::Fixed(number::DELIVERED), "delivered", "skb → socket", &["ready", "received"]),
            point(Number::Fixed(number::BACKLOG), "backlog", "skb → socket", &["ready", "received"]),
        ],
    },
    Probe {
        name: "ready",
        set: Set::Core,
        without: None,
        alternatives: hooks!("ready", plain, "sk_data_ready",
            "ready_record" record!("sock/sk_data_ready", "READY_SKADDR": "skaddr"[8]),
            "ready_fentry" Hook::Fentry("sock_def_readable"), "ready_kprobe" Hook::Kprobe("sock_def_readable")),
        points: &[point(Number::Fixed(number::READY), "ready", "socket → socket", GROUP)],
    },
    Probe {
        name: "received",
        set: Set::Core,
        without: None,
        alternatives: hooks!("received", plain, "sock_recv_length",
            "received_record" record!("sock/sock_recv_length", "RECEIVED_SK": "sk"[8], "RECEIVED_RET": "ret"[4],
                "RECEIVED_FLAGS": "flags"[4]),
            "received_fexit" Hook::Fexit("tcp_recvmsg"),
            "received_kretprobe" Hook::KretprobePair { function: "tcp_recvmsg", entry: "receiving_kprobe" }),
        points: &[point(
            Number::Fixed(number::RECEIVED),
            "received",
            "socket → socket",
            &["return", "call", "send", "received"],
        )],
    },
    Probe {
        name: "waking",
        set: Set::Schedule,
        without: Some("the group ready → received is not split"),
        alternatives: hooks!("waking", "sched_waking",
            "waking_record" record!("sched/sched_waking", "WAKING_PID": "pid"[4])),
        points: &[
            part(Number::Fixed(number::WAKING), "waking", "socket → socket", GROUP),
            part(Number::Fixed(number::IO_WAKING), "io-waking", "guest or machine → machine", &["io-running", "enter"]),
            part(
                Number::Fixed(number::BACK_WAKING),
                "back-waking",
                "machine → the same",
                &["back-running", "injected"],
            ),
        ],
    },
    Probe {
        name: "wakeup",
        set: Set::Schedule,
        without: Some("the group ready → received is not split"),
        alternatives: hooks!("wakeup", "sched_wakeup",
            "wakeup_record" record!("sched/sched_wakeup", "WAKEUP_PID": "pid"[4])),
        points: &[part(Number::Fixed(number::WAKEUP), "wakeup", "socket → socket", GROUP)],
    },
    Probe {
        name: "switch",
        set: Set::Schedule,
        without: Some("run-queue latency is not told from the rest of the group ready → received"),
        alternatives: hooks!("switch", "sched_switch"),
        points: &[
            part(Number::Fixed(number::SWITCH_IN), "switch-in", "socket → socket", GROUP),
            part(Number::Fixed(number::IDLE_SWITCH_IN), "idle-switch-in", "call → call", GROUP),
            part(Number::Fixed(number::IO_RUNNING), "io-running", "machine → the same", &["io-waking", "enter", "bio"]),
            part(
                Number::Fixed(number::BACK_RUNNING),
                "back-running",
                "machine → the same",
                &["back-waking", "injected"],
            ),
        ],
    },
    Probe {
        name: "dropped",
        set: Set::Core,
        without: Some("a dropped segment's request is lost"),
        alternatives: hooks!("dropped", "kfree_skb",
            "dropped_record" record!("skb/kfree_skb", "DROPPED_SKBADDR": "skbaddr"[8])),
        points: &[
            point(Number::Fixed(number::DROPPED), "dropped", "skb → socket", AGAIN),
            point(Number::Fixed(number::REFUSED), "refused", "socket → socket", AGAIN),
        ],
    },
    Probe {
        name: "freed",
        set: Set::Core,
        without: Some("an skb freed without delivery is noticed late"),
        alternatives: hooks!("freed", "consume_skb",
            "freed_record" record!("skb/consume_skb", "FREED_SKBADDR": "skbaddr"[8])),
        points: &[point(
            Number::Fixed(number::TAKEN),
            "taken",
            "skb → connection",
            &["injected", "notified", "receive"],
        )],
    },
    Probe {
        name: "state",
        set: Set::Core,
        without: Some("a closed socket is noticed late"),
        alternatives: hooks!("state", "inet_sock_set_state",
            "state_record" record!("sock/inet_sock_set_state", "STATE_SKADDR": "skaddr"[8], "STATE_NEWSTATE": "newstate"[4])),
        points: &[],
    },
    Probe {
        name: "fork",
        set: Set::Processes,
        without: Some("processes that the server starts later are not followed"),
        alternatives: hooks!("fork", "sched_process_fork"),
        points: &[],
    },
    Probe {
        name: "exit",
        set: Set::Processes,
        without: Some("a process id that is used again may be taken for the server's"),
        alternatives: hooks!("exit", "sched_process_exit"),
        points: &[],
    },
    Probe {
        name: "call",
        set: Set::Detail,
        without: Some("the rows call → send and received → return cannot be told apart"),
        alternatives: hooks!("call", "sys_enter",
            "call_record" record!("raw_syscalls/sys_enter", "CALL_ID": "id"[8])),
        points: &[
            part(Number::Fixed(number::CALL), "call", "socket → socket", &["send"]),
            part(Number::Fixed(number::RECEIVE_CALL), "receive-call", "socket → socket", &["received"]),
        ],
    },
    Probe {
        name: "return",
        set: Set::Detail,
        without: Some("the rows call → send and received → return cannot be told apart"),
        alternatives: hooks!("return", "sys_exit",
            "return_record" record!("raw_syscalls/sys_exit")),
        points: &[
            part(Number::Fixed(number::RETURN), "return", "socket → socket", &["call", "send"]),
            part(Number::Fixed(number::POLL_RETURN), "poll-return", "socket → socket", &["receive-call", "received"]),
        ],
    },
    Probe {
        name: "softirq",
        set: Set::Schedule,
        without: Some("waiting for the softirq is not told from its work"),
        alternatives: hooks!("softirq", "softirq_entry",
            "softirq_record" record!("irq/softirq_entry", "SOFTIRQ_VEC": "vec"[4])),
        points: &[part(Number::Device(number::AT_SOFTIRQ), "softirq", "skb → skb", &["receive"])],
    },
    Probe {
        name: "softirq-end",
        set: Set::Schedule,
        without: Some("waiting for the softirq is not told from its work"),
        alternatives: hooks!("softirq_end", "softirq_exit",
            "softirq_end_record" record!("irq/softirq_exit", "SOFTIRQ_END_VEC": "vec"[4])),
        points: &[],
    },
    Probe {
        name: "queue",
        set: Set::NetworkDetail,
        without: Some("time in a queueing discipline is not told from the stack above it"),
        alternatives: hooks!("queue", "net_dev_queue",
            "queue_record" record!("net/net_dev_queue", "QUEUE_SKBADDR": "skbaddr"[8])),
        points: &[part(Number::Device(number::AT_QUEUE), "queue", "socket or skb → the same", &["xmit"])],
    },
    Probe {
        name: "vm-entry",
        set: Set::Machine,
        without: Some("exits of virtual machines are not seen"),
        alternatives: &[only("entry_record", record!("kvm/kvm_entry", "ENTRY_VCPU": "vcpu_id"[4]))],
        points: &[part(
            Number::Fixed(number::ENTERED),
            "entered",
            "machine → guest",
            &["notified", "receive", "complete"],
        )],
    },
    Probe {
        name: "vm-interrupt",
        set: Set::Machine,
        without: Some("the way of a request from its machine to the guest and back is not divided"),
        alternatives: &[only("interrupt_record", record!("kvm/kvm_apic_accept_irq", "INTERRUPT_VCPU": "apicid"[4]))],
        points: &[
            part(
                Number::Fixed(number::INJECTED),
                "injected",
                "machine → the same",
                &["vcpu-running", "entered", "notified", "receive"],
            ),
            part(
                Number::Fixed(number::VCPU_RUNNING),
                "vcpu-running",
                "machine → the same",
                &["entered", "notified", "receive"],
            ),
        ],
    },
    Probe {
        name: "vm-exit",
        set: Set::Machine,
        without: Some("exits of virtual machines are not seen"),
        alternatives: &[only("exit_record", record!("kvm/kvm_exit", "EXIT_REASON": "exit_reason"[4]))],
        points: &[part(
            Number::Fixed(number::NOTIFIED),
            "notified",
            "guest → machine",
            &["receive", "io-waking", "io-running", "enter"],
        )],
    },
    Probe {
        name: "vm-user-exit",
        set: Set::Machine,
        without: Some("what QEMU does for an exit is not told from what the kernel does"),
        alternatives: &[only("user_record", record!("kvm/kvm_userspace_exit"))],
        points: &[],
    },
    Probe {
        name: "vm-halt",
        set: Set::Machine,
        without: Some("polling before an idle processor sleeps is not told from the kernel's work"),
        alternatives: &[only(
            "halt_record",
            record!("kvm/kvm_vcpu_wakeup", "HALT_NS": "ns"[8], "HALT_WAITED": "waited"[1]),
        )],
        points: &[],
    },
    Probe {
        name: "vm-port",
        set: Set::Machine,
        without: Some("exits to QEMU are not divided by port"),
        alternatives: &[only("pio_record", record!("kvm/kvm_pio", "PIO_PORT": "port"[4]))],
        points: &[],
    },
    Probe {
        name: "vm-memory",
        set: Set::Machine,
        without: Some("exits to QEMU are not divided by address"),
        alternatives: &[only("mmio_record", record!("kvm/kvm_mmio", "MMIO_GPA": "gpa"[8]))],
        points: &[],
    },
    Probe {
        name: "sent",
        set: Set::NetworkDetail,
        without: Some("the number of sends is not checked by a second count"),
        alternatives: hooks!("sent", "sock_send_length",
            "sent_record" record!("sock/sock_send_length", "SENT_SK": "sk"[8], "SENT_RET": "ret"[4]),
            "sent_fexit" Hook::Fexit("tcp_sendmsg")),
        points: &[],
    },
    Probe {
        name: "file-call",
        set: Set::File,
        without: None,
        alternatives: hooks!("file_call", plain, "sys_enter"),
        points: &[point(
            Number::Fixed(number::ENTER),
            "enter",
            "thread → call",
            &["bio", "held-back", "io-running", "waking", "wakeup", "switch-in", "idle-switch-in", "exit"],
        )],
    },
    Probe {
        name: "submit",
        set: Set::FileAsynchronous,
        without: Some("bios of several operations that one `io_submit` makes are taken for the first's"),
        alternatives: hooks!("submit", "iomap_dio_rw_begin",
            "submit_fentry" Hook::Fentry("io_submit_one"), "submit_kprobe" Hook::Kprobe("io_submit_one")),
        points: &[],
    },
    Probe {
        name: "ring-submit",
        set: Set::FileAsynchronous,
        without: Some("operations by io_uring are not followed"),
        alternatives: &[
            only(
                "ring_submit_record",
                record!("io_uring/io_uring_submit_req", "RING_SUBMIT_CTX": "ctx"[8], "RING_SUBMIT_DATA": "user_data"[8]),
            ),
            only(
                "ring_submit_older_record",
                record!("io_uring/io_uring_submit_sqe", "RING_SUBMIT_OLDER_CTX": "ctx"[8], "RING_SUBMIT_OLDER_DATA": "user_data"[8]),
            ),
        ],
        points: &[],
    },
    Probe {
        name: "ring-wait",
        set: Set::FileAsynchronous,
        without: Some("bios of io_uring's second tries are taken for the last operation's"),
        alternatives: &[only("ring_wait_record", record!("io_uring/io_uring_cqring_wait"))],
        points: &[],
    },
    Probe {
        name: "ring-worker",
        set: Set::FileAsynchronous,
        without: Some("operations that io_uring's workers make are not counted"),
        alternatives: &[
            only(
                "ring_worker_record",
                record!(
                    "io_uring/io_uring_queue_async_work",
                    "RING_WORKER_CTX": "ctx"[8], "RING_WORKER_REQ": "req"[8], "RING_WORKER_DATA": "user_data"[8]
                ),
            ),
            only("ring_worker_older_record", record!("io_uring/io_uring_queue_async_work")),
        ],
        points: &[],
    },
    Probe {
        name: "ring-complete",
        set: Set::FileAsynchronous,
        without: Some("operations by io_uring are not followed"),
        alternatives: &[only(
            "ring_complete_record",
            record!("io_uring/io_uring_complete", "RING_COMPLETE_CTX": "ctx"[8], "RING_COMPLETE_DATA": "user_data"[8]),
        )],
        points: &[],
    },
    Probe {
        name: "bio",
        set: Set::File,
        without: None,
        alternatives: hooks!("bio", plain, "block_bio_queue"),
        points: &[
            point(
                Number::Disk(number::AT_BIO),
                "bio",
                "call → bios",
                &["bio", "insert", "issue", "complete", "waking", "wakeup", "switch-in", "idle-switch-in", "exit"],
            ),
            point(Number::Fixed(number::HELD_BACK), "held-back", "call → call", &["bio"]),
        ],
    },
    Probe {
        name: "remap",
        set: Set::File,
        without: Some(
            "disks below those that pass bios on (device mapper, RAID) are not told from their file system's own",
        ),
        alternatives: hooks!("remap", "block_bio_remap"),
        points: &[],
    },
    Probe {
        name: "split",
        set: Set::File,
        without: Some("an operation whose bio is too large for its disk is followed by the rest of it alone"),
        alternatives: hooks!("split", "block_split"),
        points: &[],
    },
    Probe {
        name: "insert",
        set: Set::FileDetail,
        without: Some("waiting in the scheduler is not told from what is done before"),
        alternatives: hooks!("insert", "block_rq_insert"),
        points: &[part(Number::Disk(number::AT_INSERT), "insert", "bios → the same", &["issue"])],
    },
    Probe {
        name: "issue",
        set: Set::File,
        without: None,
        alternatives: hooks!("issue", plain, "block_rq_issue"),
        points: &[point(Number::Disk(number::AT_ISSUE), "issue", "bios → the same", &["complete", "bio"])],
    },
    Probe {
        name: "requeue",
        set: Set::File,
        without: Some("what a driver gives back is not counted"),
        alternatives: hooks!("requeue", "block_rq_requeue"),
        points: &[],
    },
    Probe {
        name: "complete",
        set: Set::File,
        without: None,
        alternatives: hooks!("complete", plain, "block_rq_complete"),
        points: &[point(
            Number::Disk(number::AT_COMPLETE),
            "complete",
            "bios → call",
            &["bio", "held-back", "complete", "waking", "wakeup", "switch-in", "idle-switch-in", "exit"],
        )],
    },
    Probe {
        name: "dirty",
        set: Set::File,
        without: Some("write-back of what operations left in the page cache is not charged to them"),
        alternatives: hooks!("dirty", "writeback_dirty_folio"),
        points: &[],
    },
    Probe {
        name: "write-back",
        set: Set::File,
        without: Some("write-back of what operations left in the page cache is not charged to them"),
        alternatives: hooks!("flush", "writeback_single_inode_start"),
        points: &[],
    },
    Probe {
        name: "write-back-end",
        set: Set::File,
        without: Some("write-back of what operations left in the page cache is not charged to them"),
        alternatives: hooks!("flush_end", "writeback_single_inode"),
        points: &[],
    },
    Probe {
        name: "bio-complete",
        set: Set::File,
        without: Some(
            "disks that make no requests of bios (device mapper, RAID, zram) are not told from their file system",
        ),
        alternatives: hooks!("bio_done", plain, "block_bio_complete"),
        points: &[],
    },
    Probe {
        name: "file-return",
        set: Set::File,
        without: None,
        alternatives: hooks!("file_return", plain, "sys_exit"),
        points: &[point(
            Number::Fixed(number::EXIT),
            "exit",
            "call → thread",
            &["enter", "back-waking", "back-running", "injected"],
        )],
    },
];

#[cfg(test)]
mod tests;
