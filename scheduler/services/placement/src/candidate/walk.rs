//! The combinations of one tree, one after the other; pure.
use super::search::{Search, Way};
use crate::snapshot::index::Node;
use std::sync::Arc;

/// One thing to place: a class of the group "" or a whole group.
#[derive(Debug)]
pub struct Piece {
    /// Its group's place in the request.
    group: usize,
    resources: Vec<(u32, i64)>,
    pub options: Vec<Arc<Node>>,
}

impl Piece {
    /// `None` without options.
    pub fn new(group: usize, resources: Vec<(u32, i64)>, options: Vec<Arc<Node>>) -> Option<Self> {
        (!options.is_empty()).then_some(Piece { group, resources, options })
    }

    fn amount(&self, class: u32) -> i64 {
        self.resources.iter().find(|(c, _)| *c == class).map_or(0, |(_, amount)| *amount)
    }
}

/// Where a walk stands: an option chosen for each of the first pieces, and the next to try for the piece after them.
#[derive(Debug)]
pub struct Walk {
    pieces: Vec<Piece>,
    chosen: Vec<usize>,
    next: usize,
    over: bool,
    /// Options of several trees are among its own.
    shared: bool,
}

impl Walk {
    /// `None` when the pieces cannot all fit, whoever takes them.
    pub fn new(pieces: Vec<Piece>) -> Option<Self> {
        let root = &pieces.first()?.options.first()?.root;
        let shared = pieces.iter().flat_map(|p| &p.options).any(|o| o.root != *root || o.shares);
        let walk = Walk { chosen: Vec::with_capacity(pieces.len()), next: 0, over: false, shared, pieces };
        walk.could_fit().then_some(walk)
    }

    /// Is there enough of each class that several pieces want, in all their options together?
    fn could_fit(&self) -> bool {
        let classes = |p: &Piece| p.resources.iter().map(|(class, _)| *class).collect::<Vec<_>>();
        self.pieces.iter().enumerate().all(|(at, piece)| {
            classes(piece).into_iter().all(|class| {
                let rivals: Vec<&Piece> = self.pieces.iter().filter(|p| p.amount(class) > 0).collect();
                if rivals.len() < 2 || self.pieces[..at].iter().any(|p| p.amount(class) > 0) {
                    return true;
                }
                let wanted: i64 = rivals.iter().fold(0, |sum, p| p.amount(class).saturating_add(sum));
                let mut options: Vec<&Arc<Node>> = rivals.iter().flat_map(|p| &p.options).collect();
                options.sort_unstable_by(|a, b| a.uuid.cmp(&b.uuid));
                options.dedup_by(|a, b| Arc::ptr_eq(a, b));
                let free =
                    options.iter().filter_map(|o| o.stock(class)).fold(0_i64, |sum, s| sum.saturating_add(s.free()));
                wanted <= free
            })
        })
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// May another tree find the same ways?
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    fn option(&self, piece: usize) -> &Arc<Node> {
        &self.pieces[piece].options[self.chosen[piece]]
    }

    /// Goes on to the next way; `None` when it is over or has done `steps`.
    pub fn next(&mut self, search: &Search<'_>, steps: &mut usize) -> Option<Way> {
        while !self.over {
            if *steps == 0 {
                return None;
            }
            *steps -= 1;
            let depth = self.chosen.len();
            if depth == self.pieces.len() {
                let way = self.finish(search);
                self.back();
                if way.is_some() {
                    return way;
                }
            } else if self.next >= self.pieces[depth].options.len() {
                self.back();
            } else if self.fits(search, depth) {
                self.chosen.push(self.next);
                self.next = 0;
            } else {
                self.next += 1;
            }
        }
        None
    }

    /// Takes back the last choice and turns to the one after it.
    fn back(&mut self) {
        loop {
            let Some(last) = self.chosen.pop() else {
                self.over = true;
                return;
            };
            self.next = last + 1;
            if self.next < self.pieces[self.chosen.len()].options.len() {
                return;
            }
        }
    }

    /// May the option under consideration join those chosen before?
    fn fits(&self, search: &Search<'_>, depth: usize) -> bool {
        let (piece, option) = (&self.pieces[depth], &self.pieces[depth].options[self.next]);
        let before = || (0..depth).map(|at| (&self.pieces[at], self.option(at)));
        let spread = search.asked[piece.group].spread;
        if search.wanted.isolate && !spread {
            let taken = |(p, o): (&Piece, &Arc<Node>)| !search.asked[p.group].spread && Arc::ptr_eq(o, option);
            if before().any(taken) {
                return false;
            }
        }
        if search.wanted.one_of_a_tree && before().any(|(_, o)| o.root == option.root && !Arc::ptr_eq(o, option)) {
            return false;
        }
        let room = piece.resources.iter().all(|(class, amount)| {
            let taken: i64 = before().filter(|(_, o)| Arc::ptr_eq(o, option)).map(|(p, _)| p.amount(*class)).sum();
            taken == 0 || option.can_give(*class, taken.saturating_add(*amount))
        });
        room && (!spread || self.has_traits(search, depth))
    }

    /// Once the group "" is complete, its providers must have what it requires, together.
    fn has_traits(&self, search: &Search<'_>, depth: usize) -> bool {
        let group = self.pieces[depth].group;
        if self.pieces.get(depth + 1).is_some_and(|p| p.group == group) {
            return true;
        }
        let option = &self.pieces[depth].options[self.next];
        search.asked[group].required.iter().all(|any| {
            any.iter().any(|n| {
                option.has_trait(*n)
                    || (0..depth).any(|at| self.pieces[at].group == group && self.option(at).has_trait(*n))
            })
        })
    }

    /// The way that was chosen, if what concerns it as a whole holds.
    fn finish(&self, search: &Search<'_>) -> Option<Way> {
        let mut way = Way { gives: Vec::new(), serving: vec![Vec::new(); search.asked.len()] };
        for (at, piece) in self.pieces.iter().enumerate() {
            let option = self.option(at);
            let serving = &mut way.serving[piece.group];
            if !serving.iter().any(|n| Arc::ptr_eq(n, option)) {
                serving.push(option.clone());
            }
            if piece.resources.is_empty() {
                continue;
            }
            let place = way.gives.iter().position(|(n, _)| Arc::ptr_eq(n, option)).unwrap_or_else(|| {
                way.gives.push((option.clone(), Vec::new()));
                way.gives.len() - 1
            });
            for (class, amount) in &piece.resources {
                let gives = &mut way.gives[place].1;
                match gives.iter_mut().find(|(c, _)| c == class) {
                    Some((_, sum)) => *sum = sum.saturating_add(*amount),
                    None => gives.push((*class, *amount)),
                }
            }
        }
        let together = |groups: &Vec<usize>| {
            let nodes = || groups.iter().flat_map(|group| &way.serving[*group]);
            nodes().any(|top| nodes().all(|node| search.is_above(top, node)))
        };
        search.subtrees.iter().all(together).then_some(way)
    }
}
