//! `/v2.0/fwaas/firewall_groups`
use super::ops;
use crate::{
    Network,
    attribute::{Absent, Resource, open, shown},
    check,
    crud::crud,
    firewall::{
        model::{FirewallGroup, FirewallPort},
        preset,
    },
    list::{self, Raw},
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::json;
use std::collections::HashMap;

pub static FIREWALL_GROUP: Resource = Resource {
    name: "firewall_group",
    collection: "firewall_groups",
    missing: "FirewallGroupNotFound",
    label: "Firewall group",
    attrs: &[
        open("admin_state_up", check::boolean).absent(Absent::Bool(true)),
        shown("status"),
        open("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("ports", check::uuids).absent(Absent::EmptyList),
        open("ingress_firewall_policy_id", check::uuid_or_null).absent(Absent::Null),
        open("egress_firewall_policy_id", check::uuid_or_null).absent(Absent::Null),
    ],
    lacks: &["tags"],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(FirewallGroup, FIREWALL_GROUP, "/v2.0/fwaas/firewall_groups", "firewall_group", "firewall groups", open)
}

impl Api for FirewallGroup {
    const RESOURCE: &'static Resource = &FIREWALL_GROUP;

    fn seen_by(project: &str) -> Find {
        find::own_or_shared(project)
    }

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        preset::looked_at(store, ctx, query).await
    }

    /// With the ports, in the order in which they came.
    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let mut ports: HashMap<String, Vec<(i64, String)>> = HashMap::new();
        for chunk in items.chunks(400) {
            let ids = chunk.iter().map(|g| g.id.as_str());
            for port in store.list::<FirewallPort>(find::in_firewall_groups(ids)).await? {
                let of = ports.entry(port.firewall_group_id.clone()).or_default();
                of.push((port.created_us, port.record.id));
            }
        }
        ports.values_mut().for_each(|of| of.sort());
        let raw = |item: &Stored<Self>| {
            let mut raw = list::raw(item)?;
            let of: Vec<&str> = ports.get(&item.id).into_iter().flatten().map(|(_, id)| id.as_str()).collect();
            raw.insert("status".into(), json!(item.status(!of.is_empty())));
            raw.insert("ports".into(), json!(of));
            Ok(raw)
        };
        items.iter().map(raw).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, ctx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, ctx, &found).await
    }
}
