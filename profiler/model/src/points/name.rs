//! Probes as results name them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{PROBES, Probe};

/// The name of a probe of the table: there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeName(&'static str);

impl ProbeName {
    /// A probe's.
    #[must_use]
    pub const fn of(probe: &'static Probe) -> Self {
        Self(probe.name)
    }

    /// The probe's that is called so; `None`: none is.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        PROBES.iter().find(|probe| probe.name == name).map(Self::of)
    }
}

impl fmt::Display for ProbeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Serialize for ProbeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for ProbeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| {
            let start: String = name.chars().take(40).collect();
            serde::de::Error::custom(format!("`{start}` is no probe that this version knows"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_of_the_table_have_names() {
        for probe in PROBES {
            let name = ProbeName::of(probe);
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!((text.trim_matches('"'), ProbeName::parse(probe.name)), (probe.name, Some(name)));
            assert_eq!(serde_json::from_str::<ProbeName>(&text).unwrap(), name);
        }
        let refused = serde_json::from_str::<ProbeName>("\"spleen\"").unwrap_err().to_string();
        assert!(refused.starts_with("`spleen` is no probe that this version knows"), "{refused}");
    }
}
