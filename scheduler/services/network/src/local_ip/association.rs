//! `/v2.0/local_ips/{local_ip_id}/port_associations`: a port stands for its association's id.
use super::{
    model::{Association, LocalIp},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, once, shown},
    check,
    crud::crud,
    list::{self, Raw},
    network::ops as networks,
    port::model::Port,
    verbs::Api,
};
use pilvi_kit::{Call, Ctx, Fault, Route};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::json;
use std::collections::HashMap;

pub static ASSOCIATION: Resource = Resource {
    name: "port_association",
    collection: "port_associations",
    missing: "LocalIPAssociationNotFound",
    label: "Local IP association",
    attrs: &[
        once("project_id", check::text::<255>).hidden(),
        once("tenant_id", check::text::<255>).hidden(),
        shown("local_ip_id"),
        shown("local_ip_address"),
        once("fixed_port_id", check::uuid).required(),
        once("fixed_ip", check::ip_or_null).absent(Absent::Null),
        shown("host"),
    ],
    lacks: &["id", "name", "description", "tags", "created_at", "updated_at", "revision_number"],
    below: "local_ip",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(
        Association,
        ASSOCIATION,
        "/v2.0/local_ips/{local_ip_id}/port_associations",
        "local_ip_port_association",
        "ports behind a local IP",
        fixed
    )
}

impl Api for Association {
    const RESOURCE: &'static Resource = &ASSOCIATION;
    const PARENT: Option<(&'static str, &'static str)> = Some(("local_ip_id", "local_ip_id"));

    fn record_id(call: &Call) -> String {
        Association::key(call.param("local_ip_id"), call.param("id"))
    }

    async fn parent(store: &Store, ctx: &Ctx, id: &str) -> Result<String, Fault> {
        let local = store.get::<LocalIp>(id).await?;
        let local = local.filter(|l| networks::sees_all(ctx) || l.project_id == ctx.project_id());
        Ok(local.ok_or_else(|| ops::missing(id))?.record.project_id)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let (mut addresses, mut hosts) = (HashMap::new(), HashMap::new());
        for chunk in items.chunks(400) {
            for local in store.list::<LocalIp>(Find::all().ids(chunk.iter().map(|a| a.local_ip_id.as_str()))).await? {
                addresses.insert(local.record.id, local.record.local_ip_address);
            }
            for port in store.list::<Port>(Find::all().ids(chunk.iter().map(|a| a.fixed_port_id.as_str()))).await? {
                hosts.insert(port.record.id, port.record.host_id);
            }
        }
        let raw = |item: &Stored<Association>| {
            let mut raw = list::raw(item)?;
            raw.insert("local_ip_address".into(), json!(addresses.get(&item.local_ip_id)));
            raw.insert("host".into(), json!(hosts.get(&item.fixed_port_id).map_or("", String::as_str)));
            Ok(raw)
        };
        items.iter().map(raw).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::associate_in(tx, ctx, attrs).await
    }

    async fn update_in(_tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, _changes: &Raw) -> Result<(), Fault> {
        Err(ASSOCIATION.not_found(&found.id))
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<Association>(&found.id).await?;
        Ok(())
    }
}
