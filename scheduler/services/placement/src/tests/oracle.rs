//! The search for candidates against its definition: every assignment of every piece to every provider is tried and
//! judged, on random small clouds.
use crate::{
    candidate::{
        model::{Breadth, Group, Limits, Wanted},
        search::search,
    },
    provider::model::{Amounts, Inventory, Provider},
    snapshot::index,
    traits::model::SHARES,
};
use proptest::{prelude::*, sample::subsequence};
use std::collections::{BTreeMap, BTreeSet};

const CLASSES: &[&str] = &["VCPU", "DISK_GB", "VGPU"];
const TRAITS: &[&str] = &["T1", "T2", "T3"];
const AGGREGATES: &[&str] = &["a1", "a2"];

type Answer = (BTreeMap<String, Amounts>, BTreeMap<String, BTreeSet<String>>);

/// The definition.
struct Oracle<'a> {
    all: &'a [Provider],
    wanted: &'a Wanted,
    /// Group, and what is wanted of one provider.
    pieces: Vec<(&'a str, &'a Group, Amounts)>,
}

impl<'a> Oracle<'a> {
    fn new(all: &'a [Provider], wanted: &'a Wanted) -> Self {
        let mut pieces = Vec::new();
        for (suffix, group) in &wanted.groups {
            if suffix.is_empty() {
                for (class, n) in &group.resources {
                    pieces.push((suffix.as_str(), group, Amounts::from([(class.clone(), *n)])));
                }
            } else {
                pieces.push((suffix.as_str(), group, group.resources.clone()));
            }
        }
        Oracle { all, wanted, pieces }
    }

    fn get(&self, uuid: &str) -> &Provider {
        self.all.iter().find(|p| p.uuid == uuid).unwrap()
    }

    fn answers(&self) -> BTreeSet<Answer> {
        let mut found = BTreeSet::new();
        for root in self.all.iter().filter(|p| p.parent.is_none()) {
            let good = self.wanted.root_required.is_subset(&root.traits)
                && self.wanted.root_forbidden.is_disjoint(&root.traits);
            let total = self.all.len().pow(u32::try_from(self.pieces.len()).unwrap());
            for number in (0..total).filter(|_| good) {
                let mut rest = number;
                let chosen: Vec<&Provider> = self
                    .pieces
                    .iter()
                    .map(|_| {
                        let one = &self.all[rest % self.all.len()];
                        rest /= self.all.len();
                        one
                    })
                    .collect();
                if self.holds(root, &chosen) {
                    found.insert(self.answer(&chosen));
                }
            }
        }
        found
    }

    fn holds(&self, root: &Provider, chosen: &[&Provider]) -> bool {
        let pairs = || self.pieces.iter().zip(chosen);
        pairs().all(|((suffix, group, amounts), p)| {
            let fits = amounts.iter().all(|(class, n)| p.can_give(class, *n));
            fits && self.reaches(root, p)
                && if suffix.is_empty() { self.partly(root, p, group) } else { self.alone(p, group) }
        }) && self.together(chosen)
            && self.wanted.same_subtree.iter().all(|set| {
                let of: Vec<&Provider> = pairs().filter(|((s, ..), _)| set.contains(*s)).map(|(_, p)| *p).collect();
                of.iter().any(|top| of.iter().all(|p| self.is_above(top, p)))
            })
    }

    /// In the tree, or lending to it.
    fn reaches(&self, root: &Provider, p: &Provider) -> bool {
        let members = || self.all.iter().filter(|m| m.root == root.uuid);
        p.root == root.uuid
            || (p.traits.contains(SHARES) && members().any(|m| !m.aggregates.is_disjoint(&p.aggregates)))
    }

    fn in_tree(&self, p: &Provider, group: &Group) -> bool {
        group.in_tree.as_ref().is_none_or(|t| self.all.iter().any(|q| q.uuid == *t && q.root == p.root))
    }

    fn alone(&self, p: &Provider, group: &Group) -> bool {
        let any = |sets: &[BTreeSet<String>], has: &BTreeSet<String>| sets.iter().all(|any| !any.is_disjoint(has));
        self.in_tree(p, group)
            && any(&group.required, &p.traits)
            && any(&group.member_of, &p.aggregates)
            && group.forbidden.is_disjoint(&p.traits)
            && group.not_member_of.is_disjoint(&p.aggregates)
    }

    fn partly(&self, root: &Provider, p: &Provider, group: &Group) -> bool {
        let member = |q: &Provider| group.member_of.iter().all(|any| !any.is_disjoint(&q.aggregates));
        let own = p.root == root.uuid;
        (group.in_tree.is_none() || (own && self.in_tree(p, group)))
            && (member(p) || (own && member(root)))
            && group.forbidden.is_disjoint(&p.traits)
            && group.not_member_of.is_disjoint(&p.aggregates)
            && group.not_member_of.is_disjoint(&root.aggregates)
    }

