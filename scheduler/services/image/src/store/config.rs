//! What an operator says of stores: `[image.stores.NAME]` in the configuration; pure.
use super::s3::S3Config;
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
    File {
        directory: PathBuf,
    },
    S3(S3Config),
    /// Other people's web servers, to read from.
    Http,
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
    endpoint: Option<String>,
    region: Option<String>,
    bucket: Option<String>,
    prefix: Option<String>,
    access_key: Option<String>,
    secret_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    path_style: Option<bool>,
    part_size_mib: Option<usize>,
}

/// MiB of a part: what the protocol allows, and what memory does.
const PART_MIB: std::ops::RangeInclusive<usize> = 5..=512;

impl Table {
    fn s3(&self) -> Result<S3Config, String> {
        let need = |name: &str, value: &Option<String>| {
            value.clone().filter(|v| !v.is_empty()).ok_or_else(|| format!("a store of type s3 needs {name}"))
        };
        let part_size = self.part_size_mib.unwrap_or(8);
        if !PART_MIB.contains(&part_size) {
            return Err(format!("part_size_mib is {} to {}", PART_MIB.start(), PART_MIB.end()));
        }
        if self.endpoint.as_ref().is_some_and(|e| !e.starts_with("https://") && !e.starts_with("http://")) {
            return Err("the endpoint of a store of type s3 starts with https:// or http://".to_owned());
        }
        Ok(S3Config {
            endpoint: self.endpoint.clone(),
            region: self.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            bucket: need("bucket", &self.bucket)?,
            prefix: self.prefix.clone().unwrap_or_default(),
            access_key: need("access_key", &self.access_key)?,
            secret_key_file: self.secret_key_file.clone().ok_or("a store of type s3 needs secret_key_file")?,
            ca_file: self.ca_file.clone(),
            path_style: self.path_style.unwrap_or(true),
            part_size: part_size << 20,
        })
    }

    /// The name of a setting that belongs to another kind of store.
    fn stray(&self) -> Option<&'static str> {
        let s3 = [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("bucket", self.bucket.is_some()),
            ("prefix", self.prefix.is_some()),
            ("access_key", self.access_key.is_some()),
            ("secret_key_file", self.secret_key_file.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("path_style", self.path_style.is_some()),
            ("part_size_mib", self.part_size_mib.is_some()),
        ];
        let file = [("directory", self.directory.is_some())];
        let others: Vec<(&'static str, bool)> = match self.kind.as_str() {
            "file" => s3.to_vec(),
            "s3" => file.to_vec(),
            _ => s3.into_iter().chain(file).collect(),
        };
        others.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

impl TryFrom<Table> for StoreConfig {
    type Error = String;
    fn try_from(table: Table) -> Result<Self, String> {
        if let Some(name) = table.stray() {
            return Err(format!("a store of type {} has no {name}", table.kind));
        }
        let kind = match table.kind.as_str() {
            "file" => Kind::File { directory: table.directory.ok_or("a store of type file needs a directory")? },
            "s3" => Kind::S3(table.s3()?),
            "http" => Kind::Http,
            other => return Err(format!("stores of type {other:?} are not known: file, s3, http")),
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
