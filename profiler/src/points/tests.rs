use std::collections::BTreeSet;

use super::*;

#[test]
fn names_and_numbers_are_unique() {
    let names: BTreeSet<_> = all().map(|point| point.name).collect();
    assert_eq!(names.len(), all().count());
    for point in all() {
        let raw = match point.number {
            Number::Fixed(number) => number,
            Number::Device(what) => number::at_device(what, 5),
            Number::Disk(what) => number::at_disk(what, 5),
        };
        assert_eq!(by_number(raw).unwrap().0.name, point.name);
    }
}

#[test]
fn successors_exist_and_every_point_is_reached() {
    let reached: BTreeSet<_> = all().flat_map(|point| point.successors).copied().collect();
    for name in &reached {
        assert!(by_name(name).is_some(), "{name} is no point");
    }
    for point in all() {
        // A request begins at its call; everything else follows something.
        assert!(reached.contains(point.name), "{} is never reached", point.name);
    }
}

#[test]
fn every_probe_has_a_typed_and_an_untyped_alternative() {
    // Arguments of KVM's and io_uring's tracepoints change places from kernel to kernel; the names in their records
    // do not.
    let changes = |probe: &&Probe| probe.set == Set::Machine || probe.name.starts_with("ring-");
    for probe in PROBES.iter().filter(|probe| !changes(probe)) {
        assert!(matches!(probe.alternatives[0].hook, Hook::TypedTracepoint(_)), "{}", probe.name);
        assert!(matches!(probe.alternatives[1].hook, Hook::RawTracepoint(_)), "{}", probe.name);
    }
}

#[test]
fn transitions() {
    assert!(is_legal("xmit", "receive"));
    assert!(!is_legal("receive", "send"));
    assert!(!is_legal("nonsense", "send"));
}
