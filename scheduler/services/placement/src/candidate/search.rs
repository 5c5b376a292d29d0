//! The search for ways to serve a request; pure and bounded.
//!
//! ```text
//!  for each tree whose root is right (and the lenders that reach it)
//!     pieces: each class of the group "" · each other group            options: providers that could serve it
//!     walk:   one option a piece, depth first, dropped as soon as it does not fit
//!  trees take turns (or are exhausted one by one), until there are enough ways
//! ```
//! A tree is reached by the lenders (providers with the trait `MISC_SHARES_VIA_AGGREGATE`) in the aggregates of any
//! of its members. The trees that need no second look, nearly all of a flat cloud, cost two passes over a few numbers.
use super::{
    model::{Breadth, Limits, Wanted},
    walk::{Piece, Walk},
};
use crate::snapshot::index::{Index, Node};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

/// Steps of one tree before the next has its turn.
const STEPS_A_TURN: usize = 20_000;

/// Classes, and how much of each.
pub type Amounts = Vec<(u32, i64)>;

/// One way to serve a request.
#[derive(Debug, Clone)]
pub struct Way {
    /// Who gives what: class and amount.
    pub gives: Vec<(Arc<Node>, Amounts)>,
    /// The providers of each group, in the order of the groups.
    pub serving: Vec<Vec<Arc<Node>>>,
}

/// A group of a request, its names as numbers.
#[derive(Debug)]
pub struct Asked {
    /// The group ""; several providers may serve it.
    pub spread: bool,
    pub resources: Amounts,
    pub required: Vec<Vec<u32>>,
    forbidden: Vec<u32>,
    member_of: Vec<Vec<u32>>,
    not_member_of: Vec<u32>,
    /// Root of the tree it must be.
    tree: Option<Arc<str>>,
}

fn has_all(any_of: &[Vec<u32>], has: impl Fn(u32) -> bool) -> bool {
    any_of.iter().all(|any| any.iter().any(|n| has(*n)))
}

impl Asked {
    /// `None` when no provider can serve it, because nobody has what it names.
    pub fn new(index: &Index, suffix: &str, group: &super::model::Group) -> Option<Self> {
        let names = index.names();
        let all = |sets: &[std::collections::BTreeSet<String>]| -> Option<Vec<Vec<u32>>> {
            let sets: Vec<Vec<u32>> =
                sets.iter().map(|any| any.iter().filter_map(|n| names.find(n)).collect()).collect();
            sets.iter().all(|any| !any.is_empty()).then_some(sets)
        };
        let any = |set: &std::collections::BTreeSet<String>| set.iter().filter_map(|n| names.find(n)).collect();
        let mut resources = Vec::with_capacity(group.resources.len());
        for (class, amount) in &group.resources {
            resources.push((names.find(class)?, *amount));
        }
        let tree = match &group.in_tree {
            None => None,
            Some(member) => Some(index.get(member)?.root.clone()),
        };
        Some(Asked {
            spread: suffix.is_empty(),
            resources,
            required: all(&group.required)?,
            forbidden: any(&group.forbidden),
            member_of: all(&group.member_of)?,
            not_member_of: any(&group.not_member_of),
            tree,
        })
    }

    fn is_member(&self, node: &Node) -> bool {
        has_all(&self.member_of, |n| node.in_aggregate(n))
    }

    fn is_banned(&self, node: &Node) -> bool {
        self.not_member_of.iter().any(|n| node.in_aggregate(*n))
    }

    fn has_forbidden(&self, node: &Node) -> bool {
        self.forbidden.iter().any(|n| node.has_trait(*n))
    }

    /// Could this provider serve the whole group by itself, now?
    pub fn alone(&self, node: &Node) -> bool {
        self.resources.iter().all(|(class, amount)| node.can_give(*class, *amount))
            && self.tree.as_ref().is_none_or(|root| *root == node.root)
            && has_all(&self.required, |n| node.has_trait(n))
            && !self.has_forbidden(node)
            && self.is_member(node)
            && !self.is_banned(node)
    }

