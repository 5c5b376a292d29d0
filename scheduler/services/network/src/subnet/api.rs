//! `/v2.0/subnets`
use super::{model::Subnet, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, later, once, open, shown},
    check,
    list::{self, Raw},
    network::{model::VirtualNetwork, ops as networks},
    rbac::model::as_seen_by,
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

pub static SUBNET: Resource = Resource {
    name: "subnet",
    collection: "subnets",
    missing: "SubnetNotFound",
    label: "Subnet",
    attrs: &[
        once("network_id", check::uuid).required(),
        once("ip_version", check::ip_version).required(),
        once("cidr", check::cidr_or_null),
        once("subnetpool_id", check::pool_or_null),
        once("use_default_subnetpool", check::boolean).absent(Absent::Bool(false)).hidden(),
        once("prefixlen", check::int::<0, 128>).hidden(),
        open("gateway_ip", check::ip_or_null),
        open("allocation_pools", check::ip_pools),
        open("dns_nameservers", check::nameservers),
        open("host_routes", check::routes),
        open("enable_dhcp", check::boolean).absent(Absent::Bool(true)),
        once("ipv6_ra_mode", check::ipv6_mode),
        once("ipv6_address_mode", check::ipv6_mode),
        open("service_types", check::texts),
        open("dns_publish_fixed_ip", check::boolean).absent(Absent::Bool(false)),
        later("leak_routes", check::boolean).ruled(),
        open("segment_id", check::uuid_or_null).absent(Absent::Null).ruled().restricted(),
        shown("router:external"),
        shown("shared").hidden(),
    ],
    lacks: &[],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SUBNET.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SUBNET.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/subnets", verbs::list::<Subnet>).rule_by_handler("get_subnet").summary("Lists subnets"),
        Route::post("/v2.0/subnets", verbs::create::<Subnet>)
            .rule_by_handler("create_subnet")
            .schema(&CREATE)
            .summary("Creates one subnet or many"),
        Route::get("/v2.0/subnets/{id}", verbs::show::<Subnet>).rule_by_handler("get_subnet").summary("Shows a subnet"),
        Route::put("/v2.0/subnets/{id}", verbs::update::<Subnet>)
            .rule_by_handler("update_subnet")
            .schema(&UPDATE)
            .summary("Updates a subnet"),
        Route::delete("/v2.0/subnets/{id}", verbs::delete::<Subnet>)
            .rule_by_handler("delete_subnet")
            .summary("Deletes a subnet"),
    ]
}

impl Api for Subnet {
    const RESOURCE: &'static Resource = &SUBNET;

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        let networks: Vec<&str> = query.all("network_id").take(100).collect();
        if !networks.is_empty() {
            return Ok(store.list::<Self>(find::on_networks(networks)).await?);
        }
        if networks::sees_all(ctx) {
            return Ok(store.list::<Self>(Find::all()).await?);
        }
        let mut found = store.list::<Self>(find::of_project(ctx.project_id())).await?;
        let known: HashSet<String> = found.iter().map(|s| s.id.clone()).collect();
        let seen = networks::seen_by(store, ctx.project_id()).await?;
        let ids: Vec<&str> = seen.iter().map(|n| n.id.as_str()).collect();
        for chunk in ids.chunks(500) {
            let more = store.list::<Self>(find::on_networks(chunk.iter().copied())).await?;
            found.extend(more.into_iter().filter(|s| !known.contains(&s.id)));
        }
        Ok(found)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let ids: HashSet<&str> = items.iter().map(|s| s.network_id.as_str()).collect();
        let networks = by_id(store, ids).await?;
        items
            .iter()
            .map(|item| {
                let mut raw = list::raw(item)?;
                parent(&mut raw, networks.get(&item.network_id));
                Ok(raw)
            })
            .collect()
    }

    async fn create_target(store: &Store, ctx: &Ctx, attrs: &Raw) -> Result<Raw, Fault> {
        target_on_network(store, ctx, attrs).await
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, found).await
    }
}

/// Networks by id, in as few queries as the store's limits allow.
pub(crate) async fn by_id(store: &Store, ids: HashSet<&str>) -> Result<HashMap<String, VirtualNetwork>, Fault> {
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut out = HashMap::new();
    for chunk in ids.chunks(500) {
        for network in store.list::<VirtualNetwork>(Find::all().ids(chunk.iter().copied())).await? {
            out.insert(network.record.id.clone(), network.record);
        }
    }
    Ok(out)
}

/// What the rules of subnets and ports see of the network.
pub(crate) fn parent(raw: &mut Raw, network: Option<&VirtualNetwork>) {
    raw.insert("network_project_id".into(), json!(network.map(|n| &n.project_id)));
    raw.insert("shared".into(), json!(network.is_some_and(|n| n.shared)));
    raw.insert("shared_with".into(), json!(network.map_or(&[][..], |n| &n.shared_with)));
    raw.insert("router:external".into(), json!(network.is_some_and(|n| n.external)));
    raw.insert("external_for".into(), json!(network.map_or(&[][..], |n| &n.external_for)));
}

/// The attributes and the network's owner; 404 when the caller cannot see the network.
pub(crate) async fn target_on_network(store: &Store, ctx: &Ctx, attrs: &Raw) -> Result<Raw, Fault> {
    let id = attrs.get("network_id").and_then(Value::as_str).unwrap_or_default();
    let network = networks::visible(store, ctx, id).await?;
    let mut target = attrs.clone();
    parent(&mut target, Some(&network.record));
    as_seen_by(&mut target, ctx.project_id());
    Ok(target)
}
