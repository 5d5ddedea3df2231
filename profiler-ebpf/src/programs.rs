//! The programs: what the kernel executes, each a row of its tracepoint or function and its handler.
//!
//! Each point has its program twice, for `tp_btf` and for raw tracepoints; many a third time, for tracepoints by
//! their records; and where kernels lack the tracepoint, for `fentry` and kprobes. User space's table of points says
//! which one is loaded.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, perf_event, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, PerfEventContext, ProbeContext, RawTracePointContext,
        RetProbeContext, TracePointContext,
    },
};
use aya_log_ebpf::warn;

use crate::{
    core::{
        kernel::{self, Kernel, Typed, Untyped},
        maps, phase, settings, stacks,
    },
    file::{below, block, calls, worker, writeback},
    net::{loss, path},
    sched,
    vm::vcpu,
};

/// Runs a handler while requests are followed; its fault becomes a line on the terminal, if the user asked for them.
macro_rules! follow {
    ($ctx:ident, $name:expr, $detailed:literal, $control:ident => $body:expr) => {{
        if let Some($control) = phase::following::<$detailed>() {
            if let Some(fault) = $body {
                if maps::may_log() {
                    warn!(&$ctx, "{}: fault {}", $name, fault as u32);
                }
            }
        }
        0
    }};
}

/// A handler's programs: for typed and for raw tracepoints, and with `| typed, raw` those that are attached where
/// nothing but totals and records is kept.
macro_rules! tracepoints {
    ($($typed:ident, $raw:ident $(| $plain_typed:ident, $plain_raw:ident)?: $tracepoint:literal
        => |$ctx:ident, $control:ident, $kernel:ident| $body:expr;)*) => { $(
        tracepoints!(@one $typed, $raw, true: $tracepoint => |$ctx, $control, $kernel| $body);
        $(tracepoints!(@one $plain_typed, $plain_raw, false: $tracepoint => |$ctx, $control, $kernel| $body);)?
    )* };
    (@one $typed:ident, $raw:ident, $detailed:literal: $tracepoint:literal
        => |$ctx:ident, $control:ident, $kernel:ident| $body:expr) => {
        // Inlined, however long: of a raw tracepoint's handler that was a function of its own, the verifier took the
        // context for a number.
        #[btf_tracepoint(function = $tracepoint)]
        #[inline(always)]
        pub fn $typed($ctx: BtfTracePointContext) -> i32 {
            #[allow(dead_code, reason = "only some handlers read the kernel's memory")]
            type $kernel = Typed;
            follow!($ctx, $tracepoint, $detailed, $control => $body)
        }
        #[raw_tracepoint(tracepoint = $tracepoint)]
        #[inline(always)]
        pub fn $raw($ctx: RawTracePointContext) -> i32 {
            #[allow(dead_code, reason = "only some handlers read the kernel's memory")]
            type $kernel = Untyped;
            follow!($ctx, $tracepoint, $detailed, $control => $body)
        }
    };
}

