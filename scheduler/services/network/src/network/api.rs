//! `/v2.0/networks`
use super::{model::VirtualNetwork, ops};
use crate::{
    Network,
    address_scope::{self, model::of_network},
    attribute::{Absent, Resource, Verb, once, open, shown},
    check,
    list::{self, Raw},
    segment::model::Segment,
    subnet::model::Subnet,
    tables::find,
    verbs::{self, Api},
    zone::Zones,
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::LazyLock};

pub static NETWORK: Resource = Resource {
    name: "network",
    collection: "networks",
    missing: "NetworkNotFound",
    label: "Network",
    attrs: &[
        open("admin_state_up", check::boolean).absent(Absent::Bool(true)),
        open("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("router:external", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("is_default", check::boolean).absent(Absent::Bool(false)).ruled(),
        open("mtu", check::int::<0, 65535>).ruled(),
        open("port_security_enabled", check::boolean).absent(Absent::Bool(true)).ruled(),
        open("dns_domain", check::dns_domain_of_ports).absent(Absent::Text("")),
        once("availability_zone_hints", check::texts).absent(Absent::EmptyList),
        once("provider:network_type", check::text::<32>).ruled().restricted(),
        once("provider:physical_network", check::text::<64>).ruled().restricted(),
        once("provider:segmentation_id", check::int_or_null::<1, 16_777_215>).ruled().restricted(),
        open("qos_policy_id", check::uuid_or_null),
        once("segments", check::segments).ruled().restricted(),
        once("vlan_transparent", check::boolean).absent(Absent::Bool(false)),
        once("qinq", check::boolean),
        once("pvlan", check::boolean).absent(Absent::Bool(false)),
        once("ha", check::boolean).absent(Absent::Bool(false)).hidden(),
        shown("status"),
        shown("subnets"),
        shown("availability_zones"),
        shown("ipv4_address_scope"),
        shown("ipv6_address_scope"),
        shown("l2_adjacency"),
    ],
    lacks: &[],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| NETWORK.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| NETWORK.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/networks", verbs::list::<VirtualNetwork>)
            .rule_by_handler("get_network")
            .summary("Lists networks"),
        Route::post("/v2.0/networks", verbs::create::<VirtualNetwork>)
            .rule_by_handler("create_network")
            .schema(&CREATE)
            .summary("Creates one network or many"),
        Route::get("/v2.0/networks/{id}", verbs::show::<VirtualNetwork>)
            .rule_by_handler("get_network")
            .summary("Shows a network"),
        Route::put("/v2.0/networks/{id}", verbs::update::<VirtualNetwork>)
            .rule_by_handler("update_network")
            .schema(&UPDATE)
            .summary("Updates a network"),
        Route::delete("/v2.0/networks/{id}", verbs::delete::<VirtualNetwork>)
            .rule_by_handler("delete_network")
            .summary("Deletes a network and its subnets"),
    ]
}

impl Api for VirtualNetwork {
    const RESOURCE: &'static Resource = &NETWORK;

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        if let Some(id) = query.get("id").filter(|_| query.all("id").count() == 1) {
            return Ok(store.get::<Self>(id).await?.into_iter().collect());
        }
        if ops::sees_all(ctx) {
            return Ok(store.list::<Self>(Find::all()).await?);
        }
        ops::seen_by(store, ctx.project_id()).await
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let mut subnets: HashMap<String, Vec<Subnet>> = HashMap::new();
        let ids: Vec<&str> = items.iter().map(|n| n.id.as_str()).collect();
        for chunk in ids.chunks(500) {
            for subnet in store.list::<Subnet>(find::on_networks(chunk.iter().copied())).await? {
                subnets.entry(subnet.record.network_id.clone()).or_default().push(subnet.record);
            }
        }
        let pools: Vec<&str> = subnets.values().flatten().filter_map(|s| s.subnetpool_id.as_deref()).collect();
        let scopes = address_scope::ops::of_pools(store, &pools).await?;
        let further: Vec<&str> = items.iter().flat_map(|n| n.segments.keys()).map(String::as_str).collect();
        let mut segments = Vec::new();
        for chunk in further.chunks(500) {
            segments.extend(store.list::<Segment>(Find::all().ids(chunk.iter().copied())).await?);
        }
        let of = |item: &Stored<Self>| -> Vec<&Segment> {
            segments.iter().map(|s| &s.record).filter(|s| s.network_id == item.id).collect()
        };
        let zones = Zones::read(store).await?;
        items
            .iter()
            .map(|item| raw(item, subnets.get(&item.id).map_or(&[][..], Vec::as_slice), &scopes, &of(item), &zones))
            .collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, ctx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, ctx, found).await
    }
}

/// `scopes`: the address scope of each subnet pool.
fn raw(
    item: &Stored<VirtualNetwork>,
    subnets: &[Subnet],
    scopes: &HashMap<String, Option<String>>,
    further: &[&Segment],
    zones: &Zones,
) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    raw.insert("subnets".into(), json!(subnets.iter().map(|s| &s.id).collect::<Vec<_>>()));
    for (name, version) in [("ipv4_address_scope", 4), ("ipv6_address_scope", 6)] {
        let scope = of_network(subnets.iter(), version, |pool| scopes.get(pool)?.as_deref());
        raw.insert(name.into(), json!(scope));
    }
    raw.insert("status".into(), json!("ACTIVE"));
    raw.insert("availability_zones".into(), zones.of(&item.availability_zone_hints));
    // Who shares a subnet with somebody need not share a wire with everybody.
    raw.insert("l2_adjacency".into(), json!(subnets.iter().all(|s| s.segment_id.is_none())));
    if !further.is_empty() {
        let one = |kind: &str, physical: &Option<String>, number: &Option<u32>| json!({"provider:network_type": kind, "provider:physical_network": physical, "provider:segmentation_id": number});
        let mut all = vec![one(&item.network_type, &item.physical_network, &item.segmentation_id)];
        all.extend(further.iter().map(|s| one(&s.network_type, &s.physical_network, &s.segmentation_id)));
        raw.insert("segments".into(), json!(all));
        for name in ["provider:network_type", "provider:physical_network", "provider:segmentation_id"] {
            raw.insert(name.into(), Value::Null);
        }
    }
    Ok(raw)
}
