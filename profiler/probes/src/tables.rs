//! The probes' tables, each a type made of its row in [`profiler_common::tables`]: neither a name nor the type of an
//! entry stands here a second time.

use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use virtax_model::error::{Error, Result};

use super::{mapped::Mapped, object::Loaded};

/// A table of the probes.
pub(super) trait Table {
    /// Its name in the object.
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

macro_rules! table {
    ($name:ident: $kind:ident<$value:ty>, mapped) => {
        table!($name: $kind<$value>, plain);
        impl InMemory for $name {}
    };
    ($name:ident: $kind:ident<$value:ty>, plain) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "it is called as in the object")]
        pub(super) enum $name {}
        impl Table for $name {
            const NAME: &'static str = stringify!($name);
            type Value = $value;
        }
    };
    ($name:ident: $kind:ident<$key:ty, $value:ty>, plain) => {
        table!($name: $kind<$value>, plain);
        impl Keyed for $name {
            type Key = $key;
        }
    };
}
/// What is done with a table before a repetition, by the last word of its row.
macro_rules! empty {
    ($loaded:ident, $name:ident: Array, repetition) => {
        Mapped::<$name>::open(&$loaded.bpf)?.clear()
    };
    ($loaded:ident, $name:ident: HashMap, repetition) => {
        $loaded.remove_all::<$name>()?
    };
    ($loaded:ident, $name:ident: LruHashMap, repetition) => {
        $loaded.remove_all::<$name>()?
    };
    ($loaded:ident, $name:ident: $kind:ident, stages) => {};
    ($loaded:ident, $name:ident: $kind:ident, checked) => {};
    ($loaded:ident, $name:ident: $kind:ident, kept) => {};
}
macro_rules! declare {
    (
        rings { $($ring:ident = $bytes:expr;)* }
        $($name:ident: $kind:ident<$($type:ty),+> = $entries:expr, $access:ident, $emptied:ident;)*
    ) => {
        $(pub(super) const $ring: &str = stringify!($ring);)*
        $(table!($name: $kind<$($type),+>, $access);)*
        impl Loaded {
            /// Empties the tables that say so, but those of stages.
            pub(super) fn empty_tables(&mut self) -> Result<()> {
                $(empty!(self, $name: $kind, $emptied);)*
                Ok(())
            }
        }

        /// Whether the object's tables are those that are declared.
        ///
        /// # Errors
        /// [`Error::Unsupported`] if one is missing, or its entries have another size: the probes are of another
        /// version.
        pub(super) fn check_tables(bpf: &Ebpf) -> Result<()> {
            $(check::<$name>(bpf)?;)*
            Ok(())
        }
    };
}
profiler_common::tables!(declare);

fn check<T: Table>(bpf: &Ebpf) -> Result<()> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "an enum of another crate's")]
    let size = match map(bpf, T::NAME)? {
        Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::LruHashMap(data) => {
            data.info().map_err(unusable)?.value_size() as usize
        }
        _ => return Err(unusable(format!("the map {} is of another kind", T::NAME))),
    };
    let declared = size_of::<T::Value>();
    if size == declared {
        return Ok(());
    }
    Err(unusable(format!("an entry of {} has {size} bytes, and not {declared}", T::NAME)))
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

impl Loaded {
    /// A table with a value for each CPU.
    pub(super) fn per_cpu<T: Table<Value: Pod>>(&self) -> Result<PerCpuArray<&MapData, T::Value>> {
        typed(self.bpf.map(T::NAME))
    }
    /// The same, to be written.
    pub(super) fn per_cpu_mut<T: Table<Value: Pod>>(&mut self) -> Result<PerCpuArray<&mut MapData, T::Value>> {
        typed(self.bpf.map_mut(T::NAME))
    }
    /// A table with keys, to be written.
    pub(super) fn keyed_mut<T: Keyed<Key: Pod, Value: Pod>>(
        &mut self,
    ) -> Result<HashMap<&mut MapData, T::Key, T::Value>> {
        typed(self.bpf.map_mut(T::NAME))
    }
    /// Takes all entries out of a table.
    pub(super) fn remove_all<T: Keyed<Key: Pod, Value: Pod>>(&mut self) -> Result<()> {
        let mut entries = self.keyed_mut::<T>()?;
        let known: Vec<T::Key> = entries.keys().flatten().collect();
        known.iter().try_for_each(|key| entries.remove(key).map_err(unusable))
    }
}

/// The beginning of a record: the rest need not be read to count it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RecordHead {
    pub(super) taken: u64,
    pub(super) epoch: u32,
    len: u32,
}
const _: () = assert!(size_of::<RecordHead>() == profiler_common::RECORD_HEADER);

/// The tables that are read again and again, mapped once.
pub(super) struct Tables {
    pub(super) sockets: Mapped<SOCKETS>,
    pub(super) packets: Mapped<PACKETS>,
    pub(super) connections: Mapped<CONNECTIONS>,
    pub(super) threads: Mapped<THREADS>,
    pub(super) records: Mapped<RECORDS>,
    pub(super) devices: Mapped<DEVICE_TABLE>,
    pub(super) disks: Mapped<DISK_TABLE>,
    pub(super) stage_keys: Mapped<STAGE_KEYS>,
    pub(super) further_stages: Mapped<FURTHER_TAKEN>,
    pub(super) places: Mapped<VM_PLACES>,
    pub(super) crossings: Mapped<CROSSINGS>,
}

impl Tables {
    pub(super) fn new(bpf: &Ebpf) -> Result<Self> {
        Ok(Self {
            sockets: Mapped::open(bpf)?,
            packets: Mapped::open(bpf)?,
            connections: Mapped::open(bpf)?,
            threads: Mapped::open(bpf)?,
            records: Mapped::open(bpf)?,
            devices: Mapped::open(bpf)?,
            disks: Mapped::open(bpf)?,
            stage_keys: Mapped::open(bpf)?,
            further_stages: Mapped::open(bpf)?,
            places: Mapped::open(bpf)?,
            crossings: Mapped::open(bpf)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_called_as_in_the_object() {
        assert_eq!((SOCKETS::NAME, RECORD_RING), ("SOCKETS", "RECORD_RING"));
        assert_eq!(size_of::<<SOCKETS as Table>::Value>(), 64);
        assert_eq!(size_of::<<ROLES as Keyed>::Key>() + size_of::<<ROLES as Table>::Value>(), 8);
    }
}
