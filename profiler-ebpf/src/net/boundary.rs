//! The boundary of a VM: a request's skb ends at the device that leads there, and the response comes
//! back in another one. In between, the VM holds the token, and its connection tells whose it is.

use profiler_common::{
    Border, CLIENT, Counter, EMPTY, Packet, READ, SERVER, Socket, Token, crossing_number,
    point::{DROPPED, PlaceId, Point, TAKEN},
};

use crate::{
    core::{
        holder::Fault,
        kernel::{Kernel, read},
        maps::{border, comes_in, count_inside, device, goes_out, now},
        phase::Phase,
        settings,
        slot::Slot,
        slots::{Carried, connection_in, find_connection, packet, place_of_connection, put_packet, release, socket},
        thread::work_on,
        token::{begins, ends, holder_passes, lose},
    },
    net::hop::{drop_entry, pass_device, tag_of_packet},
    vm::vcpu,
};

const IPPROTO_TCP: u8 = 6;

/// The connection of the message at this IPv4 header, as seen from outside: the other side's address and port, and
/// the VM's port, as they stand in the headers (RFC 791, 3.1; RFC 9293, 3.1). 0: it is no TCP segment with
/// payload, or not the first fragment. With it comes the message's number, see [`profiler_common::Crossing`].
#[cold]
#[inline(never)]
fn connection_key(header: u64, outwards: u32, number: &mut u32) -> u64 {
    let ip: [u8; 20] = read(header, 0);
    let words = u32::from(ip[0] & 15);
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff;
    if ip[0] >> 4 != 4 || words < 5 || ip[9] != IPPROTO_TCP || fragment != 0 {
        return 0;
    }
    let tcp: [u8; 16] = read(header, words * 4);
    let length = u32::from(u16::from_be_bytes([ip[2], ip[3]]));
    if length <= (words + u32::from(tcp[12] >> 4)) * 4 {
        return 0;
    }
    let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    let from = u16::from_be_bytes([tcp[0], tcp[1]]);
    let to = u16::from_be_bytes([tcp[2], tcp[3]]);
    let (address, outside, inside) = if outwards != 0 { (destination, to, from) } else { (source, from, to) };
    *number = crossing_number(u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]), outside);
    u64::from(address) << 32 | u64::from(outside) << 16 | u64::from(inside)
}

/// The token of an skb that has just been handed to the device with this index goes over to its connection, if that
/// is the VM's.
#[inline(always)]
pub fn leaves<K: Kernel, const D: bool>(control: Phase<D>, mut packet: Slot<Packet>, skb: u64, index: u8) -> Fault {
    if !control.has_borders() || border(index).kind == Border::NONE {
        return None;
    }
    let head: u64 = K::load(skb, settings::skb_head());
    let network: u16 = K::load(skb, settings::skb_network());
    let mut number = 0;
    let key = connection_key(head + u64::from(network), 0, &mut number);
    if key == 0 {
        // Not understood: it stays with the skb, and is lost where that is freed, which is counted.
        return None;
    }
    let index = place_of_connection(key, packet.token.turn);
    let Some(mut connection) = (if index == 0 { None } else { connection_in(index - 1) }) else {
        return drop_entry(packet, Counter::LostConnectionTable);
    };
    if connection.state != EMPTY && connection.token.epoch() == control.epoch() {
        if control.splits() && connection.token.point == TAKEN {
            vcpu::gives_back(&control, &connection.token, PlaceId::NONE, now());
        }
        lose(&connection.token, connection.counted, Counter::LostUnanswered);
    }
    connection.token = packet.token;
    connection.socket = packet.socket;
    connection.counted = packet.counted;
    connection.state = READ;
    connection.crossing = number;
    comes_in(&control, packet.counted, number, packet.token.at_ns);
    packet.connection = index;
    release(packet);
    None
}

/// An skb that carries no token has been received: from the VM, it may be an answer.
#[inline(always)]
pub fn enters<K: Kernel, const D: bool>(control: Phase<D>, skb: u64) -> Fault {
    if !control.has_borders() {
        return None;
    }
    let dev: u64 = K::load(skb, settings::skb_dev());
    let place = device(dev)?;
    match border(place) {
        Border { kind: Border::NONE, .. } => return None,
        Border { kind: Border::CARD, port } => return arrives::<K, D>(control, skb, place, port),
        Border { .. } => {}
    }
    let data: u64 = K::load(skb, settings::skb_data());
    let key = connection_key(data, 1, &mut 0);
    let index = if key == 0 { 0 } else { find_connection(key) };
    if index == 0 {
        return None;
    }
    let mut connection = connection_in(index - 1)?;
    if connection.state == EMPTY || connection.token.epoch() != control.epoch() {
        count_inside(&control, connection.token.turn, now(), Counter::Segments);
        return None;
    }
    connection.state = EMPTY;
    let counted = core::mem::replace(&mut connection.counted, 0);
    let was_taken = connection.token.point == TAKEN;
    // What the VM held is in no table of holders: samples find it once its skb is.
    let passed =
        pass_device(control, &mut connection.token, counted, (0, true), Point::Receive, dev, 0, Point::Softirq);
    goes_out(&control, core::mem::take(&mut connection.crossing), connection.token.at_ns);
    if control.splits() && was_taken {
        vcpu::gives_back(&control, &connection.token, connection.token.point, connection.token.at_ns);
    }
    if let Err(cause) = passed {
        return Some(lose(&connection.token, counted, cause));
    }
    let mut token = connection.token;
    token.set_role(SERVER);
    // The sender as the skb has it: whoever looks at it next compares it with that.
    let sender: u64 = K::load(skb, settings::skb_sk());
    let carried = Carried { key: skb, socket: sender, token: &token, queued_ns: 0, live: 1, counted, crossing: 0 };
    if !put_packet(&carried) {
        return Some(lose(&token, counted, Counter::LostPacketTable));
    }
    if control.tags()
        && let Some(packet) = packet(skb)
    {
        work_on(tag_of_packet(&packet), false);
    }
    None
}

