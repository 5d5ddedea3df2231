//! The steps of a token on its way: from device to device, and out of the books.

use profiler_common::{
    Counter, Packet, Tag, Token,
    point::{DROPPED, PlaceId, Point, REFUSED},
};

use crate::core::{
    holder::Fault,
    maps::{device, now},
    phase::Phase,
    slot::Slot,
    slots::{packet, release},
    thread::work_on,
    token::{Parts, lose, pass},
};

/// Whether a token waits in its socket for a segment to be sent again.
#[inline(always)]
pub fn is_lost(point: PlaceId) -> bool {
    point == DROPPED || point == REFUSED
}

/// Says, in sampled phases, before a token passes a point: whatever this context does from the moment on whose time
/// stands at that point, samples are to find there.
#[inline(always)]
pub fn turns_to<const D: bool>(control: Phase<D>, holder: u64, is_packet: bool, role: u8, point: PlaceId, at_ns: u64) {
    if control.tags() {
        let packet = is_packet as u8;
        work_on(Tag { holder, at_ns, point, role, packet, reserved: [0; 4] }, false);
    }
}

#[inline(always)]
pub fn tag_of_packet(packet: &Packet) -> Tag {
    let token = &packet.token;
    Tag { holder: packet.key, at_ns: token.at_ns, point: token.point, role: token.role(), packet: 1, reserved: [0; 4] }
}

/// A token of a holder (a socket, or a packet) passes `what` at a device, whose index this returns, after a time
/// `part_ns` that was left behind under `part`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "all of it is inlined")]
pub fn pass_device<const D: bool>(
    control: Phase<D>,
    token: &mut Token,
    counted: u8,
    (holder, is_packet): (u64, bool),
    what: Point,
    dev: u64,
    part_ns: u64,
    part: Point,
) -> Result<u8, Counter> {
    let Some(index) = device(dev) else {
        return Err(Counter::LostStageTable);
    };
    let to = PlaceId::at(what, index);
    let at_ns = now();
    turns_to(control, holder, is_packet, token.role(), to, at_ns);
    if control.splits() && part_ns > token.at_ns && part_ns <= at_ns {
        let mut parts = Parts::of(token, counted);
        parts.via(PlaceId::at(part, index), part_ns);
        parts.end(to, at_ns);
    }
    pass(token, counted, to, at_ns).map(|()| index)
}

/// A travelling token passes the next device. Returns its index.
#[inline(always)]
pub fn hop<const D: bool>(
    control: Phase<D>,
    mut packet: Slot<Packet>,
    what: Point,
    dev: u64,
    part_ns: u64,
    part: Point,
) -> Result<u8, Fault> {
    let (holder, counted) = ((packet.key, true), packet.counted);
    let index = pass_device(control, &mut packet.token, counted, holder, what, dev, part_ns, part)
        .map_err(|cause| drop_entry(packet, cause))?;
    if control.tags() {
        work_on(tag_of_packet(&packet), what == Point::Xmit);
    }
    Ok(index)
}

#[inline(always)]
pub fn travelling<const D: bool>(control: Phase<D>, skb: u64) -> Option<Slot<Packet>> {
    packet(skb).filter(|packet| packet.live != 0 && packet.token.epoch() == control.epoch())
}

/// A travelling token is lost.
#[inline(always)]
pub fn drop_entry(packet: Slot<Packet>, cause: Counter) -> Fault {
    let fault = lose(&packet.token, packet.counted, cause);
    release(packet);
    Some(fault)
}
