//! All providers in a form that is quick to search; pure.
//!
//! Names of classes, traits and aggregates are numbers here, capacities are worked out, trees and lenders (providers
//! that share through aggregates) are at hand. A node is never changed, only replaced, so whoever holds one goes on
//! seeing the state in which it was found.
use crate::{provider::model::Provider, traits::model::SHARES};
use pilvi_store::{Followed, Stored};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Names that no node uses any more may be this many before the index asks to be made anew.
const NAMES_SPARE: usize = 4096;
const NAMES_PER_NODE: usize = 16;

/// Numbers for names.
#[derive(Debug, Default, Clone)]
pub struct Names {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Names {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let shared: Arc<str> = text.into();
        self.numbers.insert(shared.clone(), number);
        self.texts.push(shared);
        number
    }

    /// `None`: no provider has it.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    pub fn text(&self, number: u32) -> &Arc<str> {
        &self.texts[number as usize]
    }
}

/// What a node has of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct Stock {
    pub class: u32,
    pub capacity: i64,
    pub used: i64,
    min_unit: i64,
    max_unit: i64,
    step_size: i64,
}

impl Stock {
    pub fn free(&self) -> i64 {
        self.capacity.saturating_sub(self.used)
    }

    /// Could one more consumer take `amount` now?
    pub fn can_give(&self, amount: i64) -> bool {
        amount <= self.free()
            && amount >= self.min_unit
            && amount <= self.max_unit
            && self.step_size > 0
            && amount % self.step_size == 0
    }
}

/// A provider.
#[derive(Debug)]
pub struct Node {
    pub uuid: Arc<str>,
    pub name: Box<str>,
    pub generation: i64,
    pub parent: Option<Arc<str>>,
    pub root: Arc<str>,
    pub created_us: i64,
    pub updated_us: i64,
    /// By class.
    pub stocks: Box<[Stock]>,
    /// Sorted.
    pub traits: Box<[u32]>,
    /// Sorted.
    pub aggregates: Box<[u32]>,
    /// Lends its inventory to trees in its aggregates.
    pub shares: bool,
}

impl Node {
    fn new(names: &mut Names, stored: &Stored<Provider>) -> Self {
        let provider = &stored.record;
        let mut stocks: Vec<Stock> = provider
            .inventories
            .iter()
            .map(|(class, inventory)| Stock {
                class: names.number(class),
                capacity: inventory.capacity(),
                used: provider.used_of(class),
                min_unit: inventory.min_unit,
                max_unit: inventory.max_unit,
                step_size: inventory.step_size,
            })
            .collect();
        stocks.sort_unstable_by_key(|s| s.class);
        let mut sorted = |texts: &std::collections::BTreeSet<String>| {
            let mut numbers: Vec<u32> = texts.iter().map(|text| names.number(text)).collect();
            numbers.sort_unstable();
            numbers.into_boxed_slice()
        };
        Node {
            uuid: provider.uuid.as_str().into(),
            name: provider.name.as_str().into(),
            generation: provider.generation,
            parent: provider.parent.as_deref().map(Into::into),
            root: provider.root.as_str().into(),
            created_us: stored.created_us,
            updated_us: stored.updated_us,
            traits: sorted(&provider.traits),
            aggregates: sorted(&provider.aggregates),
            shares: provider.traits.contains(SHARES),
            stocks: stocks.into_boxed_slice(),
        }
    }

    pub fn stock(&self, class: u32) -> Option<&Stock> {
        self.stocks.iter().find(|s| s.class == class)
    }

    pub fn can_give(&self, class: u32, amount: i64) -> bool {
        self.stock(class).is_some_and(|s| s.can_give(amount))
    }

    pub fn has_trait(&self, number: u32) -> bool {
        self.traits.binary_search(&number).is_ok()
    }

    pub fn in_aggregate(&self, number: u32) -> bool {
        self.aggregates.binary_search(&number).is_ok()
    }
}

/// Everything.
#[derive(Debug, Default)]
pub struct Index {
    names: Arc<Names>,
    nodes: HashMap<Arc<str>, Arc<Node>>,
    /// Root's uuid -> members, by uuid.
    trees: BTreeMap<Arc<str>, Vec<Arc<Node>>>,
    /// Aggregate -> nodes that lend there.
    lenders: HashMap<u32, Vec<Arc<Node>>>,
}

impl Index {
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    pub fn get(&self, uuid: &str) -> Option<&Arc<Node>> {
        self.nodes.get(uuid)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.trees.values().flatten()
    }

    /// By the uuids of their roots.
    pub fn trees(&self) -> impl Iterator<Item = (&Arc<str>, &Vec<Arc<Node>>)> {
        self.trees.iter()
    }

