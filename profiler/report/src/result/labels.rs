//! Labels of stages, in the waterfall and in the slowest requests.

use super::TailStage;
use virtax_analysis::{
    comparison::stage_id,
    describe::{direction, what},
    label::Label,
    path::StageKey,
    profile::Profiled,
    tail::Tail,
    waterfall::Waterfall,
};

/// Labels of a configuration's rows, in their order.
pub(super) fn labels(waterfall: &Waterfall, profiled: &Profiled) -> Vec<(StageKey, Label)> {
    let inside_known = waterfall.has_inside();
    let rows = waterfall.rows.iter().zip(&profiled.stages);
    rows.map(|(row, layers)| (row.key.clone(), Label::of(row, inside_known, layers))).collect()
}

/// The label of a stage, of whichever configuration has it; of one that is no row, what is certain.
pub(super) fn label_of(labels: &[&[(StageKey, Label)]], key: &StageKey) -> Label {
    let mut found =
        labels.iter().flat_map(|labels| labels.iter()).filter(|(known, _)| known == key).map(|(_, label)| label);
    let certain = || Label { structure: what(key.role, &key.from, &key.to), code: Vec::new() };
    found.next().map_or_else(certain, |first| found.fold(first.clone(), Label::with))
}

pub(super) fn tail_stages(tail: &Tail, labels: &[(StageKey, Label)]) -> Vec<TailStage> {
    tail.stages
        .iter()
        .map(|(key, ns)| TailStage {
            id: stage_id(key),
            label: label_of(&[labels], key).to_string(),
            direction: direction(key.role, key.from.point),
            ns_per_op: *ns,
            n: tail.records,
        })
        .collect()
}
