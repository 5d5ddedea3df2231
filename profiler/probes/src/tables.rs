//! The probes' tables, each a type made of its row in [`profiler_common::tables`]: neither a name nor the type of an
//! entry stands here a second time.

use aya::{Ebpf, maps::Map};
use virtax_model::error::Result;

use super::{
    mapped::Mapped,
    table::{InMemory, Keyed, Table, map, remove_all, unusable},
};

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
    ($bpf:ident, $name:ident: Array, repetition) => {
        Mapped::<$name>::open($bpf)?.clear()
    };
    ($bpf:ident, $name:ident: HashMap, repetition) => {
        remove_all::<$name>($bpf)?
    };
    ($bpf:ident, $name:ident: LruHashMap, repetition) => {
        remove_all::<$name>($bpf)?
    };
    ($bpf:ident, $name:ident: $kind:ident, stages) => {};
    ($bpf:ident, $name:ident: $kind:ident, checked) => {};
    ($bpf:ident, $name:ident: $kind:ident, kept) => {};
}
macro_rules! declare {
    (
        rings { $($ring:ident = $bytes:expr;)* }
        $($name:ident: $kind:ident<$($type:ty),+> = $entries:expr, $access:ident, $emptied:ident;)*
    ) => {
        $(pub(super) const $ring: &str = stringify!($ring);)*
        $(table!($name: $kind<$($type),+>, $access);)*
        /// Empties the tables that say so, but those of stages.
        pub(super) fn empty_tables(bpf: &mut Ebpf) -> Result<()> {
            $(empty!(bpf, $name: $kind, $emptied);)*
            Ok(())
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

/// The beginning of a record: the rest need not be read to count it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RecordHead {
    pub(super) taken: u64,
    pub(super) turn: profiler_common::Turn,
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
