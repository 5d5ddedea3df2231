//! Words for stages: what a stage between two points holds.

use super::path::{StageKey, is_disk_of_guest};
use crate::counts::{Place, Role};

/// "request" until the server sends, "response" from then on.
#[must_use]
pub fn direction(role: Role, from: &str) -> &'static str {
    let waiting_or_reading = matches!(from, "delivered" | "backlog" | "ready" | "received" | "return");
    match (role, waiting_or_reading) {
        (Role::ProxyIn, _) | (Role::Client, false) | (Role::Server, true) => "request",
        (Role::ProxyOut, _) | (Role::Client, true) | (Role::Server, false) => "response",
        // What a machine's process does for a file operation of its guest's; threads of other roles never hold a request.
        (Role::Vcpu | Role::Vmm | Role::Vhost, _) => "request",
    }
}

fn device(place: &Place) -> (&str, &str) {
    place.device.as_deref().and_then(|device| device.split_once('@')).unwrap_or(("", ""))
}

/// Whether a disk is a loop device.
#[must_use]
pub fn is_loop(place: &Place) -> bool {
    place.device.as_deref().is_some_and(|device| device.starts_with("loop"))
}

/// What the kernel does between two points, in the field's terms.
#[must_use]
pub fn what(role: Role, from: &Place, to: &Place) -> String {
    let ((from_device, from_namespace), (to_device, to_namespace)) = (device(from), device(to));
    match (from.point.as_str(), to.point.as_str()) {
        ("call", "send") => "entry into the sending call".to_owned(),
        ("send", "xmit") => "tcp and ip output, qdisc".to_owned(),
        ("xmit", "xmit") if from_device == "bridge" => "bridge".to_owned(),
        ("receive", "receive") if to_device == "bridge" => "bridge".to_owned(),
        ("receive", "xmit") if to_device == "bridge" => "ip receive, conntrack, DNAT, routing, forward".to_owned(),
        ("receive", "xmit") if from_device == "bridge" => {
            "ip receive, conntrack, reverse NAT, routing, forward".to_owned()
        }
        ("receive", "xmit") => "ip receive, routing, forward".to_owned(),
        ("xmit", "taken") => "the tap's queue, waking QEMU or vhost".to_owned(),
        ("taken", "receive") => "the virtual machine: virtio, the guest, and back".to_owned(),
        ("xmit", "receive") if from_device == "tap" && to_device == "tap" => {
            "the virtual machine: tap's queue, waking QEMU, virtio, the guest, and back".to_owned()
        }
        ("xmit", "receive") if from_device == "wire" || to_device == "wire" => {
            "veth wire, softirq raise to run".to_owned()
        }
        ("xmit", "receive") if from_namespace != to_namespace => "second veth crossing".to_owned(),
        ("xmit", "receive") => "link, softirq raise to run".to_owned(),
        ("receive" | "xmit", "delivered") => "ip and tcp receive".to_owned(),
        ("receive" | "xmit", "backlog") => "ip and tcp receive, wait in the socket's backlog".to_owned(),
        ("delivered" | "backlog", "ready") => "tcp processing".to_owned(),
        ("delivered" | "backlog" | "ready", "received") => format!("waking the {}, run queue, copy", role.name()),
        ("received", "send") => format!("the {}'s own time", role.name()),
        ("enter", "bio") => "file system, page cache, making the bio".to_owned(),
        ("enter", "exit") => "no bio of its own: page cache, file system, waits for others' bios".to_owned(),
        ("bio", "issue") => "block layer: plug, scheduler, queue".to_owned(),
        ("issue", "complete") if from_namespace == "guest" => {
            "the virtual machine: its disk, QEMU, the host's disk".to_owned()
        }
        ("issue", "complete") => "driver and device".to_owned(),
        ("issue", "bio") => {
            "loop device: waking its worker, the file system below, limits of its group, making the bio".to_owned()
        }
        ("bio", "bio") => "device mapper, RAID: what the disk above does before it passes the bio on".to_owned(),
        ("complete", "complete") if is_loop(to) => "loop device: passing the completion on".to_owned(),
        ("complete", "complete") => "device mapper, RAID: passing the completion on".to_owned(),
        ("bio", "complete") => "block layer, driver and device".to_owned(),
        ("complete", "exit") => "waking the thread, run queue, the rest of the call".to_owned(),
        ("complete", "bio") => "file system, until the next bio".to_owned(),
        ("bio" | "issue", "exit") => "the rest of the call, and waits for others' bios".to_owned(),
        ("exit", "enter") => "entry into the call, return from it".to_owned(),
        ("received", "received") => "rest of a message in parts".to_owned(),
        ("received", "return") => "return from the receiving call".to_owned(),
        (_, "dropped") => "until a drop".to_owned(),
        ("dropped", _) => "until the retransmission".to_owned(),
        _ => String::new(),
    }
}

