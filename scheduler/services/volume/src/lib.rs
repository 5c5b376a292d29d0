//! Cinder: the volume API v3 (microversions 3.0 to 3.71), at `/volume`.
//!
//! Resources: volumes (with metadata and actions), snapshots, attachments, types (extra specs, access, QoS), groups and
//! their snapshots, transfers, messages, quotas, limits, services, pools, zones.
//!
//! ```text
//!  POST /volumes -> volume/api -> volume/create (checks, quota, record: wanted state, generation 1)
//!      change feed -> volume/reconcile: a host with room -> placement claim + host, one transaction
//!      change feed -> host/part: the host's wanted volumes -> fleet -> agent
//!      agent's observation -> host/part -> volume/ops -> volume/model::settle -> available, or error and a message
//! ```
//!
//! A volume's bytes are a file on one host; its snapshots and clones lie on the same one. It takes `DISK_GB` of that
//! host's provider in placement, as servers do, so that both together never promise more than there is.
//!
//! It calls: placement (claims), image (what volumes are made of, and become), fleet (hosts). Compute calls it:
//! [`volume::ops`], [`attachment::ops`], [`snapshot::ops`].
pub mod attachment;
pub mod backup;
mod fault;
pub mod group;
pub mod group_type;
mod host;
mod info;
mod limit;
mod list;
mod literal;
pub mod message;
mod metadata;
mod owned;
mod policy;
pub mod qos;
pub mod quota;
mod route;
mod schema;
pub mod service;
pub mod snapshot;
pub mod tables;
pub mod transfer;
mod version;
mod version_document;
pub mod volume;
pub mod volume_type;

pub use host::part::VolumePart;
pub use tables::kinds;
pub use volume::reconcile::VolumePlaces;

use async_trait::async_trait;
use futures::future::BoxFuture;
use pilvi_fleet::Fleet;
use pilvi_image::Image;
use pilvi_kit::{Documented, EventStyle, Fault, Route, Service};
use pilvi_placement::Placement;
use pilvi_reconcile::Driver;
use pilvi_store::{Store, Tx};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// What the volume service asks of the rest of the cloud.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// host -> zone, for hosts that are in one.
    async fn zones(&self) -> Result<BTreeMap<String, String>, Fault>;
    /// A volume has grown while this server had it.
    async fn extended(&self, server_id: &str) -> Result<(), Fault>;
}

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Zone of hosts that are in no other.
    pub default_zone: String,
    /// Microseconds that a message to a user is kept.
    pub keep_messages_us: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config { default_zone: "nova".into(), keep_messages_us: 30 * 24 * 3_600_000_000 }
    }
}

/// The service's state.
pub struct Volumes {
    pub store: Store,
    pub fleet: Arc<Fleet>,
    pub images: Arc<Image>,
    pub placement: Arc<Placement>,
    pub config: Config,
    driver: OnceLock<Driver>,
    cloud: OnceLock<Arc<dyn Cloud>>,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Volumes")
    }
}

impl Volumes {
    pub fn new(
        store: Store,
        fleet: Arc<Fleet>,
        images: Arc<Image>,
        placement: Arc<Placement>,
        config: Config,
    ) -> Arc<Self> {
        Arc::new(Volumes { store, fleet, images, placement, config, driver: OnceLock::new(), cloud: OnceLock::new() })
    }

    /// To be called once, before requests are answered, by who puts the services together.
    pub fn set_cloud(&self, cloud: Arc<dyn Cloud>) {
        if self.cloud.set(cloud).is_err() {
            tracing::error!("the volume service was given a cloud twice");
        }
    }

    /// To be called once at start: makes what there always is.
    pub async fn prepare(&self) -> Result<(), Fault> {
        self.write((), |tx, ()| Box::pin(volume_type::ops::ensure_default_in(tx))).await?;
        self.write((), |tx, ()| Box::pin(volume_type::ops::ensure_group_types_in(tx))).await
    }

    /// host -> zone; a host that is not named is in the default zone.
    pub async fn zones(&self) -> Result<BTreeMap<String, String>, Fault> {
        match self.cloud.get() {
            Some(cloud) => cloud.zones().await,
            None => Ok(BTreeMap::new()),
        }
    }

    /// Tells whoever runs these servers that a volume of theirs has grown; nothing waits for it.
    pub(crate) async fn tell_extended(&self, servers: Vec<String>) {
        let Some(cloud) = self.cloud.get() else { return };
        for server in servers {
            if let Err(fault) = cloud.extended(&server).await {
                tracing::warn!(server, %fault, "a server could not be told that its volume has grown");
            }
        }
    }

    /// Makes the driver of the reconciler of volumes; the caller runs it.
    pub fn driver(self: &Arc<Self>) -> Driver {
        self.driver.get_or_init(|| Driver::new(Arc::new(VolumePlaces::new(self.clone())))).clone()
    }

    /// Look at this volume now.
    pub(crate) fn poke(&self, volume_id: &str) {
        if let Some(driver) = self.driver.get() {
            driver.poke(volume_id);
        }
    }

    /// One transaction; each try of it has its own copy of `with`.
    pub(crate) async fn write<A, T, F>(&self, with: A, work: F) -> Result<T, Fault>
    where
        A: Clone + Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, A) -> BoxFuture<'a, Result<T, Fault>> + Send + Sync + 'static,
    {
        self.store.write(move |tx| work(tx, with.clone())).await
    }
}

/// All resources, below `/v3`.
fn resources() -> Vec<Route<Volumes>> {
    let mut routes = Vec::new();
    routes.extend(volume::api::routes());
    routes.extend(volume::action_api::routes());
    routes.extend(volume::metadata_api::routes());
    routes.extend(snapshot::api::routes());
    routes.extend(snapshot::metadata_api::routes());
    routes.extend(attachment::api::routes());
    routes.extend(backup::api::routes());
    routes.extend(volume_type::api::routes());
    routes.extend(volume_type::spec_api::routes());
    routes.extend(volume_type::access_api::routes());
    routes.extend(volume_type::default_api::routes());
    routes.extend(qos::api::routes());
    routes.extend(transfer::api::routes());
    routes.extend(quota::api::routes());
    routes.extend(message::api::routes());
    routes.extend(group::api::routes());
    routes.extend(group::snapshot_api::routes());
    routes.extend(group_type::api::routes());
    routes.extend(service::api::routes());
    routes.extend(service::host_api::routes());
    routes.extend(service::pool_api::routes());
    routes.extend(limit::routes());
    routes.extend(info::routes());
    routes
}

/// The service as the kit mounts it: each path with and without the project.
pub fn service() -> Service<Volumes> {
    let mut routes = version_document::routes();
    routes.extend(resources());
    routes.extend(route::of_project(resources()));
    Service {
        name: "volume",
        prefix: "/volume",
        versions: Some(version::versions()),
        fault: fault::shape,
        rules: policy::rules(),
        routes,
        documented: Documented { operations: include_str!("../operations.txt"), states: include_str!("../states.txt") },
        events: EventStyle { suffix: ".end", names: &[], ..EventStyle::PLAIN },
    }
}

#[cfg(test)]
mod tests;