    /// Could it serve a part of the group "" in the tree of `root`? An aggregate of the root spans its tree; a
    /// lender must be in the aggregates itself. What is required of traits is asked of all parts together.
    fn partly(&self, root: &Node, node: &Node) -> bool {
        let own = node.root == root.uuid;
        self.tree.as_ref().is_none_or(|tree| own && *tree == root.uuid)
            && !self.has_forbidden(node)
            && (self.is_member(node) || (own && self.is_member(root)))
            && !self.is_banned(node)
            && !self.is_banned(root)
    }
}

/// A request, its names as numbers.
pub struct Search<'i> {
    index: &'i Index,
    pub asked: Vec<Asked>,
    pub wanted: &'i Wanted,
    limits: &'i Limits,
    /// Groups of each `same_subtree`, by their place.
    pub subtrees: Vec<Vec<usize>>,
    root_required: Vec<u32>,
    root_forbidden: Vec<u32>,
    chance: Option<StdRng>,
}

/// All ways to serve `wanted`, as far as the limits allow. `seed`: take trees and options at random.
pub fn search(index: &Index, wanted: &Wanted, limits: &Limits, seed: Option<u64>) -> Vec<Way> {
    Search::new(index, wanted, limits, seed).map(|mut search| search.run()).unwrap_or_default()
}

impl<'i> Search<'i> {
    fn new(index: &'i Index, wanted: &'i Wanted, limits: &'i Limits, seed: Option<u64>) -> Option<Self> {
        let mut asked = Vec::with_capacity(wanted.groups.len());
        for (suffix, group) in &wanted.groups {
            asked.push(Asked::new(index, suffix, group)?);
        }
        let place = |suffix: &String| wanted.groups.keys().position(|known| known == suffix);
        let names = index.names();
        let mut root_required = Vec::new();
        for name in &wanted.root_required {
            root_required.push(names.find(name)?);
        }
        Some(Search {
            index,
            asked,
            wanted,
            limits,
            subtrees: wanted.same_subtree.iter().map(|set| set.iter().filter_map(place).collect()).collect(),
            root_required,
            root_forbidden: wanted.root_forbidden.iter().filter_map(|name| names.find(name)).collect(),
            chance: seed.map(StdRng::seed_from_u64),
        })
    }

    fn run(&mut self) -> Vec<Way> {
        let index = self.index;
        let limit = self.wanted.limit.unwrap_or(usize::MAX).min(self.limits.ways_max);
        let mut trees: Vec<(&Arc<str>, &Vec<Arc<Node>>)> = index.trees().collect();
        if let Some(chance) = &mut self.chance {
            trees.shuffle(chance);
        }
        let mut taker = Taker { limit, steps: self.limits.steps_max, ..Taker::default() };
        let mut waiting: VecDeque<Walk> = VecDeque::new();
        for (root, members) in trees {
            if taker.is_done() {
                break;
            }
            let Some(mut walk) = self.enter(root, members) else { continue };
            let turns = if self.limits.breadth == Breadth::First { 1 } else { usize::MAX };
            if taker.take(self, &mut walk, turns) {
                waiting.push_back(walk);
            }
        }
        while let Some(mut walk) = waiting.pop_front() {
            if taker.is_done() {
                break;
            }
            if taker.take(self, &mut walk, 1) {
                waiting.push_back(walk);
            }
        }
        if taker.steps == 0 {
            tracing::warn!(found = taker.found.len(), "a search for candidates was cut short: too many combinations");
        }
        taker.found
    }

