//! Hand-overs between sockets and skbs. Every handler returns a fault worth a line under `--debug-probes`, or nothing.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use profiler_common::{
    CALL_RECEIVE, CLIENT, Counter, EMPTY, PROXY_IN, READ, SERVER, Socket, Token, UNREAD, is_proxy, path_role,
    point::{
        BACKLOG, CALL, DELIVERED, DROPPED, POLL_RETURN, PlaceId, Point, READY, RECEIVE_CALL, RECEIVED, SEND, SWITCH_IN,
        WAKEUP, WAKING,
    },
};

use crate::{
    core::{
        holder::{Fault, follow_holder, forget, give_up, tag_of},
        kernel::{Kernel, has_payload, read},
        maps::{count_inside, cpu, current, now, thread},
        phase::Phase,
        settings,
        slot::Slot,
        slots::{Carried, packet, put_packet, release, socket},
        thread::{add_ready, answered, has_read, work_on},
        token::{append, begin_record, begins, commit_record, ends, goes_on, holder_passes, is_inside, lose, pass},
    },
    net::{
        boundary,
        hop::{drop_entry, hop, is_lost, pass_device, tag_of_packet, travelling, turns_to},
        proxy::{proxy_role, proxy_send},
        reader::{self, note_times},
        retransmission,
    },
};

const MSG_PEEK: i32 = 2;
const IPPROTO_TCP: u16 = 6;

/// `tcp:tcp_sendmsg_locked`: the socket's owner sends.
#[inline(always)]
pub fn send<const D: bool>(control: Phase<D>, address: u64) -> Fault {
    let known = socket(address);
    if control.has_proxies() && known.as_ref().is_none_or(|socket| socket.role >= PROXY_IN) {
        return proxy_send(control, address, known);
    }
    let mut socket = known?;
    let at_ns = now();
    if socket.token.epoch() != control.epoch() {
        // The client's first send in this phase: what came before it was not followed.
        if socket.role == CLIENT {
            let turn = control.turn.of(socket.token.turn.configuration());
            socket.token = Token::new(at_ns, turn, SEND, CLIENT);
            socket.state = READ;
            socket.counted = 0;
        }
        return None;
    }
    if socket.state != READ {
        let odd = if socket.role == CLIENT {
            Counter::Pipelined
        } else if socket.state == UNREAD {
            Counter::Unreceived
        } else {
            return None;
        };
        // In the lead-in, a receipt may have begun before it could be seen.
        count_inside(&control, socket.token.turn, at_ns, odd);
        return Some(odd);
    }
    if socket.token.point != RECEIVED {
        return None;
    }
    let mut called_ns = 0;
    if control.splits() {
        called_ns = reader::split_turnaround(control, &socket, at_ns);
    }
    let answered_ns = socket.token.at_ns;
    if socket.role == CLIENT && socket.token.record() != 0 {
        commit_record(socket.token.record());
        socket.token.set_record(0);
    }
    // The client's time before a request belongs to that.
    let counted = if socket.role == CLIENT { is_inside(&control, at_ns) } else { socket.counted };
    turns_to(control, socket.key, false, socket.role, SEND, at_ns);
    if let Err(cause) = pass(&mut socket.token, counted, SEND, at_ns) {
        return give_up(&control, socket.head(), cause);
    }
    if socket.role == CLIENT {
        begin_request(control, socket, called_ns, answered_ns);
    }
    if control.tags() {
        work_on(tag_of(&socket), false);
        // Whoever received the message was credited with it.
        if let Some(thread) = thread(socket.thread) {
            answered(&control, thread);
        }
    }
    None
}

#[inline(always)]
fn begin_request<const D: bool>(control: Phase<D>, mut socket: Slot<Socket>, called_ns: u64, answered_ns: u64) {
    let at_ns = socket.token.at_ns;
    socket.counted = begins(&control, socket.token.turn, at_ns);
    let slot = begin_record(&control, socket.head());
    if slot != 0 {
        if called_ns > answered_ns {
            append(slot, CLIENT, CALL, called_ns);
        }
        append(slot, CLIENT, SEND, at_ns);
    }
    socket.token.set_record(slot);
}

