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

/// Role of the holder after a point: delivery hands over to the other side, or to a proxy on the way there.
fn role_after(key: &StageKey, has_proxy: bool) -> Role {
    match (key.to.point.as_str(), key.role) {
        ("delivered" | "backlog", Role::Client) if has_proxy => Role::ProxyIn,
        ("delivered" | "backlog", Role::Client | Role::ProxyIn) => Role::Server,
        ("delivered" | "backlog", Role::Server) if has_proxy => Role::ProxyOut,
        ("delivered" | "backlog", Role::Server | Role::ProxyOut) => Role::Client,
        (_, role) => role,
    }
}

/// Indices of the stages in path order, from the client's send: always along the most frequent way; rarer ones stand
/// behind the place where they leave it.
#[must_use]
pub fn order(stages: &[(StageKey, u64)]) -> Vec<usize> {
    let has_proxy = stages.iter().any(|(key, _)| key.role.is_proxy());
    let (mut inside, mut left) = divide(stages);
    let mut ordered = Vec::with_capacity(stages.len());
    // Where a request starts; a file operation, where none does.
    let start = if stages.iter().any(|(key, _)| key.from.point == "enter") { "enter" } else { "send" };
    let start = (Role::Client, Place::fixed(start));
    let mut at = start.clone();
    while !left.is_empty() {
        let begins_at = |role: Role| {
            left.iter()
                .enumerate()
                .filter(|(_, index)| {
                    let key = &stages[**index].0;
                    key.role == role && key.from == at.1
                })
                .max_by_key(|(_, index)| stages[**index].1)
                .map(|(position, _)| position)
        };
        // What a virtual machine was handed as a request comes back at the same device as a response.
        let Some(position) = begins_at(at.0).or_else(|| begins_at(Role::Server).filter(|_| at.1.point == "receive"))
        else {
            break;
        };
        let index = left.remove(position);
        let key = &stages[index].0;
        at = (role_after(key, has_proxy), key.to.clone());
        ordered.push(index);
        if is_boundary(key) {
            // What the guest saw lies within what the host saw of its machine; of files, the other way round.
            ordered.append(&mut inside);
        }
        if at == start {
            break;
        }
    }
    // The rest, heaviest first, each behind the last stage that begins where it begins, or else that leads there:
    // first those of which one stands there already.
    left.sort_by_key(|index| std::cmp::Reverse(stages[*index].1));
    let behind = |ordered: &[usize], index: usize| {
        let key = &stages[index].0;
        let begins_there = |other: &StageKey| other.role == key.role && other.from == key.from;
        let leads_there = |other: &StageKey| other.to == key.from && role_after(other, has_proxy) == key.role;
        let last = |is_it: &dyn Fn(&StageKey) -> bool| ordered.iter().rposition(|other| is_it(&stages[*other].0));
        last(&begins_there).or_else(|| last(&leads_there))
    };
    while !left.is_empty() {
        let placed = left.iter().enumerate().find_map(|(next, index)| Some((next, behind(&ordered, *index)? + 1)));
        let (next, position) = placed.unwrap_or((0, ordered.len()));
        ordered.insert(position, left.remove(next));
    }
    ordered.extend(inside);
    ordered
}

/// What a machine holds: from where it has taken a request out of its device's queue (or, where that is not seen,
/// from where it was put there) until the answer comes out of the same.
#[must_use]
pub fn is_boundary(key: &StageKey) -> bool {
    is_disk_of_guest(key) || is_network_boundary(key)
}

/// A guest's disk has an operation: its machine, and the host below it. (What a disk's cache is told is never issued.)
#[must_use]
pub fn is_disk_of_guest(key: &StageKey) -> bool {
    let is_guests = key.from.device.as_ref().is_some_and(|disk| disk.ends_with("@guest"));
    matches!(key.from.point.as_str(), "issue" | "bio") && key.to.point == "complete" && is_guests
}

fn is_network_boundary(key: &StageKey) -> bool {
    let is_same = key.from.point == "xmit" && key.from.device == key.to.device;
    key.to.point == "receive" && (key.from.point == "taken" || is_same)
}