tracepoints! {
    send_typed, send_raw | send_plain_typed, send_plain_raw: "tcp_sendmsg_locked"
        => |ctx, control, K| path::send(control, ctx.arg(0));
    xmit_typed, xmit_raw | xmit_plain_typed, xmit_plain_raw: "net_dev_start_xmit"
        => |ctx, control, K| path::xmit::<K, _>(control, ctx.arg(0), ctx.arg(1));
    receive_typed, receive_raw | receive_plain_typed, receive_plain_raw: "netif_receive_skb"
        => |ctx, control, K| path::receive::<K, _>(control, ctx.arg(0));
    delivered_typed, delivered_raw | delivered_plain_typed, delivered_plain_raw: "tcp_probe"
        => |ctx, control, K| path::delivered::<K, _>(control, ctx.arg(0), ctx.arg(1));
    ready_typed, ready_raw | ready_plain_typed, ready_plain_raw: "sk_data_ready"
        => |ctx, control, K| path::ready(control, ctx.arg(0));
    received_typed, received_raw | received_plain_typed, received_plain_raw: "sock_recv_length"
        => |ctx, control, K| path::received(control, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    dropped_typed, dropped_raw: "kfree_skb" => |ctx, control, K| loss::dropped::<K>(control, ctx.arg(0));
    freed_typed, freed_raw: "consume_skb" => |ctx, control, K| loss::freed(control, ctx.arg(0));
    state_typed, state_raw: "inet_sock_set_state" => |ctx, control, K| loss::state_changed(control, ctx.arg(0), ctx.arg(2));
    queue_typed, queue_raw: "net_dev_queue" => |ctx, control, K| path::queue::<K, _>(control, ctx.arg(0));
    sent_typed, sent_raw: "sock_send_length" => |ctx, control, K| path::sent(control, ctx.arg(0), ctx.arg(1));
    waking_typed, waking_raw: "sched_waking" => |ctx, control, K| sched::waking(&control, ctx.as_ptr(), K::load(ctx.arg(0), settings::task_pid()));
    wakeup_typed, wakeup_raw: "sched_wakeup" => |ctx, control, K| sched::wakeup(&control, K::load(ctx.arg(0), settings::task_pid()));
    switch_typed, switch_raw: "sched_switch" => |ctx, control, K| sched::switched::<K>(&control, ctx.as_ptr(), ctx.arg(0), ctx.arg(1), ctx.arg(2));
    call_typed, call_raw: "sys_enter" => |ctx, control, K| sched::called(&control, ctx.arg(1));
    return_typed, return_raw: "sys_exit" => |ctx, control, K| sched::returned(&control);
    softirq_typed, softirq_raw: "softirq_entry" => |ctx, control, K| sched::softirq_began(&control, ctx.arg(0));
    softirq_end_typed, softirq_end_raw: "softirq_exit" => |ctx, _control, K| sched::softirq_ended(ctx.arg(0));
    file_call_typed, file_call_raw | file_call_plain_typed, file_call_plain_raw: "sys_enter"
        => |ctx, control, K| calls::entered(control, ctx.arg(0), ctx.arg(1));
    file_return_typed, file_return_raw | file_return_plain_typed, file_return_plain_raw: "sys_exit"
        => |ctx, control, K| calls::left(control, ctx.arg(1));
    submit_typed, submit_raw: "iomap_dio_rw_begin" => |ctx, control, K| calls::direct(control, ctx.arg(0));
    bio_typed, bio_raw | bio_plain_typed, bio_plain_raw: "block_bio_queue"
        => |ctx, control, K| block::queued::<K, _>(control, ctx.arg(0));
    remap_typed, remap_raw: "block_bio_remap"
        => |ctx, control, K| below::remapped::<K, _>(control, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    split_typed, split_raw: "block_split" => |ctx, control, K| block::split(control, ctx.arg(0));
    insert_typed, insert_raw: "block_rq_insert" => |ctx, _control, K| block::inserted::<K>(ctx.arg(0));
    issue_typed, issue_raw | issue_plain_typed, issue_plain_raw: "block_rq_issue"
        => |ctx, control, K| block::issued::<K, _>(control, ctx.arg(0));
    requeue_typed, requeue_raw: "block_rq_requeue" => |ctx, control, K| block::requeued(control, ctx.arg(0));
    complete_typed, complete_raw | complete_plain_typed, complete_plain_raw: "block_rq_complete"
        => |ctx, control, K| block::request_done::<K, _>(control, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    dirty_typed, dirty_raw: "writeback_dirty_folio" => |ctx, _control, K| writeback::dirtied(ctx.arg(1));
    flush_typed, flush_raw: "writeback_single_inode_start" => |ctx, control, K| writeback::begins(control, ctx.arg(0));
    flush_end_typed, flush_end_raw: "writeback_single_inode" => |_ctx, _control, K| writeback::ends();
    bio_done_typed, bio_done_raw | bio_done_plain_typed, bio_done_plain_raw: "block_bio_complete"
        => |ctx, control, K| block::bio_done::<K, _>(control, ctx.arg(1));
    fork_typed, fork_raw: "sched_process_fork" => |ctx, _control, K| sched::forked::<K>(ctx.arg(0), ctx.arg(1));
    exit_typed, exit_raw: "sched_process_exit" => |ctx, _control, K| sched::exited::<K>(ctx.arg(0));
}

/// A field of a tracepoint's record; zeroes where it cannot be read.
#[inline(always)]
fn field<T: Copy>(ctx: &TracePointContext, offset: u32) -> T {
    kernel::read(ctx.as_ptr() as u64, offset)
}

/// What a tracepoint's program returns, so that other users of the same event, perf above all, still get its record:
/// 0 would hide it from them (`perf_trace_run_bpf_submit`). aya's macro for such programs always returns 0, so it is
/// not used.
const KEEP: u32 = 1;

/// Programs for tracepoints whose records hold all that a handler wants.
macro_rules! records {
    ($($program:ident: $tracepoint:literal => |$ctx:ident, $control:ident| $body:expr;)*) => { $(
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "tracepoint")]
        pub fn $program(context: *mut core::ffi::c_void) -> u32 {
            let $ctx = TracePointContext::new(context);
            follow!($ctx, $tracepoint, true, $control => $body);
            KEEP
        }
    )* };
}

records! {
    xmit_record: "net_dev_start_xmit" => |ctx, control| {
        let skb = field(&ctx, settings::xmit_skbaddr());
        path::xmit::<Untyped, _>(control, skb, kernel::read(skb, settings::skb_dev()))
    };
    receive_record: "netif_receive_skb" => |ctx, control| path::receive::<Untyped, _>(control, field(&ctx, settings::receive_skbaddr()));
    ready_record: "sk_data_ready" => |ctx, control| path::ready(control, field(&ctx, settings::ready_skaddr()));
    received_record: "sock_recv_length" => |ctx, control| path::received(
        control,
        field(&ctx, settings::received_sk()),
        field(&ctx, settings::received_ret()),
        field(&ctx, settings::received_flags()),
    );
    dropped_record: "kfree_skb" => |ctx, control| loss::dropped::<Untyped>(control, field(&ctx, settings::dropped_skbaddr()));
    freed_record: "consume_skb" => |ctx, control| loss::freed(control, field(&ctx, settings::freed_skbaddr()));
    state_record: "inet_sock_set_state" => |ctx, control| loss::state_changed(
        control,
        field(&ctx, settings::state_skaddr()),
        field(&ctx, settings::state_newstate()),
    );
    queue_record: "net_dev_queue" => |ctx, control| path::queue::<Untyped, _>(control, field(&ctx, settings::queue_skbaddr()));
    sent_record: "sock_send_length" => |ctx, control| path::sent(
        control,
        field(&ctx, settings::sent_sk()),
        field(&ctx, settings::sent_ret()),
    );
    waking_record: "sched_waking" => |ctx, control| sched::waking(&control, ctx.as_ptr(), field(&ctx, settings::waking_pid()));
    wakeup_record: "sched_wakeup" => |ctx, control| sched::wakeup(&control, field(&ctx, settings::wakeup_pid()));
    entry_record: "kvm_entry" => |ctx, control| vcpu::entered(&control, field(&ctx, settings::entry_vcpu()));
    exit_record: "kvm_exit" => |ctx, control| vcpu::left(&control, field(&ctx, settings::exit_reason()));
    interrupt_record: "kvm_apic_accept_irq" => |ctx, control| vcpu::interrupted(&control, field(&ctx, settings::interrupt_vcpu()));
    user_record: "kvm_userspace_exit" => |ctx, control| vcpu::handed_to_user(&control);
    halt_record: "kvm_vcpu_wakeup" => |ctx, control| vcpu::halted(
        &control,
        field(&ctx, settings::halt_ns()),
        field(&ctx, settings::halt_waited()),
    );
    pio_record: "kvm_pio" => |ctx, _control| vcpu::accessed_port(field(&ctx, settings::pio_port()));
    mmio_record: "kvm_mmio" => |ctx, _control| vcpu::accessed_memory(field(&ctx, settings::mmio_gpa()));
    ring_submit_record: "io_uring_submit_req" => |ctx, control| calls::ring_submits(
        control,
        field(&ctx, settings::ring_submit_ctx()),
        field(&ctx, settings::ring_submit_data()),
    );
    ring_submit_older_record: "io_uring_submit_sqe" => |ctx, control| calls::ring_submits(
        control,
        field(&ctx, settings::ring_submit_older_ctx()),
        field(&ctx, settings::ring_submit_older_data()),
    );
    ring_wait_record: "io_uring_cqring_wait" => |_ctx, control| calls::ring_waits(control);
    ring_worker_record: "io_uring_queue_async_work" => |ctx, control| worker::given(
        control,
        field(&ctx, settings::ring_worker_ctx()),
        field(&ctx, settings::ring_worker_req()),
        field(&ctx, settings::ring_worker_data()),
    );
    ring_worker_older_record: "io_uring_queue_async_work" => |_ctx, control| worker::counted(control);
    ring_complete_record: "io_uring_complete" => |ctx, control| calls::ring_completed(
        control,
        field(&ctx, settings::ring_complete_ctx()),
        field(&ctx, settings::ring_complete_data()),
    );
    call_record: "sys_enter" => |ctx, control| sched::called(&control, field(&ctx, settings::call_id()));
    return_record: "sys_exit" => |ctx, control| sched::returned(&control);
    softirq_record: "softirq_entry" => |ctx, control| sched::softirq_began(&control, field(&ctx, settings::softirq_vec()));
    softirq_end_record: "softirq_exit" => |ctx, _control| sched::softirq_ended(field(&ctx, settings::softirq_end_vec()));
}

/// The sampler: a timer of every CPU.
#[perf_event]
pub fn sample(ctx: PerfEventContext) -> u32 {
    if let Some(control) = phase::following::<true>() {
        stacks::sample(&control, ctx.as_ptr());
    }
    0
}

// ---- for kernels without the tracepoint -----------------------------------------------------------------------

#[fentry(function = "tcp_sendmsg_locked")]
pub fn send_fentry(ctx: FEntryContext) -> i32 {
    follow!(ctx, "tcp_sendmsg_locked", true, control => path::send(control, ctx.arg(0)))
}
#[kprobe]
pub fn send_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "tcp_sendmsg_locked", true, control => ctx.arg(0).and_then(|socket| path::send(control, socket)))
}
#[fentry(function = "sock_def_readable")]
pub fn ready_fentry(ctx: FEntryContext) -> i32 {
    follow!(ctx, "sock_def_readable", true, control => path::ready(control, ctx.arg(0)))
}
#[kprobe]
pub fn ready_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "sock_def_readable", true, control => ctx.arg(0).and_then(|socket| path::ready(control, socket)))
}
// `tcp_sendmsg(sk, msg, size)`; the fourth word is what it returned.
#[fexit(function = "tcp_sendmsg")]
pub fn sent_fexit(ctx: FExitContext) -> i32 {
    follow!(ctx, "tcp_sendmsg", true, control => path::sent(control, ctx.arg(0), ctx.arg(3)))
}
// `tcp_recvmsg(sk, msg, len, flags, addr_len)` (since 5.19); the sixth word is what it returned.
#[fexit(function = "tcp_recvmsg")]
pub fn received_fexit(ctx: FExitContext) -> i32 {
    follow!(ctx, "tcp_recvmsg", true, control => path::received(control, ctx.arg(0), ctx.arg(5), ctx.arg(3)))
}
#[kprobe]
pub fn receiving_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "tcp_recvmsg", true, _control => {
        if let (Some(mut thread), Some(socket)) = (maps::current(), ctx.arg::<u64>(0)) {
            // A peek takes nothing away: its return must not count.
            thread.receiving = if ctx.arg::<i32>(3).unwrap_or(0) & 2 == 0 { socket } else { 0 };
        }
        None::<profiler_common::Counter>
    })
}
#[kretprobe]
pub fn received_kretprobe(ctx: RetProbeContext) -> u32 {
    follow!(ctx, "tcp_recvmsg", true, control => {
        let socket = maps::current().map_or(0, |mut thread| core::mem::take(&mut thread.receiving));
        if socket == 0 { None } else { path::received(control, socket, ctx.ret(), 0) }
    })
}

// `io_submit_one(ctx, user_iocb, compat)`
#[fentry(function = "io_submit_one")]
pub fn submit_fentry(ctx: FEntryContext) -> i32 {
    follow!(ctx, "io_submit_one", true, control => calls::submits(control, ctx.arg(1)))
}
#[kprobe]
pub fn submit_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "io_submit_one", true, control => ctx.arg(1).and_then(|iocb| calls::submits(control, iocb)))
}
