//! Processes and threads that are followed.

/// Role of the process that sends requests.
pub const CLIENT: u8 = 0;
/// Role of the process that answers them.
pub const SERVER: u8 = 1;

/// Role of a proxy's sockets to clients, of requests that it has, and of its threads.
pub const PROXY_IN: u8 = 2;
/// Role of a proxy's sockets to servers, and of responses that it has.
pub const PROXY_OUT: u8 = 3;
/// Role of threads that are virtual processors, and of the steps between a guest's operation on its disk and its
/// VM's own.
pub const VCPU: u8 = 4;
/// Role of a VM's process (its main loop, and threads for its devices), and of the operations on files
/// that it makes for its guest.
pub const VMM: u8 = 5;
/// Role of the kernel's workers for a VM's devices.
pub const VHOST: u8 = 6;
/// Roles, rounded up to a power of two. Requests over the network have those of client, server and proxy only.
pub const ROLES: usize = 8;

/// Whether a thread's role is a proxy's.
#[inline(always)]
#[must_use]
pub const fn is_proxy(role: u32) -> bool {
    role == PROXY_IN as u32 || role == PROXY_OUT as u32
}

/// The role in which a thread has requests: a VM's process that has any is their server, behind a
/// network of its own.
#[inline(always)]
#[must_use]
pub const fn path_role(role: u32) -> u8 {
    if role >= VCPU as u32 { SERVER } else { role as u8 }
}

/// A process that is followed, or a thread that has a role of its own: its role, the configuration that it belongs to,
/// and what of it requests are known by.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Role of the process or thread.
    pub role: u8,
    /// Number of its configuration.
    pub configuration: u8,
    /// Port on which it listens, of a proxy. What comes there is a request.
    pub port: u16,
}
const _: () = assert!(size_of::<Followed>() == 4);
