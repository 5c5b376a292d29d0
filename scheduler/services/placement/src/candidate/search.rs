//! The search for ways to serve a request; pure and bounded.
//!
//! Tree by tree: for each group the providers that could serve it, then every combination that fits
//! together, until enough are found. A tree's reach includes sharing providers: those with the trait
//! `MISC_SHARES_VIA_AGGREGATE` in an aggregate of one of the tree's members.
use super::model::{Assignment, Group, Wanted, serves_alone};
use crate::{
    provider::model::{Amounts, Provider},
    traits::model::SHARES,
};
use std::collections::{BTreeMap, BTreeSet};

/// Ways looked at in one tree; combinations grow with the power of the groups.
const STEPS_MAX: usize = 20_000;
/// Ways given for a whole request.
const FOUND_MAX: usize = 10_000;

/// One thing to place: a class of the group "" or a whole group.
struct Piece<'w> {
    suffix: &'w str,
    group: &'w Group,
    resources: Amounts,
    options: Vec<&'w Provider>,
}

/// The providers one search looks at.
struct Reach<'p> {
    root: &'p Provider,
    members: Vec<&'p Provider>,
    by_id: &'p BTreeMap<&'p str, &'p Provider>,
}

/// All ways to serve `wanted` with these providers, in the order of the trees' first members.
pub fn search(providers: &[&Provider], wanted: &Wanted) -> Vec<Assignment> {
    let by_id: BTreeMap<&str, &Provider> = providers.iter().map(|p| (p.uuid.as_str(), *p)).collect();
    let mut trees: BTreeMap<&str, Vec<&Provider>> = BTreeMap::new();
    for provider in providers {
        trees.entry(&provider.root).or_default().push(provider);
    }
    let limit = wanted.limit.unwrap_or(FOUND_MAX).min(FOUND_MAX);
    let mut found: Vec<Assignment> = Vec::new();
    let mut seen: BTreeSet<BTreeMap<String, Amounts>> = BTreeSet::new();
    for (root, members) in &trees {
        let Some(root) = by_id.get(root) else { continue };
        if !wanted.root_required.is_subset(&root.traits) || !wanted.root_forbidden.is_disjoint(&root.traits) {
            continue;
        }
        let mut reach = Reach { root, members: members.clone(), by_id: &by_id };
        reach.members.extend(sharing(providers, members));
        for way in within(&reach, wanted, limit - found.len()) {
            let mapped = wanted.groups.len() > 1;
            if mapped || seen.insert(way.allocations.clone()) {
                found.push(way);
            }
        }
        if found.len() >= limit {
            break;
        }
    }
    found
}

/// Sharing providers of other trees that lend to this one.
fn sharing<'p>(providers: &[&'p Provider], members: &[&Provider]) -> Vec<&'p Provider> {
    let aggregates: BTreeSet<&String> = members.iter().flat_map(|m| m.aggregates.iter()).collect();
    let root = members.first().map(|m| m.root.as_str());
    let lends = |p: &&&Provider| {
        p.traits.contains(SHARES)
            && Some(p.root.as_str()) != root
            && p.aggregates.iter().any(|a| aggregates.contains(a))
    };
    providers.iter().filter(lends).copied().collect()
}

fn within(reach: &Reach<'_>, wanted: &Wanted, limit: usize) -> Vec<Assignment> {
    let mut pieces = Vec::new();
    for (suffix, group) in &wanted.groups {
        let candidates: Vec<&Provider> =
            reach.members.iter().copied().filter(|p| eligible(reach, p, suffix, group, wanted)).collect();
        if suffix.is_empty() {
            for (class, amount) in &group.resources {
                let options = candidates.iter().copied().filter(|p| p.can_give(class, *amount)).collect();
                pieces.push(Piece { suffix, group, resources: [(class.clone(), *amount)].into(), options });
            }
        } else {
            pieces.push(Piece { suffix, group, resources: group.resources.clone(), options: candidates });
        }
    }
    if pieces.iter().any(|p| p.options.is_empty()) {
        return Vec::new();
    }
    let mut walk = Walk { reach, wanted, pieces: &pieces, chosen: Vec::new(), found: Vec::new(), limit, steps: 0 };
    walk.descend();
    walk.found
}

/// May this provider serve (a part of) the group at all?
fn eligible(reach: &Reach<'_>, provider: &Provider, suffix: &str, group: &Group, wanted: &Wanted) -> bool {
    if wanted.roots_only && provider.parent.is_some() {
        return false;
    }
    if let Some(member) = &group.in_tree
        && reach.by_id.get(member.as_str()).is_none_or(|m| m.root != provider.root)
    {
        return false;
    }
    if !suffix.is_empty() {
        return serves_alone(provider, group);
    }
    // An aggregate of the root spans its tree when any member may serve.
    let mut aggregates = provider.aggregates.clone();
    if let Some(root) = reach.by_id.get(provider.root.as_str()) {
        aggregates.extend(root.aggregates.iter().cloned());
    }
    group.accepts_aggregates(&aggregates) && group.forbidden.is_disjoint(&provider.traits)
}

