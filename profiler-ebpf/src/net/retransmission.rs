//! Segments that are sent again: why, by the state that TCP is in when it does.

use profiler_common::{
    Socket,
    point::{FAST, LOSS_PROBE, OTHER_RETRANSMISSION, PROBE_TIMER, PlaceId, REFUSED, RTO},
};

use crate::core::{
    kernel::{Kernel, read},
    settings::{self, NO_FIELD},
    token::{spend_part, stage_key},
};

/// `ICSK_TIME_LOSS_PROBE` (`include/net/inet_connection_sock.h`): the timer that is set. It stays so where
/// acknowledgements start a recovery before it expires.
const TIMER_LOSS_PROBE: u8 = 5;
/// `TCP_CA_Recovery` and `TCP_CA_Loss` (`include/uapi/linux/tcp.h`).
const RECOVERY: u8 = 3;
const LOSS: u8 = 4;
/// Bits of `icsk_ca_state`.
const STATE: u8 = 0x1f;

/// Whether a segment with payload has been sent before: it begins before what TCP sends next. What it sends for the
/// first time begins there, because that moves on only once the segment has left.
#[inline(always)]
pub fn is_one<K: Kernel>(socket: u64, skb: u64) -> bool {
    if settings::tcp_next() == NO_FIELD {
        return false;
    }
    let head: u64 = K::load(skb, settings::skb_head());
    let transport: u16 = K::load(skb, settings::skb_transport());
    // The sequence number (RFC 9293, 3.1).
    let number = u32::from_be_bytes(read(head + u64::from(transport), 4));
    let next: u32 = read(socket, settings::tcp_next());
    (number.wrapping_sub(next) as i32) < 0
}

/// Whether a segment may have been sent before: where the kernel does not say, any may.
#[inline(always)]
pub fn may_be_one<K: Kernel>(socket: u64, skb: u64) -> bool {
    settings::tcp_next() == NO_FIELD || is_one::<K>(socket, skb)
}

/// The token's wait since its segment was lost is over: a part of the stage, by what ended it.
#[cold]
#[inline(never)]
pub fn waited(socket: &Socket, at_ns: u64) {
    let token = &socket.token;
    if socket.counted != 0 && at_ns > token.at_ns {
        spend_part(stage_key(token, true, token.point, cause(socket)), at_ns - token.at_ns);
    }
}

#[inline(always)]
fn cause(socket: &Socket) -> PlaceId {
    if settings::tcp_pending() == NO_FIELD || settings::tcp_congestion() == NO_FIELD {
        return OTHER_RETRANSMISSION;
    }
    let pending: u8 = read(socket.key, settings::tcp_pending());
    let state: u8 = read(socket.key, settings::tcp_congestion());
    match state & STATE {
        RECOVERY => FAST,
        LOSS => RTO,
        _ if pending == TIMER_LOSS_PROBE => LOSS_PROBE,
        // Nothing is outstanding: the timer for that tries what never left.
        _ if socket.token.point == REFUSED => PROBE_TIMER,
        _ => OTHER_RETRANSMISSION,
    }
}
