//! Where a request is seen: a point, and the device that it is seen at.

use std::fmt;

use profiler_common::point::Point;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Side of the VM's border on which something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The host's.
    Host,
    /// The guest's.
    Guest,
}

impl Side {
    /// Name of the guest's side, in devices and in stacks.
    pub const GUEST: &'static str = "guest";

    /// The one on the other side of the border.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Guest,
            Self::Guest => Self::Host,
        }
    }
}

/// A network device (`name@namespace`) or a disk (`name`, in a guest `name@guest`), by a name that means the same in
/// every configuration.
///
/// Devices are ordered by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    label: Box<str>,
    /// Bytes of the name.
    name: usize,
    side: Side,
}

impl Device {
    /// The device with this label.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let at = label.rfind('@');
        let is_guests = at.is_some_and(|at| &label[at + 1..] == Side::GUEST);
        Self {
            label: label.into(),
            name: at.unwrap_or(label.len()),
            side: if is_guests { Side::Guest } else { Side::Host },
        }
    }
    /// The whole label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
    /// Name of the device without its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.label[..self.name]
    }
    /// The namespace; `None`: it is a disk of the host's.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.label.get(self.name + 1..)
    }
    /// The side on which it lies.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }
    /// Whether it is a loop device.
    #[must_use]
    pub fn is_loop(&self) -> bool {
        self.name().starts_with("loop")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.label)
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

/// A point, and the device that a request is seen at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Place {
    /// Name of the point in the table of points.
    #[serde(with = "as_text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub point: Point,
    /// Label of the device, `name@namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub device: Option<Device>,
}

impl Place {
    /// A point without a device.
    #[must_use]
    pub const fn fixed(point: Point) -> Self {
        Self { point, device: None }
    }
    /// A point at the device with this label.
    #[must_use]
    pub fn at(point: Point, device: &str) -> Self {
        Self { point, device: Some(Device::new(device)) }
    }
    /// Whether it is at a device, or disk, of a guest's.
    #[must_use]
    pub fn is_in_guest(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.side() == Side::Guest)
    }
    /// Whether it is at a loop device.
    #[must_use]
    pub fn is_at_loop(&self) -> bool {
        self.device.as_ref().is_some_and(Device::is_loop)
    }
    /// The place as the end of a part that begins at `from`.
    ///
    /// In saved counts, `waking` is a thread's point where a file operation waits, and its reader's state where a
    /// message waits in a socket. Where the part begins says which.
    #[must_use]
    pub fn as_end_after(mut self, from: &Self) -> Self {
        let in_socket = matches!(from.point, Point::Delivered | Point::Backlog | Point::Ready | Point::Received);
        if self.point == Point::Waking && in_socket {
            self.point = Point::ReaderWaking;
        }
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(formatter, "{}({device})", self.point),
            None => formatter.write_str(self.point.name()),
        }
    }
}

/// A text that is no point's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPoint(String);

impl fmt::Display for UnknownPoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no point that this version knows", self.0.chars().take(40).collect::<String>())
    }
}

/// The point with a name; of two with one name, the first, see [`Place::as_end_after`].
///
/// # Errors
/// If no point is called so.
pub fn point_by_name(name: &str) -> Result<Point, UnknownPoint> {
    Point::ALL.iter().copied().find(|point| point.name() == name).ok_or_else(|| UnknownPoint(name.to_owned()))
}

mod as_text {
    use super::{Deserialize, Deserializer, Point, Serializer, point_by_name};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub fn serialize<S: Serializer>(point: &Point, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(point.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Point, D::Error> {
        point_by_name(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_label_says_name_namespace_and_side() {
        let parts = |label: &str| {
            let device = Device::new(label);
            (device.name().to_owned(), device.namespace().map(str::to_owned), device.side())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("wire@client"), ("wire".to_owned(), some("client"), Side::Host));
        assert_eq!(parts("eth0@guest"), ("eth0".to_owned(), some("guest"), Side::Guest));
        assert_eq!(parts("vda"), ("vda".to_owned(), None, Side::Host));
        assert_eq!(parts("guest"), ("guest".to_owned(), None, Side::Host));
        assert_eq!(parts("a@b@guest"), ("a@b".to_owned(), some("guest"), Side::Guest));
    }

    #[test]
    fn only_one_name_is_that_of_two_points() {
        let mut names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        let double: Vec<&str> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        assert_eq!(double, ["waking"]);
        let waking = Place::fixed(Point::Waking);
        assert_eq!(waking.clone().as_end_after(&Place::fixed(Point::Ready)).point, Point::ReaderWaking);
        assert_eq!(waking.as_end_after(&Place::at(Point::Complete, "vda")).point, Point::Waking);
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let error = serde_json::from_str::<Place>("{\"point\":\"nowhere\"}").unwrap_err();
        assert!(error.to_string().contains("`nowhere` is no point"), "{error}");
    }

    proptest! {
        #[test]
        fn places_survive_their_text(index in 0..Point::ALL.len(), device in prop::option::of("[a-z0-9@.-]{0,15}")) {
            let place = Place { point: Point::ALL[index], device: device.as_deref().map(Device::new) };
            let read: Place = serde_json::from_str(&serde_json::to_string(&place).unwrap()).unwrap();
            prop_assert_eq!(read.to_string(), place.to_string());
            prop_assert_eq!(read.device, place.device);
        }

        #[test]
        fn places_are_ordered_as_their_texts(a in 0..Point::ALL.len(), b in 0..Point::ALL.len(), x in "[a-z@-]{1,9}", y in "[a-z@-]{1,9}") {
            let (first, second) = (Place::at(Point::ALL[a], &x), Place::at(Point::ALL[b], &y));
            let texts = |place: &Place| (place.point.name(), place.device.as_ref().unwrap().label().to_owned());
            // Texts do not say which of two points with one name comes first.
            if first.point == second.point || first.point.name() != second.point.name() {
                prop_assert_eq!(first.cmp(&second), texts(&first).cmp(&texts(&second)));
            }
        }
    }
}
