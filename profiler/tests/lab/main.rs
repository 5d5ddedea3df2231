//! Tests in the lab (`cargo xtask lab`): another kernel, with kprobes and trampolines, disks that pass bios on, and a
//! KVM whose exits are real. `cargo xtask test` executes this there.

#[path = "../common/mod.rs"]
mod common;
mod disks;
mod probes;
mod record;
mod vms;

/// Everything shares one emulated processor.
const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "2", "--placement", "free"];

fn only_in_lab() {
    assert!(std::env::var_os("VIRTAX_LAB").is_some(), "run it by `cargo xtask test`, or `cargo xtask lab --test`");
}

fn main() {
    common::harness::run(tests! {
        disks: what_a_mapped_disk_delays_is_its_own, operations_go_through_a_raid, a_bio_that_io_max_holds_back_is_found;
        probes: this_kernel_shows_every_point, kprobes_and_trampolines_see_what_tracepoints_see;
        vms: exits_are_those_that_the_kernel_records, exits_are_those_that_perf_counts, with_vhost_the_kernel_moves_packets_and_without_it_qemu, the_way_to_a_guests_disk_and_back_is_divided, the_inside_of_a_guest_is_seen;
    });
}
