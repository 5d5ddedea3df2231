//! The one operation: a token passes a point, and the time since its last point goes to a stage.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use profiler_common::{
    BUCKETS, BUCKETS_PER_OCTAVE, COUNTED, Connection, Control, Counter, ENDED, FIRST_OCTAVE, Holder, Operation, Packet,
    RECORD_HEADER, RECORD_POINTS, Record, Seen, Socket, StageId, Token, Turn, point::PlaceId,
};

use crate::core::{
    instructions::swap_if,
    kernel::{random, this_cpu},
    maps::{RECORD_RING, add, add_all, count, count_number, record, stage},
    settings,
    slot::Slot,
};

/// User space polls: a wake-up would be work of ours on the CPU that is measured.
pub const BPF_RB_NO_WAKEUP: u64 = 1;

/// Adds a time to the totals of a key. False: there was no room.
#[inline(always)]
fn spend(key: u64, time_ns: u64) -> bool {
    let Some(mut stage) = stage(key) else {
        return false;
    };
    stage.total_ns += time_ns;
    stage.count += 1;
    stage.buckets[bucket(time_ns)] += 1;
    true
}

/// The part of a stage, of a request that counts: without room, no token is lost, but that detail is, and counted. A
/// function of its own, because a program does this in many places.
#[cold]
#[inline(never)]
pub fn spend_part(key: u64, time_ns: u64) {
    if !spend(key, time_ns) {
        count_number(StageId::of_key(key).configuration, Counter::DetailsTable as u32);
    }
}

/// The time that a thread or a virtual processor spends in a state, `[start, end]` as far as it lies in the recorded
/// interval: it belongs to no request. Without room, it is counted as lost.
#[cold]
#[inline(never)]
pub fn spend_clipped(control: &Control, key: u64, start_ns: u64, end_ns: u64) {
    if end_ns <= control.open_ns || start_ns >= control.close_ns {
        return;
    }
    let inside = end_ns < control.close_ns;
    let time_ns = end_ns.min(control.close_ns) - start_ns.max(control.open_ns);
    let Some(mut stage) = stage(key) else {
        // Keys of calls and exits have their configuration in the same place.
        count_number(StageId::of_key(key).configuration, Counter::DetailsTable as u32);
        return;
    };
    stage.total_ns += time_ns;
    // What ends after the interval is counted there by nobody: only its time is.
    if inside {
        stage.count += 1;
        stage.buckets[bucket(time_ns)] += 1;
    }
}

/// The position of the highest bit of a byte; BPF has no instruction for it below v4.
static HIGHEST_BIT: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 1;
    while byte < 256 {
        table[byte] = byte.ilog2() as u8;
        byte += 1;
    }
    table
};

