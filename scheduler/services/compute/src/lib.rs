//! Nova: the compute API v2.1 (microversions 2.1 to 2.104), at `/compute`.
//!
//! Resources: servers (with actions, metadata, tags, addresses, volumes, console log, instance actions), flavors,
//! live migrations, key pairs, server groups, availability zones, aggregates, hypervisors, services, limits, quotas; and, as old
//! microversions have them, images, networks, security groups and floating IPs of the services that own them.
//!
//! ```text
//!  POST /servers -> server/api -> view -> create (checks, quota, record: wanted state, generation 1)
//!      change feed -> server/reconcile: place -> placement claim + ports + host, one transaction
//!      change feed -> host/part: the host's wanted state -> fleet -> agent
//!      agent's observation -> host/part -> server/model::settle -> ACTIVE, or ERROR with the reason
//!      change feed -> host/segment: segments of routed networks, their addresses and hosts -> placement, aggregates
//! ```
//!
//! It calls: placement (claims), network (ports, addresses), image (what to boot), volume (what outlives servers), fleet (hosts,
//! console).
//! The states of a server and their rules are in [`server::model`].
mod action;
mod fault;
mod host;
mod policy;
pub mod server;
pub mod tables;
mod version;

pub mod aggregate;
pub mod flavor;
pub mod floating_ip;
pub mod hypervisor;
pub mod image;
pub mod interface;
pub mod keypair;
pub mod limit;
pub mod migration;
pub mod network;
pub mod quota;
pub mod security_group;
pub mod server_group;
mod version_document;
pub mod volume;
pub mod zone;

pub use host::{part::ComputePart, segment::Segments};
pub use server::reconcile::Servers;
pub use tables::kinds;

use pilvi_fleet::Fleet;
use pilvi_image::Image;
use pilvi_kit::{Documented, EventStyle, Route, Service, quota::Quotas};
use pilvi_network::Network;
use pilvi_placement::Placement;
use pilvi_reconcile::Driver;
use pilvi_store::Store;
use pilvi_volume::Volumes;
use std::sync::{Arc, OnceLock};

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Zone of hosts that no aggregate names.
    pub default_zone: String,
    /// How many virtual for each real: vCPUs, memory, disk.
    pub cpu_ratio: f64,
    pub memory_ratio: f64,
    pub disk_ratio: f64,
    /// Hosts that are tried for one server before it goes to ERROR.
    pub attempts: usize,
    /// Microseconds that a deleted server's record is kept.
    pub keep_deleted_us: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            default_zone: "nova".into(),
            cpu_ratio: 4.0,
            memory_ratio: 1.0,
            disk_ratio: 1.0,
            attempts: 3,
            keep_deleted_us: 24 * 3_600_000_000,
        }
    }
}

/// The service's state.
pub struct Compute {
    pub store: Store,
    pub fleet: Arc<Fleet>,
    pub network: Arc<Network>,
    pub images: Arc<Image>,
    pub placement: Arc<Placement>,
    pub volumes: Arc<Volumes>,
    pub config: Config,
    pub quotas: Quotas,
    driver: OnceLock<Driver>,
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compute")
    }
}

impl Compute {
    pub fn new(
        store: Store,
        fleet: Arc<Fleet>,
        network: Arc<Network>,
        images: Arc<Image>,
        placement: Arc<Placement>,
        volumes: Arc<Volumes>,
        config: Config,
    ) -> Arc<Self> {
        let quotas = Quotas::new("compute", quota::DEFAULTS);
        Arc::new(Compute { store, fleet, network, images, placement, volumes, config, quotas, driver: OnceLock::new() })
    }

    /// Makes the driver of the server reconciler; the caller runs it.
    pub fn driver(self: &Arc<Self>) -> Driver {
        self.driver.get_or_init(|| Driver::new(Arc::new(Servers::new(self.clone())))).clone()
    }

    /// Look at this server now.
    pub(crate) fn poke(&self, server_id: &str) {
        if let Some(driver) = self.driver.get() {
            driver.poke(server_id);
        }
    }
}

/// All resources, below `/v2.1`.
fn resources() -> Vec<Route<Compute>> {
    let mut routes = Vec::new();
    routes.extend(server::api::routes());
    routes.extend(server::action_api::routes());
    routes.extend(server::part_api::routes());
    routes.extend(server::password_api::routes());
    routes.extend(action::api::routes());
    routes.extend(flavor::api::routes());
    routes.extend(keypair::api::routes());
    routes.extend(server_group::api::routes());
    routes.extend(zone::api::routes());
    routes.extend(aggregate::api::routes());
    routes.extend(hypervisor::api::routes());
    routes.extend(limit::api::routes());
    routes.extend(migration::api::routes());
    routes.extend(quota::api::routes());
    routes.extend(interface::api::routes());
    routes.extend(volume::api::routes());
    routes.extend(volume::proxy::routes());
    routes.extend(security_group::api::routes());
    routes.extend(floating_ip::api::routes());
    routes.extend(image::api::routes());
    routes.extend(image::metadata_api::routes());
    routes.extend(network::api::routes());
    routes
}

/// The same below `/v2`, for clients from before microversions.
fn old_paths(mut routes: Vec<Route<Compute>>) -> Vec<Route<Compute>> {
    for route in &mut routes {
        // Paths live as long as the process: they are made once, at start.
        let old = route.path.replacen("/v2.1/", "/v2/", 1);
        (route.path, route.versions.1) = (Box::leak(old.into_boxed_str()), route.versions.1.min(version::MAX));
    }
    routes.retain(|r| r.versions.0 <= version::MIN);
    routes
}

/// The service as the kit mounts it.
pub fn service() -> Service<Compute> {
    let mut routes = version_document::routes();
    routes.extend(resources());
    routes.extend(old_paths(resources()));
    Service {
        name: "compute",
        prefix: "/compute",
        versions: Some(version::versions()),
        fault: fault::shape,
        rules: policy::rules(),
        routes,
        documented: Documented { operations: include_str!("../operations.txt"), states: include_str!("../states.txt") },
        events: EventStyle { suffix: ".end", names: &[("server", "instance")], ..EventStyle::PLAIN },
    }
}

#[cfg(test)]
mod tests;
