//! The one operation: a token passes a point, and the time since its last point goes to a stage.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_prandom_u32, bpf_get_smp_processor_id};
use profiler_common::{
    BUCKETS, BUCKETS_PER_OCTAVE, Control, Counter, FIRST_OCTAVE, RECORD_HEADER, RECORD_POINTS, RECORD_SLOTS, Record,
    Seen, Socket, Token, stage_key,
};

use crate::{
    maps::{RECORD_RING, count, count_number, record, stage},
    settings,
    slots::swap_if,
};

/// User space polls: a wake-up would be work of ours on the CPU that is measured.
pub const BPF_RB_NO_WAKEUP: u64 = 1;

/// Adds `[start, end]`, as far as it lies in the recorded interval, to the totals of a key. False: there was no room.
#[inline(always)]
pub fn spend(control: &Control, key: u32, start_ns: u64, end_ns: u64) -> bool {
    if end_ns <= control.open_ns || start_ns >= control.close_ns {
        return true;
    }
    let start_ns = start_ns.max(control.open_ns);
    let inside = end_ns < control.close_ns;
    let end_ns = if inside { end_ns } else { control.close_ns };
    let Some(stage) = stage(key) else {
        return false;
    };
    let time_ns = end_ns - start_ns;
    stage.total_ns += time_ns;
    // A token that reaches its point after the end is counted there by nobody: only its time is.
    if inside {
        stage.count += 1;
        stage.buckets[bucket(time_ns)] += 1;
    }
    true
}

/// The same for a part of a stage, or a system call: without room, no token is lost, but that detail is, and counted. A function of its
/// own, because a program does this in many places.
#[cold]
#[inline(never)]
pub fn spend_detail(control: &Control, key: u32, start_ns: u64, end_ns: u64) {
    if !spend(control, key, start_ns, end_ns) {
        count(Counter::DetailsTable);
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

/// The token passes `to`. An error: time ran backwards or a table is full, and the token is lost for that reason.
#[inline(always)]
pub fn pass(control: &Control, token: &mut Token, to: u8, at_ns: u64) -> Result<(), Counter> {
    if at_ns < token.at_ns {
        return Err(Counter::LostNegative);
    }
    if !spend(control, stage_key(false, token.role, token.point, to), token.at_ns, at_ns) {
        return Err(Counter::LostStageTable);
    }
    if token.record != 0 {
        append(token.record, token.role, to, at_ns);
    }
    token.at_ns = at_ns;
    token.point = to;
    Ok(())
}

/// Splits the stage that is about to end into parts, by times that were left behind on the way. Each is used only
/// if it is later than the one before, so the parts always sum to the stage.
pub struct Parts {
    at_ns: u64,
    role: u8,
    point: u8,
    used: bool,
    record: u16,
}
impl Parts {
    #[inline(always)]
    pub fn of(token: &Token) -> Self {
        Self { at_ns: token.at_ns, role: token.role, point: token.point, used: false, record: token.record }
    }
    #[inline(always)]
    pub fn via(&mut self, control: &Control, point: u8, at_ns: u64) {
        if at_ns <= self.at_ns {
            return;
        }
        spend_detail(control, stage_key(true, self.role, self.point, point), self.at_ns, at_ns);
        if self.record != 0 {
            append(self.record, self.role, point, at_ns);
        }
        self.at_ns = at_ns;
        self.point = point;
        self.used = true;
    }
    /// The last part, up to the point that ends the stage.
    #[inline(always)]
    pub fn end(&self, control: &Control, to: u8, at_ns: u64) {
        if self.used && at_ns >= self.at_ns {
            spend_detail(control, stage_key(true, self.role, self.point, to), self.at_ns, at_ns);
        }
    }
}

/// Begins a record for one request in `record_every`. Returns 1 + its slot, or 0.
#[inline(always)]
pub fn begin_record(control: &Control, socket: &mut Socket) -> u16 {
    if control.record_every == 0 || socket.counted == 0 {
        return 0;
    }
    if socket.countdown > 0 {
        socket.countdown -= 1;
        return 0;
    }
    let slot = take_record(socket.slot, control.epoch);
    if slot != 0 {
        // Uniform in 0 ..= 2 (n − 1): n requests from one record to the next, on average, at random distances so that no
        // rhythm of the workload is caught.
        let span = 2 * control.record_every - 1;
        socket.countdown = unsafe { bpf_get_prandom_u32() } % if span == 0 { 1 } else { span };
    }
    slot as u16
}

/// 1 + the record's slot, or 0 where another socket has it in this phase: the next request tries again.
#[cold]
#[inline(never)]
fn take_record(of_socket: u32, epoch: u32) -> u32 {
    let slot = of_socket & (RECORD_SLOTS - 1);
    let Some(record) = record(slot) else { return 0 };
    let taken = record.taken;
    if taken != 0 && record.epoch == epoch {
        return 0;
    }
    // Other sockets share the slot, on other CPUs perhaps.
    if swap_if(&mut record.taken, taken, u64::from(of_socket) + 1) != taken {
        return 0;
    }
    record.epoch = epoch;
    record.len = 0;
    count(Counter::RecordsStarted);
    slot + 1
}

#[cold]
#[inline(never)]
pub fn append(slot: u16, role: u8, point: u8, at_ns: u64) {
    let Some(record) = record(u32::from(slot) - 1) else {
        return;
    };
    let index = record.len as usize;
    if index < RECORD_POINTS && record.len < settings::record_limit() {
        record.points[index] = Seen {
            at_ns,
            point,
            role,
            cpu: unsafe { bpf_get_smp_processor_id() } as u16,
            tid: bpf_get_current_pid_tgid() as u32,
        };
    }
    record.len = index as u32 + 1;
}

/// Hands a finished record to user space.
#[cold]
#[inline(never)]
pub fn commit_record(slot: u16) {
    let Some(record) = record(u32::from(slot) - 1) else {
        return;
    };
    let len = record.len as usize;
    if len > RECORD_POINTS || record.len > settings::record_limit() {
        count(Counter::RecordsTooLong);
    } else {
        let bytes = RECORD_HEADER + len * size_of::<Seen>();
        let data = unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), bytes) };
        if bytes <= size_of::<Record>() && RECORD_RING.output::<[u8]>(data, BPF_RB_NO_WAKEUP).is_ok() {
            count(Counter::RecordsCommitted);
        } else {
            count(Counter::RecordsRingFull);
        }
    }
    record.taken = 0;
}

/// The token is lost; so is its record.
#[inline(always)]
pub fn lose(token: &Token, counted: u8, cause: Counter) -> Counter {
    note_loss(token.record, counted, cause as u32);
    cause
}

#[cold]
#[inline(never)]
fn note_loss(record_slot: u16, counted: u8, cause: u32) {
    if counted != 0 {
        count_number(cause);
    }
    if record_slot != 0 {
        if let Some(record) = record(u32::from(record_slot) - 1) {
            record.taken = 0;
        }
        count(Counter::RecordsAbandoned);
    }
}
