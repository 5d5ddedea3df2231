//! Putting stages into the order of the path.

use virtax_model::{
    counts::{Place, Point, Role},
    points::{self, Leg},
};

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
    if points::row(key.to.point).is_none_or(|row| row.leg != Leg::Arrives) {
        return key.role;
    }
    match key.role {
        Role::Client if has_proxy => Role::ProxyIn,
        Role::Client | Role::ProxyIn => Role::Server,
        Role::Server if has_proxy => Role::ProxyOut,
        Role::Server | Role::ProxyOut => Role::Client,
        role @ (Role::Vcpu | Role::Vmm | Role::Vhost) => role,
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
    let is_of_files = stages.iter().any(|(key, _)| key.from.point == Point::Enter);
    let start = if is_of_files { Point::Enter } else { Point::Send };
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
        // What a VM was handed as a request comes back at the same device as a response.
        let Some(position) =
            begins_at(at.0).or_else(|| begins_at(Role::Server).filter(|_| at.1.point == Point::Receive))
        else {
            break;
        };
        let index = left.remove(position);
        let key = &stages[index].0;
        at = (role_after(key, has_proxy), key.to.clone());
        ordered.push(index);
        if is_boundary(key) {
            // What the guest saw lies within what the host saw of its VM; of files, the other way round.
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

/// What a VM holds: from where it has taken a request out of its device's queue (or, where that is not seen,
/// from where it was put there) until the answer comes out of the same.
#[must_use]
pub fn is_boundary(key: &StageKey) -> bool {
    is_disk_of_guest(key) || is_network_boundary(key)
}

/// A guest's disk has an operation: its VM, and the host below it. (What a disk's cache is told is never issued.)
#[must_use]
pub fn is_disk_of_guest(key: &StageKey) -> bool {
    let is_with_disk = matches!(key.from.point, Point::Issue | Point::Bio) && key.to.point == Point::Complete;
    is_with_disk && key.from.is_in_guest()
}

fn is_network_boundary(key: &StageKey) -> bool {
    let is_same = key.from.point == Point::Xmit && key.from.device == key.to.device;
    key.to.point == Point::Receive && (key.from.point == Point::Taken || is_same)
}

/// Where stages of a file operation begin, in the order of its path.
const OF_A_DISK: [Point; 4] = [Point::Enter, Point::Bio, Point::Issue, Point::Complete];

/// Stages between a guest's card and back, in path order, and all others: a request comes in where no other stage ends.
fn divide(stages: &[(StageKey, u64)]) -> (Vec<usize>, Vec<usize>) {
    let ends =
        |role: Role, place: &Place| stages.iter().any(|(key, _)| key.to == *place && role_after(key, false) == role);
    let is_first =
        |key: &StageKey| key.role == Role::Client && key.from.point == Point::Receive && !ends(Role::Client, &key.from);
    let mut left: Vec<usize> = (0..stages.len()).collect();
    let mut inside = Vec::new();
    if stages.iter().any(|(key, _)| key.role == Role::Vmm) {
        let (mut of_process, left): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|index| stages[*index].0.role == Role::Vmm);
        of_process.sort_by_key(|index| {
            let key = &stages[*index].0;
            let rank = OF_A_DISK.iter().position(|point| key.from.point == *point);
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
            (key(Role::Client, fixed(Point::Received), fixed(Point::Send)), 100),
            (key(Role::Server, fixed(Point::Delivered), fixed(Point::Received)), 99),
            (key(Role::Client, fixed(Point::Send), Place::at(Point::Xmit, "lo")), 100),
            (key(Role::Client, Place::at(Point::Xmit, "lo"), fixed(Point::Delivered)), 99),
            (key(Role::Client, Place::at(Point::Xmit, "lo"), fixed(Point::Backlog)), 1),
            (key(Role::Server, fixed(Point::Send), Place::at(Point::Xmit, "lo")), 100),
            (key(Role::Server, fixed(Point::Received), fixed(Point::Send)), 100),
            (key(Role::Server, Place::at(Point::Xmit, "lo"), fixed(Point::Delivered)), 100),
            (key(Role::Client, fixed(Point::Delivered), fixed(Point::Received)), 100),
            (key(Role::Server, fixed(Point::Backlog), fixed(Point::Received)), 1),
        ];
        assert_eq!(order(&stages), [2, 3, 4, 9, 1, 6, 5, 7, 8, 0]);
    }

    #[test]
    fn into_a_vm_and_out_of_it() {
        let (fixed, at) = (Place::fixed, Place::at);
        let way = [
            key(Role::Client, fixed(Point::Send), at(Point::Xmit, "wire@client")),
            key(Role::Client, at(Point::Xmit, "wire@client"), at(Point::Receive, "wire@host")),
            key(Role::Client, at(Point::Receive, "wire@host"), at(Point::Xmit, "tap@host")),
            key(Role::Client, at(Point::Xmit, "tap@host"), fixed(Point::Taken)),
            key(Role::Client, fixed(Point::Taken), at(Point::Receive, "tap@host")),
            key(Role::Server, at(Point::Receive, "tap@host"), at(Point::Xmit, "wire@host")),
            key(Role::Server, at(Point::Xmit, "wire@host"), fixed(Point::Delivered)),
            key(Role::Client, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::Client, fixed(Point::Received), fixed(Point::Send)),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_guests_operation_holds_its_vms() {
        let (fixed, at) = (Place::fixed, Place::at);
        let way = [
            key(Role::Client, fixed(Point::Enter), at(Point::Bio, "vda@guest")),
            key(Role::Client, at(Point::Bio, "vda@guest"), at(Point::Issue, "vda@guest")),
            key(Role::Client, at(Point::Issue, "vda@guest"), at(Point::Complete, "vda@guest")),
            key(Role::Vmm, fixed(Point::Enter), at(Point::Bio, "vda")),
            key(Role::Vmm, at(Point::Bio, "vda"), at(Point::Issue, "vda")),
            key(Role::Vmm, at(Point::Issue, "vda"), at(Point::Complete, "vda")),
            key(Role::Vmm, at(Point::Complete, "vda"), fixed(Point::Exit)),
            key(Role::Client, at(Point::Complete, "vda@guest"), fixed(Point::Exit)),
            key(Role::Client, fixed(Point::Exit), fixed(Point::Enter)),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }

    proptest::proptest! {
        #[test]
        fn every_stage_has_its_place(ways in proptest::collection::vec((0u8..2, 0usize..6, 0usize..6, 0u64..5), 0..14)) {
            let places = [
                Place::fixed(Point::Send),
                Place::fixed(Point::Delivered),
                Place::fixed(Point::Received),
                Place::at(Point::Xmit, "tap@host"),
                Place::at(Point::Receive, "tap@host"),
                Place::at(Point::Receive, "eth0@guest"),
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
    fn what_a_guest_saw_lies_within_its_vm() {
        let (fixed, at) = (Place::fixed, Place::at);
        let way = [
            key(Role::Client, fixed(Point::Send), at(Point::Xmit, "tap@host")),
            key(Role::Client, at(Point::Xmit, "tap@host"), at(Point::Receive, "tap@host")),
            key(Role::Client, at(Point::Receive, "eth0@guest"), fixed(Point::Delivered)),
            key(Role::Server, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::Server, fixed(Point::Received), fixed(Point::Send)),
            key(Role::Server, fixed(Point::Send), at(Point::Xmit, "eth0@guest")),
            key(Role::Server, at(Point::Receive, "tap@host"), fixed(Point::Delivered)),
            key(Role::Client, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::Client, fixed(Point::Received), fixed(Point::Send)),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }

    #[test]
    fn through_a_proxy_and_back() {
        let fixed = Place::fixed;
        let way = [
            key(Role::Client, fixed(Point::Send), fixed(Point::Delivered)),
            key(Role::ProxyIn, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::ProxyIn, fixed(Point::Received), fixed(Point::Send)),
            key(Role::ProxyIn, fixed(Point::Send), fixed(Point::Delivered)),
            key(Role::Server, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::Server, fixed(Point::Received), fixed(Point::Send)),
            key(Role::Server, fixed(Point::Send), fixed(Point::Delivered)),
            key(Role::ProxyOut, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::ProxyOut, fixed(Point::Received), fixed(Point::Send)),
            key(Role::ProxyOut, fixed(Point::Send), fixed(Point::Delivered)),
            key(Role::Client, fixed(Point::Delivered), fixed(Point::Received)),
            key(Role::Client, fixed(Point::Received), fixed(Point::Send)),
        ];
        let backwards: Vec<(StageKey, u64)> = way.iter().rev().map(|key| (key.clone(), 100)).collect();
        assert_eq!(order(&backwards), (0..way.len()).rev().collect::<Vec<_>>());
    }
}
