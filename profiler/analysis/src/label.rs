//! What a stage is called: between which hops it lies, which is certain, and what this run's own layers have found in
//! it.

use std::fmt;

use super::{
    describe::what,
    path,
    profile::{LayerShare, is_named},
    waterfall::Row,
};
use virtax_model::counts::{Point, Role, Side};

/// Share of a stage that a layer must surely have to be named.
const NAMED: f64 = 0.1;

/// A stage in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// Between which hops it lies: the same in every run and configuration.
    pub structure: String,
    /// Layers that have at least a tenth of it, by their intervals, largest first.
    pub code: Vec<String>,
}

impl Label {
    /// The label of a row; `inside_known`: the guest's own time is in rows of its own.
    #[must_use]
    pub fn of(row: &Row, inside_known: bool, layers: &[LayerShare]) -> Self {
        let surely = |share: &&LayerShare| share.ci95.map_or(share.share, |[low, _]| low) >= NAMED;
        let code = layers.iter().filter(|share| is_named(&share.layer)).filter(surely);
        Self { structure: structure(row, inside_known), code: code.map(|share| share.layer.clone()).collect() }
    }

    /// The label with what the same stage of another configuration has found.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for layer in &other.code {
            if !self.code.contains(layer) {
                self.code.push(layer.clone());
            }
        }
        self
    }

    /// For use within a sentence: "forwarding (conntrack, ip)".
    #[must_use]
    pub fn phrase(&self) -> String {
        if self.code.is_empty() {
            self.structure.clone()
        } else {
            format!("{} ({})", self.structure, self.code.join(", "))
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.structure)?;
        match (self.structure.is_empty(), self.code.is_empty()) {
            (_, true) => Ok(()),
            (true, false) => formatter.write_str(&self.code.join(", ")),
            (false, false) => write!(formatter, ": {}", self.code.join(", ")),
        }
    }
}

/// What is certain of a row: the hops between which it lies.
#[must_use]
pub fn structure(row: &Row, inside_known: bool) -> String {
    let key = &row.key;
    if inside_known && path::is_disk_of_guest(key) {
        return "the boundary: notification, waking QEMU, its own time, the interrupt".to_owned();
    }
    if inside_known && path::is_boundary(key) {
        return "the boundary: notification, waking, exits, virtio, and back".to_owned();
    }
    if row.is_limited && key.from.point == Point::HeldBack {
        return "held back by the group's limit".to_owned();
    }
    let words = what(key.role, &key.from, &key.to);
    match (row.side, key.role) {
        (Side::Guest, _) => format!("{words} (guest)"),
        (Side::Host, Role::Vmm) => format!("{words} (QEMU)"),
        (Side::Host, _) => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_code_behind_the_hops() {
        let label = |code: &[&str]| Label {
            structure: "forwarding".to_owned(),
            code: code.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(label(&["conntrack", "ip"]).to_string(), "forwarding: conntrack, ip");
        assert_eq!(label(&["conntrack"]).with(&label(&["ip", "conntrack"])).phrase(), "forwarding (conntrack, ip)");
        assert_eq!(label(&[]).to_string(), "forwarding");
        assert_eq!(Label { structure: String::new(), ..label(&["ip"]) }.to_string(), "ip");
    }
}
