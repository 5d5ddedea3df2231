//! Putting stages into the order of the path.

use crate::counts::{Place, Role};

/// What identifies a stage: the holder's role and the two points.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageKey {
    /// Role of the holder, the sending side's while it travels.
    pub role: Role,
    /// Where it begins.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
}

/// Role of the holder after a point: delivery hands over to the other side.
fn role_after(key: &StageKey) -> Role {
    match (key.to.point.as_str(), key.role) {
        ("delivered" | "backlog", Role::Client) => Role::Server,
        ("delivered" | "backlog", Role::Server) => Role::Client,
        (_, role) => role,
    }
}

/// Indices of the stages in path order, from the client's send: always along the most frequent way; rarer ones stand
/// behind the place where they leave it.
#[must_use]
pub fn order(stages: &[(StageKey, u64)]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..stages.len()).collect();
    let mut ordered = Vec::with_capacity(stages.len());
    let mut at = (Role::Client, Place::fixed("send"));
    while !left.is_empty() {
        let next = left
            .iter()
            .enumerate()
            .filter(|(_, index)| {
                let key = &stages[**index].0;
                key.role == at.0 && key.from == at.1
            })
            .max_by_key(|(_, index)| stages[**index].1)
            .map(|(position, _)| position);
        let Some(position) = next else { break };
        let index = left.remove(position);
        let key = &stages[index].0;
        at = (role_after(key), key.to.clone());
        ordered.push(index);
        if at == (Role::Client, Place::fixed("send")) {
            break;
        }
    }
    // The rest, heaviest first, each behind the last stage that begins where it begins.
    left.sort_by_key(|index| std::cmp::Reverse(stages[*index].1));
    for index in left {
        let key = &stages[index].0;
        let behind = ordered
            .iter()
            .rposition(|other: &usize| stages[*other].0.role == key.role && stages[*other].0.from == key.from);
        match behind {
            Some(position) => ordered.insert(position + 1, index),
            None => ordered.push(index),
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(role: Role, from: Place, to: Place) -> StageKey {
        StageKey { role, from, to }
    }

    #[test]
    fn the_way_there_and_back_in_order_with_rare_ways_beside_it() {
        let fixed = Place::fixed;
        let stages = vec![
            (key(Role::Client, fixed("received"), fixed("send")), 100),
            (key(Role::Server, fixed("delivered"), fixed("received")), 99),
            (key(Role::Client, fixed("send"), Place::at("xmit", "lo")), 100),
            (key(Role::Client, Place::at("xmit", "lo"), fixed("delivered")), 99),
            (key(Role::Client, Place::at("xmit", "lo"), fixed("backlog")), 1),
            (key(Role::Server, fixed("send"), Place::at("xmit", "lo")), 100),
            (key(Role::Server, fixed("received"), fixed("send")), 100),
            (key(Role::Server, Place::at("xmit", "lo"), fixed("delivered")), 100),
            (key(Role::Client, fixed("delivered"), fixed("received")), 100),
            (key(Role::Server, fixed("backlog"), fixed("received")), 1),
        ];
        assert_eq!(order(&stages), [2, 3, 4, 1, 6, 5, 7, 8, 0, 9]);
    }
}
