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
        // What a machine's process does for a file operation of its guest's; threads of other roles never hold a
        // request.
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

/// Where a request is between two points: what the hops alone say. Which code works there is another question, which
/// samples answer ([`super::label`]).
#[must_use]
pub fn what(role: Role, from: &Place, to: &Place) -> String {
    let ((from_device, _), (to_device, _)) = (device(from), device(to));
    match (from.point.as_str(), to.point.as_str()) {
        ("call", "send") => "from the sending call to TCP",
        ("send", "xmit") => "from TCP to the first device",
        ("xmit", "xmit") if from_device == "bridge" => "through the bridge to its port",
        ("xmit", "xmit") => "to the device below",
        ("receive", "receive") if to_device == "bridge" => "through the port to the bridge",
        ("receive", "receive") => "to the device above",
        ("receive", "xmit") => "forwarding",
        ("xmit", "taken") => "in the tap's queue, until QEMU or vhost takes it",
        ("taken", "receive") => "in the virtual machine, and back",
        ("xmit", "receive") if from_device == "tap" && to_device == "tap" => {
            "in the tap's queue and the virtual machine, and back"
        }
        ("xmit", "receive") => "across the link",
        ("receive" | "xmit", "delivered") => "up to the socket",
        ("receive" | "xmit", "backlog") => "up to the socket, and in its backlog",
        ("delivered" | "backlog", "ready") => "in TCP, until the reader is told",
        ("delivered" | "backlog" | "ready", "received") => return format!("until the {} has read it", role.name()),
        ("received", "send") => return format!("from reading to answering, in the {}", role.name()),
        ("enter", "bio") => "from the call to the bio",
        ("enter", "exit") => "no bio of its own",
        ("enter", "held-back") => "from the call until the bio is held back",
        ("complete", "held-back") => "until the next bio is held back",
        ("held-back", "bio") => "queued by a kernel worker",
        ("bio", "issue") => "from the bio to the driver",
        ("issue", "complete") if device(from).1 == "guest" => "the virtual machine: its disk, QEMU, the host's disk",
        ("issue", "complete") => "driver and device",
        ("issue", "bio") => "loop device: until its worker makes a bio on the disk below",
        ("bio", "bio") => "device mapper, RAID: until the bio is passed on",
        ("complete", "complete") if is_loop(to) => "loop device: passing the completion on",
        ("complete", "complete") => "device mapper, RAID: passing the completion on",
        ("bio", "complete") => "from the bio to its completion",
        ("complete", "exit") => "from the completion to the call's return",
        ("complete", "bio") => "from the completion to the next bio",
        ("bio" | "issue", "exit") => "the rest of the call, with bios under way",
        ("exit", "enter") => "between two calls",
        ("received", "received") => "until the rest of the message has been read",
        ("received", "return") => "from reading to the call's return",
        (_, "refused") => "until the own stack drops the segment, before it has left",
        ("refused", _) => "dropped before it left: until TCP tries again",
        (_, "dropped") => "until the segment is dropped on its way",
        ("dropped", _) => "lost on its way: until it is sent again",
        _ => "",
    }
    .to_owned()
}

/// What happens in a part of a stage; empty where its two points say it.
#[must_use]
pub fn what_part(stage: &StageKey, from: &Place, to: &Place) -> String {
    match (from.point.as_str(), to.point.as_str()) {
        _ if is_disk_of_guest(stage) => what_between(from, to),
        ("enter", "io-running") => "until one of io_uring's workers, woken for it, runs".to_owned(),
        ("io-running", "bio") => "the worker: file system, making the bio".to_owned(),
        ("dropped" | "refused", "rto") => "TCP's retransmission timeout".to_owned(),
        ("dropped" | "refused", "loss-probe") => "TCP's tail-loss probe".to_owned(),
        ("dropped" | "refused", "fast-retransmit") => "until what came back showed the loss".to_owned(),
        ("dropped" | "refused", "probe-timer") => "nothing was outstanding: TCP's probe timer".to_owned(),
        ("dropped" | "refused", "other-retransmission") => "TCP's reason is not known".to_owned(),
        ("wakeup", "switch-in") => "waiting for a CPU".to_owned(),
        ("wakeup", "idle-switch-in") => "waiting for an idle CPU to come to it".to_owned(),
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

    /// A bridge may have iptables on its path, and a host's forwarding none: the hops do not say.
    #[test]
    fn hops_name_no_code() {
        let stage = what(Role::Client, &Place::at("receive", "wire@host"), &Place::at("xmit", "bridge@host"));
        assert_eq!(stage, "forwarding");
        let stage = what(Role::Server, &Place::at("receive", "veth@host"), &Place::at("receive", "bridge@host"));
        assert_eq!(stage, "through the port to the bridge");
    }
}
