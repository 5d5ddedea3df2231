//! Reading the kernel's memory.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_probe_read_kernel};

use crate::core::settings;

/// How a field of a kernel structure is read at an offset that is a constant to the verifier.
pub trait Kernel {
    /// The field at `address + offset`; zeroes where it cannot be read.
    fn load<T: Copy>(address: u64, offset: u32) -> T;
}

/// `tp_btf`, `fentry`: arguments are typed pointers, so a field is one load.
pub struct Typed;
impl Kernel for Typed {
    #[inline(always)]
    fn load<T: Copy>(address: u64, offset: u32) -> T {
        // SAFETY: the verifier knows the pointer's type, and refuses what lies beyond; a fault reads zeroes.
        unsafe { *((address + u64::from(offset)) as *const T) }
    }
}

/// Raw tracepoints and kprobes: a helper call a field.
pub struct Untyped;
impl Kernel for Untyped {
    #[inline(always)]
    fn load<T: Copy>(address: u64, offset: u32) -> T {
        read(address, offset)
    }
}

/// The field at `address + offset` through the helper; zeroes where it cannot be read.
#[inline(always)]
pub fn read<T: Copy>(address: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address, and all zeroes are a value of what is read: numbers, and arrays of them.
    unsafe { bpf_probe_read_kernel((address + u64::from(offset)) as *const T).unwrap_or_else(|_| core::mem::zeroed()) }
}

/// A random number.
#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_prandom_u32() }
}

/// The number of this CPU.
#[inline(always)]
pub fn this_cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// Whether an skb that is about to leave its socket carries TCP payload, headers in place.
#[inline(always)]
pub fn has_payload<K: Kernel>(skb: u64) -> bool {
    // What a socket sends lies in page fragments, so that this first look nearly always suffices.
    let in_fragments: u32 = K::load(skb, settings::skb_data_len());
    in_fragments != 0 || has_linear_payload::<K>(skb)
}

#[cold]
#[inline(never)]
fn has_linear_payload<K: Kernel>(skb: u64) -> bool {
    let head: u64 = K::load(skb, settings::skb_head());
    let data: u64 = K::load(skb, settings::skb_data());
    let transport: u16 = K::load(skb, settings::skb_transport());
    let len: u32 = K::load(skb, settings::skb_len());
    let tcp = head + u64::from(transport);
    // The thirteenth byte's upper half is the header's length in words (RFC 9293, 3.1).
    let offset: u8 = read(tcp, 12);
    let headers = (tcp.wrapping_sub(data) as u32).wrapping_add(u32::from(offset >> 4) * 4);
    len != headers
}
