//! The probes' tables, declared once for both sides: [`tables!`](crate::tables) has a row for each.

/// Sockets, and threads, that can be followed at once.
pub const SLOTS: u32 = 16384;
/// skbs with a token at any instant.
pub const PACKET_SLOTS: u32 = 4096;
/// Connections into a VM that can be followed at once.
pub const CONNECTION_SLOTS: u32 = 4096;

/// Configurations that are followed at once, where the plan does not ask for more.
pub const CONFIGURATIONS: u32 = 1;

/// Bytes of the ring buffer of records.
pub const RECORD_RING_BYTES: u32 = 4 << 20;
/// Bytes of the ring buffer of stacks.
pub const EVENT_RING_BYTES: u32 = 8 << 20;
/// Processes and threads that can be followed.
pub const FOLLOWED: u32 = 4096;

/// Calls the macro `$with` with the tables, a row each:
///
/// `NAME: Kind<types> = entries, access, emptied;`
///
/// The types are those of the value, or of key and value. Access is `mapped` where user space reads an array as
/// memory, else `plain`. The last word says when a table is emptied:
///
/// | word | when |
/// |---|---|
/// | `kept` | never: user space writes all of it, or only differences of it are used |
/// | `checked` | never: each entry says what it belongs to, and is asked for that |
/// | `repetition` | before a repetition: another client's or server's sockets may lie at the addresses of earlier ones |
/// | `stages` | then, too, all of them together: a place's totals go with its key |
///
/// The ring buffers stand in front, with their bytes.
#[macro_export]
macro_rules! tables {
    ($with:ident) => {
        $with! {
            rings {
                RECORD_RING = $crate::RECORD_RING_BYTES;
                EVENT_RING = $crate::EVENT_RING_BYTES;
            }
            CONTROL: Array<$crate::Control> = 1, mapped, kept;
            ROLES: HashMap<u32, $crate::Followed> = $crate::FOLLOWED, plain, repetition;
            BORDERS: HashMap<u64, $crate::Border> = $crate::BORDERS, plain, repetition;
            CALL_KINDS: Array<u32> = $crate::SYSTEM_CALLS, plain, kept;
            SOCKETS: Array<$crate::Socket> = $crate::SLOTS, mapped, repetition;
            PACKETS: Array<$crate::Packet> = $crate::PACKET_SLOTS, mapped, repetition;
            CONNECTIONS: Array<$crate::Connection> = $crate::CONNECTION_SLOTS, mapped, repetition;
            THREADS: Array<$crate::Thread> = $crate::SLOTS, mapped, repetition;
            WAITS: Array<$crate::Wait> = $crate::SLOTS, plain, checked;
            DEVICE_TABLE: Array<$crate::Device> = $crate::point::DEVICES, mapped, repetition;
            DISK_TABLE: Array<$crate::Disk> = $crate::point::DISKS, mapped, repetition;
            STAGE_KEYS: Array<u64> = $crate::STAGES, mapped, stages;
            STAGE_TOTALS: PerCpuArray<$crate::Stage> = $crate::STAGES, plain, stages;
            FURTHER_STAGES: HashMap<u64, u32> = $crate::STAGES - $crate::DIRECT_STAGES, plain, stages;
            FURTHER_TAKEN: Array<u64> = 1, mapped, stages;
            COUNTS: PerCpuArray<[u64; $crate::COUNTERS]> = $crate::CONFIGURATIONS, plain, kept;
            STATE_TOTALS: PerCpuArray<[[[u64; 2]; $crate::state::STATES]; $crate::ROLES]> = $crate::CONFIGURATIONS, plain, kept;
            CPUS: PerCpuArray<$crate::Cpu> = 1, plain, checked;
            RECORDS: Array<$crate::Record> = $crate::RECORD_SLOTS, mapped, repetition;
            LAST_LOGGED: PerCpuArray<u64> = 1, plain, kept;
            BIOS: Array<$crate::Bio> = $crate::file::BIOS, mapped, repetition;
            DONE: Array<$crate::Done> = $crate::SLOTS, plain, checked;
            BELOW: LruHashMap<u64, $crate::Below> = $crate::file::BELOW, plain, repetition;
            PASSED: LruHashMap<$crate::Sector, $crate::Passed> = $crate::file::PASSED, plain, checked;
            GIVEN: LruHashMap<u64, $crate::Given> = $crate::file::WORKERS_REQUESTS, plain, checked;
            FILES: LruHashMap<u64, u64> = $crate::file::FILES, plain, repetition;
            FLUSHERS: HashMap<u32, u32> = $crate::file::FLUSHERS, plain, repetition;
            MAKER: Array<u64> = 1, mapped, repetition;
            VM_PLACES: Array<u64> = $crate::vcpu::PLACES, mapped, repetition;
            CROSSINGS: Array<$crate::Crossing> = $crate::CROSSINGS, mapped, repetition;
            HELD: Array<$crate::vcpu::Held> = $crate::CONFIGURATIONS, mapped, repetition;
            QEMU: Array<$crate::QemuSteps> = $crate::CONFIGURATIONS, plain, checked;
        }
    };
}

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($type:ty),*) => { $(
            // SAFETY: `repr(C)`, without padding (sizes are asserted where they are declared), and any bytes are a
            // value.
            unsafe impl aya::Pod for $type {}
        )* };
    }
    pod!(crate::Stage, crate::Followed, crate::Border, crate::Below);
}