/// Log-linear buckets.
#[inline(always)]
fn bucket(time_ns: u64) -> usize {
    let value = if time_ns > 0x7fff_ffff { 0x7fff_ffff } else { time_ns as u32 };
    if value < 1 << FIRST_OCTAVE {
        return 0;
    }
    // Durations of stages: nearly all lie between 256 ns and 65 µs.
    let shift = if value < 1 << 8 {
        0
    } else if value < 1 << 16 {
        8
    } else if value < 1 << 24 {
        16
    } else {
        24
    };
    let octave = shift + u32::from(HIGHEST_BIT[(value >> shift) as usize & 255]);
    let within = (value >> ((octave - 3) & 31)) & (BUCKETS_PER_OCTAVE - 1);
    let index = (1 + (octave - FIRST_OCTAVE) * BUCKETS_PER_OCTAVE + within) as usize;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The key of a stage, or part of one, of a token's.
#[inline(always)]
pub fn stage_key(token: &Token, part: bool, from: PlaceId, to: PlaceId) -> u64 {
    StageId { configuration: token.turn.configuration(), part, role: token.role(), from, to }.key()
}

/// The token passes `to`; its time counts if its request does, which began inside the recorded interval (`counted`),
/// whenever it ends. An error: time ran backwards or a table is full, and the token is lost for that reason.
#[inline(always)]
pub fn pass(token: &mut Token, counted: u8, to: PlaceId, at_ns: u64) -> Result<(), Counter> {
    let (from, since_ns) = (token.point, token.at_ns);
    if at_ns < since_ns {
        return Err(Counter::LostNegative);
    }
    // First: a sample that interrupts what follows is to find the token where its time counts.
    token.at_ns = at_ns;
    token.point = to;
    if counted != 0 && !spend(stage_key(token, false, from, to), at_ns - since_ns) {
        // The token's stages end where they did.
        token.at_ns = since_ns;
        return Err(Counter::LostStageTable);
    }
    if token.record() != 0 {
        append(token.record(), token.role(), to, at_ns);
    }
    Ok(())
}

/// What can hold a token.
pub trait Holds {
    /// The token, and whether its request counts.
    fn held(&mut self) -> (&mut Token, u8);
}
impl Holds for Holder {
    #[inline(always)]
    fn held(&mut self) -> (&mut Token, u8) {
        (&mut self.token, self.counted)
    }
}
impl Holds for Socket {
    #[inline(always)]
    fn held(&mut self) -> (&mut Token, u8) {
        Holder::held(self)
    }
}
impl Holds for Operation {
    #[inline(always)]
    fn held(&mut self) -> (&mut Token, u8) {
        Holder::held(self)
    }
}
impl Holds for Packet {
    #[inline(always)]
    fn held(&mut self) -> (&mut Token, u8) {
        (&mut self.token, self.counted)
    }
}
impl Holds for Connection {
    #[inline(always)]
    fn held(&mut self) -> (&mut Token, u8) {
        (&mut self.token, self.counted)
    }
}

/// The token that a holder has passes a point, as [`pass`] says.
#[inline(always)]
pub fn holder_passes<H: Holds>(mut holder: Slot<H>, to: PlaceId, at_ns: u64) -> Result<(), Counter> {
    let (token, counted) = holder.held();
    pass(token, counted, to, at_ns)
}

/// Splits the stage that is about to end into parts, by times that were left behind on the way. Each is used only
/// if it is later than the one before, so the parts always sum to the stage.
pub struct Parts {
    /// The token, as if it had passed what was left behind.
    token: Token,
    used: bool,
    counted: bool,
}
impl Parts {
    /// Parts of the stage in which a token is, whose request counts or not.
    #[inline(always)]
    pub fn of(token: &Token, counted: u8) -> Self {
        Self { token: *token, used: false, counted: counted != 0 }
    }
    /// The parts of what belongs to no followed request: they count if they begin inside the recorded interval.
    #[inline(always)]
    pub fn within(control: &Control, token: &Token) -> Self {
        Self::of(token, is_inside(control, token.at_ns))
    }
    #[inline(always)]
    pub fn via(&mut self, point: PlaceId, at_ns: u64) {
        let token = &mut self.token;
        if at_ns <= token.at_ns {
            return;
        }
        if self.counted {
            spend_part(stage_key(token, true, token.point, point), at_ns - token.at_ns);
        }
        if token.record() != 0 {
            append(token.record(), token.role(), point, at_ns);
        }
        token.at_ns = at_ns;
        token.point = point;
        self.used = true;
    }
    /// The last part, up to the point that ends the stage.
    #[inline(always)]
    pub fn end(&self, to: PlaceId, at_ns: u64) {
        let token = &self.token;
        if self.used && self.counted && at_ns >= token.at_ns {
            spend_part(stage_key(token, true, token.point, to), at_ns - token.at_ns);
        }
    }
}

/// [`COUNTED`], if this time lies inside the recorded interval; else 0.
#[inline(always)]
pub fn is_inside(control: &Control, at_ns: u64) -> u8 {
    if at_ns >= control.open_ns && at_ns < control.close_ns { COUNTED } else { 0 }
}

/// A request begins; it counts if that is inside the recorded interval (1), whenever it ends.
#[inline(always)]
pub fn begins(control: &Control, whose: Turn, at_ns: u64) -> u8 {
    let counted = is_inside(control, at_ns);
    if counted == COUNTED {
        add_all(whose, [(Counter::Followed, 1), (Counter::LifeNs, at_ns.wrapping_neg())]);
    }
    counted
}

/// A request that counts (or not) has ended, unless more of its answer comes.
#[inline(always)]
pub fn ends(whose: Turn, counted: &mut u8, at_ns: u64) {
    if *counted == COUNTED {
        add_all(whose, [(Counter::Operations, 1), (Counter::Completed, 1), (Counter::LifeNs, at_ns)]);
        *counted = ENDED;
    }
}

/// More of an answer has come: its request ends later, by so much.
#[inline(always)]
pub fn goes_on(whose: Turn, counted: u8, ns: u64) {
    if counted == ENDED {
        add(whose, Counter::LifeNs, ns);
    }
}

/// Begins a record for one request in `record_every`. Returns 1 + its slot, or 0.
#[inline(always)]
pub fn begin_record(control: &Control, mut socket: Slot<Holder>) -> u16 {
    if control.record_every == 0 || socket.counted != COUNTED {
        return 0;
    }
    if socket.countdown > 0 {
        socket.countdown -= 1;
        return 0;
    }
    let slot = take_record(socket.slot, socket.token.turn);
    if slot != 0 {
        // Uniform in 0 ..= 2 (n − 1): n requests from one record to the next, on average, at random distances so that
        // no rhythm of the workload is caught.
        let span = 2 * control.record_every - 1;
        socket.countdown = random() % if span == 0 { 1 } else { span };
    }
    slot as u16
}

/// 1 + the record's slot, or 0 where another socket has it in this phase: the next request tries again.
#[cold]
#[inline(never)]
fn take_record(of_socket: u32, turn: Turn) -> u32 {
    let slot = of_socket & settings::records_mask();
    let Some(mut record) = record(slot) else { return 0 };
    let taken = record.taken;
    if taken != 0 && record.turn.epoch() == turn.epoch() {
        return 0;
    }
    // Other sockets share the slot, on other CPUs perhaps.
    if swap_if(&mut record.taken, taken, u64::from(of_socket) + 1) != taken {
        return 0;
    }
    record.turn = turn;
    record.len = 0;
    count(turn, Counter::RecordsStarted);
    slot + 1
}

#[cold]
#[inline(never)]
pub fn append(slot: u16, role: u8, point: PlaceId, at_ns: u64) {
    let Some(mut record) = record(u32::from(slot) - 1) else {
        return;
    };
    let index = record.len as usize;
    if index < RECORD_POINTS && record.len < settings::record_limit() {
        record.points[index] =
            Seen { at_ns, point, marks: Seen::marks(role, this_cpu()), tid: bpf_get_current_pid_tgid() as u32 };
    }
    record.len = index as u32 + 1;
}

/// Hands a finished record to user space.
#[cold]
#[inline(never)]
pub fn commit_record(slot: u16) {
    let Some(mut record) = record(u32::from(slot) - 1) else {
        return;
    };
    let len = record.len as usize;
    if len > RECORD_POINTS || record.len > settings::record_limit() {
        count(record.turn, Counter::RecordsTooLong);
    } else {
        let bytes = RECORD_HEADER + len * size_of::<Seen>();
        // SAFETY: `len` points of a record, which has more of them.
        let data = unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), bytes) };
        if bytes <= size_of::<Record>() && RECORD_RING.output::<[u8]>(data, BPF_RB_NO_WAKEUP).is_ok() {
            count(record.turn, Counter::RecordsCommitted);
        } else {
            count(record.turn, Counter::RecordsRingFull);
        }
    }
    record.taken = 0;
}

/// The token is lost; so is its record.
#[inline(always)]
pub fn lose(token: &Token, counted: u8, cause: Counter) -> Counter {
    note_loss(token.record(), counted, cause as u32, token.at_ns, token.turn);
    cause
}

#[cold]
#[inline(never)]
fn note_loss(record_slot: u16, counted: u8, cause: u32, at_ns: u64, whose: Turn) {
    if counted == COUNTED {
        count_number(whose.configuration(), cause);
        // Its stages end here.
        add(whose, Counter::LifeNs, at_ns);
    }
    if record_slot != 0 {
        if let Some(mut record) = record(u32::from(record_slot) - 1) {
            record.taken = 0;
        }
        count(whose, Counter::RecordsAbandoned);
    }
}