    /// What concerns all the chosen.
    fn together(&self, chosen: &[&Provider]) -> bool {
        let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let (mut apart, mut traits) = (Vec::new(), BTreeSet::new());
        for ((suffix, _, amounts), p) in self.pieces.iter().zip(chosen) {
            for (class, n) in amounts {
                *sums.entry((&p.uuid, class)).or_default() += n;
            }
            if suffix.is_empty() {
                traits.extend(p.traits.iter().cloned());
            } else {
                apart.push(&p.uuid);
            }
        }
        let distinct: BTreeSet<_> = apart.iter().collect();
        let givers: BTreeSet<&str> = chosen.iter().map(|p| p.uuid.as_str()).collect();
        let trees: BTreeSet<&str> = chosen.iter().map(|p| p.root.as_str()).collect();
        sums.iter().all(|((uuid, class), n)| self.get(uuid).can_give(class, *n))
            && (!self.wanted.isolate || distinct.len() == apart.len())
            && (!self.wanted.one_of_a_tree || givers.len() == trees.len())
            && self.wanted.groups.get("").is_none_or(|g| g.required.iter().all(|any| !any.is_disjoint(&traits)))
    }

    fn is_above(&self, top: &Provider, p: &Provider) -> bool {
        top.uuid == p.uuid || p.parent.as_ref().is_some_and(|parent| self.is_above(top, self.get(parent)))
    }

    fn answer(&self, chosen: &[&Provider]) -> Answer {
        let mut answer = Answer::default();
        for ((suffix, _, amounts), p) in self.pieces.iter().zip(chosen) {
            answer.1.entry((*suffix).to_owned()).or_default().insert(p.uuid.clone());
            for (class, n) in amounts {
                *answer.0.entry(p.uuid.clone()).or_default().entry(class.clone()).or_default() += n;
            }
        }
        answer
    }
}

fn ours(all: &[Provider], wanted: &Wanted, limits: &Limits, seed: Option<u64>) -> Vec<Answer> {
    let index = index::of(&all.iter().collect::<Vec<_>>());
    let names = index.names().clone();
    let ways = search(&index, wanted, limits, seed);
    ways.iter()
        .map(|way| {
            let amounts = |list: &Vec<(u32, i64)>| list.iter().map(|(c, n)| (names.text(*c).to_string(), *n)).collect();
            let uuids = |nodes: &Vec<std::sync::Arc<index::Node>>| nodes.iter().map(|n| n.uuid.to_string()).collect();
            let gives = way.gives.iter().map(|(node, list)| (node.uuid.to_string(), amounts(list))).collect();
            (gives, wanted.groups.keys().cloned().zip(way.serving.iter().map(uuids)).collect())
        })
        .collect()
}

