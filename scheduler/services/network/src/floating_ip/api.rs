//! `/v2.0/floatingips`
use super::{model::FloatingIp, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open, shown},
    check,
    list::{self, Raw},
    network::ops as networks,
    port::model::Port,
    port_forwarding::{api as forwardings, model::PortForwarding},
    subnet::api::by_id,
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::LazyLock};

pub static FLOATING_IP: Resource = Resource {
    name: "floatingip",
    collection: "floatingips",
    missing: "FloatingIPNotFound",
    label: "Floating IP",
    attrs: &[
        once("floating_network_id", check::uuid).required(),
        once("floating_ip_address", check::ip_or_null).absent(Absent::Null).ruled(),
        once("subnet_id", check::uuid_or_null).absent(Absent::Null).hidden(),
        open("port_id", check::uuid_or_null).absent(Absent::Null),
        open("fixed_ip_address", check::ip_or_null).absent(Absent::Null),
        once("dns_name", check::dns_name).absent(Absent::Text("")),
        once("dns_domain", check::dns_domain).absent(Absent::Text("")),
        open("qos_policy_id", check::uuid_or_null).absent(Absent::Null),
        shown("qos_network_policy_id"),
        open("router_id", check::uuid_or_null).absent(Absent::Null),
        shown("status"),
        shown("port_details"),
        shown("port_forwardings"),
    ],
    lacks: &["name"],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| FLOATING_IP.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| FLOATING_IP.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/floatingips", verbs::list::<FloatingIp>)
            .rule_by_handler("get_floatingip")
            .summary("Lists floating IPs"),
        Route::post("/v2.0/floatingips", verbs::create::<FloatingIp>)
            .rule_by_handler("create_floatingip")
            .schema(&CREATE)
            .summary("Creates a floating IP"),
        Route::get("/v2.0/floatingips/{id}", verbs::show::<FloatingIp>)
            .rule_by_handler("get_floatingip")
            .summary("Shows a floating IP"),
        Route::put("/v2.0/floatingips/{id}", verbs::update::<FloatingIp>)
            .rule_by_handler("update_floatingip")
            .schema(&UPDATE)
            .summary("Associates or disassociates"),
        Route::delete("/v2.0/floatingips/{id}", verbs::delete::<FloatingIp>)
            .rule_by_handler("delete_floatingip")
            .summary("Deletes a floating IP"),
    ]
}

impl Api for FloatingIp {
    const RESOURCE: &'static Resource = &FLOATING_IP;

    async fn candidates(store: &Store, ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        let query = if networks::sees_all(ctx) { Find::all() } else { find::of_project(ctx.project_id()) };
        Ok(store.list::<Self>(query).await?)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let ids: Vec<&str> = items.iter().filter_map(|f| f.port_id.as_deref()).collect();
        let mut ports: HashMap<String, Port> = HashMap::new();
        for chunk in ids.chunks(500) {
            for port in store.list::<Port>(Find::all().ids(chunk.iter().copied())).await? {
                ports.insert(port.record.id.clone(), port.record);
            }
        }
        let mut forwarded: HashMap<String, Vec<Value>> = HashMap::new();
        let routed: Vec<&str> =
            items.iter().filter(|f| f.port_id.is_none() && f.router_id.is_some()).map(|f| f.id.as_str()).collect();
        for chunk in routed.chunks(500) {
            for one in store.list::<PortForwarding>(find::of_floatings(chunk.iter().copied())).await? {
                forwarded.entry(one.floatingip_id.clone()).or_default().push(forwardings::brief(&one));
            }
        }
        let networks = by_id(store, items.iter().map(|f| f.floating_network_id.as_str()).collect()).await?;
        let shown = |item: &Stored<FloatingIp>| {
            let mut raw = raw(item, item.port_id.as_ref().and_then(|p| ports.get(p)))?;
            let network = networks.get(&item.floating_network_id);
            raw.insert("qos_network_policy_id".into(), json!(network.and_then(|n| n.qos_policy_id.as_ref())));
            raw.insert("port_forwardings".into(), json!(forwarded.get(&item.id).map_or(&[][..], Vec::as_slice)));
            Ok(raw)
        };
        items.iter().map(shown).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, ctx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::remove_in(tx, ctx, &found).await
    }
}

fn raw(item: &Stored<FloatingIp>, port: Option<&Port>) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    raw.insert("status".into(), json!(item.status()));
    let details = port.map(|p| {
        json!({"name": p.name, "network_id": p.network_id, "mac_address": p.mac_address, "admin_state_up": p.admin_state_up,
            "status": p.status, "device_id": p.device_id, "device_owner": p.device_owner})
    });
    raw.insert("port_details".into(), json!(details));
    Ok(raw)
}
