//! VMs: their processors, and QEMU's threads.

pub mod qemu;
pub mod vcpu;
