//! `/v2.0/taas/tap_flows`
use super::{model::TapFlow, ops, service::active};
use crate::{
    Network,
    attribute::{Resource, once, shown},
    check::{self, Checked},
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Store, Stored, Tx};
use serde_json::Value;

pub static TAP_FLOW: Resource = Resource {
    name: "tap_flow",
    collection: "tap_flows",
    missing: "TapFlowNotFound",
    label: "Tap Flow",
    attrs: &[
        once("tap_service_id", check::uuid).required(),
        once("source_port", check::uuid).required(),
        once("direction", check_direction).required(),
        shown("status"),
    ],
    lacks: &["created_at", "updated_at", "revision_number", "tags"],
    below: "",
};

fn check_direction(value: &Value) -> Checked {
    check::one_of(value, &["IN", "OUT", "BOTH"])
}

pub fn routes() -> Vec<Route<Network>> {
    crud!(TapFlow, TAP_FLOW, "/v2.0/taas/tap_flows", "tap_flow", "tap flows", open)
}

impl Api for TapFlow {
    const RESOURCE: &'static Resource = &TAP_FLOW;

    async fn raws(_store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        items.iter().map(active).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_flow_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<TapFlow>(&found.id).await?;
        Ok(())
    }
}
