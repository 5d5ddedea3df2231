//! Every way to see a point, on another kernel.

use std::collections::BTreeMap;

use profiler::{points::PROBES, probes};

use crate::{
    SHORT,
    common::{Out, Traces, alone, check, of, run_workload},
    only_in_lab,
};

pub fn this_kernel_shows_every_point() {
    only_in_lab();
    let support = probes::support().unwrap();
    assert_eq!(support.len(), PROBES.len());
    for found in support {
        let refusals: Vec<_> = found.tried.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
        assert!(found.tried.iter().any(|(_, result)| result.is_ok()), "{}: {refusals:?}", found.probe.name);
    }
}

/// Requests are followed by breakpoints and trampolines as by tracepoints: every hop once per operation, tokens
/// conserved.
pub fn kprobes_and_trampolines_see_what_tracepoints_see() {
    let _alone = alone();
    only_in_lab();
    let before = Traces::now();
    let mut stages = BTreeMap::new();
    for kind in ["tp_btf", "fentry", "kprobe", "kretprobe"] {
        let result = run_workload("tcp-rr", &Out::new(), &[&["--in", "native", "--probes", kind], &SHORT[..]].concat());
        let mut native = of(&result, "native").clone();
        // The kernel has as many instances of a return probe as two a processor, and misses what comes while they are
        // taken: then a request seems to be sent before the last one was answered, and the result says that it is
        // incomplete.
        if kind.contains("kprobe") {
            native.incomplete.retain(|reason| !reason.contains("(pipelining)"));
        }
        if kind == "kretprobe" {
            assert!(native.conservation_percent.abs() <= 0.5, "{kind}: {}", native.conservation_percent);
        } else {
            check(&native);
        }
        let regular = native.stages.iter().filter(|stage| stage.count_per_op > 0.5);
        let of_kind: Vec<_> = regular.map(|stage| stage.id.clone()).collect();
        stages.insert(kind, of_kind);
    }
    // The same stages, whichever way their points are seen.
    assert!(stages.values().all(|found| *found == stages["tp_btf"]), "{stages:#?}");
    assert_eq!(before, Traces::now());
}
