//! What of a stage is the probes' own time: hits × ns per hit.
//!
//! A hit costs its way in and out (`dispatch`) and the time inside the program. The clock is read on the way in, so
//! half the dispatch belongs to the stage that ends at the point, and all the rest to the stage that begins there. Hits
//! that end no stage (wake-ups, switches, packets without a token) fall, in nearly all cases, into the waiting of a
//! reader: they are shared out among the groups that end with `received`, or with the completion of bios.

use super::path::StageKey;
use virtax_model::{
    counts::{Costs, Point},
    points::{self, ProbeName},
};

fn probe_of(point: Point) -> Option<ProbeName> {
    points::probe_of(point).map(ProbeName::of)
}

/// Time of the probes in each stage, ns per operation; `stages` with their counts per operation.
#[must_use]
pub fn probe_time(stages: &[(StageKey, f64)], costs: &Costs) -> Vec<f64> {
    let half = costs.dispatch_ns / 2.0;
    let mut left: Vec<(ProbeName, f64, f64)> =
        costs.probes.iter().map(|cost| (cost.probe, cost.hits_per_op, cost.ns_per_hit)).collect();
    let mut times = vec![0.0; stages.len()];
    for ((key, count), time) in stages.iter().zip(&mut times) {
        if probe_of(key.to.point).is_some() {
            *time += half * count;
        }
        let begins = probe_of(key.from.point);
        if let Some((_, hits, inside_ns)) = left.iter_mut().find(|(probe, ..)| Some(*probe) == begins) {
            *time += (half + *inside_ns) * count;
            *hits -= count;
        }
    }
    let rest: f64 = left.iter().map(|(_, hits, inside_ns)| hits.max(0.0) * (costs.dispatch_ns + inside_ns)).sum();
    let waits: f64 = waiting(stages).map(|index| stages[index].1).sum();
    if waits > 0.0 {
        for index in waiting(stages) {
            times[index] += rest * stages[index].1 / waits;
        }
    }
    times
}

fn waiting(stages: &[(StageKey, f64)]) -> impl Iterator<Item = usize> {
    stages
        .iter()
        .enumerate()
        .filter(|(_, (key, _))| {
            // Nobody is woken for the rest of a message; but further bios of an operation, and programs at wake-ups,
            // run while it waits for its first.
            let is_rest = key.from.point == Point::Received && key.to.point == Point::Received;
            points::row(key.to.point).is_some_and(|row| row.is_waited_for) && !is_rest
        })
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtax_model::counts::{Place, ProbeCost, Role};

    #[test]
    fn all_hits_are_charged_once() {
        let key = |role, from, to| (StageKey { role, from: Place::fixed(from), to: Place::fixed(to) }, 1.0);
        let stages = [
            key(Role::Client, Point::Send, Point::Delivered),
            key(Role::Server, Point::Delivered, Point::Ready),
            key(Role::Server, Point::Ready, Point::Received),
            key(Role::Server, Point::Received, Point::Send),
        ];
        let cost =
            |probe, hits_per_op| ProbeCost { probe: ProbeName::parse(probe).unwrap(), hits_per_op, ns_per_hit: 30.0 };
        let costs = Costs {
            probes: vec![
                cost("send", 1.0),
                cost("delivered", 1.0),
                cost("ready", 1.0),
                cost("received", 1.0),
                cost("switch", 2.5),
            ],
            dispatch_ns: 20.0,
            floor_ns: 55.0,
        };
        let times = probe_time(&stages, &costs);
        assert_eq!(times, [50.0, 50.0, 50.0 + 2.5 * 50.0, 50.0]);
        assert_eq!(times.iter().sum::<f64>(), (4.0 + 2.5) * 50.0);
    }
}
