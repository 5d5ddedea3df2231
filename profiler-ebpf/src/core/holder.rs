//! Holders of tokens: what they are followed by, worked on as, and how they lose what they hold.

use profiler_common::{Control, Counter, EMPTY, Holder, READ, STACKS, Tag, Token, UNREAD, point::READY};

use crate::core::{
    maps::{count, thread},
    slot::Slot,
    slots::put_holder,
    thread::{add_ready, answered},
    token::lose,
};

/// What a handler returns: a fault worth a line under `--debug-probes`, or nothing.
pub type Fault = Option<Counter>;

#[inline(always)]
pub fn tag_of(socket: &Holder) -> Tag {
    let token = &socket.token;
    // The key as the map holds it is a number; an address from a typed tracepoint is a pointer.
    Tag { holder: socket.key, at_ns: token.at_ns, point: token.point, role: token.role(), packet: 0, reserved: [0; 4] }
}

/// A socket, or an operation on a file, is followed from now on.
#[inline(always)]
pub fn follow_holder(key: u64, token: Token, thread: u32) -> Fault {
    let new = Holder { key, token, state: READ, role: token.role(), thread, lock: 1, ..Holder::default() };
    if put_holder(&new) {
        return None;
    }
    count(token.turn, Counter::SocketTable);
    Some(Counter::SocketTable)
}

/// The socket loses its token: nobody works for it any more.
#[inline(always)]
pub fn forget(control: &Control, socket: &Holder) {
    if control.mode != STACKS || socket.token.epoch() != control.epoch() {
        return;
    }
    if let Some(thread) = thread(socket.thread) {
        if socket.state == READ {
            answered(control, thread);
        } else if socket.state == UNREAD && socket.token.point == READY {
            add_ready(control, thread, -1);
        }
    }
}

/// A fault in the socket's own books.
#[inline(always)]
pub fn give_up(control: &Control, mut socket: Slot<Holder>, cause: Counter) -> Fault {
    forget(control, &socket);
    let fault = lose(&socket.token, socket.counted, cause);
    socket.state = EMPTY;
    socket.counted = 0;
    Some(fault)
}
