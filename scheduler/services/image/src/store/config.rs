//! What an operator says of stores: `[image.stores.NAME]` in the configuration; pure.
use crate::Config;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

/// The store that is there when none is configured.
pub const FILE: &str = "file";
/// Stores at most.
const STORES_MAX: usize = 64;

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub struct StoreConfig {
    pub description: Option<String>,
    pub weight: i64,
    pub read_only: bool,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory, made with mode 0700.
    File { directory: PathBuf },
}

/// The table as it is written: the settings of every kind, so that unknown names are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "type")]
    kind: String,
    description: Option<String>,
    #[serde(default)]
    weight: i64,
    #[serde(default)]
    read_only: bool,
    directory: Option<PathBuf>,
}

impl TryFrom<Table> for StoreConfig {
    type Error = String;
    fn try_from(table: Table) -> Result<Self, String> {
        let kind = match table.kind.as_str() {
            "file" => Kind::File { directory: table.directory.ok_or("a store of type file needs a directory")? },
            other => return Err(format!("stores of type {other:?} are not known: file")),
        };
        Ok(StoreConfig { description: table.description, weight: table.weight, read_only: table.read_only, kind })
    }
}

/// The stores that there are: those of the configuration, or the one directory.
pub(super) fn effective(config: &Config) -> Result<BTreeMap<String, StoreConfig>, String> {
    let mut stores = config.stores.clone();
    if stores.is_empty() {
        let kind = Kind::File { directory: config.directory.clone() };
        let description = Some("Files of the scheduler".to_owned());
        stores.insert(FILE.to_owned(), StoreConfig { description, weight: 0, read_only: false, kind });
    }
    check(&stores)?;
    Ok(stores)
}

fn check(stores: &BTreeMap<String, StoreConfig>) -> Result<(), String> {
    if stores.len() > STORES_MAX {
        return Err(format!("image: at most {STORES_MAX} stores"));
    }
    for id in stores.keys() {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > 64 || !id.chars().all(good) {
            return Err(format!("image: the store {id:?} needs a name of letters, digits, '-', '_' and '.'"));
        }
        if id.starts_with("os_glance_") {
            return Err(format!("image: names like {id:?} are reserved"));
        }
    }
    Ok(())
}

/// The default: the one that is named, or the only one that takes bytes.
pub(super) fn default_of(stores: &BTreeMap<String, StoreConfig>, named: Option<&str>) -> Result<String, String> {
    let writable: Vec<&String> = stores.iter().filter(|(_, s)| !s.read_only).map(|(id, _)| id).collect();
    match named {
        Some(id) if writable.iter().any(|w| *w == id) => Ok(id.to_owned()),
        Some(id) => Err(format!("image: default_store {id:?} is no store that takes images")),
        None => match writable.as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err("image: no store takes images".to_owned()),
            _ => Err("image: with several stores, default_store must name one".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(read_only: bool) -> StoreConfig {
        StoreConfig { description: None, weight: 0, read_only, kind: Kind::File { directory: "/x".into() } }
    }

    #[test]
    fn one_store_is_the_default_and_several_need_a_word() {
        let one = effective(&Config::new("/x")).unwrap();
        assert_eq!(default_of(&one, None).unwrap(), FILE);
        let two = BTreeMap::from([("a".to_owned(), file(false)), ("b".to_owned(), file(false))]);
        assert!(default_of(&two, None).is_err());
        assert_eq!(default_of(&two, Some("b")).unwrap(), "b");
        assert!(default_of(&two, Some("c")).is_err());
        let locked = BTreeMap::from([("a".to_owned(), file(false)), ("b".to_owned(), file(true))]);
        assert_eq!(default_of(&locked, None).unwrap(), "a");
        assert!(default_of(&locked, Some("b")).is_err());
        for bad in ["", "a/b", "os_glance_staging", "a b"] {
            assert!(check(&BTreeMap::from([(bad.to_owned(), file(false))])).is_err(), "{bad}");
        }
    }
}
