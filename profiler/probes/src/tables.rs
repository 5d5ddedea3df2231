//! The tables of the probes that are read as memory, mapped once.

use profiler_common::{
    CROSSINGS, Connection, Crossing, Device, Packet, RECORD_SLOTS, Record, STAGES, Socket, Thread,
    point::{DEVICES, DISKS},
};
use virtax_model::error::Result;

use super::{mapped::MappedArray, maps::map};

/// The beginning of a record: the rest need not be read to count it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RecordHead {
    pub(super) taken: u64,
    pub(super) epoch: u32,
    len: u32,
}
const _: () = assert!(size_of::<RecordHead>() == profiler_common::RECORD_HEADER);

/// The tables that are read as memory, mapped once.
pub(super) struct Tables {
    pub(super) sockets: MappedArray<Socket>,
    pub(super) packets: MappedArray<Packet>,
    /// Only ever emptied here.
    pub(super) bios: MappedArray<[u64; 7]>,
    pub(super) connections: MappedArray<Connection>,
    pub(super) threads: MappedArray<Thread>,
    pub(super) records: MappedArray<Record>,
    pub(super) devices: MappedArray<Device>,
    pub(super) disks: MappedArray<Device>,
    pub(super) stage_keys: MappedArray<u64>,
    pub(super) further_stages: MappedArray<u64>,
    pub(super) places: MappedArray<u64>,
    pub(super) crossings: MappedArray<Crossing>,
    pub(super) held: MappedArray<profiler_common::vcpu::Held>,
}

impl Tables {
    pub fn new(bpf: &aya::Ebpf) -> Result<Self> {
        Ok(Self {
            sockets: MappedArray::new(map(bpf, "SOCKETS")?, u32::MAX)?,
            packets: MappedArray::new(map(bpf, "PACKETS")?, u32::MAX)?,
            bios: MappedArray::new(map(bpf, "BIOS")?, u32::MAX)?,
            connections: MappedArray::new(map(bpf, "CONNECTIONS")?, u32::MAX)?,
            threads: MappedArray::new(map(bpf, "THREADS")?, u32::MAX)?,
            records: MappedArray::new(map(bpf, "RECORDS")?, RECORD_SLOTS)?,
            devices: MappedArray::new(map(bpf, "DEVICE_TABLE")?, DEVICES)?,
            disks: MappedArray::new(map(bpf, "DISK_TABLE")?, DISKS)?,
            stage_keys: MappedArray::new(map(bpf, "STAGE_KEYS")?, STAGES)?,
            further_stages: MappedArray::new(map(bpf, "FURTHER_TAKEN")?, 1)?,
            places: MappedArray::new(map(bpf, "VM_PLACES")?, profiler_common::vcpu::PLACES)?,
            crossings: MappedArray::new(map(bpf, "CROSSINGS")?, CROSSINGS)?,
            held: MappedArray::new(map(bpf, "HELD")?, 1)?,
        })
    }
}