struct Walk<'w, 'p> {
    reach: &'w Reach<'p>,
    wanted: &'w Wanted,
    pieces: &'w [Piece<'p>],
    chosen: Vec<&'p Provider>,
    found: Vec<Assignment>,
    limit: usize,
    steps: usize,
}

impl<'p> Walk<'_, 'p> {
    fn descend(&mut self) {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.found.len() >= self.limit {
            return;
        }
        let Some(piece) = self.pieces.get(self.chosen.len()) else {
            if let Some(way) = self.finish() {
                self.found.push(way);
            }
            return;
        };
        for option in &piece.options {
            if self.isolated(piece, option) && self.fits(piece, option) {
                self.chosen.push(option);
                self.descend();
                self.chosen.pop();
            }
        }
    }

    /// Groups with a suffix keep apart when the request says so.
    fn isolated(&self, piece: &Piece<'_>, option: &Provider) -> bool {
        if !self.wanted.isolate || piece.suffix.is_empty() || piece.resources.is_empty() {
            return true;
        }
        let others =
            self.pieces.iter().zip(&self.chosen).filter(|(p, _)| !p.suffix.is_empty() && !p.resources.is_empty());
        others.into_iter().all(|(_, chosen)| chosen.uuid != option.uuid)
    }

    /// Is there room for this piece beside what was chosen before?
    fn fits(&self, piece: &Piece<'_>, option: &Provider) -> bool {
        piece.resources.iter().all(|(class, amount)| {
            let before: i64 = self
                .pieces
                .iter()
                .zip(&self.chosen)
                .filter(|(_, c)| c.uuid == option.uuid)
                .filter_map(|(p, _)| p.resources.get(class))
                .sum();
            before == 0 || option.can_give(class, before.saturating_add(*amount))
        })
    }

    fn finish(&self) -> Option<Assignment> {
        let mut way = Assignment { allocations: BTreeMap::new(), mappings: BTreeMap::new() };
        for (piece, provider) in self.pieces.iter().zip(&self.chosen) {
            way.mappings.entry(piece.suffix.to_owned()).or_default().insert(provider.uuid.clone());
            for (class, amount) in &piece.resources {
                *way.allocations.entry(provider.uuid.clone()).or_default().entry(class.clone()).or_default() += amount;
            }
        }
        let own = way
            .mappings
            .values()
            .flatten()
            .any(|id| self.reach.by_id.get(id.as_str()).is_some_and(|p| p.root == self.reach.root.uuid));
        (own && self.together_required() && self.subtrees(&way)).then_some(way)
    }

    /// The group "" may find its required traits spread over those who serve it.
    fn together_required(&self) -> bool {
        let serving = self.pieces.iter().zip(&self.chosen).filter(|(p, _)| p.suffix.is_empty());
        let (mut traits, mut group) = (BTreeSet::new(), None);
        for (piece, provider) in serving {
            traits.extend(provider.traits.iter().cloned());
            group = Some(piece.group);
        }
        group.is_none_or(|g| g.has_required(&traits))
    }

    fn subtrees(&self, way: &Assignment) -> bool {
        self.wanted.same_subtree.iter().all(|suffixes| {
            let ids: BTreeSet<&str> =
                suffixes.iter().filter_map(|s| way.mappings.get(s)).flatten().map(String::as_str).collect();
            ids.len() < 2 || ids.iter().any(|top| ids.iter().all(|id| self.below(id, top)))
        })
    }

    /// Is `id` `top` itself or below it?
    fn below(&self, id: &str, top: &str) -> bool {
        let mut at = Some(id);
        for _ in 0..=self.reach.by_id.len() {
            match at {
                None => return false,
                Some(id) if id == top => return true,
                Some(id) => at = self.reach.by_id.get(id).and_then(|p| p.parent.as_deref()),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::model::Inventory;

    fn provider(
        id: &str,
        parent: Option<&Provider>,
        inventories: &[(&str, i64)],
        traits: &[&str],
        aggregates: &[&str],
    ) -> Provider {
        let mut p = Provider::new(id, id);
        if let Some(parent) = parent {
            (p.parent, p.root) = (Some(parent.uuid.clone()), parent.root.clone());
        }
        p.inventories = inventories.iter().map(|(c, n)| ((*c).to_owned(), Inventory::plain(*n))).collect();
        p.traits = traits.iter().map(|t| (*t).to_owned()).collect();
        p.aggregates = aggregates.iter().map(|a| (*a).to_owned()).collect();
        p
    }

    fn group(resources: &[(&str, i64)], required: &[&str]) -> Group {
        Group {
            resources: resources.iter().map(|(c, n)| ((*c).to_owned(), *n)).collect(),
            required: required.iter().map(|t| [(*t).to_owned()].into()).collect(),
            ..Group::default()
        }
    }

    fn wanted(groups: &[(&str, Group)]) -> Wanted {
        Wanted { groups: groups.iter().map(|(s, g)| ((*s).to_owned(), g.clone())).collect(), ..Wanted::default() }
    }

    fn ids(ways: &[Assignment]) -> Vec<Vec<&str>> {
        ways.iter().map(|w| w.allocations.keys().map(String::as_str).collect()).collect()
    }

    #[test]
    fn flat_providers_are_found_by_room_traits_and_aggregates() {
        let a = provider("a", None, &[("VCPU", 4)], &["T"], &["x"]);
        let mut b = provider("b", None, &[("VCPU", 4)], &[], &["x"]);
        let all = |b: &Provider, w: &Wanted| ids(&search(&[&a, b], w)).concat().join("");
        let plain = wanted(&[("", group(&[("VCPU", 4)], &[]))]);
        assert_eq!(all(&b, &plain), "ab");
        assert_eq!(all(&b, &wanted(&[("", group(&[("VCPU", 4)], &["T"]))])), "a");
        let mut not = plain.clone();
        not.groups.get_mut("").unwrap().forbidden.insert("T".into());
        assert_eq!(all(&b, &not), "b");
        b.used.insert("VCPU".into(), 1);
        assert_eq!(all(&b, &plain), "a");
        let mut member = plain.clone();
        member.groups.get_mut("").unwrap().member_of = vec![["y".to_owned()].into()];
        assert_eq!(all(&b, &member), "");
        assert_eq!(search(&[&a, &b], &Wanted { limit: Some(0), ..plain }).len(), 0);
    }

    #[test]
    fn groups_isolate_and_stay_in_one_subtree() {
        let root = provider("r", None, &[("VCPU", 8)], &["ROOT"], &[]);
        let one = provider("s1", Some(&root), &[], &["LEFT"], &[]);
        let two = provider("s2", Some(&root), &[], &["RIGHT"], &[]);
        let nic1 = provider("v1", Some(&one), &[("SRIOV_NET_VF", 2)], &[], &[]);
        let nic2 = provider("v2", Some(&two), &[("SRIOV_NET_VF", 1)], &[], &[]);
        let all = [&root, &one, &two, &nic1, &nic2];
        let vf = group(&[("SRIOV_NET_VF", 1)], &[]);
        let mut w = wanted(&[("", group(&[("VCPU", 1)], &[])), ("1", vf.clone()), ("2", vf.clone())]);
        assert_eq!(search(&all, &w).len(), 3, "both on v1, or one on each in either order");
        w.isolate = true;
        assert_eq!(search(&all, &w).len(), 2);
        let mut subtree = wanted(&[("_nic", vf), ("_side", group(&[], &["RIGHT"]))]);
        subtree.same_subtree = vec![["_nic".to_owned(), "_side".to_owned()].into()];
        assert_eq!(ids(&search(&all, &subtree)), [["v2"]]);
        subtree.root_forbidden.insert("ROOT".into());
        assert!(search(&all, &subtree).is_empty());
    }

    #[test]
    fn sharing_providers_lend_through_aggregates() {
        let host = provider("h", None, &[("VCPU", 2)], &[], &["pool"]);
        let other = provider("o", None, &[("VCPU", 2)], &[], &[]);
        let pool = provider("p", None, &[("DISK_GB", 100)], &[SHARES], &["pool"]);
        let ways = search(&[&host, &other, &pool], &wanted(&[("", group(&[("VCPU", 1), ("DISK_GB", 10)], &[]))]));
        assert_eq!(ids(&ways), [["h", "p"]]);
    }

    #[test]
    fn a_hostile_request_ends() {
        let root = provider("r", None, &[], &[], &[]);
        let children: Vec<Provider> =
            (0..64).map(|i| provider(&format!("c{i}"), Some(&root), &[("VGPU", 1)], &[], &[])).collect();
        let mut all: Vec<&Provider> = vec![&root];
        all.extend(&children);
        let groups: Vec<(String, Group)> = (0..40).map(|i| (format!("{i}"), group(&[("VGPU", 1)], &[]))).collect();
        let w = Wanted { groups: groups.into_iter().collect(), isolate: true, ..Wanted::default() };
        assert!(search(&all, &w).len() <= STEPS_MAX);
    }
}
