//! `/v2.0/taas/tap_services`
use super::{model::TapService, ops};
use crate::{
    Network,
    attribute::{Resource, once, shown},
    check,
    crud::crud,
    list::{self, Raw},
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Store, Stored, Tx};
use serde_json::json;

pub static TAP_SERVICE: Resource = Resource {
    name: "tap_service",
    collection: "tap_services",
    missing: "TapServiceNotFound",
    label: "Tap Service",
    attrs: &[once("port_id", check::uuid).required(), shown("status")],
    lacks: &["created_at", "updated_at", "revision_number", "tags"],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(TapService, TAP_SERVICE, "/v2.0/taas/tap_services", "tap_service", "tap services", open)
}

impl Api for TapService {
    const RESOURCE: &'static Resource = &TAP_SERVICE;

    async fn raws(_store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        items.iter().map(active).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_service_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_service_in(tx, &found.id).await
    }
}

/// Hosts do what is written: there is nothing that could fail by itself.
pub(super) fn active<R: pilvi_store::Record>(item: &Stored<R>) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    raw.insert("status".into(), json!("ACTIVE"));
    Ok(raw)
}
