//! Free pairs of volumes and snapshots: what both have in common.
use crate::schema::pairs;
use pilvi_kit::{Call, Fault, Schema};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

pub static ALL: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["metadata"], "properties": {"metadata": pairs()}}))
});

pub static ONE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut pair = pairs();
        (pair["minProperties"], pair["maxProperties"]) = (json!(1), json!(1));
        json!({"type": "object", "required": ["meta"], "properties": {"meta": pair}})
    })
});

/// Pairs of one thing at most.
const MAX: usize = 128;

/// A change of all pairs.
#[derive(Debug, Clone)]
pub enum Change {
    Add(BTreeMap<String, String>),
    Replace(BTreeMap<String, String>),
    Remove(String),
}

impl Change {
    /// The pairs of `metadata` in the body.
    pub fn all(call: &Call, replaces: bool) -> Result<Self, Fault> {
        let pairs = crate::volume::api::strings(Some(call.member("metadata")?));
        Ok(if replaces { Change::Replace(pairs) } else { Change::Add(pairs) })
    }

    /// The pair of `meta` in the body, which must be the one that the path names.
    pub fn one(call: &Call) -> Result<Self, Fault> {
        let pairs = crate::volume::api::strings(Some(call.member("meta")?));
        if !pairs.contains_key(call.param("key")) {
            return Err(Fault::bad_request("Request body and URI mismatch"));
        }
        Ok(Change::Add(pairs))
    }

    pub fn apply(&self, pairs: &mut BTreeMap<String, String>) -> Result<(), Fault> {
        match self {
            Change::Add(new) => pairs.extend(new.clone()),
            Change::Replace(new) => pairs.clone_from(new),
            Change::Remove(key) => {
                pairs.remove(key).ok_or_else(|| missing(key))?;
            }
        }
        if pairs.len() > MAX {
            return Err(Fault::too_large(format!("MetadataLimitExceeded: at most {MAX} pairs of metadata are kept.")));
        }
        Ok(())
    }
}

pub fn missing(key: &str) -> Fault {
    Fault::not_found(format!("Metadata item was not found: {key}")).kind("VolumeMetadataNotFound")
}

/// One pair.
pub fn shown(pairs: &BTreeMap<String, String>, key: &str) -> Result<Value, Fault> {
    let value = pairs.get(key).ok_or_else(|| missing(key))?;
    Ok(json!({"meta": {key: value}}))
}
