use std::collections::BTreeSet;

use super::*;

#[test]
fn every_point_is_reached() {
    let reached: BTreeSet<Point> = all().flat_map(|row| row.next).map(|next| next.to).collect();
    for row in all() {
        // A request begins at its call; everything else follows something.
        assert!(reached.contains(&row.point), "{} is never reached", row.point);
    }
}

#[test]
fn every_probe_has_a_typed_and_an_untyped_alternative() {
    // Arguments of KVM's and io_uring's tracepoints change places from kernel to kernel; the names in their records
    // do not.
    let changes = |probe: &&Probe| probe.set == Set::Vm || probe.name.starts_with("ring-");
    for probe in PROBES.iter().filter(|probe| !changes(probe)) {
        assert!(matches!(probe.alternatives[0].hook, Hook::TypedTracepoint(_)), "{}", probe.name);
        assert!(matches!(probe.alternatives[1].hook, Hook::RawTracepoint(_)), "{}", probe.name);
    }
}

#[test]
fn transitions() {
    assert!(is_legal(Point::Xmit, Point::Receive));
    assert!(!is_legal(Point::Receive, Point::Send));
    assert!(!is_legal(Point::ReaderBlocked, Point::Send));
}

/// A stage's name without words would be two points and nothing else.
#[test]
fn every_way_between_ends_of_stages_has_words() {
    let of_stages = |row: &&Row| row.splits == Splits::Nothing;
    let ways = all().filter(of_stages).flat_map(|row| row.next.iter().map(move |next| (row.point, next)));
    let silent = ways.filter(|(_, next)| !is_part(next.to) && matches!(next.words, Words::None));
    let silent: Vec<String> = silent.map(|(from, next)| format!("{from} → {}", next.to)).collect();
    assert_eq!(silent, Vec::<String>::new());
}
