//! Being somebody else, with what libvirt needs and QEMU must not have.

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3` (`linux/capability.h`).
const VERSION: u32 = 0x2008_0522;
/// To open taps and vhost, which are root's on some hosts.
const CAP_DAC_OVERRIDE: u32 = 1;
/// To attach to a tap.
const CAP_NET_ADMIN: u32 = 12;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: of version 3 there are two, for 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// This process becomes a user who belongs to nothing but `group`. What is executed from here on has no capabilities
/// at all: none is inheritable or ambient.
pub fn become_user(user: libc::uid_t, group: Option<libc::gid_t>) -> io::Result<()> {
    let groups = group.unwrap_or(user);
    // SAFETY: no pointers but to locals that live as long as the calls.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        check(libc::setgroups(usize::from(group.is_some()), &raw const groups))?;
        check(libc::setresgid(user, user, user))?;
        check(libc::setresuid(user, user, user))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    let header = Header { version: VERSION, pid: 0 };
    let kept = (1 << CAP_DAC_OVERRIDE) | (1 << CAP_NET_ADMIN);
    let sets = [
        Sets { effective: kept, permitted: kept, inheritable: 0 },
        Sets { effective: 0, permitted: 0, inheritable: 0 },
    ];
    // SAFETY: both live as long as the call, and are what it reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
