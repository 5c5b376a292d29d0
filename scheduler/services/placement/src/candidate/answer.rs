//! Candidates in JSON, written straight from memory; the shape changed with 1.12, 1.17, 1.27, 1.29 and 1.34.
use super::{model::Wanted, ops::Found, search::Way};
use crate::{
    snapshot::index::{Names, Node},
    version,
};
use pilvi_kit::Version;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Candidates and the providers beside them, as bytes: there may be thousands.
pub fn answer(version: Version, wanted: &Wanted, found: &Found) -> Vec<u8> {
    // Writing to memory does not fail, and all keys are text.
    serde_json::to_vec(&Answer { version, wanted, found }).unwrap_or_default()
}

struct Answer<'a> {
    version: Version,
    wanted: &'a Wanted,
    found: &'a Found,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let asked: BTreeSet<&str> =
            self.wanted.groups.values().flat_map(|g| g.resources.keys()).map(String::as_str).collect();
        let summary = |node| Summary { version: self.version, names: &self.found.names, asked: &asked, node };
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("allocation_requests", &List(|| self.found.ways.iter().map(|way| OneWay(self, way))))?;
        map.serialize_entry(
            "provider_summaries",
            &Pairs(|| self.found.providers.iter().map(|n| (&n.uuid, summary(n)))),
        )?;
        map.end()
    }
}

struct OneWay<'a>(&'a Answer<'a>, &'a Way);

impl Serialize for OneWay<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let OneWay(Answer { version, wanted, found }, way) = self;
        let amounts = |list: &[(u32, i64)]| -> BTreeMap<Arc<str>, i64> {
            list.iter().map(|(class, amount)| (found.names.text(*class).clone(), *amount)).collect()
        };
        let mut map = to.serialize_map(None)?;
        if *version < version::ALLOCATIONS_BY_PROVIDER {
            let one = |(node, list): &(Arc<Node>, Vec<(u32, i64)>)| json!({"resource_provider": {"uuid": &*node.uuid}, "resources": strings(amounts(list))});
            map.serialize_entry("allocations", &List(|| way.gives.iter().map(one)))?;
            return map.end();
        }
        let gives =
            || way.gives.iter().map(|(node, list)| (&node.uuid, BTreeMap::from([("resources", amounts(list))])));
        map.serialize_entry("allocations", &Pairs(gives))?;
        if *version >= version::MAPPINGS {
            let serving = || {
                let of = |nodes: &Vec<Arc<Node>>| nodes.iter().map(|n| n.uuid.clone()).collect::<BTreeSet<_>>();
                wanted.groups.keys().zip(&way.serving).map(move |(suffix, nodes)| (suffix, of(nodes)))
            };
            map.serialize_entry("mappings", &Pairs(serving))?;
        }
        map.end()
    }
}

fn strings(amounts: BTreeMap<Arc<str>, i64>) -> Map<String, Value> {
    amounts.into_iter().map(|(class, amount)| (class.to_string(), json!(amount))).collect()
}

struct Summary<'a> {
    version: Version,
    names: &'a Names,
    asked: &'a BTreeSet<&'a str>,
    node: &'a Node,
}

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Summary { version, names, asked, node } = self;
        let every = *version >= version::ALL_CLASSES;
        let shown =
            || node.stocks.iter().map(|s| (names.text(s.class), s)).filter(|(c, _)| every || asked.contains(&***c));
        let mut map = to.serialize_map(None)?;
        let stocks = || shown().map(|(class, s)| (class, BTreeMap::from([("capacity", s.capacity), ("used", s.used)])));
        map.serialize_entry("resources", &Pairs(stocks))?;
        if *version >= version::CANDIDATES_REQUIRED {
            map.serialize_entry("traits", &List(|| node.traits.iter().map(|n| names.text(*n))))?;
        }
        if *version >= version::NESTED {
            map.serialize_entry("parent_provider_uuid", &node.parent)?;
            map.serialize_entry("root_provider_uuid", &node.root)?;
        }
        map.end()
    }
}

/// What an iterator gives, as a JSON array.
struct List<F>(F);

impl<T: Serialize, I: Iterator<Item = T>, F: Fn() -> I> Serialize for List<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

/// What an iterator gives, as a JSON object.
struct Pairs<F>(F);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)>, F: Fn() -> I> Serialize for Pairs<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map((self.0)())
    }
}
