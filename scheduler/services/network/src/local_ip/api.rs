//! `/v2.0/local_ips`
use super::{model::LocalIp, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open},
    check::{self, Checked},
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Stored, Tx};
use serde_json::Value;

pub static LOCAL_IP: Resource = Resource {
    name: "local_ip",
    collection: "local_ips",
    missing: "LocalIPNotFound",
    label: "Local IP",
    attrs: &[
        once("local_port_id", check::uuid_or_null),
        once("network_id", check::uuid_or_null),
        once("local_ip_address", check::ip_or_null),
        once("ip_mode", check_mode).absent(Absent::Text("translate")),
        open("description", check::text_or_null::<1024>).absent(Absent::Text("")),
    ],
    lacks: &["tags"],
    below: "",
};

fn check_mode(value: &Value) -> Checked {
    check::one_of(value, &["translate", "passthrough"])
}

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = crud!(LocalIp, LOCAL_IP, "/v2.0/local_ips", "local_ip", "local IPs", open);
    routes.extend(super::association::routes());
    routes
}

impl Api for LocalIp {
    const RESOURCE: &'static Resource = &LOCAL_IP;

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, &found).await
    }
}
