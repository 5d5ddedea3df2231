//! Instructions that Rust has no words for on BPF: its atomics do not exist there, and what the verifier must see, LLVM
//! may take away. (Beside each stands what it does in Rust, so that lints can look at everything with a host's
//! compiler; that is never executed.)

#[cfg(target_arch = "bpf")]
use core::arch::asm;

/// Compare-and-swap: writes `value` where `expected` stands; what stood there.
#[inline(always)]
pub fn swap_if(place: &mut u64, expected: u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut before = expected;
        // SAFETY: one instruction (BPF_CMPXCHG), on a number that is there.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({place} + 0, r0, {value})",
                place = in(reg) place,
                value = in(reg) value,
                inout("r0") before,
            );
        }
        before
    }
    #[cfg(not(target_arch = "bpf"))]
    if *place == expected { core::mem::replace(place, value) } else { *place }
}

/// Adds to a number that other CPUs add to as well.
#[inline(always)]
pub fn add_shared(number: &mut u64, value: i64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction (BPF_ADD), on a number that is there.
    unsafe {
        asm!("lock *(u64 *)({number} + 0) += {value}", number = in(reg) number, value = in(reg) value);
    }
    #[cfg(not(target_arch = "bpf"))]
    fetch_add(number, value);
}

/// Adds to a number that other CPUs change as well, and returns what it was before.
#[inline(always)]
pub fn fetch_add(number: &mut u64, value: i64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut before = value as u64;
        // SAFETY: one instruction (BPF_ADD | BPF_FETCH), on a number that is there.
        unsafe {
            asm!(
                "{before} = atomic_fetch_add((u64 *)({number} + 0), {before})",
                number = in(reg) number,
                before = inout(reg) before,
            );
        }
        before
    }
    #[cfg(not(target_arch = "bpf"))]
    core::mem::replace(number, number.wrapping_add_signed(value))
}

/// Adds to half a word that other CPUs change as well, and returns what it was before.
#[inline(always)]
pub fn fetch_add_word(number: &mut u32, value: i32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut before = value as u32;
        // SAFETY: one instruction (BPF_ADD | BPF_FETCH), on a number that is there.
        unsafe {
            asm!(
                "{before} = atomic_fetch_add((u32 *)({number} + 0), {before})",
                number = in(reg) number,
                before = inout(wreg) before,
            );
        }
        before
    }
    #[cfg(not(target_arch = "bpf"))]
    core::mem::replace(number, number.wrapping_add_signed(value))
}

/// An index below 8, in sight of the verifier: where LLVM knows an index's possible values, it drops a mask that is
/// written in Rust.
#[inline(always)]
pub fn below_8(index: u64) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut index = index;
        // SAFETY: arithmetic on a register.
        unsafe { asm!("{index} &= 7", index = inout(reg) index) };
        index as usize
    }
    #[cfg(not(target_arch = "bpf"))]
    (index as usize & 7)
}

/// An index below 64, as [`below_8`] is one below 8.
#[inline(always)]
pub fn below_64(index: u64) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut index = index;
        // SAFETY: arithmetic on a register.
        unsafe { asm!("{index} &= 63", index = inout(reg) index) };
        index as usize
    }
    #[cfg(not(target_arch = "bpf"))]
    (index as usize & 63)
}

/// The low half of an address as a number.
///
/// With `tp_btf` the address is a typed pointer, on which the verifier allows only + and −; a 32-bit move turns it
/// into a plain number. The move is written out, or LLVM leaves it away where nobody needs the pointer any more. Only
/// 32-bit operations may follow, or it merges the move into 64-bit arithmetic on the pointer: hence the build's
/// `-Ctarget-cpu=v3`.
#[inline(always)]
pub fn low(address: u64) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let number: u32;
        // SAFETY: a move between registers.
        unsafe { asm!("{number} = {low}", number = lateout(wreg) number, low = in(wreg) address as u32) }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    (address as u32)
}

/// The compiler moves no reads of what stands before it behind it.
#[inline(always)]
pub fn reads_end_here() {
    // SAFETY: nothing is executed.
    unsafe { core::arch::asm!("") };
}

/// Reads a place that others write, once, and where it stands: the kernel's `READ_ONCE`.
#[inline(always)]
pub fn read_once<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is valid, and the type is `Copy`.
    unsafe { core::ptr::read_volatile(place) }
}

/// Writes a place that others read, once, and after what stands before it: the kernel's `WRITE_ONCE`.
#[inline(always)]
pub fn write_once<T: Copy>(place: &mut T, value: T) {
    // SAFETY: as in `read_once`.
    unsafe { core::ptr::write_volatile(place, value) }
}

/// Takes a slot's lock; false: another CPU has it. Without it, two CPUs that find the same slot free would both write
/// it, and one's token would vanish uncounted.
#[inline(always)]
pub fn try_lock(lock: &mut u64) -> bool {
    swap_if(lock, 0, 1) == 0
}
