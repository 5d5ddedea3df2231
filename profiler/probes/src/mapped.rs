//! Arrays of the probes as memory: a scan of all holders without a system call per entry.

use std::{marker::PhantomData, os::fd::AsRawFd, ptr::NonNull};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use virtax_model::error::{Error, Result};

use super::table::{InMemory, map};

/// A `BPF_F_MMAPABLE` array. Programs write while user space reads, so values are copied out whole and may be mixed of
/// two writes: read them when the programs are detached, or tolerate it.
pub(super) struct Mapped<T> {
    memory: NonNull<u8>,
    bytes: usize,
    len: usize,
    stride: usize,
    table: PhantomData<T>,
}

impl<T: InMemory> Mapped<T> {
    /// # Errors
    /// If the object has no such array, or one of another shape, or it cannot be mapped.
    pub fn open(bpf: &Ebpf) -> Result<Self> {
        let map = map(bpf, T::NAME)?;
        let broken = |why: String| Error::unsupported("cannot map the probes' tables", why, "report this");
        let Map::Array(data) = map else {
            return Err(broken("not an array".to_owned()));
        };
        let data: &MapData = data;
        let info = data.info().map_err(|error| broken(error.to_string()))?;
        // The kernel rounds every value up to 8 bytes.
        let stride = size_of::<T::Value>().next_multiple_of(8);
        let len = info.max_entries();
        if info.value_size() as usize != size_of::<T::Value>() {
            return Err(broken("it has another shape".to_owned()));
        }
        let bytes = (stride * len as usize).next_multiple_of(4096);
        // SAFETY: a new mapping of a map's descriptor; the kernel checks the length.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                std::os::fd::AsFd::as_fd(data.fd()).as_raw_fd(),
                0,
            )
        };
        match NonNull::new(memory.cast::<u8>()) {
            Some(memory) if memory.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Self { memory, bytes, len: len as usize, stride, table: PhantomData })
            }
            _ => Err(broken(std::io::Error::last_os_error().to_string())),
        }
    }

    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// A copy of one entry.
    pub fn get(&self, index: usize) -> Option<T::Value> {
        (index < self.len).then(|| {
            // SAFETY: inside the mapping, aligned to 8; it is one of the shared types, of which any bytes are a value.
            unsafe { self.memory.as_ptr().add(index * self.stride).cast::<T::Value>().read_volatile() }
        })
    }

    /// A copy of the beginning of one entry.
    pub fn head<H: Copy>(&self, index: usize) -> Option<H> {
        const { assert!(size_of::<H>() <= size_of::<T::Value>()) };
        (index < self.len).then(|| {
            // SAFETY: as in `get`; the head lies inside the entry.
            unsafe { self.memory.as_ptr().add(index * self.stride).cast::<H>().read_volatile() }
        })
    }

    /// Writes one entry.
    pub fn set(&self, index: usize, value: T::Value) {
        assert!(index < self.len, "index inside the array");
        // SAFETY: as in `get`.
        unsafe { self.memory.as_ptr().add(index * self.stride).cast::<T::Value>().write_volatile(value) }
    }

    /// Makes all entries zero, as they were at first.
    pub fn clear(&self) {
        // SAFETY: the whole mapping, which is ours; any bytes are a value of the shared types.
        unsafe { self.memory.as_ptr().write_bytes(0, self.bytes) }
    }

    /// Copies of all entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = T::Value> + '_ {
        (0..self.len).filter_map(|index| self.get(index))
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}
