//! Probes on the way of an operation on a file.

use super::{
    kinds::{Alternative, At, Edge, Holder, Hook, Leg, Passes, Point, Probe, Row, Set, Splits, only},
    words::{Wait, driver_and_device, passing_on, to},
};

/// The probes, in the order in which they are attached and shown.
pub(super) const PROBES: &[Probe] = &[
    FILE_CALL,
    SUBMIT,
    RING_SUBMIT,
    RING_WAIT,
    RING_WORKER,
    RING_COMPLETE,
    BIO,
    REMAP,
    SPLIT,
    INSERT,
    ISSUE,
    REQUEUE,
    COMPLETE,
    DIRTY,
    WRITE_BACK,
    WRITE_BACK_END,
    BIO_COMPLETE,
    FILE_RETURN,
];

const FILE_CALL: Probe = Probe {
    name: "file-call",
    set: Set::File,
    without: None,
    alternatives: hooks!("file_call", plain, "sys_enter"),
    points: &[Row {
        point: Point::Enter,
        at: At::NoDevice,
        passes: Passes(Holder::Thread, Holder::Call),
        next: &[
            to(Point::Bio).says("from the call to the bio"),
            to(Point::HeldBack).says("from the call until the bio is held back"),
            to(Point::IoRunning).says("until one of io_uring's workers, woken for it, runs"),
            to(Point::Waking),
            to(Point::Wakeup),
            to(Point::SwitchIn),
            to(Point::IdleSwitchIn),
            to(Point::Exit).says("no bio of its own"),
        ],
        splits: Splits::Nothing,
        rank: 12,
        leg: Leg::Sends,
        edge: Edge::Begins,
        is_waited_for: false,
    }],
};

const SUBMIT: Probe = Probe {
    name: "submit",
    set: Set::FileAsynchronous,
    without: Some("bios of several operations that one `io_submit` makes are taken for the first's"),
    alternatives: hooks!("submit", "iomap_dio_rw_begin",
            "submit_fentry" Hook::Fentry("io_submit_one"), "submit_kprobe" Hook::Kprobe("io_submit_one")),
    points: &[],
};

const RING_SUBMIT: Probe = Probe {
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
};

const RING_WAIT: Probe = Probe {
    name: "ring-wait",
    set: Set::FileAsynchronous,
    without: Some("bios of io_uring's second tries are taken for the last operation's"),
    alternatives: &[only("ring_wait_record", record!("io_uring/io_uring_cqring_wait"))],
    points: &[],
};

const RING_WORKER: Probe = Probe {
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
};

const RING_COMPLETE: Probe = Probe {
    name: "ring-complete",
    set: Set::FileAsynchronous,
    without: Some("operations by io_uring are not followed"),
    alternatives: &[only(
        "ring_complete_record",
        record!("io_uring/io_uring_complete", "RING_COMPLETE_CTX": "ctx"[8], "RING_COMPLETE_DATA": "user_data"[8]),
    )],
    points: &[],
};

