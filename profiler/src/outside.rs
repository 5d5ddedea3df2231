//! Parsers of what others say, that are private elsewhere, as functions of bytes: for the tests that feed them anything.

use std::{collections::BTreeSet, path::Path};

use crate::{engine::vm, experiment, symbols};

/// What redis-benchmark prints.
pub fn redis_benchmark(bytes: &[u8]) {
    experiment::understand_benchmark(&String::from_utf8_lossy(bytes));
}

/// A user's part of a libvirt domain.
pub fn domain(bytes: &[u8]) {
    let _ = vm::understand_snippet(&String::from_utf8_lossy(bytes));
}

/// The kernel's symbols, from a file like `/proc/kallsyms`.
pub fn kallsyms(path: &Path) {
    let _ = symbols::check_kernel_symbols(path);
    let addresses = BTreeSet::from([0, 0xffff_ffff_8100_0000, 0xffff_ffff_8100_0123, u64::MAX]);
    let _ = symbols::Symbols::default().kernel_of(path, &addresses);
}