    pub fn tree(&self, root: &str) -> &[Arc<Node>] {
        self.trees.get(root).map_or(&[], Vec::as_slice)
    }

    /// Does any provider lend at all?
    pub fn has_lenders(&self) -> bool {
        !self.lenders.is_empty()
    }

    pub fn lenders(&self, aggregate: u32) -> &[Arc<Node>] {
        self.lenders.get(&aggregate).map_or(&[], Vec::as_slice)
    }

    /// Are there so many names out of use that the index should be made anew?
    pub fn is_worn(&self) -> bool {
        self.names.texts.len() > NAMES_SPARE + NAMES_PER_NODE * self.nodes.len()
    }

    /// Takes over what the store says.
    pub fn apply(&mut self, followed: &Followed<Provider>) {
        if followed.whole {
            *self = Index::default();
        }
        for id in &followed.gone {
            self.remove(id);
        }
        for stored in &followed.changed {
            self.put(stored);
        }
    }

    pub fn put(&mut self, stored: &Stored<Provider>) {
        self.remove(&stored.record.uuid);
        let node = Arc::new(Node::new(Arc::make_mut(&mut self.names), stored));
        let members = self.trees.entry(node.root.clone()).or_default();
        let at = members.partition_point(|m| m.uuid < node.uuid);
        members.insert(at, node.clone());
        if node.shares {
            for aggregate in &node.aggregates {
                self.lenders.entry(*aggregate).or_default().push(node.clone());
            }
        }
        self.nodes.insert(node.uuid.clone(), node);
    }

    fn remove(&mut self, uuid: &str) {
        let Some(node) = self.nodes.remove(uuid) else { return };
        let is_it = |other: &Arc<Node>| Arc::ptr_eq(other, &node);
        if let Some(members) = self.trees.get_mut(&node.root) {
            members.retain(|m| !is_it(m));
            if members.is_empty() {
                self.trees.remove(&node.root);
            }
        }
        if node.shares {
            for aggregate in &node.aggregates {
                if let Some(there) = self.lenders.get_mut(aggregate) {
                    there.retain(|m| !is_it(m));
                    if there.is_empty() {
                        self.lenders.remove(aggregate);
                    }
                }
            }
        }
    }
}

/// An index of providers as they are, for tests.
#[cfg(test)]
pub(crate) fn of(providers: &[&Provider]) -> Index {
    let mut index = Index::default();
    for provider in providers {
        index.put(&Stored { record: (*provider).clone(), rev: 1, created_us: 1, updated_us: 1 });
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::model::Inventory;

    fn stored(uuid: &str, root: &str, traits: &[&str]) -> Stored<Provider> {
        let mut record = Provider::new(uuid, uuid);
        root.clone_into(&mut record.root);
        record.parent = (uuid != root).then(|| root.to_owned());
        record.inventories.insert("VCPU".into(), Inventory::plain(4));
        record.traits = traits.iter().map(|t| (*t).to_owned()).collect();
        record.aggregates.insert("a".into());
        Stored { record, rev: 1, created_us: 1, updated_us: 1 }
    }

    fn changed(changed: Vec<Stored<Provider>>, gone: &[&str], whole: bool) -> Followed<Provider> {
        Followed { head: 1, whole, changed, gone: gone.iter().map(|g| (*g).to_owned()).collect() }
    }

    #[test]
    fn it_follows_moves_lending_and_leaving() {
        let mut index = Index::default();
        index.apply(&changed(
            vec![stored("r", "r", &[]), stored("c", "r", &[]), stored("p", "p", &[SHARES])],
            &[],
            true,
        ));
        assert_eq!(index.tree("r").len(), 2);
        let aggregate = index.names().find("a").unwrap();
        assert_eq!(index.lenders(aggregate)[0].uuid.as_ref(), "p");
        index.apply(&changed(vec![stored("c", "p", &[SHARES]), stored("p", "p", &[])], &[], false));
        assert_eq!((index.tree("r").len(), index.tree("p").len(), index.lenders(aggregate).len()), (1, 2, 1));
        index.apply(&changed(vec![], &["c", "nobody"], false));
        assert!(!index.has_lenders() && index.get("c").is_none() && index.tree("p").len() == 1);
        index.apply(&changed(vec![stored("x", "x", &[])], &[], true));
        assert_eq!(index.nodes().count(), 1);
    }

    #[test]
    fn names_out_of_use_are_noticed() {
        let mut index = Index::default();
        for i in 0..NAMES_SPARE + 100 {
            let mut one = stored("r", "r", &[]);
            one.record.aggregates = [format!("{i}")].into();
            index.put(&one);
        }
        assert!(index.is_worn());
    }
}
