//! Stores: the places where complete images' bytes lie, and what each of them must be able to do.
//!
//! ```text
//!   upload, import                 +--> file   a directory of this machine, or one that is mounted
//!        |                         |
//!   data::ops --> Stores --> ImageStore --> s3     a bucket
//!        |        (by id)    (settings)  +--> http   what others serve: read only
//!        v
//!   the image's record: locations = [(store, key), ...]
//! ```
//!
//! A store shows an object only when it is whole: [`Driver::begin`] takes bytes that nobody sees until
//! [`Incoming::commit`]. The image's record names the object after that, so a crash leaves at most an object
//! that no record names, and [`Driver::recover`] removes it.
pub mod api;
pub mod config;
mod file;
mod http;
pub(crate) mod object;
mod s3;

pub use config::{Kind, StoreConfig};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use pilvi_kit::{Fault, fetch::Fetcher};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

/// An object's bytes as they are read.
pub type Bytestream = BoxStream<'static, io::Result<Bytes>>;

/// An object that arrives; unseen until it is committed.
#[async_trait]
pub trait Incoming: Send {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()>;
    /// Makes the object durable and seen. What fails is taken back by the store.
    async fn commit(self: Box<Self>) -> io::Result<()>;
    /// Takes everything back, as well as it can.
    async fn abort(self: Box<Self>);
    /// What [`Driver::abandon`] is to be told, should this never end.
    fn upload(&self) -> Option<&str> {
        None
    }
}

/// What a kind of store can do. Keys are images' ids, but for locations that their owners named.
#[async_trait]
pub trait Driver: std::fmt::Debug + Send + Sync {
    /// `file`, `s3`, `http`
    fn kind(&self) -> &'static str;
    /// What operators see of it.
    fn properties(&self) -> Value;
    /// Where an object lies, for those who may know it.
    fn url(&self, key: &str) -> String;
    async fn begin(&self, key: &str) -> io::Result<Box<dyn Incoming>>;
    /// `length` bytes from `offset` on.
    async fn read(&self, key: &str, offset: u64, length: u64) -> io::Result<Bytestream>;
    /// Removes an object; it is no error when there is none.
    async fn delete(&self, key: &str) -> io::Result<()>;
    /// Removes an object and what arrived of it.
    async fn abandon(&self, key: &str, _upload: Option<&str>) -> io::Result<()> {
        self.delete(key).await
    }
    /// Bytes of an object.
    async fn size(&self, key: &str) -> io::Result<u64>;
    /// Is a URL of this kind this store's, if the operator lets it pass?
    fn is_meant(&self, _url: &str) -> bool {
        false
    }
    /// What the store calls the object of a URL, where users may name objects.
    fn key_of(&self, _url: &str) -> Option<String> {
        None
    }
    /// Does [`recover`](Driver::recover) find what no image names by itself?
    fn scans(&self) -> bool {
        true
    }
    /// Is it worth while to keep what was read of it?
    fn is_remote(&self) -> bool {
        false
    }
    /// Moves a complete file of this machine into the store; false when it can only be copied.
    async fn take_file(&self, _key: &str, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }
    /// Gives an object a second key without moving bytes; false when this store cannot.
    async fn link(&self, _from: &str, _to: &str) -> io::Result<bool> {
        Ok(false)
    }
    /// To be called once at start: removes what a crash left, given the keys that images name.
    async fn recover(&self, _known: &BTreeSet<String>) -> io::Result<()> {
        Ok(())
    }
}

/// A store as it is configured.
#[derive(Debug)]
pub struct ImageStore {
    pub id: String,
    pub description: Option<String>,
    /// Of several copies, the one in the store of the greatest weight is read.
    pub weight: i64,
    pub read_only: bool,
    pub driver: Arc<dyn Driver>,
}

/// All stores, and which of them is meant when none is named.
#[derive(Debug)]
pub struct Stores {
    /// In the order of the configuration's names.
    all: BTreeMap<String, Arc<ImageStore>>,
    default: Arc<ImageStore>,
}

impl Stores {
    /// Opens every store of the configuration.
    pub fn open(config: &crate::Config, fetcher: &Fetcher) -> io::Result<Self> {
        let settings = config::effective(config).map_err(io::Error::other)?;
        let mut all = BTreeMap::new();
        for (id, settings) in &settings {
            all.insert(id.clone(), Arc::new(open(id, settings, fetcher)?));
        }
        let default = config::default_of(&settings, config.default_store.as_deref()).map_err(io::Error::other)?;
        let default = all.get(&default).cloned().ok_or_else(|| io::Error::other("no default store"))?;
        Ok(Stores { all, default })
    }

    pub fn default(&self) -> &Arc<ImageStore> {
        &self.default
    }

    pub fn is_default(&self, store: &ImageStore) -> bool {
        store.id == self.default.id
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<ImageStore>> {
        self.all.values()
    }

    pub fn find(&self, id: &str) -> Option<&Arc<ImageStore>> {
        self.all.get(id)
    }

    /// Stores that take bytes, by their ids.
    pub fn writable(&self) -> impl Iterator<Item = &Arc<ImageStore>> {
        self.all.values().filter(|store| !store.read_only)
    }

    /// The store to write to: the one that is named, or the default. 400 for one that is not known or takes nothing.
    pub fn to_write(&self, id: Option<&str>) -> Result<Arc<ImageStore>, Fault> {
        let Some(id) = id else { return Ok(self.default.clone()) };
        let known = self.find(id).ok_or_else(|| {
            Fault::bad_request(format!("The Store identifier provided '{id}' is not known; see /v2/info/stores."))
        })?;
        if known.read_only {
            return Err(Fault::bad_request(format!("The store '{id}' is read only.")));
        }
        Ok(known.clone())
    }

    /// As the header `OpenStack-image-store-ids` names them.
    pub fn ids(&self) -> String {
        let ids: Vec<&str> = self.all.keys().map(String::as_str).collect();
        ids.join(",")
    }
}

fn open(id: &str, settings: &StoreConfig, fetcher: &Fetcher) -> io::Result<ImageStore> {
    let driver: Arc<dyn Driver> = match &settings.kind {
        Kind::File { directory } => Arc::new(file::FileDriver::open(directory)?),
        Kind::S3(bucket) => Arc::new(s3::S3Driver::open(bucket)?),
        Kind::Http => Arc::new(http::HttpDriver::new(fetcher.clone())),
    };
    Ok(ImageStore {
        id: id.to_owned(),
        description: settings.description.clone(),
        weight: settings.weight,
        read_only: settings.read_only || matches!(settings.kind, Kind::Http),
        driver,
    })
}
