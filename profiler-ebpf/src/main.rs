//! virtax's probes: they hand over, count, and record. Names, sums and statistics are user space's.
//!
//! Each point has its program twice, for `tp_btf` and for raw tracepoints, and where kernels lack the tracepoint,
//! for `fentry` and kprobes. User space's table of points says which one is loaded.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod kernel;
mod loss;
mod maps;
mod path;
mod reader;
mod settings;
mod stacks;
mod thread;
mod token;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, perf_event, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, PerfEventContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use aya_log_ebpf::warn;
use kernel::{Typed, Untyped};

/// Runs a handler while requests are followed; its fault becomes a line on the terminal, if the user asked for them.
macro_rules! follow {
    ($ctx:ident, $name:expr, $control:ident => $body:expr) => {{
        if let Some($control) = maps::following() {
            if let Some(fault) = $body {
                if maps::may_log() {
                    warn!(&$ctx, "{}: fault {}", $name, fault as u32);
                }
            }
        }
        0
    }};
}

macro_rules! tracepoints {
    ($($typed:ident, $raw:ident: $tracepoint:literal => |$ctx:ident, $control:ident, $kernel:ident| $body:expr;)*) => { $(
        #[btf_tracepoint(function = $tracepoint)]
        pub fn $typed($ctx: BtfTracePointContext) -> i32 {
            #[allow(dead_code, reason = "only some handlers read the kernel's memory")]
            type $kernel = Typed;
            follow!($ctx, $tracepoint, $control => $body)
        }
        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $raw($ctx: RawTracePointContext) -> i32 {
            #[allow(dead_code, reason = "only some handlers read the kernel's memory")]
            type $kernel = Untyped;
            follow!($ctx, $tracepoint, $control => $body)
        }
    )* };
}

tracepoints! {
    send_typed, send_raw: "tcp_sendmsg_locked" => |ctx, control, K| path::send(control, ctx.arg(0));
    queue_typed, queue_raw: "net_dev_queue" => |ctx, control, K| path::queue::<K>(control, ctx.arg(0));
    xmit_typed, xmit_raw: "net_dev_start_xmit" => |ctx, control, K| path::xmit::<K>(control, ctx.arg(0), ctx.arg(1));
    receive_typed, receive_raw: "netif_receive_skb" => |ctx, control, K| path::receive::<K>(control, ctx.arg(0));
    delivered_typed, delivered_raw: "tcp_probe" => |ctx, control, K| path::delivered::<K>(control, ctx.arg(0), ctx.arg(1));
    ready_typed, ready_raw: "sk_data_ready" => |ctx, control, K| path::ready(control, ctx.arg(0));
    received_typed, received_raw: "sock_recv_length" => |ctx, control, K| path::received(control, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    sent_typed, sent_raw: "sock_send_length" => |ctx, control, K| path::sent(control, ctx.arg(0), ctx.arg(1));
    dropped_typed, dropped_raw: "kfree_skb" => |ctx, control, K| loss::dropped(control, ctx.arg(0));
    freed_typed, freed_raw: "consume_skb" => |ctx, control, K| loss::freed(control, ctx.arg(0));
    state_typed, state_raw: "inet_sock_set_state" => |ctx, control, K| loss::state_changed(control, ctx.arg(0), ctx.arg(2));
    waking_typed, waking_raw: "sched_waking" => |ctx, control, K| thread::waking::<K>(control, ctx.as_ptr(), ctx.arg(0));
    wakeup_typed, wakeup_raw: "sched_wakeup" => |ctx, control, K| thread::wakeup::<K>(control, ctx.arg(0));
    switch_typed, switch_raw: "sched_switch" => |ctx, control, K| thread::switched::<K>(control, ctx.as_ptr(), ctx.arg(0), ctx.arg(1), ctx.arg(2));
    call_typed, call_raw: "sys_enter" => |ctx, _control, K| thread::called(ctx.arg(1));
    return_typed, return_raw: "sys_exit" => |ctx, control, K| thread::returned(control);
    softirq_typed, softirq_raw: "softirq_entry" => |ctx, control, K| thread::softirq_began(control, ctx.arg(0));
    softirq_end_typed, softirq_end_raw: "softirq_exit" => |ctx, _control, K| thread::softirq_ended(ctx.arg(0));
    fork_typed, fork_raw: "sched_process_fork" => |ctx, _control, K| thread::forked::<K>(ctx.arg(0), ctx.arg(1));
    exit_typed, exit_raw: "sched_process_exit" => |ctx, _control, K| thread::exited::<K>(ctx.arg(0));
}

/// The sampler: a timer of every CPU.
#[perf_event]
pub fn sample(ctx: PerfEventContext) -> u32 {
    if let Some(control) = maps::following() {
        stacks::sample(control, ctx.as_ptr());
    }
    0
}

// ---- for kernels without the tracepoint -----------------------------------------------------------------------

#[fentry(function = "tcp_sendmsg_locked")]
pub fn send_fentry(ctx: FEntryContext) -> i32 {
    follow!(ctx, "tcp_sendmsg_locked", control => path::send(control, ctx.arg(0)))
}
#[kprobe]
pub fn send_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "tcp_sendmsg_locked", control => ctx.arg(0).and_then(|socket| path::send(control, socket)))
}
#[fentry(function = "sock_def_readable")]
pub fn ready_fentry(ctx: FEntryContext) -> i32 {
    follow!(ctx, "sock_def_readable", control => path::ready(control, ctx.arg(0)))
}
#[kprobe]
pub fn ready_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "sock_def_readable", control => ctx.arg(0).and_then(|socket| path::ready(control, socket)))
}
// `tcp_recvmsg(sk, msg, len, flags, addr_len)` (since 5.19); the sixth word is what it returned.
#[fexit(function = "tcp_recvmsg")]
pub fn received_fexit(ctx: FExitContext) -> i32 {
    follow!(ctx, "tcp_recvmsg", control => path::received(control, ctx.arg(0), ctx.arg(5), ctx.arg(3)))
}
#[kprobe]
pub fn receiving_kprobe(ctx: ProbeContext) -> u32 {
    follow!(ctx, "tcp_recvmsg", _control => {
        if let (Some(thread), Some(socket)) = (maps::current(), ctx.arg::<u64>(0)) {
            // A peek takes nothing away: its return must not count.
            thread.receiving = if ctx.arg::<i32>(3).unwrap_or(0) & 2 == 0 { socket } else { 0 };
        }
        None::<profiler_common::Counter>
    })
}
#[kretprobe]
pub fn received_kretprobe(ctx: RetProbeContext) -> u32 {
    follow!(ctx, "tcp_recvmsg", control => {
        let socket = maps::current().map_or(0, |thread| core::mem::take(&mut thread.receiving));
        if socket == 0 { None } else { path::received(control, socket, ctx.ret(), 0) }
    })
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
