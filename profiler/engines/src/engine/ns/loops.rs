//! Loop devices (loop(4)): a disk whose blocks are those of a file.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// `include/uapi/linux/loop.h`
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
/// The device lets go of the file with its last user, so that no end of ours leaves it behind.
const AUTOCLEAR: u32 = 4;
/// Past the page cache.
const DIRECT_IO: u32 = 16;
/// Blocks that every disk below can transfer.
const BLOCK: u32 = 4096;
/// How often somebody else may take the device that was free.
const TRIES: u32 = 16;

/// `struct loop_info64`
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

/// Puts a free device before a file. It lasts as long as somebody has it open or mounted: at first, the one that is
/// returned.
///
/// # Errors
/// If there is no loop driver, or it refuses.
pub fn attach(image: &Path) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    let mut refused = io::Error::from_raw_os_error(libc::EBUSY);
    for _ in 0..TRIES {
        // SAFETY: no pointers.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        // SAFETY: all zeroes are a value of it.
        let mut config: Config = unsafe { std::mem::zeroed() };
        config.fd = file.as_raw_fd() as u32;
        config.block_size = BLOCK;
        config.info.flags = AUTOCLEAR | DIRECT_IO;
        // SAFETY: the pointer is to a local of the type that the number asks for.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            // It goes on through the page cache, and says nothing, where the file cannot do without.
            let past = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/dio"))?;
            if past.trim() != "1" {
                let why = "the file system of its folder has no transfers past the page cache of such blocks";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            return Ok((path, device));
        }
        refused = io::Error::last_os_error();
        if refused.raw_os_error() != Some(libc::EBUSY) {
            break;
        }
    }
    Err(refused)
}
