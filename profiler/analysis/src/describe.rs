//! Words for stages: what a stage between two points holds, as the table of points says.

use super::path::{StageKey, is_disk_of_guest};
use virtax_model::{
    counts::{Direction, Place, Point, Role},
    points::{self, Leg},
};

/// Request until the server sends, response from then on.
#[must_use]
pub fn direction(role: Role, from: Point) -> Direction {
    // What a reader did is an end of parts, and begins no stage.
    let is_received = match points::row(from).map(|row| row.leg) {
        Some(Leg::Arrives | Leg::Receives) => true,
        Some(Leg::Sends | Leg::Lost) | None => false,
    };
    match (role, is_received) {
        (Role::ProxyIn, _) | (Role::Client, false) | (Role::Server, true) => Direction::Request,
        (Role::ProxyOut, _) | (Role::Client, true) | (Role::Server, false) => Direction::Response,
        // What a VM's process does for a file operation of its guest's; threads of other roles never hold a
        // request.
        (Role::Vcpu | Role::Vmm | Role::Vhost, _) => Direction::Request,
    }
}

/// Where a request is between two points: what the hops alone say. Which code works there is another question, which
/// samples answer ([`super::label`]).
#[must_use]
pub fn what(role: Role, from: &Place, to: &Place) -> String {
    words(role, from, to, false)
}

/// What happens in a part of a stage; empty where its two points say it.
#[must_use]
pub fn what_part(stage: &StageKey, from: &Place, to: &Place) -> String {
    words(stage.role, from, to, is_disk_of_guest(stage))
}

fn words(role: Role, from: &Place, to: &Place, at_guests_disk: bool) -> String {
    points::next(from.point, to.point).map_or_else(String::new, |next| next.words.say(role, from, to, at_guests_disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_turn_at_the_servers_send() {
        assert_eq!(direction(Role::Client, Point::Send), Direction::Request);
        assert_eq!(direction(Role::Client, Point::Xmit), Direction::Request);
        assert_eq!(direction(Role::Server, Point::Ready), Direction::Request);
        assert_eq!(direction(Role::Server, Point::Received), Direction::Request);
        assert_eq!(direction(Role::Server, Point::Send), Direction::Response);
        assert_eq!(direction(Role::Client, Point::Delivered), Direction::Response);
        assert_eq!(direction(Role::Client, Point::Received), Direction::Response);
        assert_eq!(direction(Role::Client, Point::Call), Direction::Request);
        assert_eq!(direction(Role::ProxyIn, Point::Send), Direction::Request);
        assert_eq!(direction(Role::ProxyOut, Point::Ready), Direction::Response);
    }

    /// A bridge may have iptables on its path, and a host's forwarding none: the hops do not say.
    #[test]
    fn hops_name_no_code() {
        let stage = what(Role::Client, &Place::at(Point::Receive, "wire@host"), &Place::at(Point::Xmit, "bridge@host"));
        assert_eq!(stage, "forwarding");
        let stage =
            what(Role::Server, &Place::at(Point::Receive, "veth@host"), &Place::at(Point::Receive, "bridge@host"));
        assert_eq!(stage, "through the port to the bridge");
    }

    /// QEMU works for the operation that its guest waits for, or it does not: the same two points.
    #[test]
    fn parts_say_what_their_stage_is() {
        let of_disk = StageKey {
            role: Role::Server,
            from: Place::at(Point::Issue, "vda@guest"),
            to: Place::at(Point::Complete, "vda@guest"),
        };
        let of_network = StageKey {
            role: Role::Server,
            from: Place::at(Point::Xmit, "tap@host"),
            to: Place::at(Point::Receive, "tap@host"),
        };
        let said = |stage| what_part(stage, &Place::at(Point::Injected, ""), &Place::at(Point::Entered, ""));
        assert_eq!(said(&of_disk), "the rest of the exit, entry into the guest");
        assert_eq!(said(&of_network), "the virtual CPU, awake, is told, and the guest entered");
    }
}
