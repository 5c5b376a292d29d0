//! A request for resources, what one provider can say to it, and a candidate; pure.
use crate::provider::model::Amounts;
use std::collections::{BTreeMap, BTreeSet};

/// Resources wanted together, with what is asked of whoever provides them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    pub resources: Amounts,
    /// All of these; of each set, any.
    pub required: Vec<BTreeSet<String>>,
    pub forbidden: BTreeSet<String>,
    /// In all of these; of each set, any.
    pub member_of: Vec<BTreeSet<String>>,
    pub not_member_of: BTreeSet<String>,
    /// A provider whose tree it must be.
    pub in_tree: Option<String>,
}

/// A whole request. The group "" may be served by several providers of one tree, each other group by one.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub groups: BTreeMap<String, Group>,
    /// Two groups with a suffix never share a provider.
    pub isolate: bool,
    /// Of each set of groups: one of their providers stands above (or is) all others.
    pub same_subtree: Vec<BTreeSet<String>>,
    pub root_required: BTreeSet<String>,
    pub root_forbidden: BTreeSet<String>,
    /// Candidates at most.
    pub limit: Option<usize>,
    /// Before 1.29 nobody saw trees: of each tree one provider at most gives.
    pub one_of_a_tree: bool,
}

/// In which order trees are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breadth {
    /// One way of each tree, then a second of each: so that a limit leaves a choice of hosts.
    #[default]
    First,
    /// All ways of one tree before the next.
    Last,
}

/// What an operator may set about searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Ways for one request at most, whatever it asks for.
    pub ways_max: usize,
    /// Combinations looked at for one request at most.
    pub steps_max: usize,
    pub breadth: Breadth,
    /// Trees and providers are taken in random order, so that requests with a limit do not all see the same.
    pub randomize: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ways_max: 100_000, steps_max: 2_000_000, breadth: Breadth::First, randomize: false }
    }
}
