//! A request for resources, what one provider can say to it, and a candidate; pure.
use crate::provider::model::{Amounts, Provider};
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
    /// Before 1.29 nobody saw trees: only roots give.
    pub roots_only: bool,
}

/// One way to serve a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    /// provider -> class -> amount
    pub allocations: BTreeMap<String, Amounts>,
    /// group -> its providers
    pub mappings: BTreeMap<String, BTreeSet<String>>,
}

impl Group {
    /// Are these the right aggregates?
    pub fn accepts_aggregates(&self, aggregates: &BTreeSet<String>) -> bool {
        self.member_of.iter().all(|any| any.iter().any(|a| aggregates.contains(a)))
            && self.not_member_of.is_disjoint(aggregates)
    }

    /// Do these traits have all that is required and nothing that is forbidden?
    pub fn accepts_traits(&self, traits: &BTreeSet<String>) -> bool {
        self.has_required(traits) && self.forbidden.is_disjoint(traits)
    }

    pub fn has_required(&self, traits: &BTreeSet<String>) -> bool {
        self.required.iter().all(|any| any.iter().any(|t| traits.contains(t)))
    }
}

/// Could this provider serve the group all by itself, now?
pub fn serves_alone(provider: &Provider, group: &Group) -> bool {
    group.resources.iter().all(|(class, amount)| provider.can_give(class, *amount))
        && group.accepts_traits(&provider.traits)
        && group.accepts_aggregates(&provider.aggregates)
}
