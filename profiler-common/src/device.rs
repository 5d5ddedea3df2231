//! Network devices and disks on the paths of requests and operations.

/// A network device on a path.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Device {
    /// The kernel's address, 0: free.
    pub key: u64,
    /// 1: the slot is taken.
    pub lock: u64,
    /// Interface number in its namespace.
    pub ifindex: u32,
    /// Inode number of its network namespace.
    pub namespace: u32,
    /// Name of the device, ended by a zero byte.
    pub name: [u8; 16],
    /// Whether requests leave the host here, or come in.
    pub border: Border,
}

/// What a device is to the host or guest whose kernel this is.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Border {
    /// [`Border::NONE`], [`Border::LEADS_IN`] or [`Border::CARD`].
    pub kind: u32,
    /// Port on which this guest's server listens, of a [`Border::CARD`].
    pub port: u32,
}

impl Border {
    /// A device like others.
    pub const NONE: u32 = 0;
    /// A VM answers behind it.
    pub const LEADS_IN: u32 = 1;
    /// This is the VM, and requests come in at this card.
    pub const CARD: u32 = 2;
}

/// The key by which a device is known before the probes have met it.
#[inline(always)]
#[must_use]
pub const fn border_key(namespace: u32, ifindex: u32) -> u64 {
    (namespace as u64) << 32 | ifindex as u64
}
/// Devices that are borders.
pub const BORDERS: u32 = 256;

/// A disk.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Disk {
    /// The kernel's address, 0: free.
    pub key: u64,
    /// 1: the slot is taken.
    pub lock: u64,
    /// First device number of the disk, as `MAJOR << 20 | MINOR`.
    pub number: u32,
    /// 1: it takes bios as they are, and may pass them on to other disks.
    pub takes_bios: u32,
    /// Name of the disk, ended by a zero byte.
    pub name: [u8; 16],
}

const _: () = assert!(size_of::<Device>() == 48);
const _: () = assert!(size_of::<Disk>() == 40);
