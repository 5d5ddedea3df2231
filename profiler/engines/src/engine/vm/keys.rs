//! The keys of VMs, and names for several of them at once.

use crate::engine::{Key, Values};

const SWITCH: Values = Values::Words(&["off", "on"]);

/// Keys of both engines.
pub const KEYS: [Key; 16] = [
    Key {
        name: "net",
        values: Values::Words(&["tap", "nat", "user"]),
        default: "tap",
        help: "tap: a tap behind a router; nat: with a published port; user: QEMU's own network in user space (the machine is \
               one row)",
    },
    Key {
        name: "machine",
        values: Values::Words(&["q35", "microvm"]),
        default: "q35",
        help: "q35: a PC; microvm: as little as boots Linux, its devices without a PCI bus",
    },
    Key { name: "vcpus", values: Values::Number { from: 1, to: 64 }, default: "1", help: "processors of the guest" },
    Key {
        name: "memory",
        values: Values::Number { from: 128, to: 1 << 20 },
        default: "512",
        help: "memory of the guest, MiB",
    },
    Key {
        name: "vhost",
        values: SWITCH,
        default: "off",
        help: "on: a worker of the kernel's moves packets between tap and guest; off: QEMU does",
    },
    Key {
        name: "blk",
        values: Values::Words(&["none", "virtio", "nvme"]),
        default: "none",
        help: "a disk of the guest's, and how it is seen there: virtio-blk, with an I/O thread of QEMU's, or NVMe",
    },
    Key {
        name: "cache",
        values: Values::Words(&["none", "writeback", "writethrough", "directsync", "unsafe"]),
        default: "none",
        help: "what QEMU keeps of the disk: none, directsync: past the host's page cache; writethrough, directsync: no write is done \
               before it lies on the host's disk; unsafe: flushes are ignored",
    },
    Key {
        name: "aio",
        values: Values::Words(&["threads", "native", "io_uring"]),
        default: "threads",
        help: "how QEMU reads and writes: by threads of its own, Linux AIO (with cache=none or directsync), or io_uring",
    },
    Key {
        name: "image",
        values: Values::Words(&["raw", "qcow2"]),
        default: "raw",
        help: "the format of the disk's image",
    },
    Key {
        name: "pin",
        values: SWITCH,
        default: "off",
        help: "on: with --placement free, every processor of the guest on one CPU, in turn; with the others, the whole machine has one",
    },
    Key {
        name: "topology",
        values: Values::Words(&["flat", "host"]),
        default: "flat",
        help: "flat: every processor of the guest a socket; host: one socket, with the host's threads a core and, in KVM, its caches",
    },
    Key {
        name: "hugepages",
        values: SWITCH,
        default: "off",
        help: "on: the guest's memory is of huge pages, which the run reserves and gives back",
    },
    Key {
        name: "numa",
        values: Values::Words(&["any", "bind"]),
        default: "any",
        help: "bind: the guest's memory on the nodes of the server's CPUs",
    },
    Key {
        name: "halt-poll",
        values: Values::Number { from: 0, to: 10_000_000 },
        default: "auto",
        help: "how long KVM polls before an idle processor of the guest's sleeps, ns (kvm.halt_poll_ns, for all machines of the host \
               while this one runs); auto: as it is",
    },
    Key {
        name: "agent",
        values: Values::Words(&["on", "off"]),
        default: "on",
        help: "on: requests are followed in the guest, too; off: the machine is one row",
    },
    Key {
        name: "kernel",
        values: Values::Path,
        default: "auto",
        help: "the guest's kernel, with its modules in ../lib/modules; auto: that of VIRTAX_GUEST_KERNEL, else the host's, else \
               the one that was installed with virtax",
    },
];

/// VMs as in the study of Felter et al. (2015): virtio and vhost in both; what the authors call tuned is pinned,
/// knows where it lies, and sees the host's processors as they are.
pub const PRESETS: [(&str, &str); 2] = [("tuned", "vhost=on,pin=on,topology=host,numa=bind"), ("untuned", "vhost=on")];
