//! Maps of the loaded object, by their names.

use aya::Ebpf;
use virtax_model::error::{Error, Result};

pub(super) fn map<'a>(bpf: &'a Ebpf, name: &str) -> Result<&'a aya::maps::Map> {
    bpf.map(name).ok_or_else(|| table(format!("the object has no map {name}")))
}

pub(super) fn typed<M, T>(map: Option<M>) -> Result<T>
where
    T: TryFrom<M>,
    T::Error: std::fmt::Display,
{
    let map = map.ok_or_else(|| table("the object lacks a map"))?;
    T::try_from(map).map_err(table)
}

pub(super) fn table(why: impl std::fmt::Display) -> Error {
    Error::unsupported("cannot use the probes' tables", why, "report this")
}