const BIO: Probe = Probe {
    name: "bio",
    set: Set::File,
    without: None,
    alternatives: hooks!("bio", plain, "block_bio_queue"),
    points: &[
        Row {
            point: Point::Bio,
            at: At::Disk,
            passes: Passes(Holder::Call, Holder::Bios),
            next: &[
                to(Point::Bio).says("device mapper, RAID: until the bio is passed on").waits(Wait::Mapper),
                to(Point::Insert),
                to(Point::Issue).says("from the bio to the driver").waits(Wait::Somebody),
                to(Point::Complete).says("from the bio to its completion").waits(Wait::Device),
                to(Point::Waking),
                to(Point::Wakeup),
                to(Point::SwitchIn),
                to(Point::IdleSwitchIn),
                to(Point::Exit).says("the rest of the call, with bios under way").waits(Wait::Somebody),
            ],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
        Row {
            point: Point::HeldBack,
            at: At::NoDevice,
            passes: Passes(Holder::Call, Holder::Call),
            next: &[to(Point::Bio).says("queued by a kernel worker")],
            splits: Splits::Nothing,
            rank: 1,
            leg: Leg::Sends,
            edge: Edge::Within,
            is_waited_for: false,
        },
    ],
};

const REMAP: Probe = Probe {
    name: "remap",
    set: Set::File,
    without: Some(
        "disks below those that pass bios on (device mapper, RAID) are not told from their file system's own",
    ),
    alternatives: hooks!("remap", "block_bio_remap"),
    points: &[],
};

const SPLIT: Probe = Probe {
    name: "split",
    set: Set::File,
    without: Some("an operation whose bio is too large for its disk is followed by the rest of it alone"),
    alternatives: hooks!("split", "block_split"),
    points: &[],
};

const INSERT: Probe = Probe {
    name: "insert",
    set: Set::FileDetail,
    without: Some("waiting in the scheduler is not told from what is done before"),
    alternatives: hooks!("insert", "block_rq_insert"),
    points: &[Row {
        point: Point::Insert,
        at: At::Disk,
        passes: Passes(Holder::Bios, Holder::TheSame),
        next: &[to(Point::Issue)],
        splits: Splits::StageThatEndsAt(Point::Issue),
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const ISSUE: Probe = Probe {
    name: "issue",
    set: Set::File,
    without: None,
    alternatives: hooks!("issue", plain, "block_rq_issue"),
    points: &[Row {
        point: Point::Issue,
        at: At::Disk,
        passes: Passes(Holder::Bios, Holder::TheSame),
        next: &[
            to(Point::Complete).at_device(driver_and_device).waits(Wait::Device),
            to(Point::Bio).says("loop device: until its worker makes a bio on the disk below").waits(Wait::Loop),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const REQUEUE: Probe = Probe {
    name: "requeue",
    set: Set::File,
    without: Some("what a driver gives back is not counted"),
    alternatives: hooks!("requeue", "block_rq_requeue"),
    points: &[],
};

const COMPLETE: Probe = Probe {
    name: "complete",
    set: Set::File,
    without: None,
    alternatives: hooks!("complete", plain, "block_rq_complete"),
    points: &[Row {
        point: Point::Complete,
        at: At::Disk,
        passes: Passes(Holder::Bios, Holder::Call),
        next: &[
            to(Point::Bio).says("from the completion to the next bio"),
            to(Point::HeldBack).says("until the next bio is held back"),
            to(Point::Complete).at_device(passing_on).waits(Wait::PassingBack),
            to(Point::Waking),
            to(Point::Wakeup),
            to(Point::SwitchIn),
            to(Point::IdleSwitchIn),
            to(Point::Exit).says("from the completion to the call's return").waits(Wait::Somebody),
        ],
        splits: Splits::Nothing,
        rank: 1,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: true,
    }],
};

const DIRTY: Probe = Probe {
    name: "dirty",
    set: Set::File,
    without: Some("write-back of what operations left in the page cache is not charged to them"),
    alternatives: hooks!("dirty", "writeback_dirty_folio"),
    points: &[],
};

const WRITE_BACK: Probe = Probe {
    name: "write-back",
    set: Set::File,
    without: Some("write-back of what operations left in the page cache is not charged to them"),
    alternatives: hooks!("flush", "writeback_single_inode_start"),
    points: &[],
};

const WRITE_BACK_END: Probe = Probe {
    name: "write-back-end",
    set: Set::File,
    without: Some("write-back of what operations left in the page cache is not charged to them"),
    alternatives: hooks!("flush_end", "writeback_single_inode"),
    points: &[],
};

const BIO_COMPLETE: Probe = Probe {
    name: "bio-complete",
    set: Set::File,
    without: Some(
        "disks that make no requests of bios (device mapper, RAID, zram) are not told from their file system",
    ),
    alternatives: hooks!("bio_done", plain, "block_bio_complete"),
    points: &[],
};

const FILE_RETURN: Probe = Probe {
    name: "file-return",
    set: Set::File,
    without: None,
    alternatives: hooks!("file_return", plain, "sys_exit"),
    points: &[Row {
        point: Point::Exit,
        at: At::NoDevice,
        passes: Passes(Holder::Call, Holder::Thread),
        next: &[
            to(Point::Enter).at_guests_disk("between two calls", "QEMU: between two operations for one of the guest's"),
            to(Point::BackWaking).says("until QEMU's next thread is being woken: by its worker, or by the completion"),
            to(Point::BackRunning).says("QEMU: virtio's ring, the interrupt"),
            to(Point::Injected).says("QEMU: virtio's ring, the interrupt"),
        ],
        splits: Splits::Nothing,
        rank: 11,
        leg: Leg::Sends,
        edge: Edge::Ends,
        is_waited_for: false,
    }],
};
