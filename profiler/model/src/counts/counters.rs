//! What the probes counted beside stages.

use std::{collections::BTreeMap, fmt};

use profiler_common::Counter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Beginning of the names of counters of what a VM's process did.
const OF_VMM: &str = "vmm_";

/// Counters with their sums. Of operations on files in a guest, its own stand beside those of what its VM's
/// process did on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    own: BTreeMap<Counter, u64>,
    of_vmm: BTreeMap<Counter, u64>,
}

impl Counters {
    /// A counter's sum; 0: it was not counted.
    #[must_use]
    pub fn of(&self, counter: Counter) -> u64 {
        self.own.get(&counter).copied().unwrap_or(0)
    }

    /// A counter's sum, with what a VM's process did.
    #[must_use]
    pub fn with_vmm(&self, counter: Counter) -> u64 {
        self.of(counter).saturating_add(self.of_vmm.get(&counter).copied().unwrap_or(0))
    }

    /// Whether a counter was looked at, whatever it said.
    #[must_use]
    pub fn has(&self, counter: Counter) -> bool {
        self.own.contains_key(&counter)
    }

    /// Sets a counter.
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.own.insert(counter, value);
    }

    /// Sets a counter of what a VM's process did.
    pub fn set_of_vmm(&mut self, counter: Counter, value: u64) {
        self.of_vmm.insert(counter, value);
    }

    /// Takes a counter out.
    pub fn take(&mut self, counter: Counter) -> u64 {
        self.own.remove(&counter).unwrap_or(0)
    }

    /// Adds another phase's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.own, &other.own), (&mut self.of_vmm, &other.of_vmm)] {
            theirs.iter().for_each(|(counter, value)| *mine.entry(*counter).or_default() += value);
        }
    }

    /// Leaves some of its own counters out.
    #[must_use]
    pub fn without(mut self, are_out: impl Fn(Counter) -> bool) -> Self {
        self.own.retain(|counter, _| !are_out(*counter));
        self
    }

    /// Values by name, in the order of names.
    fn named(&self) -> BTreeMap<String, u64> {
        let own = self.own.iter().map(|(counter, value)| (counter.name().to_owned(), *value));
        let of_vmm = self.of_vmm.iter().map(|(counter, value)| (format!("{OF_VMM}{}", counter.name()), *value));
        own.chain(of_vmm).collect()
    }
}

impl FromIterator<(Counter, u64)> for Counters {
    fn from_iter<I: IntoIterator<Item = (Counter, u64)>>(values: I) -> Self {
        Self { own: values.into_iter().collect(), of_vmm: BTreeMap::new() }
    }
}

impl<const N: usize> From<[(Counter, u64); N]> for Counters {
    fn from(values: [(Counter, u64); N]) -> Self {
        values.into_iter().collect()
    }
}

/// A text that is no counter's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCounter(String);

impl fmt::Display for UnknownCounter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no counter that this version knows", self.0.chars().take(40).collect::<String>())
    }
}

impl TryFrom<BTreeMap<String, u64>> for Counters {
    type Error = UnknownCounter;

    fn try_from(named: BTreeMap<String, u64>) -> Result<Self, UnknownCounter> {
        let by_name = |name: &str| Counter::ALL.iter().copied().find(|counter| counter.name() == name);
        let mut counters = Self::default();
        for (name, value) in named {
            if let Some(counter) = by_name(&name) {
                counters.set(counter, value);
            } else if let Some(counter) = name.strip_prefix(OF_VMM).and_then(by_name) {
                counters.set_of_vmm(counter, value);
            } else {
                return Err(UnknownCounter(name));
            }
        }
        Ok(counters)
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.named().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(BTreeMap::<String, u64>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_counters_and_of_a_vms_process() {
        let mut counters = Counters::from([(Counter::Bios, 3), (Counter::Drops, 0)]);
        counters.set_of_vmm(Counter::Bios, 4);
        let text = serde_json::to_string(&counters).unwrap();
        assert_eq!(text, r#"{"bios":3,"drops":0,"vmm_bios":4}"#);
        assert_eq!(serde_json::from_str::<Counters>(&text).unwrap(), counters);
        assert_eq!((counters.of(Counter::Bios), counters.with_vmm(Counter::Bios)), (3, 7));
        assert!(counters.has(Counter::Drops) && !counters.has(Counter::Resent));
        counters.add(&counters.clone());
        assert_eq!((counters.of(Counter::Bios), counters.with_vmm(Counter::Bios)), (6, 14));
        assert_eq!(counters.take(Counter::Bios), 6);
        assert_eq!(counters.without(|counter| counter == Counter::Drops).named(), [("vmm_bios".to_owned(), 8)].into());
    }

    #[test]
    fn counters_have_different_names() {
        let mut names: Vec<&str> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert!(names.iter().all(|name| !name.starts_with(OF_VMM)));
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_name_that_is_unknown_is_refused() {
        for text in [r#"{"boots":1}"#, r#"{"vmm_boots":1}"#, r#"{"vmm_":1}"#] {
            let error = serde_json::from_str::<Counters>(text).unwrap_err().to_string();
            assert!(error.contains("is no counter that this version knows"), "{error}");
        }
    }
}