/// `net:net_dev_queue`: only a time is left behind; [`xmit`] of the same device binds it.
#[inline(always)]
pub fn queue<K: Kernel, const D: bool>(control: Phase<D>, skb: u64) -> Fault {
    let at_ns = now();
    if let Some(mut packet) = packet(skb)
        && packet.live != 0
        && packet.token.epoch() == control.epoch()
    {
        packet.queued_ns = at_ns;
        return None;
    }
    // Not yet travelling: the entry is made here, so that the time has a place.
    let sender: u64 = K::load(skb, settings::skb_sk());
    if sender == 0 {
        return None;
    }
    let socket = socket(sender)?;
    if socket.state != READ || socket.token.epoch() != control.epoch() {
        return None;
    }
    let token = Token::new(0, socket.token.turn, PlaceId::NONE, CLIENT);
    put_packet(&Carried {
        key: skb,
        socket: sender,
        token: &token,
        queued_ns: at_ns,
        live: 0,
        counted: 0,
        crossing: 0,
    });
    None
}

/// `net:net_dev_start_xmit`: socket → skb, or the next device of a stack.
#[inline(always)]
pub fn xmit<K: Kernel, const D: bool>(control: Phase<D>, skb: u64, dev: u64) -> Fault {
    let sender: u64 = K::load(skb, settings::skb_sk());
    let holder = if sender == 0 { None } else { socket(sender) };
    // A socket that is ready to send, the most frequent case, needs no look at what travels already.
    if let Some(socket) = &holder {
        let token = &socket.token;
        let is_to_leave = token.point == SEND || is_lost(token.point);
        if socket.state == READ && token.epoch() == control.epoch() && is_to_leave {
            return first_hop::<K, D>(control, holder?, skb, dev);
        }
    }
    if let Some(packet) = travelling(control, skb) {
        // Its own socket may give the address to an ACK of its own: then it holds something again.
        let same = sender == packet.socket
            && holder.as_ref().is_none_or(|socket| socket.state == EMPTY || socket.token.epoch() != control.epoch());
        if sender == 0 || same {
            return match hop(control, packet, Point::Xmit, dev, packet.queued_ns, Point::Queue) {
                Ok(index) => boundary::leaves::<K, D>(control, packet, skb, index),
                Err(fault) => fault,
            };
        }
        // The address was given to another skb, and nobody told.
        return drop_entry(packet, Counter::LostRecycled);
    }
    let socket = holder?;
    if socket.state == EMPTY && socket.token.epoch() == control.epoch() && has_payload::<K>(skb) {
        let again = retransmission::is_one::<K>(socket.key, skb);
        let counter = if again { Counter::Resent } else { Counter::Segments };
        count_inside(&control, socket.token.turn, now(), counter);
    }
    None
}

/// When [`queue`] saw an skb that was not travelling yet; 0: it did not.
#[inline(always)]
fn left_in_queue<const D: bool>(control: Phase<D>, socket: &Socket, skb: u64) -> u64 {
    packet(skb)
        .filter(|packet| packet.live == 0 && packet.token.epoch() == control.epoch() && packet.socket == socket.key)
        .map_or(0, |packet| packet.queued_ns)
}

/// The token leaves its socket. Pure ACKs, window updates and FINs carry none.
#[inline(always)]
fn first_hop<K: Kernel, const D: bool>(control: Phase<D>, mut socket: Slot<Socket>, skb: u64, dev: u64) -> Fault {
    if !has_payload::<K>(skb) {
        return None;
    }
    if is_lost(socket.token.point) {
        if socket.token.point == DROPPED && !retransmission::may_be_one::<K>(socket.key, skb) {
            // A further segment of the message whose first was lost.
            count_inside(&control, socket.token.turn, now(), Counter::Segments);
            return None;
        }
        retransmission::waited(&socket, now());
    }
    let queued_ns = if control.splits() { left_in_queue(control, &socket, skb) } else { 0 };
    let (holder, counted) = ((socket.key, false), socket.counted);
    match pass_device(control, &mut socket.token, counted, holder, Point::Xmit, dev, queued_ns, Point::Queue) {
        Err(cause) => return give_up(&control, socket.head(), cause),
        Ok(index) if boundary::departs(control, socket, index) => return None,
        Ok(_) => {}
    }
    let carried = Carried {
        key: skb,
        socket: socket.key,
        token: &socket.token,
        queued_ns: 0,
        live: 1,
        counted: socket.counted,
        crossing: 0,
    };
    if !put_packet(&carried) {
        return give_up(&control, socket.head(), Counter::LostPacketTable);
    }
    socket.state = EMPTY;
    socket.counted = 0;
    if control.tags()
        && let Some(packet) = packet(skb)
    {
        work_on(tag_of_packet(&packet), true);
    }
    None
}

