//! What holds a token: sockets, operations on files, skbs, connections into a VM. All are one cache line.

use core::ops::{Deref, DerefMut};

use crate::Token;

/// A socket holds nothing: its token travels, or was lost.
pub const EMPTY: u8 = 0;
/// A socket holds a message that nobody has read yet.
pub const UNREAD: u8 = 1;
/// A socket holds a message that was read and not yet answered.
pub const READ: u8 = 2;

/// The request of a token began inside the recorded interval, and is under way: it counts.
pub const COUNTED: u8 = 1;
/// The request counts, and has ended.
pub const ENDED: u8 = 2;

/// What a socket and an operation on a file have in common, which are entries of one table: the head of both.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Holder {
    /// A socket's address in the kernel, or what an operation is called; 0: free.
    pub key: u64,
    /// What it holds, if `state` is not [`EMPTY`].
    pub token: Token,
    /// 1: a CPU is taking the slot.
    pub lock: u64,
    /// Requests until the next record.
    pub countdown: u32,
    /// Index of the holder in the array.
    pub slot: u32,
    /// The thread that last received from the socket, or that makes the operation; 0: not known.
    pub thread: u32,
    /// [`EMPTY`], [`UNREAD`] or [`READ`].
    pub state: u8,
    /// Role of the process that reads and writes it.
    pub role: u8,
    /// [`COUNTED`] or [`ENDED`], if the request of its token began inside the recorded interval; else 0.
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: u8,
}

/// A followed socket.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Socket {
    head: Holder,
    /// Number of the request that it holds, in a VM, see [`crate::Crossing`]; 0: none.
    pub crossing: u32,
    /// Fills the cache line.
    pub unused: [u32; 3],
}

/// A followed operation on a file: a thread's, for as long as a call lasts, or an asynchronous one.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Operation {
    head: Holder,
    /// Which of the operations in its place it is.
    pub number: u32,
    /// If it is completed: 1 + slot of the next of its thread's; 0: there is none.
    pub next: u32,
    /// Number of bios of the operation that are under way.
    pub bios: u32,
    /// 1: nobody sees its program take the completion.
    pub unseen: u32,
}

/// What begins with a [`Holder`].
///
/// # Safety
/// The head lies at its beginning, and it is as large as the entries of the table, of which any bytes are a value.
pub unsafe trait Headed: Deref<Target = Holder> + DerefMut {}

macro_rules! headed {
    ($($kind:ident),*) => { $(
        impl $kind {
            /// The beginning of one, of which the rest is 0.
            #[inline(always)]
            #[must_use]
            pub fn new(head: Holder) -> Self {
                Self { head, ..Self::default() }
            }
        }
        impl Deref for $kind {
            type Target = Holder;
            #[inline(always)]
            fn deref(&self) -> &Holder {
                &self.head
            }
        }
        impl DerefMut for $kind {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut Holder {
                &mut self.head
            }
        }
        // SAFETY: `repr(C)` with the head first; sizes are asserted below.
        unsafe impl Headed for $kind {}
    )* };
}
headed!(Socket, Operation);

/// A travelling skb: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Packet {
    /// The kernel's address.
    pub key: u64,
    /// The socket that sent it.
    pub socket: u64,
    /// What it holds, if `live`.
    pub token: Token,
    /// When it was handed to a device's queueing discipline, ns.
    pub queued_ns: u64,
    /// 1: it carries a token.
    pub live: u8,
    /// Mark of a request that counts, as in [`Socket`].
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 6],
    /// 1: a CPU is taking the slot.
    pub lock: u64,
    /// 1 + slot of the connection that its token went to, into a VM; 0: it did not.
    pub connection: u32,
    /// Number of the request, in a VM, as in [`Socket`].
    pub crossing: u32,
}

/// A connection into a VM, which holds its token from the one skb to the other: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Connection {
    /// Address and port outside, port inside; 0: free.
    pub key: u64,
    /// What the VM holds, if `state` is not [`EMPTY`].
    pub token: Token,
    /// The socket that sent it.
    pub socket: u64,
    /// 1: a CPU is taking the slot.
    pub lock: u64,
    /// [`EMPTY`] or [`READ`].
    pub state: u8,
    /// Mark of a request that counts, as in [`Socket`].
    pub counted: u8,
    /// Stops the compiler from inventing padding.
    pub reserved: [u8; 6],
    /// The number of the request that the VM holds, see [`crate::Crossing`].
    pub crossing: u32,
    /// Fills the cache line.
    pub unused: [u32; 3],
}

const _: () = assert!(size_of::<Holder>() == 48);
const _: () = assert!(size_of::<Socket>() == 64 && size_of::<Operation>() == 64);
const _: () = assert!(size_of::<Packet>() == 64);
const _: () = assert!(size_of::<Connection>() == 64);
