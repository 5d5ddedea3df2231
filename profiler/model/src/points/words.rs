//! What happens between two points, in words, and what is waited for meanwhile.

use profiler_common::point::Point;

use crate::terms::{Place, Role};

/// What comes next after a point.
#[derive(Debug, Clone, Copy)]
pub struct Next {
    /// The point.
    pub to: Point,
    /// What happens until then.
    pub words: Words,
    /// What a file operation waits for until then.
    pub wait: Option<Wait>,
}

/// Words for what happens between two points.
#[derive(Debug, Clone, Copy)]
pub enum Words {
    /// The two points say it.
    None,
    /// These.
    Are(&'static str),
    /// Words with the name of the holder's role between the two.
    WithRole(&'static str, &'static str),
    /// Devices make the difference.
    ByDevice(fn(&Place, &Place) -> &'static str),
    /// Words in any stage, and in the one in which a guest waits for its disk.
    OrAtGuestsDisk(&'static str, &'static str),
}

/// What a file operation waits for between two points, where neither samples nor parts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The disk of the operation.
    Device,
    /// A loop device's worker.
    Loop,
    /// The device mapper, or RAID.
    Mapper,
    /// A loop device, the device mapper or RAID, which passes a completion on.
    PassingBack,
    /// Somebody.
    Somebody,
}

impl Words {
    /// The words for a holder's role and two places; `at_guests_disk`: the stage is a guest's wait for its disk.
    #[must_use]
    pub fn say(self, role: Role, from: &Place, to: &Place, at_guests_disk: bool) -> String {
        match self {
            Self::None => String::new(),
            Self::Are(words) => words.to_owned(),
            Self::WithRole(before, after) => format!("{before}{}{after}", role.name()),
            Self::ByDevice(words) => words(from, to).to_owned(),
            Self::OrAtGuestsDisk(_, words) if at_guests_disk => words.to_owned(),
            Self::OrAtGuestsDisk(words, _) => words.to_owned(),
        }
    }
}

/// Nothing is said of the way to this point.
pub(super) const fn to(point: Point) -> Next {
    Next { to: point, words: Words::None, wait: None }
}

impl Next {
    pub(super) const fn says(self, words: &'static str) -> Self {
        Self { words: Words::Are(words), ..self }
    }
    pub(super) const fn of_role(self, before: &'static str, after: &'static str) -> Self {
        Self { words: Words::WithRole(before, after), ..self }
    }
    pub(super) const fn at_device(self, words: fn(&Place, &Place) -> &'static str) -> Self {
        Self { words: Words::ByDevice(words), ..self }
    }
    pub(super) const fn at_guests_disk(self, words: &'static str, there: &'static str) -> Self {
        Self { words: Words::OrAtGuestsDisk(words, there), ..self }
    }
    pub(super) const fn waits(self, wait: Wait) -> Self {
        Self { wait: Some(wait), ..self }
    }
}

fn is_called(place: &Place, name: &str) -> bool {
    place.device.as_ref().is_some_and(|device| device.namespace().is_some() && device.name() == name)
}

pub(super) fn through_bridge(from: &Place, _to: &Place) -> &'static str {
    if is_called(from, "bridge") { "through the bridge to its port" } else { "to the device below" }
}

pub(super) fn to_bridge(_from: &Place, to: &Place) -> &'static str {
    if is_called(to, "bridge") { "through the port to the bridge" } else { "to the device above" }
}

pub(super) fn across(from: &Place, to: &Place) -> &'static str {
    if is_called(from, "tap") && is_called(to, "tap") {
        "in the tap's queue and the virtual machine, and back"
    } else {
        "across the link"
    }
}

pub(super) fn driver_and_device(from: &Place, _to: &Place) -> &'static str {
    if from.is_in_guest() { "the virtual machine: its disk, QEMU, the host's disk" } else { "driver and device" }
}

pub(super) fn passing_on(_from: &Place, to: &Place) -> &'static str {
    if to.is_at_loop() {
        "loop device: passing the completion on"
    } else {
        "device mapper, RAID: passing the completion on"
    }
}