fn words(from: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<String>> {
    subsequence(from, 0..=from.len()).prop_map(|v| v.into_iter().map(str::to_owned).collect())
}

/// Now and then some words, else none.
fn seldom(from: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<String>> {
    prop_oneof![3 => Just(BTreeSet::new()), 1 => words(from)]
}

prop_compose! {
    fn a_provider()(
        stocks in subsequence(CLASSES, 1..=3),
        totals in proptest::collection::vec(1_i64..5, 3),
        used in 0_i64..3,
        step in 1_i64..3,
        traits in words(TRAITS),
        aggregates in seldom(AGGREGATES),
        shares in proptest::bool::weighted(0.2),
        parent in 0_usize..8,
    ) -> (Provider, usize) {
        let mut p = Provider::new("", "");
        for (class, total) in stocks.iter().zip(totals) {
            let inventory = Inventory { max_unit: 3, step_size: step, ..Inventory::plain(total) };
            p.inventories.insert((*class).to_owned(), inventory);
        }
        p.used.insert("VCPU".into(), used);
        p.used.retain(|class, n| *n > 0 && p.inventories.contains_key(class));
        (p.traits, p.aggregates) = (traits, aggregates);
        if shares {
            p.traits.insert(SHARES.into());
        }
        (p, parent)
    }
}

/// Up to six providers; some hang below an earlier one.
fn a_cloud() -> impl Strategy<Value = Vec<Provider>> {
    proptest::collection::vec(a_provider(), 1..7).prop_map(|drawn| {
        let mut all: Vec<Provider> = Vec::new();
        for (at, (mut p, parent)) in drawn.into_iter().enumerate() {
            p.uuid = format!("p{at}");
            p.name.clone_from(&p.uuid);
            p.root.clone_from(&p.uuid);
            if let Some(above) = all.get(parent) {
                (p.parent, p.root) = (Some(above.uuid.clone()), above.root.clone());
            }
            all.push(p);
        }
        all
    })
}

prop_compose! {
    fn a_group(least: usize)(
        classes in subsequence(CLASSES, least..=2),
        amounts in proptest::collection::vec(1_i64..4, 2),
        required in proptest::collection::vec(words(TRAITS).prop_filter("none", |w| !w.is_empty()), 0..2),
        forbidden in seldom(TRAITS),
        member_of in proptest::collection::vec(words(AGGREGATES).prop_filter("none", |w| !w.is_empty()), 0..2),
        not_member_of in seldom(AGGREGATES),
        in_tree in proptest::option::weighted(0.1, 0_usize..8),
        plain in proptest::bool::weighted(0.5),
    ) -> Group {
        let resources = classes.iter().zip(amounts).map(|(c, n)| ((*c).to_owned(), n)).collect();
        if plain {
            return Group { resources, ..Group::default() };
        }
        Group { resources, required, forbidden, member_of, not_member_of, in_tree: in_tree.map(|n| format!("p{n}")) }
    }
}

prop_compose! {
    fn a_request()(
        spread in proptest::option::weighted(0.7, a_group(1)),
        others in proptest::collection::vec(a_group(0), 0..3),
        isolate in any::<bool>(),
        subtree in any::<bool>(),
        old in proptest::bool::weighted(0.2),
        root_required in seldom(TRAITS),
        root_forbidden in seldom(TRAITS),
    ) -> Wanted {
        let mut groups: BTreeMap<String, Group> = others.into_iter().enumerate().map(|(i, g)| (format!("{}", i + 1), g)).collect();
        groups.extend(spread.map(|g| (String::new(), g)));
        if groups.is_empty() {
            groups.insert(String::new(), Group { resources: [("VCPU".to_owned(), 1)].into(), ..Group::default() });
        }
        let same_subtree = if subtree { vec![groups.keys().filter(|s| !s.is_empty()).cloned().collect()] } else { vec![] };
        let same_subtree = same_subtree.into_iter().filter(|s: &BTreeSet<String>| !s.is_empty()).collect();
        Wanted { groups, isolate, same_subtree, root_required, root_forbidden, limit: None, one_of_a_tree: old }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_search_finds_what_the_definition_allows(all in a_cloud(), wanted in a_request(), limit in 1_usize..5, seed in any::<u64>()) {
        let right = Oracle::new(&all, &wanted).answers();
        for (breadth, seed) in [(Breadth::First, None), (Breadth::Last, None), (Breadth::First, Some(seed))] {
            let limits = Limits { breadth, ..Limits::default() };
            let found = ours(&all, &wanted, &limits, seed);
            let set: BTreeSet<Answer> = found.iter().cloned().collect();
            prop_assert_eq!(set.len(), found.len(), "one way twice");
            prop_assert_eq!(&set, &right);
            let few = ours(&all, &Wanted { limit: Some(limit), ..wanted.clone() }, &limits, seed);
            prop_assert_eq!(few.len(), right.len().min(limit));
            prop_assert!(few.iter().all(|way| right.contains(way)));
        }
    }
}

/// The cases prove something: most requests can be served in one way, in many, or not at all.
#[test]
fn the_cases_are_worth_trying() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut counts = [0; 3];
    for _ in 0..400 {
        let all = a_cloud().new_tree(&mut runner).unwrap().current();
        let wanted = a_request().new_tree(&mut runner).unwrap().current();
        counts[Oracle::new(&all, &wanted).answers().len().min(2)] += 1;
    }
    assert!(counts.iter().all(|n| *n > 20), "none, one, more: {counts:?}");
}

#[test]
fn a_hostile_request_ends() {
    let root = Provider::new("r", "r");
    let mut all = vec![root];
    for i in 0..64 {
        let mut p = Provider::new(&format!("c{i}"), "");
        (p.parent, p.root) = (Some("r".into()), "r".into());
        p.inventories.insert("VGPU".into(), Inventory::plain(1));
        all.push(p);
    }
    let group = Group { resources: [("VGPU".to_owned(), 1)].into(), ..Group::default() };
    let groups: BTreeMap<String, Group> = (0..40).map(|i| (format!("{i}"), group.clone())).collect();
    let limits = Limits { steps_max: 50_000, ..Limits::default() };
    let w = Wanted { groups: groups.clone(), isolate: true, ..Wanted::default() };
    assert!(!ours(&all, &w, &limits, None).is_empty());
    // More than there is, by one: known without trying.
    let more = (0..65).map(|i| (format!("{i}"), group.clone())).collect();
    assert!(ours(&all, &Wanted { groups: more, ..Wanted::default() }, &limits, None).is_empty());
}

/// With a limit, a wide tree does not hide the others.
#[test]
fn trees_take_turns() {
    let mut all = Vec::new();
    for tree in ["a", "b"] {
        all.push(Provider::new(tree, tree));
        for i in 0..8 {
            let mut p = Provider::new(&format!("{tree}{i}"), "");
            (p.parent, p.root) = (Some(tree.into()), tree.into());
            p.inventories.insert("VGPU".into(), Inventory::plain(1));
            all.push(p);
        }
    }
    let group = Group { resources: [("VGPU".to_owned(), 1)].into(), ..Group::default() };
    let w = Wanted { groups: [(String::new(), group)].into(), limit: Some(4), ..Wanted::default() };
    let trees = |breadth| -> BTreeSet<char> {
        let found = ours(&all, &w, &Limits { breadth, ..Limits::default() }, None);
        found.iter().flat_map(|(gives, _)| gives.keys()).filter_map(|k| k.chars().next()).collect()
    };
    assert_eq!((trees(Breadth::First).len(), trees(Breadth::Last).len()), (2, 1));
}
