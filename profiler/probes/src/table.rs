//! What a table of the probes is, and how one is found in the object.

use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use virtax_model::error::{Error, Result};

/// A table of the probes.
pub(super) trait Table {
    /// Name of the table in the object.
    const NAME: &'static str;
    /// What an entry holds.
    type Value;
}
/// An array that is read as memory.
pub(super) trait InMemory: Table<Value: Copy> {}
/// A table whose entries have keys.
pub(super) trait Keyed: Table {
    /// The key.
    type Key;
}

/// The map of a name.
pub(super) fn map<'a>(bpf: &'a Ebpf, name: &str) -> Result<&'a Map> {
    bpf.map(name).ok_or_else(|| unusable(format!("the object has no map {name}")))
}

/// A map as one of its kind.
pub(super) fn typed<M, T>(map: Option<M>) -> Result<T>
where
    T: TryFrom<M>,
    T::Error: std::fmt::Display,
{
    let map = map.ok_or_else(|| unusable("the object lacks a map"))?;
    T::try_from(map).map_err(unusable)
}

/// A table that is not what it should be.
pub(super) fn unusable(why: impl std::fmt::Display) -> Error {
    Error::unsupported("cannot use the probes' tables", why, "report this")
}

/// A table with a value for each CPU.
pub(super) fn per_cpu<T: Table<Value: Pod>>(bpf: &Ebpf) -> Result<PerCpuArray<&MapData, T::Value>> {
    typed(bpf.map(T::NAME))
}

/// A table with a value for each CPU, to be written.
pub(super) fn per_cpu_mut<T: Table<Value: Pod>>(bpf: &mut Ebpf) -> Result<PerCpuArray<&mut MapData, T::Value>> {
    typed(bpf.map_mut(T::NAME))
}

/// A table with keys, to be written.
pub(super) fn keyed_mut<T: Keyed<Key: Pod, Value: Pod>>(
    bpf: &mut Ebpf,
) -> Result<HashMap<&mut MapData, T::Key, T::Value>> {
    typed(bpf.map_mut(T::NAME))
}

/// Takes all entries out of a table.
pub(super) fn remove_all<T: Keyed<Key: Pod, Value: Pod>>(bpf: &mut Ebpf) -> Result<()> {
    let mut entries = keyed_mut::<T>(bpf)?;
    let known: Vec<T::Key> = entries.keys().flatten().collect();
    known.iter().try_for_each(|key| entries.remove(key).map_err(unusable))
}
