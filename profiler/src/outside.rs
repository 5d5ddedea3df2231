//! Parsers of what others say, that are private elsewhere, as functions of bytes that say whether these were
//! understood: for the tests that feed them anything.

use std::{collections::BTreeSet, path::Path};

use crate::{engine::vm, symbols, workload};

/// What redis-benchmark prints.
#[must_use]
pub fn redis_benchmark(bytes: &[u8]) -> bool {
    workload::understand_benchmark(&String::from_utf8_lossy(bytes))
}

/// A user's part of a libvirt domain.
#[must_use]
pub fn domain(bytes: &[u8]) -> bool {
    vm::understand_snippet(&String::from_utf8_lossy(bytes)).is_ok()
}

/// The kernel's symbols, from a file like `/proc/kallsyms`.
#[must_use]
pub fn kallsyms(path: &Path) -> bool {
    let addresses = BTreeSet::from([0, 0xffff_ffff_8100_0000, 0xffff_ffff_8100_0123, u64::MAX]);
    let named = symbols::Symbols::default().kernel_of(path, &addresses).is_ok();
    symbols::check_kernel_symbols(path).is_ok() && named
}