/// `net:netif_receive_skb`.
#[inline(always)]
pub fn receive<K: Kernel, const D: bool>(control: Phase<D>, skb: u64) -> Fault {
    let Some(packet) = travelling(control, skb) else { return boundary::enters::<K, D>(control, skb) };
    let dev: u64 = K::load(skb, settings::skb_dev());
    let since = if control.splits() { cpu().map_or(0, |cpu| cpu.softirq_since_ns) } else { 0 };
    hop(control, packet, Point::Receive, dev, since, Point::Softirq).err()?
}

/// `tcp:tcp_probe`: skb → socket. A pure ACK has no entry, so it falls out at the look-up.
#[inline(always)]
pub fn delivered<K: Kernel, const D: bool>(control: Phase<D>, address: u64, skb: u64) -> Fault {
    let packet = travelling(control, skb)?;
    // While the backlog is worked off, the socket is still owned by the task that does so.
    let owned: u32 = K::load(address, settings::sock_owned());
    let to = if owned == 0 { DELIVERED } else { BACKLOG };
    let at_ns = now();
    turns_to(control, packet.key, true, packet.token.role(), to, at_ns);
    if let Err(cause) = holder_passes(packet, to, at_ns) {
        return drop_entry(packet, cause);
    }
    let Some(mut socket) = socket(address) else {
        // A connection made during the lead-in begins with one; a relay never stops.
        count_inside(&control, packet.token.turn, at_ns, Counter::UnknownSocket);
        return drop_entry(packet, Counter::LostUnknownSocket);
    };
    if socket.token.epoch() == control.epoch() && socket.state != EMPTY {
        forget(&control, &socket);
        lose(&socket.token, socket.counted, Counter::LostResynchronised);
    }
    let role = socket.role;
    socket.token = packet.token;
    socket.token.set_role(role);
    socket.counted = packet.counted;
    socket.crossing = packet.crossing;
    socket.state = UNREAD;
    release(packet);
    if control.tags() {
        work_on(tag_of(&socket), false);
    }
    None
}

/// `sock:sk_data_ready`.
#[inline(always)]
pub fn ready<const D: bool>(control: Phase<D>, address: u64) -> Fault {
    let socket = socket(address)?;
    let token = &socket.token;
    if socket.state != UNREAD
        || token.epoch() != control.epoch()
        || (token.point != DELIVERED && token.point != BACKLOG)
    {
        return None;
    }
    let at_ns = now();
    turns_to(control, socket.key, false, token.role(), READY, at_ns);
    if let Err(cause) = holder_passes(socket, READY, at_ns) {
        return give_up(&control, socket.head(), cause);
    }
    if control.splits() {
        reader::begins(&control, &socket, at_ns);
    } else if control.tags() {
        work_on(tag_of(&socket), false);
        if let Some(thread) = thread(socket.thread) {
            add_ready(&control, thread, 1);
        }
    }
    None
}

