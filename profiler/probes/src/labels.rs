//! Names of devices and places that mean the same in every run.

use std::collections::{BTreeMap, HashMap};

use profiler_common::point::PlaceId;
use virtax_model::{
    counts::{DeviceInfo, Place, Role},
    error::{Error, Result},
    points::{self, At},
};

/// Labels of network namespaces and, in them, of devices with a meaning of their own.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub(super) namespaces: BTreeMap<u32, String>,
    devices: BTreeMap<(u32, String), String>,
}

impl Names {
    /// Calls a namespace, by its inode number, by this name.
    pub fn namespace(&mut self, inode: u32, name: &str) {
        self.namespaces.entry(inode).or_insert_with(|| name.to_owned());
    }
    /// Calls a device of a namespace by an alias that is the same in every run.
    pub fn device(&mut self, namespace: u32, device: &str, alias: &str) {
        self.devices.insert((namespace, device.to_owned()), alias.to_owned());
    }
    /// `name@namespace`.
    #[must_use]
    pub fn label(&self, namespace: u32, device: &str) -> String {
        let alias = self.devices.get(&(namespace, device.to_owned())).map_or(device, String::as_str);
        match self.namespaces.get(&namespace) {
            Some(name) => format!("{alias}@{name}"),
            None => format!("{alias}@net:{namespace}"),
        }
    }
}

/// Labels of one repetition's devices and disks, by the index that the probes gave them.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pub(super) devices: HashMap<u8, DeviceInfo>,
    pub(super) disks: HashMap<u8, DeviceInfo>,
}

impl Labels {
    /// The place with this number in the kernel.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the number is no point's, or of a device that has none.
    pub fn place(&self, id: PlaceId) -> Result<Place> {
        let point = id.point().ok_or_else(|| unknown("point", id.raw()))?;
        let of_kind = match points::at(point) {
            At::NoDevice => return Ok(Place::fixed(point)),
            At::NetworkDevice => &self.devices,
            At::Disk => &self.disks,
        };
        let device = of_kind.get(&id.index()).ok_or_else(|| unknown("device", id.index()))?;
        Ok(Place::at(point, device.label.as_str()))
    }
    /// All of them.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceInfo> {
        self.devices.values().chain(self.disks.values())
    }
}

/// The role with this number in the kernel.
///
/// # Errors
/// [`Error::Unsupported`] if the number is no role's.
pub fn role(number: u8) -> Result<Role> {
    Role::from_number(number).ok_or_else(|| unknown("role", number))
}

/// Probes of another version, or memory that is not theirs: nothing that they say can be trusted.
pub(super) fn unknown(what: &str, number: impl std::fmt::Display) -> Error {
    Error::unsupported(
        "cannot understand what the probes say",
        format!("they name the {what} {number}, which there is not"),
        "build virtax and its probes anew (cargo xtask build), or report this",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_alias_and_namespace() {
        let mut names = Names::default();
        names.namespace(1, "host");
        names.namespace(2, "client");
        names.device(1, "vx12345w0", "wire");
        assert_eq!(names.label(1, "vx12345w0"), "wire@host");
        assert_eq!(names.label(2, "lo"), "lo@client");
        assert_eq!(names.label(9, "eth0"), "eth0@net:9");
        // With host networking the server's namespace is the host's: the first name stays.
        names.namespace(1, "server");
        assert_eq!(names.label(1, "lo"), "lo@host");
    }
}
