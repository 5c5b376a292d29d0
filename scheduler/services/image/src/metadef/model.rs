//! A namespace and what it holds; pure.
use pilvi_kit::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Resource types that definitions are usually meant for.
pub const RESOURCE_TYPES: &[&str] = &[
    "OS::Glance::Image",
    "OS::Cinder::Volume",
    "OS::Nova::Flavor",
    "OS::Nova::Aggregate",
    "OS::Nova::Server",
    "OS::Trove::Instance",
];
/// Entries of one kind in one namespace.
const ENTRIES_MAX: usize = 1000;
const NAME_MAX: usize = 80;

/// What a namespace holds by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Objects,
    Properties,
    Tags,
    /// Resource types the namespace is meant for.
    Associations,
}

impl Part {
    pub fn noun(self) -> &'static str {
        match self {
            Part::Objects => "object",
            Part::Properties => "property",
            Part::Tags => "tag",
            Part::Associations => "resource type association",
        }
    }
}

/// One named entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since 1970.
    pub created_us: i64,
    pub updated_us: i64,
    /// Everything its maker said of it but the name.
    pub body: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    pub name: String,
    pub owner: String,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub public: bool,
    pub protected: bool,
    #[serde(default)]
    pub objects: BTreeMap<String, Entry>,
    #[serde(default)]
    pub properties: BTreeMap<String, Entry>,
    #[serde(default)]
    pub tags: BTreeMap<String, Entry>,
    #[serde(default)]
    pub associations: BTreeMap<String, Entry>,
}

impl Namespace {
    pub fn part(&self, part: Part) -> &BTreeMap<String, Entry> {
        match part {
            Part::Objects => &self.objects,
            Part::Properties => &self.properties,
            Part::Tags => &self.tags,
            Part::Associations => &self.associations,
        }
    }

    pub fn part_mut(&mut self, part: Part) -> &mut BTreeMap<String, Entry> {
        match part {
            Part::Objects => &mut self.objects,
            Part::Properties => &mut self.properties,
            Part::Tags => &mut self.tags,
            Part::Associations => &mut self.associations,
        }
    }

    pub fn missing(&self, part: Part, name: &str) -> Fault {
        Fault::not_found(format!(
            "The metadata definition {} with name={name} was not found in namespace={}.",
            part.noun(),
            self.name
        ))
    }

    /// Adds an entry; 409 when there is one of that name.
    pub fn add(&mut self, part: Part, name: &str, body: Map<String, Value>, now_us: i64) -> Result<(), Fault> {
        if name.is_empty() || name.chars().count() > NAME_MAX {
            return Err(Fault::bad_request(format!("Names have 1 to {NAME_MAX} characters.")));
        }
        let namespace = self.name.clone();
        let entries = self.part_mut(part);
        if entries.contains_key(name) {
            return Err(Fault::conflict(format!(
                "A metadata definition {} with name={name} already exists in namespace={namespace}.",
                part.noun()
            )));
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(Fault::too_large(format!("A namespace has at most {ENTRIES_MAX} of each kind.")));
        }
        entries.insert(name.to_owned(), Entry { created_us: now_us, updated_us: now_us, body });
        Ok(())
    }

    /// Replaces an entry, perhaps under another name.
    pub fn replace(
        &mut self,
        part: Part,
        old: &str,
        new: &str,
        body: Map<String, Value>,
        now_us: i64,
    ) -> Result<(), Fault> {
        let before = self.part_mut(part).remove(old).ok_or_else(|| self.missing(part, old))?;
        self.add(part, new, body, now_us)?;
        if let Some(entry) = self.part_mut(part).get_mut(new) {
            entry.created_us = before.created_us;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_added_renamed_and_missed_by_name() {
        let mut ns = Namespace {
            name: "n".into(),
            owner: "p".into(),
            display_name: None,
            description: None,
            public: false,
            protected: false,
            objects: BTreeMap::new(),
            properties: BTreeMap::new(),
            tags: BTreeMap::new(),
            associations: BTreeMap::new(),
        };
        ns.add(Part::Tags, "a", Map::new(), 1).unwrap();
        ns.add(Part::Tags, "b", Map::new(), 1).unwrap();
        assert_eq!(ns.add(Part::Tags, "a", Map::new(), 2).unwrap_err().code(), 409);
        ns.replace(Part::Tags, "a", "c", Map::new(), 3).unwrap();
        assert_eq!((ns.tags["c"].created_us, ns.tags["c"].updated_us), (1, 3));
        assert_eq!(ns.clone().replace(Part::Tags, "c", "b", Map::new(), 3).unwrap_err().code(), 409);
        assert_eq!(ns.replace(Part::Objects, "x", "x", Map::new(), 3).unwrap_err().code(), 404);
        assert_eq!(ns.add(Part::Tags, &"x".repeat(81), Map::new(), 3).unwrap_err().code(), 400);
    }
}