/// A request comes in at the card of the VM that this is, and a token begins.
#[inline(always)]
fn arrives<K: Kernel, const D: bool>(control: Phase<D>, skb: u64, place: u8, port: u32) -> Fault {
    let data: u64 = K::load(skb, settings::skb_data());
    let mut number = 0;
    let key = connection_key(data, 0, &mut number);
    if key == 0 || key as u32 & 0xffff != port {
        return None;
    }
    let at_ns = now();
    let counted = begins(&control, control.turn, at_ns);
    comes_in(&control, counted, number, at_ns);
    // A VM is one configuration's.
    let token = Token::new(at_ns, control.turn, PlaceId::at(Point::Receive, place), CLIENT);
    let sender: u64 = K::load(skb, settings::skb_sk());
    let carried = Carried { key: skb, socket: sender, token: &token, queued_ns: 0, live: 1, counted, crossing: number };
    if put_packet(&carried) { None } else { Some(lose(&token, counted, Counter::LostPacketTable)) }
}

/// Whether, in the VM, the response that a socket has just handed to the device with this index leaves by its
/// card. Then its token ends here.
#[inline(always)]
pub fn departs<const D: bool>(control: Phase<D>, mut socket: Slot<Socket>, index: u8) -> bool {
    if !control.has_borders() || border(index).kind != Border::CARD {
        return false;
    }
    let at_ns = socket.token.at_ns;
    goes_out(&control, core::mem::take(&mut socket.crossing), at_ns);
    ends(socket.token.turn, &mut socket.counted, at_ns);
    socket.state = EMPTY;
    socket.counted = 0;
    true
}

/// An skb is dropped whose token the VM seems to hold: before it was taken from the device's queue. The token
/// goes back to its sender, as [`crate::net::loss::dropped`] does.
#[inline(always)]
pub fn dropped_before(control: Phase<true>, skb: u64) -> Fault {
    if !control.has_borders() {
        return None;
    }
    let mut packet = packet(skb).filter(|packet| packet.connection != 0 && packet.token.epoch() == control.epoch())?;
    let mut connection = connection_in(packet.connection - 1)?;
    packet.connection = 0;
    if connection.state == EMPTY
        || connection.token.epoch() != control.epoch()
        || connection.token.at_ns != packet.token.at_ns
    {
        return None;
    }
    let at_ns = now();
    count_inside(&control, connection.token.turn, at_ns, Counter::Drops);
    connection.state = EMPTY;
    if let Err(cause) = holder_passes(connection, DROPPED, at_ns) {
        return Some(lose(&connection.token, connection.counted, cause));
    }
    let sender =
        socket(connection.socket).filter(|sender| sender.state == EMPTY && sender.token.epoch() == control.epoch());
    let Some(mut sender) = sender else {
        return Some(lose(&connection.token, connection.counted, Counter::LostDropped));
    };
    sender.token = connection.token;
    sender.counted = connection.counted;
    sender.state = READ;
    Some(Counter::Drops)
}

/// An skb is freed in good order: the VM has taken what was in it, and from here on holds the token itself.
/// Another skb at its address that is dropped is none of it.
#[inline(always)]
pub fn taken(control: Phase<true>, skb: u64) -> Fault {
    if !control.has_borders() {
        return None;
    }
    let mut packet = packet(skb).filter(|packet| packet.connection != 0)?;
    let mut connection = connection_in(core::mem::take(&mut packet.connection) - 1)?;
    if connection.state == EMPTY
        || connection.token.epoch() != control.epoch()
        || connection.token.at_ns != packet.token.at_ns
    {
        return None;
    }
    if let Err(cause) = holder_passes(connection, TAKEN, now()) {
        connection.state = EMPTY;
        return Some(lose(&connection.token, connection.counted, cause));
    }
    comes_in(&control, connection.counted, connection.crossing, connection.token.at_ns);
    if control.splits() {
        vcpu::takes(&control, &connection.token, connection.counted);
    }
    None
}
