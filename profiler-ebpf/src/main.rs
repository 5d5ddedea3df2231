//! virtax's probes: they hand over, count, and record. Names, sums and statistics are user space's. What the verifier,
//! LLVM and aya demand of this code, and why, is in `docs/kernel-side.md`.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod core;
mod file;
mod net;
mod programs;
mod sched;
mod vm;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &::core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
