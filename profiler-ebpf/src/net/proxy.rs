//! A proxy's thread joins two sockets, which nothing else does: what it received from one, it sends on the other.

use profiler_common::{
    Counter, EMPTY, PROXY_IN, PROXY_OUT, READ, Socket, Thread, Token, Turn, is_proxy,
    point::{PlaceId, RECEIVED, SEND},
};

use crate::core::{
    holder::{Fault, follow_holder, forget, give_up, tag_of},
    kernel::read,
    maps::{current, now},
    phase::Phase,
    settings,
    slot::Slot,
    slots::{socket, socket_in},
    thread::{answered, work_on},
    token::{holder_passes, lose},
};

/// The direction of which a proxy's socket receives the messages: those to its own port are requests.
#[inline(always)]
pub fn proxy_role(thread: &Thread, address: u64) -> u8 {
    let port: u16 = read(address, settings::sock_port());
    if port == thread.port { PROXY_IN } else { PROXY_OUT }
}

/// A proxy's thread sends on one socket what it has received from another: the token goes from that to this. Bound by
/// the thread, which handles a message at a time.
#[cold]
#[inline(always)]
pub fn proxy_send<const D: bool>(control: Phase<D>, address: u64, known: Option<Slot<Socket>>) -> Fault {
    let mut thread = current()?;
    if !is_proxy(thread.role) || thread.proxied_slot == 0 {
        return None;
    }
    let mut from = socket_in(thread.proxied_slot - 1)?;
    let token = from.token;
    let held = from.state == READ && token.epoch() == control.epoch() && token.point == RECEIVED;
    if !held || from.key == address {
        return None;
    }
    let mut to = match known {
        Some(to) => to,
        None => {
            let role = proxy_role(&thread, address);
            follow_holder(address, Token::new(0, Turn::new(0, thread.configuration), PlaceId::NONE, role), 0);
            socket(address)?
        }
    };
    if to.token.epoch() == control.epoch() && to.state != EMPTY {
        forget(&control, &to);
        lose(&to.token, to.counted, Counter::LostResynchronised);
    }
    to.token = token;
    to.counted = from.counted;
    to.state = READ;
    from.state = EMPTY;
    from.counted = 0;
    thread.proxied_slot = 0;
    if let Err(cause) = holder_passes(to, SEND, now()) {
        return give_up(&control, to.head(), cause);
    }
    if control.tags() {
        work_on(tag_of(&to), false);
        answered(&control, thread);
    }
    None
}
