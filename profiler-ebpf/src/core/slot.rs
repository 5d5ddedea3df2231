//! An entry of a table, by its address.

use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use profiler_common::{Headed, Holder, Operation, Socket};

/// An entry of a table. Other CPUs reach it at the same time, and so does whoever looks it up again further down: a
/// reference that lived as long as the program would claim that nobody else does. So this is an address, and every
/// access makes a reference that lives no longer than it.
pub struct Slot<T>(NonNull<T>);

impl<T> Clone for Slot<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slot<T> {}

impl<T> Deref for Slot<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: a table's entry, which outlives the program; any bytes are a value of the tables' types.
        unsafe { self.0.as_ref() }
    }
}
impl<T> DerefMut for Slot<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`. What other CPUs write meanwhile is theirs to tell by locks, epochs and the order of
        // writes: no type can.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Slot<T> {
    /// The entry that a look-up has found: `None` for its null pointer.
    #[inline(always)]
    fn found(entry: Option<*mut T>) -> Option<Self> {
        entry.and_then(NonNull::new).map(Self)
    }
}

impl<T: Headed> Slot<T> {
    /// The head of the entry.
    #[inline(always)]
    pub fn head(self) -> Slot<Holder> {
        // What `Headed` promises: the head lies at the beginning.
        Slot(self.0.cast())
    }
}

impl Slot<Socket> {
    /// The entry as an operation: of one table, those whose keys are no addresses are operations.
    #[inline(always)]
    pub fn as_operation(self) -> Slot<Operation> {
        Slot(self.0.cast())
    }
}

/// Tables whose entries are found by an index.
pub trait Indexed<T> {
    /// The entry of this index; `None`: there are not so many.
    fn slot(&self, index: u32) -> Option<Slot<T>>;
}
impl<T> Indexed<T> for Array<T> {
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot<T>> {
        Slot::found(self.get_ptr_mut(index))
    }
}
impl<T> Indexed<T> for PerCpuArray<T> {
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot<T>> {
        Slot::found(self.get_ptr_mut(index))
    }
}

/// Tables whose entries are found by a key.
pub trait Keyed<K, T> {
    /// The entry of this key; `None`: there is none.
    fn slot(&self, key: &K) -> Option<Slot<T>>;
    /// A copy of it.
    #[inline(always)]
    fn value(&self, key: &K) -> Option<T>
    where
        T: Copy,
    {
        self.slot(key).map(|entry| *entry)
    }
}
impl<K, T> Keyed<K, T> for HashMap<K, T> {
    #[inline(always)]
    fn slot(&self, key: &K) -> Option<Slot<T>> {
        Slot::found(self.get_ptr_mut(key))
    }
}
impl<K, T> Keyed<K, T> for LruHashMap<K, T> {
    #[inline(always)]
    fn slot(&self, key: &K) -> Option<Slot<T>> {
        Slot::found(self.get_ptr_mut(key))
    }
}
