//! What this host has and lacks for VMs.

use std::path::Path;

use super::{QEMU, QEMU_IMG, TUN, check_kvm, has_libvirt};
use crate::{artifact, finding::Finding, guest::Kernel};
use virtax_model::counts::Accelerator;

/// What an accelerator's VMs need. What all need stands with those that work everywhere.
pub(super) fn of(accelerator: Accelerator) -> Vec<Finding> {
    match accelerator {
        Accelerator::Kvm => vec![kvm()],
        Accelerator::Tcg => vec![
            Finding::program(QEMU, &QEMU.find(), "for `tcg:` and `kvm:` configurations"),
            Finding::program(QEMU_IMG, &QEMU_IMG.find_of_root(), "for `image=qcow2`"),
            libvirt(),
            kernel(),
            taps(),
        ],
    }
}

fn kvm() -> Finding {
    let kvm = check_kvm();
    let text = match &kvm {
        Ok(()) => "KVM (whether it executes guests, a run finds out)".to_owned(),
        Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    Finding::new(kvm.is_ok(), text, "without, `tcg:` configurations: an emulated processor, no evidence of KVM's cost")
}

fn libvirt() -> Finding {
    let is_built_in = artifact::libvirt().is_ok();
    let text = match (has_libvirt(), is_built_in) {
        (true, _) => "libvirt's driver for QEMU",
        (false, true) => "no libvirt: virtax starts QEMU itself",
        (false, false) => "built without libvirt: virtax starts QEMU itself",
    };
    let remedy = if is_built_in {
        "install libvirt0 and libvirt-daemon-driver-qemu, to have virtual machines started by libvirt"
    } else {
        "install libvirt-dev and pkg-config, and build again, to have virtual machines started by libvirt"
    };
    Finding::new(has_libvirt(), text, remedy)
}

fn kernel() -> Finding {
    let kernel = Kernel::find();
    let text = match &kernel {
        Ok(kernel) => format!("a kernel for guests, {}", kernel.release),
        Err(_) => "no kernel for guests".to_owned(),
    };
    let remedy = "let VIRTAX_GUEST_KERNEL name a folder with boot/vmlinuz-* and lib/modules, for virtual machines";
    Finding::new(kernel.is_ok(), text, remedy)
}

fn taps() -> Finding {
    let is_there = Path::new(TUN).exists();
    let text = if is_there { "taps" } else { "no taps (/dev/net/tun)" };
    Finding::new(is_there, text, "modprobe tun; without, `tcg:net=user`")
}
