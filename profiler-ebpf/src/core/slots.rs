//! The places of sockets, skbs and connections: found by their address, taken under a lock.
//!
//! Functions that are not inlined are `#[cold]`, all of the probes' crate: that puts them into one section. With two,
//! aya links a call to the function at the same offset of the other one, silently.

use profiler_common::{Connection, Counter, EMPTY, Holder, Operation, Packet, SPREAD, Socket, Token, Turn};

use crate::core::{
    instructions::{low, reads_end_here, try_lock, write_once},
    maps::{CONNECTIONS, PACKETS, SOCKETS},
    settings,
    slot::{Indexed, Slot},
    token::lose,
};

#[inline(always)]
fn mix(address: u64) -> u32 {
    low(address).wrapping_mul(SPREAD) >> 16
}

/// Slots looked at for one socket, which stays long: with four, a few of two thousand would clash for good. All but
/// the first are looked at by a function of their own.
const SOCKET_WAYS: u32 = 16;
/// Slots looked at for one skb: few travel at once.
const PACKET_WAYS: u32 = 4;

/// The followed socket at this address.
#[inline(always)]
pub fn socket(address: u64) -> Option<Slot<Socket>> {
    let first = mix(address);
    let slot = SOCKETS.slot(first & settings::slots_mask())?;
    if slot.key == address {
        return Some(slot);
    }
    let index = find_socket(address, first);
    if index == 0 {
        return None;
    }
    SOCKETS.slot((index - 1) & settings::slots_mask())
}

/// The socket in this place.
#[inline(always)]
pub fn socket_in(slot: u32) -> Option<Slot<Socket>> {
    SOCKETS.slot(slot & settings::slots_mask())
}

/// The operation that is called so: keys of operations are no addresses of the kernel's.
#[inline(always)]
pub fn operation(key: u64) -> Option<Slot<Operation>> {
    socket(key).map(Slot::as_operation)
}

/// The operation in this place.
#[inline(always)]
pub fn operation_in(slot: u32) -> Option<Slot<Operation>> {
    socket_in(slot).map(Slot::as_operation)
}

/// 1 + the place of a socket that is not at its first; 0: it is at none.
#[cold]
#[inline(never)]
fn find_socket(address: u64, first: u32) -> u32 {
    for way in 1..SOCKET_WAYS {
        let index = (first + way) & settings::slots_mask();
        if SOCKETS.slot(index).is_some_and(|slot| slot.key == address) {
            return index + 1;
        }
    }
    0
}

/// Gives it back.
#[inline(always)]
fn unlock(lock: &mut u64) {
    write_once(lock, 0);
}

/// Starts to follow a socket, or an operation: in a free slot or its own of before, else in one that no phase has used
/// since `epoch` began.
#[inline(always)]
pub fn put_holder(value: &Holder) -> bool {
    let first = mix(value.key);
    for way in 0..SOCKET_WAYS {
        if take_socket((first + way) & settings::slots_mask(), value, false) {
            return true;
        }
    }
    for way in 0..SOCKET_WAYS {
        if take_socket((first + way) & settings::slots_mask(), value, true) {
            return true;
        }
    }
    false
}

/// The slot takes the socket, if it is free, of the same address, or (with `stale`) of an earlier phase.
#[inline(always)]
fn take_socket(index: u32, value: &Holder, stale: bool) -> bool {
    let Some(mut slot) = SOCKETS.slot(index) else {
        return false;
    };
    if !try_lock(&mut slot.lock) {
        return false;
    }
    let free = slot.key == 0 || slot.key == value.key || (stale && slot.token.epoch() != value.token.epoch());
    if free {
        *slot = Socket::new(Holder { slot: index, ..*value });
    }
    unlock(&mut slot.lock);
    free
}

/// What is known of the skb at this address.
#[inline(always)]
pub fn packet(address: u64) -> Option<Slot<Packet>> {
    let first = mix(address);
    let slot = PACKETS.slot(first & settings::packets_mask())?;
    if slot.key == address {
        return Some(slot);
    }
    let index = find_packet(address, first);
    if index == 0 {
        return None;
    }
    PACKETS.slot((index - 1) & settings::packets_mask())
}

/// 1 + the place of an skb that is not at its first; 0: it is at none.
#[cold]
#[inline(never)]
fn find_packet(address: u64, first: u32) -> u32 {
    for way in 1..PACKET_WAYS {
        let index = (first + way) & settings::packets_mask();
        if PACKETS.slot(index).is_some_and(|slot| slot.key == address) {
            return index + 1;
        }
    }
    0
}

