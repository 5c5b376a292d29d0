//! What the original says of a rule: who passes, in which scopes, and which operations it documents.
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a rule is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The caller's own: lists, creations.
    Own,
    /// Something of the owner's.
    Owned,
}

#[derive(Debug, Clone)]
pub struct Rule {
    /// Who passes, when oslo.policy could tell.
    passes: Option<(BTreeSet<String>, BTreeSet<String>)>,
}

impl Rule {
    pub fn passes(&self, persona: &str, about: About) -> Option<bool> {
        let (own, owned) = self.passes.as_ref()?;
        Some(if about == About::Own { own.contains(persona) } else { owned.contains(persona) })
    }
}

/// The original's rules by name; empty for a service without one.
pub fn of(service: &str) -> BTreeMap<String, Rule> {
    let text = match service {
        "identity" => include_str!("../../registry/identity.json"),
        "image" => include_str!("../../registry/image.json"),
        "placement" => include_str!("../../registry/placement.json"),
        "network" => include_str!("../../registry/network.json"),
        "compute" => include_str!("../../registry/compute.json"),
        "volume" => include_str!("../../registry/volume.json"),
        _ => return BTreeMap::new(),
    };
    let value: Value = serde_json::from_str(text).unwrap();
    let names = |v: &Value| -> Option<BTreeSet<String>> {
        Some(v.as_array()?.iter().map(|n| n.as_str().unwrap().to_owned()).collect())
    };
    let rule = |v: &Value| Rule { passes: names(&v["own"]).zip(names(&v["owned"])) };
    value["rules"].as_object().unwrap().iter().map(|(name, v)| (name.clone(), rule(v))).collect()
}
