//! Probes on the way of a request over the network.

use super::{
    kinds::{Alternative, At, Edge, Holder, Hook, Leg, Passes, Point, Probe, Row, Set, Splits},
    words::{across, through_bridge, to, to_bridge},
};

/// The probes, in the order in which they are attached and shown.
pub(super) const PROBES: &[Probe] =
    &[SEND, XMIT, RECEIVE, DELIVERED, READY, RECEIVED, DROPPED, FREED, STATE, QUEUE, SENT];

const SEND: Probe = Probe {
    name: "send",
    set: Set::Core,
    without: None,
    alternatives: hooks!("send", plain, "tcp_sendmsg_locked",
            "send_fentry" Hook::Fentry("tcp_sendmsg_locked"), "send_kprobe" Hook::Kprobe("tcp_sendmsg_locked")),
    points: &[Row {
        point: Point::Send,
        at: At::NoDevice,
        passes: Passes(Holder::Socket, Holder::Socket),
        next: &[
            to(Point::Queue),
            to(Point::Xmit).says("from TCP to the first device"),
            to(Point::Refused).says("until the own stack drops the segment, before it has left"),
            to(Point::Rto),
            to(Point::LossProbe),
            to(Point::FastRetransmit),
            to(Point::ProbeTimer),
            to(Point::OtherRetransmission),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Begins,
        is_waited_for: false,
    }],
};

const XMIT: Probe = Probe {
    name: "xmit",
    set: Set::Core,
    without: None,
    alternatives: hooks!("xmit", plain, "net_dev_start_xmit",
            "xmit_record" record!("net/net_dev_start_xmit", "XMIT_SKBADDR": "skbaddr"[8])),
    points: &[
        Row {
            point: Point::Xmit,
            at: At::NetworkDevice,
            passes: Passes(Holder::SocketOrSkb, Holder::Skb),
            next: &[
                to(Point::Receive).at_device(across),
                to(Point::Softirq),
                to(Point::Xmit).at_device(through_bridge),
                to(Point::Queue),
                to(Point::Delivered).says("up to the socket"),
                to(Point::Backlog).says("up to the socket, and in its backlog"),
                to(Point::Dropped).says("until the segment is dropped on its way"),
                to(Point::Taken).says("in the tap's queue, until QEMU or vhost takes it"),
            ],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::Rto,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Xmit)],
            splits: Splits::Retransmission,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::LossProbe,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Xmit)],
            splits: Splits::Retransmission,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::FastRetransmit,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Xmit)],
            splits: Splits::Retransmission,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::ProbeTimer,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Xmit)],
            splits: Splits::Retransmission,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::OtherRetransmission,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[to(Point::Xmit)],
            splits: Splits::Retransmission,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const RECEIVE: Probe = Probe {
    name: "receive",
    set: Set::Core,
    without: None,
    alternatives: hooks!("receive", plain, "netif_receive_skb",
            "receive_record" record!("net/netif_receive_skb", "RECEIVE_SKBADDR": "skbaddr"[8])),
    points: &[Row {
        point: Point::Receive,
        at: At::NetworkDevice,
        passes: Passes(Holder::Skb, Holder::Skb),
        next: &[
            to(Point::Receive).at_device(to_bridge),
            to(Point::Softirq),
            to(Point::Xmit).says("forwarding"),
            to(Point::Queue),
            to(Point::Delivered).says("up to the socket"),
            to(Point::Backlog).says("up to the socket, and in its backlog"),
            to(Point::Dropped).says("until the segment is dropped on its way"),
            to(Point::Taken).says("in the tap's queue, until QEMU or vhost takes it"),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const DELIVERED: Probe = Probe {
    name: "delivered",
    set: Set::Core,
    without: None,
    alternatives: hooks!("delivered", plain, "tcp_probe"),
    points: &[
        Row {
            point: Point::Delivered,
            at: At::NoDevice,
            passes: Passes(Holder::Skb, Holder::Socket),
            next: &[
                to(Point::Ready).says("in TCP, until the reader is told"),
                to(Point::Received).of_role("until the ", " has read it"),
            ],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Arrives,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::Backlog,
            at: At::NoDevice,
            passes: Passes(Holder::Skb, Holder::Socket),
            next: &[
                to(Point::Ready).says("in TCP, until the reader is told"),
                to(Point::Received).of_role("until the ", " has read it"),
            ],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Arrives,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const READY: Probe = Probe {
    name: "ready",
    set: Set::Core,
    without: None,
    alternatives: hooks!("ready", plain, "sk_data_ready",
            "ready_record" record!("sock/sk_data_ready", "READY_SKADDR": "skaddr"[8]),
            "ready_fentry" Hook::Fentry("sock_def_readable"), "ready_kprobe" Hook::Kprobe("sock_def_readable")),
    points: &[Row {
        point: Point::Ready,
        at: At::NoDevice,
        passes: Passes(Holder::Socket, Holder::Socket),
        next: &[
            to(Point::Waking),
            to(Point::Wakeup),
            to(Point::SwitchIn),
            to(Point::IdleSwitchIn),
            to(Point::PollReturn),
            to(Point::ReceiveCall),
            to(Point::Received).of_role("until the ", " has read it"),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Receives,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const RECEIVED: Probe = Probe {
    name: "received",
    set: Set::Core,
    without: None,
    alternatives: hooks!("received", plain, "sock_recv_length",
            "received_record" record!("sock/sock_recv_length", "RECEIVED_SK": "sk"[8], "RECEIVED_RET": "ret"[4],
                "RECEIVED_FLAGS": "flags"[4]),
            "received_fexit" Hook::Fexit("tcp_recvmsg"),
            "received_kretprobe" Hook::KretprobePair { function: "tcp_recvmsg", entry: "receiving_kprobe" }),
    points: &[Row {
        point: Point::Received,
        at: At::NoDevice,
        passes: Passes(Holder::Socket, Holder::Socket),
        next: &[
            to(Point::Return).says("from reading to the call's return"),
            to(Point::Call),
            to(Point::Send).of_role("from reading to answering, in the ", ""),
            to(Point::Received).says("until the rest of the message has been read"),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Receives,
        edge: Edge::Ends,
        is_waited_for: true,
    }],
};

const DROPPED: Probe = Probe {
    name: "dropped",
    set: Set::Core,
    without: Some("a dropped segment's request is lost"),
    alternatives: hooks!("dropped", "kfree_skb",
            "dropped_record" record!("skb/kfree_skb", "DROPPED_SKBADDR": "skbaddr"[8])),
    points: &[
        Row {
            point: Point::Dropped,
            at: At::NoDevice,
            passes: Passes(Holder::Skb, Holder::Socket),
            next: &[
                to(Point::Queue).says("lost on its way: until it is sent again"),
                to(Point::Xmit).says("lost on its way: until it is sent again"),
                to(Point::Refused).says("until the own stack drops the segment, before it has left"),
                to(Point::Rto).says("TCP's retransmission timeout"),
                to(Point::LossProbe).says("TCP's tail-loss probe"),
                to(Point::FastRetransmit).says("until what came back showed the loss"),
                to(Point::ProbeTimer).says("nothing was outstanding: TCP's probe timer"),
                to(Point::OtherRetransmission).says("TCP's reason is not known"),
            ],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Lost,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::Refused,
            at: At::NoDevice,
            passes: Passes(Holder::Socket, Holder::Socket),
            next: &[
                to(Point::Queue).says("dropped before it left: until TCP tries again"),
                to(Point::Xmit).says("dropped before it left: until TCP tries again"),
                to(Point::Refused).says("until the own stack drops the segment, before it has left"),
                to(Point::Rto).says("TCP's retransmission timeout"),
                to(Point::LossProbe).says("TCP's tail-loss probe"),
                to(Point::FastRetransmit).says("until what came back showed the loss"),
                to(Point::ProbeTimer).says("nothing was outstanding: TCP's probe timer"),
                to(Point::OtherRetransmission).says("TCP's reason is not known"),
            ],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Lost,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const FREED: Probe = Probe {
    name: "freed",
    set: Set::Core,
    without: Some("an skb freed without delivery is noticed late"),
    alternatives: hooks!("freed", "consume_skb",
            "freed_record" record!("skb/consume_skb", "FREED_SKBADDR": "skbaddr"[8])),
    points: &[Row {
        point: Point::Taken,
        at: At::NoDevice,
        passes: Passes(Holder::Skb, Holder::Connection),
        next: &[
            to(Point::Injected).says("QEMU or vhost: virtio's ring, the interrupt"),
            to(Point::Notified).says("until the guest was left to hand on the answer"),
            to(Point::Receive).says("in the virtual machine, and back"),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const STATE: Probe = Probe {
    name: "state",
    set: Set::Core,
    without: Some("a closed socket is noticed late"),
    alternatives: hooks!("state", "inet_sock_set_state",
            "state_record" record!("sock/inet_sock_set_state", "STATE_SKADDR": "skaddr"[8], "STATE_NEWSTATE": "newstate"[4])),
    points: &[],
};

const QUEUE: Probe = Probe {
    name: "queue",
    set: Set::NetworkDetail,
    without: Some("time in a queueing discipline is not told from the stack above it"),
    alternatives: hooks!("queue", "net_dev_queue",
            "queue_record" record!("net/net_dev_queue", "QUEUE_SKBADDR": "skbaddr"[8])),
    points: &[Row {
        point: Point::Queue,
        at: At::NetworkDevice,
        passes: Passes(Holder::SocketOrSkb, Holder::TheSame),
        next: &[to(Point::Xmit)],
        splits: Splits::StageThatEndsAt(Point::Xmit),
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const SENT: Probe = Probe {
    name: "sent",
    set: Set::NetworkDetail,
    without: Some("the number of sends is not checked by a second count"),
    alternatives: hooks!("sent", "sock_send_length",
            "sent_record" record!("sock/sock_send_length", "SENT_SK": "sk"[8], "SENT_RET": "ret"[4]),
            "sent_fexit" Hook::Fexit("tcp_sendmsg")),
    points: &[],
};
