//! Probes of VMs of KVM's.

use super::{
    kinds::{At, Edge, Holder, Hook, Leg, Passes, Point, Probe, Row, Set, Splits, only},
    words::to,
};

/// The probes, in the order in which they are attached and shown.
pub(super) const PROBES: &[Probe] = &[VM_ENTRY, VM_INTERRUPT, VM_EXIT, VM_USER_EXIT, VM_HALT, VM_PORT, VM_MEMORY];

const VM_ENTRY: Probe = Probe {
    name: "vm-entry",
    set: Set::Vm,
    without: Some("exits of virtual machines are not seen"),
    alternatives: &[only("entry_record", record!("kvm/kvm_entry", "ENTRY_VCPU": "vcpu_id"[4]))],
    points: &[Row {
        point: Point::Entered,
        at: At::NoDevice,
        passes: Passes(Holder::Vm, Holder::Guest),
        next: &[
            to(Point::Notified).says("in the guest and its exits, beside the guest's own rows"),
            to(Point::Receive).says("in the guest and its exits, beside the guest's own rows"),
            to(Point::Complete).says("what is left: the guest, before the notification and after its interrupt"),
        ],
        splits: Splits::Vm,
        rank: 17,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const VM_INTERRUPT: Probe = Probe {
    name: "vm-interrupt",
    set: Set::Vm,
    without: Some("the way of a request from its machine to the guest and back is not divided"),
    alternatives: &[only("interrupt_record", record!("kvm/kvm_apic_accept_irq", "INTERRUPT_VCPU": "apicid"[4]))],
    points: &[Row {
        point: Point::Injected,
        at: At::NoDevice,
        passes: Passes(Holder::Vm, Holder::TheSame),
        next: &[
            to(Point::VcpuRunning).says("waking the virtual CPU's thread"),
            to(Point::Entered).at_guests_disk(
                "the virtual CPU, awake, is told, and the guest entered",
                "the rest of the exit, entry into the guest",
            ),
            to(Point::Notified).says("until the guest was left to hand on the answer"),
            to(Point::Receive).says("until the answer came out"),
        ],
        splits: Splits::Vm,
        rank: 15,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const VM_EXIT: Probe = Probe {
    name: "vm-exit",
    set: Set::Vm,
    without: Some("exits of virtual machines are not seen"),
    alternatives: &[only("exit_record", record!("kvm/kvm_exit", "EXIT_REASON": "exit_reason"[4]))],
    points: &[Row {
        point: Point::Notified,
        at: At::NoDevice,
        passes: Passes(Holder::Guest, Holder::Vm),
        next: &[
            to(Point::Receive).says("the notifying exit, waking QEMU or vhost, the tap"),
            to(Point::IoWaking).says("the notifying exit, until QEMU's thread is being woken"),
            to(Point::IoRunning).says("the notifying exit, until QEMU's thread is being woken"),
            to(Point::Enter).says("the notifying exit, until QEMU's thread is being woken"),
        ],
        splits: Splits::Vm,
        rank: 18,
        leg: Leg::Sends,
        edge: Edge::Within,
        is_waited_for: false,
    }],
};

const VM_USER_EXIT: Probe = Probe {
    name: "vm-user-exit",
    set: Set::Vm,
    without: Some("what QEMU does for an exit is not told from what the kernel does"),
    alternatives: &[only("user_record", record!("kvm/kvm_userspace_exit"))],
    points: &[],
};

const VM_HALT: Probe = Probe {
    name: "vm-halt",
    set: Set::Vm,
    without: Some("polling before an idle processor sleeps is not told from the kernel's work"),
    alternatives: &[only(
        "halt_record",
        record!("kvm/kvm_vcpu_wakeup", "HALT_NS": "ns"[8], "HALT_WAITED": "waited"[1]),
    )],
    points: &[],
};

const VM_PORT: Probe = Probe {
    name: "vm-port",
    set: Set::Vm,
    without: Some("exits to QEMU are not divided by port"),
    alternatives: &[only("pio_record", record!("kvm/kvm_pio", "PIO_PORT": "port"[4]))],
    points: &[],
};

const VM_MEMORY: Probe = Probe {
    name: "vm-memory",
    set: Set::Vm,
    without: Some("exits to QEMU are not divided by address"),
    alternatives: &[only("mmio_record", record!("kvm/kvm_mmio", "MMIO_GPA": "gpa"[8]))],
    points: &[],
};