/// What happens in a part of a stage; empty where its two points say it.
#[must_use]
pub fn what_part(stage: &StageKey, from: &Place, to: &Place) -> String {
    match (from.point.as_str(), to.point.as_str()) {
        _ if is_disk_of_guest(stage) => what_between(from, to),
        ("enter", "io-running") => "until one of io_uring's workers, woken for it, runs".to_owned(),
        ("io-running", "bio") => "the worker: file system, making the bio".to_owned(),
        _ => what_machine(from, to),
    }
}

/// What happens in a part of the time that a virtual machine holds a request; empty for parts of other stages.
fn what_machine(from: &Place, to: &Place) -> String {
    let words = match (from.point.as_str(), to.point.as_str()) {
        ("taken", "injected") => "QEMU or vhost: virtio's ring, the interrupt",
        ("injected", "vcpu-running") => "waking the virtual CPU's thread",
        ("vcpu-running", "entered") => "the rest of the exit, entry into the guest",
        ("injected", "entered") => "the virtual CPU, awake, is told, and the guest entered",
        ("entered", _) => "in the guest and its exits, beside the guest's own rows",
        (_, "notified") => "until the guest was left to hand on the answer",
        ("notified", _) => "the notifying exit, waking QEMU or vhost, the tap",
        ("injected" | "vcpu-running", _) => "until the answer came out",
        _ => "",
    };
    words.to_owned()
}

/// What happens in a part of the time between a guest's operation on its disk and its machine's own, or back.
fn what_between(from: &Place, to: &Place) -> String {
    let words = match (from.point.as_str(), to.point.as_str()) {
        ("notified", _) => "the notifying exit, until QEMU's thread is being woken",
        ("io-waking", _) => "QEMU's thread being woken, and its run queue",
        ("io-running", "io-waking") => "QEMU: virtio's ring, until a worker is being woken",
        ("io-running", _) => "QEMU: virtio's ring, until its own operation",
        ("exit", "enter") => "QEMU: between two operations for one of the guest's",
        ("exit", "back-waking") => "until QEMU's next thread is being woken: by its worker, or by the completion",
        ("back-waking", _) => "QEMU's thread being woken, and its run queue",
        ("back-running", "back-waking") => "QEMU: until its main loop is being woken",
        ("exit" | "back-running", _) => "QEMU: virtio's ring, the interrupt",
        ("injected", "vcpu-running") => "waking the virtual CPU's thread",
        ("injected" | "vcpu-running", "entered") => "the rest of the exit, entry into the guest",
        ("entered", _) => "what is left: the guest, before the notification and after its interrupt",
        _ => "",
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_turn_at_the_servers_send() {
        assert_eq!(direction(Role::Client, "send"), "request");
        assert_eq!(direction(Role::Client, "xmit"), "request");
        assert_eq!(direction(Role::Server, "ready"), "request");
        assert_eq!(direction(Role::Server, "received"), "request");
        assert_eq!(direction(Role::Server, "send"), "response");
        assert_eq!(direction(Role::Client, "delivered"), "response");
        assert_eq!(direction(Role::Client, "received"), "response");
        assert_eq!(direction(Role::Client, "call"), "request");
        assert_eq!(direction(Role::ProxyIn, "send"), "request");
        assert_eq!(direction(Role::ProxyOut, "ready"), "response");
    }

    #[test]
    fn the_stage_of_nat_is_named_after_what_it_holds() {
        let stage = what(Role::Client, &Place::at("receive", "wire@host"), &Place::at("xmit", "bridge@host"));
        assert!(stage.contains("DNAT"));
    }
}
