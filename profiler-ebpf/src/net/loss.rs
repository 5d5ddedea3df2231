//! Tokens that do not arrive: dropped, freed, closed, or lost on the way.

use profiler_common::{
    Counter, EMPTY, READ,
    point::{DROPPED, REFUSED, SEND},
};

use crate::{
    core::{
        holder::{Fault, forget, give_up},
        instructions::write_once,
        kernel::{Kernel, has_payload},
        maps::{count_inside, now},
        phase::Phase,
        settings,
        slots::{release, socket},
        token::{holder_passes, lose},
    },
    net::{
        boundary::{dropped_before, taken},
        hop::{drop_entry, is_lost, travelling},
    },
};

const TCP_CLOSE: i32 = 7;

/// `skb:kfree_skb`: the token goes back to the sender, whose retransmission takes it along.
#[inline(always)]
pub fn dropped<K: Kernel>(control: Phase<true>, skb: u64) -> Fault {
    let Some(packet) = travelling(control, skb) else {
        // No closure: it would become a function in a section of its own.
        let fault = refused::<K>(control, skb);
        return if fault.is_some() { fault } else { dropped_before(control, skb) };
    };
    let at_ns = now();
    count_inside(&control, packet.token.turn, at_ns, Counter::Drops);
    if let Err(cause) = holder_passes(packet, DROPPED, at_ns) {
        return drop_entry(packet, cause);
    }
    let sender =
        socket(packet.socket).filter(|sender| sender.state == EMPTY && sender.token.epoch() == control.epoch());
    let Some(mut sender) = sender else {
        return drop_entry(packet, Counter::LostDropped);
    };
    sender.token = packet.token;
    sender.counted = packet.counted;
    sender.state = READ;
    release(packet);
    Some(Counter::Drops)
}

/// The own stack drops a segment that has not left: by a rule, or because a queue is full. TCP tries again; until
/// then, the socket keeps the token.
#[inline(always)]
fn refused<K: Kernel>(control: Phase<true>, skb: u64) -> Fault {
    let sender: u64 = K::load(skb, settings::skb_sk());
    if sender == 0 {
        return None;
    }
    let socket = socket(sender)?;
    let is_to_leave = socket.token.point == SEND || is_lost(socket.token.point);
    if socket.state != READ || socket.token.epoch() != control.epoch() || !is_to_leave || !has_payload::<K>(skb) {
        return None;
    }
    let at_ns = now();
    count_inside(&control, socket.token.turn, at_ns, Counter::Drops);
    if let Err(cause) = holder_passes(socket, REFUSED, at_ns) {
        return give_up(&control, socket.head(), cause);
    }
    Some(Counter::Drops)
}

/// `skb:consume_skb`: freed in good order, yet never delivered to a socket; or read by a VM.
#[inline(always)]
pub fn freed(control: Phase<true>, skb: u64) -> Fault {
    let Some(packet) = travelling(control, skb) else { return taken(control, skb) };
    drop_entry(packet, Counter::LostFreed)
}

/// `sock:inet_sock_set_state`: the address of a closed socket may be used again at once.
#[inline(always)]
pub fn state_changed(control: Phase<true>, address: u64, new: i32) -> Fault {
    if new != TCP_CLOSE {
        return None;
    }
    let mut socket = socket(address)?;
    let closed = if socket.state == EMPTY || socket.token.epoch() != control.epoch() {
        None
    } else {
        forget(&control, &socket);
        Some(lose(&socket.token, socket.counted, Counter::LostClosed))
    };
    socket.state = EMPTY;
    socket.counted = 0;
    // Last: from then on another CPU may take the slot.
    write_once(&mut socket.key, 0);
    closed
}