/// Stages between a guest's card and back, in path order, and all others: a request comes in where no other stage ends.
fn divide(stages: &[(StageKey, u64)]) -> (Vec<usize>, Vec<usize>) {
    let ends =
        |role: Role, place: &Place| stages.iter().any(|(key, _)| key.to == *place && role_after(key, false) == role);
    let is_first =
        |key: &StageKey| key.role == Role::Client && key.from.point == "receive" && !ends(Role::Client, &key.from);
    let mut left: Vec<usize> = (0..stages.len()).collect();
    let mut inside = Vec::new();
    if stages.iter().any(|(key, _)| key.role == Role::Vmm) {
        let (mut of_process, left): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|index| stages[*index].0.role == Role::Vmm);
        of_process.sort_by_key(|index| {
            let key = &stages[*index].0;
            let rank = ["enter", "bio", "issue", "complete"].iter().position(|point| key.from.point == *point);
            (rank, std::cmp::Reverse(stages[*index].1))
        });
        return (of_process, left);
    }
    let first = left.iter().filter(|index| is_first(&stages[**index].0)).max_by_key(|index| stages[**index].1);
    let mut next = first.copied();
    while let Some(index) = next {
        left.retain(|other| *other != index);
        inside.push(index);
        let key = &stages[index].0;
        let at = (role_after(key, false), &key.to);
        let onwards = left.iter().filter(|index| (stages[**index].0.role, &stages[**index].0.from) == at);
        next = onwards.max_by_key(|index| stages[**index].1).copied();
    }
    (inside, left)
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
        assert_eq!(order(&stages), [2, 3, 4, 9, 1, 6, 5, 7, 8, 0]);
    }

    #[test]
    fn into_a_virtual_machine_and_out_of_it() {
        let (fixed, at) = (Place::fixed, Place::at);
        let way = [
            key(Role::Client, fixed("send"), at("xmit", "wire@client")),
            key(Role::Client, at("xmit", "wire@client"), at("receive", "wire@host")),
            key(Role::Client, at("receive", "wire@host"), at("xmit", "tap@host")),
            key(Role::Client, at("xmit", "tap@host"), fixed("taken")),
            key(Role::Client, fixed("taken"), at("receive", "tap@host")),
            key(Role::Server, at("receive", "tap@host"), at("xmit", "wire@host")),
            key(Role::Server, at("xmit", "wire@host"), fixed("delivered")),
            key(Role::Client, fixed("delivered"), fixed("received")),
            key(Role::Client, fixed("received"), fixed("send")),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_guests_operation_holds_its_machines() {
        let (fixed, at) = (Place::fixed, Place::at);
        let way = [
            key(Role::Client, fixed("enter"), at("bio", "vda@guest")),
            key(Role::Client, at("bio", "vda@guest"), at("issue", "vda@guest")),
            key(Role::Client, at("issue", "vda@guest"), at("complete", "vda@guest")),
            key(Role::Vmm, fixed("enter"), at("bio", "vda")),
            key(Role::Vmm, at("bio", "vda"), at("issue", "vda")),
            key(Role::Vmm, at("issue", "vda"), at("complete", "vda")),
            key(Role::Vmm, at("complete", "vda"), fixed("exit")),
            key(Role::Client, at("complete", "vda@guest"), fixed("exit")),
            key(Role::Client, fixed("exit"), fixed("enter")),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }

    proptest::proptest! {
        #[test]
        fn every_stage_has_its_place(ways in proptest::collection::vec((0u8..2, 0usize..6, 0usize..6, 0u64..5), 0..14)) {
            let places = [
                Place::fixed("send"),
                Place::fixed("delivered"),
                Place::fixed("received"),
                Place::at("xmit", "tap@host"),
                Place::at("receive", "tap@host"),
                Place::at("receive", "eth0@guest"),
            ];
            let role = |number| if number == 0 { Role::Client } else { Role::Server };
            let stages: Vec<(StageKey, u64)> = ways
                .iter()
                .map(|(number, from, to, count)| (key(role(*number), places[*from].clone(), places[*to].clone()), *count))
                .collect();
            let mut ordered = order(&stages);
            ordered.sort_unstable();
            proptest::prop_assert_eq!(ordered, (0..stages.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_a_guest_saw_lies_within_its_machine() {
        let (fixed, at) = (Place::fixed, Place::at);
        let way = [
            key(Role::Client, fixed("send"), at("xmit", "tap@host")),
            key(Role::Client, at("xmit", "tap@host"), at("receive", "tap@host")),
            key(Role::Client, at("receive", "eth0@guest"), fixed("delivered")),
            key(Role::Server, fixed("delivered"), fixed("received")),
            key(Role::Server, fixed("received"), fixed("send")),
            key(Role::Server, fixed("send"), at("xmit", "eth0@guest")),
            key(Role::Server, at("receive", "tap@host"), fixed("delivered")),
            key(Role::Client, fixed("delivered"), fixed("received")),
            key(Role::Client, fixed("received"), fixed("send")),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }

    #[test]
    fn through_a_proxy_and_back() {
        let fixed = Place::fixed;
        let way = [
            key(Role::Client, fixed("send"), fixed("delivered")),
            key(Role::ProxyIn, fixed("delivered"), fixed("received")),
            key(Role::ProxyIn, fixed("received"), fixed("send")),
            key(Role::ProxyIn, fixed("send"), fixed("delivered")),
            key(Role::Server, fixed("delivered"), fixed("received")),
            key(Role::Server, fixed("received"), fixed("send")),
            key(Role::Server, fixed("send"), fixed("delivered")),
            key(Role::ProxyOut, fixed("delivered"), fixed("received")),
            key(Role::ProxyOut, fixed("received"), fixed("send")),
            key(Role::ProxyOut, fixed("send"), fixed("delivered")),
            key(Role::Client, fixed("delivered"), fixed("received")),
            key(Role::Client, fixed("received"), fixed("send")),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }
}
