//! Placement: what there is to use and who uses how much of it (the Placement API, 1.0 to 1.39).
//!
//! Resources: resource providers (trees of them), their inventories, traits and aggregates; consumers and
//! their allocations; usages; allocation candidates. Nobody is called from here; compute, network and
//! volume call in, through `ops`, inside their own transactions.
//!
//! ```text
//!   host reconciler --ensure_in--> Provider { inventories, used, traits, aggregates, generation }
//!                                     ^ used += amount, generation += 1, all in one transaction
//!   compute --find--> Candidate       |                 (snapshot: all providers in memory, as of now)
//!   compute --claim_in--> Consumer ---+--> Allocation (consumer x provider)
//!   compute --release_in----------------> rows gone, used -= amount
//! ```
//!
//! A provider's row carries its own usage counters, so a claim reads and writes one row per provider
//! however many guests it has, and the row's revision is the lock: of two claims that race for the last
//! core, one finds the row changed, runs again and is refused.
pub mod aggregate;
pub mod allocation;
pub mod candidate;
pub mod class;
pub mod fault;
pub mod inventory;
mod policy;
pub mod provider;
pub mod reshape;
mod snapshot;
mod tables;
pub mod traits;
pub mod usage;
mod version;

#[cfg(test)]
mod tests;

pub use candidate::model::{Breadth, Limits};
use pilvi_kit::{Documented, EventStyle, Route, Service};
use pilvi_store::{KindSpec, Store};
use std::sync::Arc;

/// The service's state.
#[derive(Debug)]
pub struct Placement {
    pub(crate) store: Store,
    pub(crate) snapshot: snapshot::Snapshot,
    pub(crate) limits: Limits,
}

impl Placement {
    pub fn new(store: Store) -> Arc<Self> {
        Self::with(store, Limits::default())
    }

    pub fn with(store: Store, limits: Limits) -> Arc<Self> {
        Arc::new(Placement { store, snapshot: snapshot::Snapshot::default(), limits })
    }
}

/// The kinds of records kept here, for the store's migrations.
pub fn kinds() -> Vec<KindSpec> {
    tables::kinds()
}

/// The service as the kit mounts it, at `/placement`.
pub fn service() -> Service<Placement> {
    let mut routes: Vec<Route<Placement>> = vec![version::root()];
    routes.extend(provider::api::routes());
    routes.extend(inventory::api::routes());
    routes.extend(aggregate::api::routes());
    routes.extend(traits::api::routes());
    routes.extend(class::api::routes());
    routes.extend(allocation::api::routes());
    routes.extend(usage::api::routes());
    routes.extend(candidate::api::routes());
    routes.extend(reshape::api::routes());
    for route in &mut routes {
        route.json_only = route.schema.is_some();
    }
    Service {
        name: "placement",
        prefix: "/placement",
        versions: Some(version::microversions()),
        fault: fault::shape,
        rules: policy::rules(),
        routes,
        documented: Documented { operations: include_str!("../operations.txt"), states: include_str!("../states.txt") },
        events: EventStyle { prefix: "placement.", ..EventStyle::PLAIN },
    }
}