    /// The walk through one tree; `None` when something is wanted that nobody in it could give.
    fn enter(&mut self, root: &str, members: &[Arc<Node>]) -> Option<Walk> {
        let root = members.iter().find(|m| *m.uuid == *root)?;
        if !self.root_required.iter().all(|n| root.has_trait(*n))
            || self.root_forbidden.iter().any(|n| root.has_trait(*n))
        {
            return None;
        }
        let lenders = self.lenders(root, members);
        // Who stands alone gives all or nothing: most of a flat cloud is passed by here, without a piece made of it.
        if members.len() == 1 && lenders.is_empty() && !self.asked.iter().all(|asked| asked.alone(root)) {
            return None;
        }
        let reach = || members.iter().chain(&lenders);
        let mut pieces = Vec::new();
        for (group, asked) in self.asked.iter().enumerate() {
            if asked.spread {
                for (class, amount) in &asked.resources {
                    let fits = |n: &&Arc<Node>| n.can_give(*class, *amount) && asked.partly(root, n);
                    pieces.push(Piece::new(group, vec![(*class, *amount)], reach().filter(fits).cloned().collect())?);
                }
            } else {
                let options = reach().filter(|n| asked.alone(n)).cloned().collect();
                pieces.push(Piece::new(group, asked.resources.clone(), options)?);
            }
        }
        if let Some(chance) = &mut self.chance {
            for piece in &mut pieces {
                piece.options.shuffle(chance);
            }
        }
        Walk::new(pieces)
    }

    /// Lenders of other trees that reach this one.
    fn lenders(&self, root: &Node, members: &[Arc<Node>]) -> Vec<Arc<Node>> {
        let mut found: Vec<Arc<Node>> = Vec::new();
        if !self.index.has_lenders() {
            return found;
        }
        for aggregate in members.iter().flat_map(|m| m.aggregates.iter()) {
            for lender in self.index.lenders(*aggregate) {
                if lender.root != root.uuid && !found.iter().any(|f| Arc::ptr_eq(f, lender)) {
                    found.push(lender.clone());
                }
            }
        }
        found.sort_by(|a, b| a.uuid.cmp(&b.uuid));
        found
    }

    /// The nodes above `node`, and itself.
    pub fn is_above(&self, above: &Node, node: &Node) -> bool {
        let mut at = Some(node.uuid.clone());
        // A tree is never deeper than it has members.
        for _ in 0..=self.index.tree(&node.root).len() {
            match at {
                None => return false,
                Some(uuid) if uuid == above.uuid => return true,
                Some(uuid) => at = self.index.get(&uuid).and_then(|n| n.parent.clone()),
            }
        }
        false
    }
}

/// What has been found, and how much more may be looked for.
#[derive(Default)]
struct Taker {
    found: Vec<Way>,
    /// Of ways that another tree may find as well.
    seen: HashSet<String>,
    limit: usize,
    steps: usize,
}

impl Taker {
    fn is_done(&self) -> bool {
        self.found.len() >= self.limit || self.steps == 0
    }

    /// Takes up to `turns` ways of a walk; true when it may have more.
    fn take(&mut self, search: &Search<'_>, walk: &mut Walk, turns: usize) -> bool {
        for _ in 0..turns {
            if self.is_done() {
                return false;
            }
            let mut turn = STEPS_A_TURN.min(self.steps);
            let given = turn;
            let way = walk.next(search, &mut turn);
            self.steps -= given - turn;
            match way {
                Some(way) => {
                    if walk.is_shared() && !self.seen.insert(way.key()) {
                        continue;
                    }
                    self.found.push(way);
                }
                None if walk.is_over() => return false,
                None => {}
            }
        }
        !walk.is_over()
    }
}

impl Way {
    /// Equal for equal ways, whichever tree found them.
    fn key(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (node, amounts) in &self.gives {
            parts.push(format!("{}{amounts:?}", node.uuid));
        }
        parts.sort_unstable();
        for (at, nodes) in self.serving.iter().enumerate() {
            let mut uuids: Vec<&str> = nodes.iter().map(|n| &*n.uuid).collect();
            uuids.sort_unstable();
            parts.push(format!("{at}{uuids:?}"));
        }
        parts.concat()
    }
}
