//! `/v2.0/routers/{router_id}/conntrack_helpers`
use super::{model::ConntrackHelper, ops};
use crate::{
    Network,
    attribute::{Resource, open},
    check::{self, Checked},
    crud::crud,
    list::Raw,
    network::ops as networks,
    router::model::Router,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Value, json};

pub static CONNTRACK_HELPER: Resource = Resource {
    name: "conntrack_helper",
    collection: "conntrack_helpers",
    missing: "ConntrackHelperNotFound",
    label: "Conntrack Helper",
    attrs: &[
        open("protocol", check_protocol).required(),
        open("port", check::int::<1, 65535>).required(),
        open("helper", check::text::<64>).required(),
    ],
    lacks: &["name", "description", "tags", "created_at", "updated_at", "revision_number", "project_id", "tenant_id"],
    below: "router",
};

fn check_protocol(value: &Value) -> Checked {
    check::one_of(value, &["dccp", "ipv6-icmp", "sctp", "tcp", "udp"])
}

pub fn routes() -> Vec<Route<Network>> {
    crud!(
        ConntrackHelper,
        CONNTRACK_HELPER,
        "/v2.0/routers/{router_id}/conntrack_helpers",
        "router_conntrack_helper",
        "conntrack helpers of a router",
        open
    )
}

impl Api for ConntrackHelper {
    const RESOURCE: &'static Resource = &CONNTRACK_HELPER;
    const PARENT: Option<(&'static str, &'static str)> = Some(("router_id", "router_id"));

    async fn parent(store: &Store, ctx: &Ctx, id: &str) -> Result<String, Fault> {
        let router = store.get::<Router>(id).await?;
        let router = router.filter(|r| networks::sees_all(ctx) || r.project_id == ctx.project_id());
        Ok(router.ok_or_else(|| crate::fault::router_missing(id))?.record.project_id)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<ConntrackHelper>(&found.id).await?;
        Ok(())
    }
}

/// As a router shows it.
pub fn brief(helper: &ConntrackHelper) -> Value {
    json!({"protocol": helper.protocol, "port": helper.port, "helper": helper.helper})
}