/// `sock:sock_recv_length`: the data is in user memory.
#[inline(always)]
pub fn received<const D: bool>(control: Phase<D>, address: u64, result: i32, flags: i32) -> Fault {
    if result <= 0 || flags & MSG_PEEK != 0 {
        return None;
    }
    let at_ns = now();
    let known = socket(address);
    let (role, configuration) = receiver(control, address, known)?;
    let fresh = Token::new(at_ns, control.turn.of(configuration), RECEIVED, role);
    let reader = if control.is_plain() { 0 } else { bpf_get_current_pid_tgid() as u32 };
    let Some(mut socket) = known else {
        // Sockets of other protocols are received from as well, and never get a token.
        let protocol: u16 = read(address, settings::sock_protocol());
        return if protocol == IPPROTO_TCP { follow_holder(address, fresh, reader) } else { None };
    };
    socket.role = role;
    // Whoever reads it now is expected to read it the next time.
    let expected = core::mem::replace(&mut socket.thread, reader);
    if socket.token.epoch() != control.epoch() || socket.state == EMPTY {
        // A proxy goes on with a message whose beginning it has handed on already.
        if role >= PROXY_IN && socket.token.epoch() == control.epoch() {
            return None;
        }
        socket.token = fresh;
        socket.state = READ;
        socket.counted = 0;
        if control.tags()
            && let Some(thread) = current()
        {
            has_read(&control, thread);
        }
        return None;
    }
    let again = socket.state == READ;
    if again {
        goes_on(socket.token.turn, socket.counted, at_ns.saturating_sub(socket.token.at_ns));
        count_inside(&control, socket.token.turn, at_ns, Counter::Parts);
        if control.splits()
            && let Some(thread) = current()
        {
            reader::goes_on(&control, &socket, thread, at_ns);
        }
    } else {
        if control.splits() {
            split_wait(control, &socket, at_ns);
        } else if control.tags()
            && socket.token.point == READY
            && let Some(thread) = thread(expected)
        {
            add_ready(&control, thread, -1);
        }
    }
    socket.state = READ;
    turns_to(control, socket.key, false, role, RECEIVED, at_ns);
    if let Err(cause) = holder_passes(socket, RECEIVED, at_ns) {
        return give_up(&control, socket.head(), cause);
    }
    if !again && socket.role == CLIENT {
        ends(socket.token.turn, &mut socket.counted, at_ns);
    }
    if control.tags() {
        work_on(tag_of(&socket), false);
        if let (Some(thread), false) = (current(), again) {
            has_read(&control, thread);
        }
    }
    None
}

/// In which role a message is received from the socket at this address, and of which configuration. Who receives is
/// asked only where it is not known, or where the thread's times are wanted.
#[inline(always)]
fn receiver<const D: bool>(control: Phase<D>, address: u64, known: Option<Slot<Socket>>) -> Option<(u8, u8)> {
    if let Some(socket) = known
        && control.is_plain()
        && socket.role < PROXY_IN
    {
        return Some((socket.role, socket.token.turn.configuration()));
    }
    let mut thread = current()?;
    thread.return_ns = 0;
    let role = if is_proxy(thread.role) {
        thread.proxied_slot = known.map_or(0, |socket| socket.slot + 1);
        proxy_role(&thread, address)
    } else {
        path_role(thread.role)
    };
    Some((role, thread.configuration))
}

/// Splits `ready → received` by what the receiving thread did meanwhile.
#[inline(always)]
fn split_wait<const D: bool>(control: Phase<D>, socket: &Socket, at_ns: u64) {
    let Some(thread) = current() else { return };
    let called_ns = if thread.call == CALL_RECEIVE { thread.call_ns } else { 0 };
    note_times(
        &socket.token,
        &[
            (WAKING, thread.waking_ns),
            (WAKEUP, thread.wakeup_ns),
            (SWITCH_IN, thread.switch_in_ns),
            (POLL_RETURN, thread.poll_return_ns),
            (RECEIVE_CALL, called_ns),
        ],
    );
    reader::hands_over(&control, socket, thread, called_ns, at_ns);
}

/// `sock:sock_send_length`: a check on the number of sends, from another place in the kernel.
#[inline(always)]
pub fn sent<const D: bool>(control: Phase<D>, address: u64, result: i32) -> Fault {
    let at_ns = now();
    if result > 0 {
        let socket = socket(address)?;
        if socket.role <= SERVER {
            count_inside(&control, socket.token.turn, at_ns, Counter::Sent);
        }
    }
    None
}