/// Starts to follow an skb. What still stands at its address was freed without notice: that token is lost.
#[inline(always)]
pub fn put_packet(value: &Carried) -> bool {
    let first = mix(value.key);
    // Nearly always its first place is its own of before; one of it further on would be a second.
    if let Some(slot) = PACKETS.slot(first & settings::packets_mask())
        && slot.key == value.key
        && take_packet(slot, value)
    {
        return true;
    }
    put_packet_further(value, first)
}

/// The packet's token has gone on: its slot is free. Last, once all of it has been read: from then on, another CPU may
/// fill it for another skb.
#[inline(always)]
pub fn release(mut packet: Slot<Packet>) {
    reads_end_here();
    write_once(&mut packet.live, 0);
}

/// What an skb that is put into the table carries, if it is live already.
pub struct Carried<'a> {
    pub key: u64,
    pub socket: u64,
    pub token: &'a Token,
    pub queued_ns: u64,
    pub live: u8,
    pub counted: u8,
    pub crossing: u32,
}

/// The slot takes the packet, if it is free or of the same address.
#[inline(always)]
fn take_packet(mut slot: Slot<Packet>, value: &Carried) -> bool {
    if !try_lock(&mut slot.lock) {
        return false;
    }
    let stands = slot.live != 0 && slot.token.epoch() == value.token.epoch();
    // A slot of this address may have been taken for another one meanwhile.
    let ours = slot.key == value.key;
    if stands && ours {
        lose(&slot.token, slot.counted, Counter::LostRecycled);
    }
    let taken = ours || !stands;
    if taken {
        slot.key = value.key;
        slot.socket = value.socket;
        slot.token = *value.token;
        slot.queued_ns = value.queued_ns;
        slot.counted = value.counted;
        slot.connection = 0;
        slot.crossing = value.crossing;
        slot.live = value.live;
    }
    unlock(&mut slot.lock);
    taken
}

/// Takes the address's own place first, wherever it stands: an entry further on must not survive a free slot before it.
#[cold]
#[inline(never)]
fn put_packet_further(value: &Carried, first: u32) -> bool {
    if let Some(slot) = packet(value.key)
        && take_packet(slot, value)
    {
        return true;
    }
    for way in 0..PACKET_WAYS {
        let Some(slot) = PACKETS.slot((first + way) & settings::packets_mask()) else {
            return false;
        };
        if take_packet(slot, value) {
            return true;
        }
    }
    false
}

/// Slots looked at for one connection, which stays as long as a socket.
const CONNECTION_WAYS: u32 = 8;

#[inline(always)]
fn first_of_connection(key: u64) -> u32 {
    ((key >> 32) as u32 ^ key as u32).wrapping_mul(SPREAD) >> 16
}

/// The connection in this place.
#[inline(always)]
pub fn connection_in(slot: u32) -> Option<Slot<Connection>> {
    CONNECTIONS.slot(slot & settings::connections_mask())
}

/// 1 + the place of a connection; 0: it has none.
#[cold]
#[inline(never)]
pub fn find_connection(key: u64) -> u32 {
    let first = first_of_connection(key);
    for way in 0..CONNECTION_WAYS {
        let index = (first + way) & settings::connections_mask();
        if connection_in(index).is_some_and(|slot| slot.key == key) {
            return index + 1;
        }
    }
    0
}

/// 1 + the place of a connection: its own, else a free one, or one that no phase has used since `epoch` began.
#[cold]
#[inline(never)]
pub fn place_of_connection(key: u64, turn: Turn) -> u32 {
    let found = find_connection(key);
    if found != 0 {
        return found;
    }
    let first = first_of_connection(key);
    for way in 0..CONNECTION_WAYS {
        let index = (first + way) & settings::connections_mask();
        let Some(mut slot) = connection_in(index) else { continue };
        if (slot.key != 0 && slot.token.epoch() == turn.epoch()) || !try_lock(&mut slot.lock) {
            continue;
        }
        let free = slot.key == 0 || slot.token.epoch() != turn.epoch();
        if free {
            slot.state = EMPTY;
            slot.token.turn = turn;
            slot.key = key;
        }
        unlock(&mut slot.lock);
        if free {
            return index + 1;
        }
    }
    0
}
