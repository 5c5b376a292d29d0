//! `/scheduler-stats/get_pools`, `/capabilities`: what hosts offer.
use super::VOLUME;
use crate::{
    Volumes,
    host::backend::{self, Told},
    route,
    tables::{Volume, VolumeType},
    version as v,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use pilvi_placement::candidate::ops::{Request, find};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub fn routes() -> Vec<Route<Volumes>> {
    vec![
        route::get("/v3/scheduler-stats/get_pools", pools).rule("scheduler_extension:scheduler_stats:get_pools"),
        route::get("/v3/capabilities/{host_name}", capabilities).rule("volume_extension:capabilities"),
    ]
}

/// Filters of pools.
pub const FILTERS: &[&str] = &["name", "volume_type"];

async fn pools(svc: Arc<Volumes>, call: Call) -> Reply {
    let detail = call.query.flag("detail")?.unwrap_or(false);
    let filtered = call.version >= v::POOL_FILTER;
    let bad: Vec<&str> =
        call.query.0.iter().map(|(k, _)| k.as_str()).filter(|k| *k != "detail" && !FILTERS.contains(k)).collect();
    if call.version >= v::STRICT_FILTERS && !bad.is_empty() {
        return Err(Fault::bad_request(format!("Invalid filters {} are found in query options.", bad.join(","))));
    }
    let name = call.query.get("name").filter(|_| filtered);
    let fits = match call.query.get("volume_type").filter(|_| call.version >= v::POOL_TYPE) {
        Some(wish) => {
            let by_id = svc.store.get::<VolumeType>(wish).await?;
            let found = match by_id {
                Some(found) => Some(found),
                None => svc.store.list::<VolumeType>(Query::all().name(wish).limit(1)).await?.pop(),
            };
            found.is_some_and(|t| backend::fits(&t.extra_specs))
        }
        None => true,
    };
    let free = find(&svc.placement, &Request::default()).await?;
    let mut shown = Vec::new();
    for listed in svc.services().await?.into_iter().filter(|s| s.binary == VOLUME && fits) {
        let Some(node) = listed.node.filter(|n| n.is_up()) else { continue };
        let pool = backend::pool_of(&node.name);
        if name.is_some_and(|wish| wish != pool) {
            continue;
        }
        let free = free.iter().find(|c| *c.provider_uuid == *node.id).map_or(0, |c| c.free_of("DISK_GB"));
        let volumes = svc.store.list::<Volume>(Query::all().eq("host", node.name.as_str())).await?;
        let allocated: u64 = volumes.iter().map(|v| v.size_gib).sum();
        let mut one = json!({"name": pool});
        if detail {
            one["capabilities"] = told((node.inventory.disk_gib, free), (allocated, volumes.len()), listed.updated_us);
        }
        shown.push(one);
    }
    Ok(Response::ok(json!({"pools": shown})))
}

fn told((total, free): (u64, i64), (allocated, volumes): (u64, usize), updated_us: i64) -> Value {
    let known: BTreeMap<&str, Value> = backend::capabilities()
        .into_iter()
        .map(|(name, told)| match told {
            Told::Text(text) => (name, json!(text)),
            Told::Flag(flag) => (name, json!(flag)),
        })
        .collect();
    let mut all = json!(known);
    all["pool_name"] = json!(backend::NAME);
    all["total_capacity_gb"] = json!(total);
    all["free_capacity_gb"] = json!(free);
    all["allocated_capacity_gb"] = json!(allocated);
    all["provisioned_capacity_gb"] = json!(allocated);
    all["total_volumes"] = json!(volumes);
    all["reserved_percentage"] = json!(0);
    all["max_over_subscription_ratio"] = json!("1.0");
    all["location_info"] = Value::Null;
    all["backend_state"] = json!("up");
    all["filter_function"] = Value::Null;
    all["goodness_function"] = Value::Null;
    all["timestamp"] = json!(clock::micros(updated_us));
    all
}

async fn capabilities(svc: Arc<Volumes>, call: Call) -> Reply {
    let name = call.param("host_name");
    // Names of pools will do as well: clients take what the list of pools gives them.
    let host = backend::host_of(name).unwrap_or(name);
    if svc.fleet.node_by_name(host).await?.is_none() {
        return Err(Fault::not_found(format!("Can't find service: {name}")));
    }
    let property =
        |title: &str, description: &str, kind: &str| json!({"title": title, "description": description, "type": kind});
    Ok(Response::ok(json!({
        "namespace": format!("OS::Storage::Capabilities::{}", backend::service_of(host)),
        "vendor_name": backend::VENDOR, "volume_backend_name": backend::NAME, "pool_name": null,
        "driver_version": backend::VERSION, "storage_protocol": backend::PROTOCOL, "display_name": null,
        "description": null, "visibility": null, "replication_targets": [],
        "properties": {
            "thin_provisioning": property("Thin Provisioning", "Files take room as they are written.", "boolean"),
            "multiattach": property("Multiattach", "Volumes may be attached to several servers.", "boolean"),
        },
    })))
}
