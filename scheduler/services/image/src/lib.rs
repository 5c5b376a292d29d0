//! Image: disk images, who may see them, and their bytes (the Image API v2, as Glance 2.18 speaks it).
//!
//! Resources: images with their members and tags, image data (upload, download, staging, import), tasks,
//! schemas. Nobody is called from here; compute and the fleet call in through `ops`.
//!
//! ```text
//!            PUT file             all bytes hashed, checked, on disk
//!  queued ------------> saving ----------------------------------------> active <--> deactivated
//!    ^ |                  |  broken off, too long, wrong format             |
//!    | |                  '--> queued, bytes removed                        '--> deleted, bytes removed
//!    | '-- PUT stage --> uploading -- POST import --> importing --> active
//!    '----------------------------- refused ------------'
//! ```
//!
//! Bytes live in stores (`store`), of which one is a directory under the state directory unless others are
//! configured. An object is seen there only when every byte of it is hashed, inspected and durable; whatever
//! else lies there at a start is from a crash and goes away ([`Image::recover`]).
pub mod cache;
pub mod cloud;
mod config;
pub mod data;
mod fault;
pub mod image;
pub mod import;
pub mod info;
pub mod location;
pub mod member;
pub mod metadef;
pub mod plugin;
mod policy;
pub mod quota;
pub mod schema;
pub mod signature;
pub mod store;
mod tables;
pub mod tag;
pub mod task;
mod version;

#[cfg(test)]
mod tests;

pub use cloud::Cloud;
pub use config::Config;
pub use import::ImportConfig;
pub use store::StoreConfig;

use pilvi_kit::{Documented, EventStyle, Fault, Route, Service, fetch::Fetcher};
use pilvi_store::{KindSpec, Store};
use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

/// How often it is tried again to remove what could not be removed at once.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// The service's state.
#[derive(Debug)]
pub struct Image {
    pub(crate) store: Store,
    pub(crate) config: Config,
    /// The staging area.
    pub(crate) files: data::files::Files,
    pub(crate) stores: store::Stores,
    /// What was read of remote stores; `None`: nothing is kept.
    pub(crate) cache: Option<Arc<cache::disk::Disk>>,
    /// Something is queued for the cache.
    pub(crate) cache_wake: tokio::sync::Notify,
    /// Fetches what imports name.
    pub(crate) fetcher: Fetcher,
    /// The rest of the cloud, once it is there.
    pub(crate) cloud: OnceLock<Arc<dyn Cloud>>,
    /// Uploads that run at once; each holds a few MiB.
    pub(crate) uploads: Arc<tokio::sync::Semaphore>,
}

impl Image {
    /// Makes the directory of the images' bytes unless it is there.
    pub fn new(store: Store, config: Config) -> std::io::Result<Arc<Self>> {
        let files = data::files::Files::open(&config.directory)?;
        let fetcher = Fetcher::new(config.import.web.rules(), config.import.ca.as_deref())?;
        let stores = store::Stores::open(&config, &fetcher)?;
        let uploads = Arc::new(tokio::sync::Semaphore::new(config.uploads_max));
        let cache = match config.cache_size_max {
            0 => None,
            max => Some(Arc::new(cache::disk::Disk::open(&config.cache_directory, max)?)),
        };
        let cache_wake = tokio::sync::Notify::new();
        let cloud = OnceLock::new();
        Ok(Arc::new(Image { store, config, files, stores, fetcher, cloud, cache, cache_wake, uploads }))
    }

    /// To be called once, before requests are answered, by who puts the services together.
    pub fn set_cloud(&self, cloud: Arc<dyn Cloud>) {
        if self.cloud.set(cloud).is_err() {
            tracing::error!("the image service was given a cloud twice");
        }
    }

    /// The store that the records are in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// To be called once at start, before requests are answered: images whose upload a crash cut off are queued again,
    /// imports go on, and, unless other schedulers are at work, files that belong to no image are removed. `others` are
    /// the ids of those schedulers; what they work on is theirs.
    pub async fn recover(self: &Arc<Self>, others: &BTreeSet<String>) -> Result<(), Fault> {
        data::recover::recover(self, others).await?;
        if self.config.metadef_catalogue {
            metadef::catalogue::load(self).await?;
        }
        import::ops::resume(self, others).await
    }

    /// Settles what a dead scheduler was working on: uploads are queued again, imports go on here.
    pub async fn inherit(self: &Arc<Self>, dead: &str) -> Result<(), Fault> {
        data::recover::inherit(self, dead).await?;
        import::ops::resume_of(self, dead).await
    }

    /// Fetches what is queued for the cache, and removes what could not be removed at once, until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: tokio::sync::watch::Receiver<bool>) {
        loop {
            if let Err(fault) = cache::ops::fetch_queued(&self).await {
                tracing::warn!(%fault, "the queue of the cache");
            }
            if let Err(fault) = store::object::sweep(&self).await {
                tracing::warn!(%fault, "image data that should be gone");
            }
            tokio::select! {
                _ = stop.wait_for(|stopped| *stopped) => return,
                () = self.cache_wake.notified() => {}
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
        }
    }
}

/// The kinds of records kept here, for the store's migrations.
pub fn kinds() -> Vec<KindSpec> {
    tables::kinds()
}

/// The service as the kit mounts it, at `/image`.
pub fn service() -> Service<Image> {
    let mut routes: Vec<Route<Image>> = version::routes();
    routes.extend(image::api::routes());
    routes.extend(data::api::routes());
    routes.extend(member::api::routes());
    routes.extend(tag::api::routes());
    routes.extend(import::api::routes());
    routes.extend(task::api::routes());
    routes.extend(schema::api::routes());
    routes.extend(metadef::api::routes());
    routes.extend(metadef::part::routes());
    routes.extend(info::api::routes());
    routes.extend(store::api::routes());
    routes.extend(location::api::routes());
    routes.extend(cache::api::routes());
    Service {
        name: "image",
        prefix: "/image",
        versions: None,
        fault: fault::shape,
        rules: policy::rules(),
        routes,
        documented: Documented { operations: include_str!("../operations.txt"), states: include_str!("../states.txt") },
        events: EventStyle::PLAIN,
    }
}
