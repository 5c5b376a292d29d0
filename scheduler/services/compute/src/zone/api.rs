//! `/os-availability-zone`
use crate::Compute;
use pilvi_kit::{Call, Reply, Response, Route, clock};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::get("/v2.1/os-availability-zone", list).rule("os_compute_api:os-availability-zone:list"),
        Route::get("/v2.1/os-availability-zone/detail", detail).rule("os_compute_api:os-availability-zone:detail"),
    ]
}

async fn zones(svc: &Compute) -> Result<BTreeMap<String, Map<String, Value>>, pilvi_kit::Fault> {
    let of_host = svc.zones_of_hosts().await?;
    let mut zones: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for node in svc.fleet.nodes().await? {
        let zone = of_host.get(&node.name).unwrap_or(&svc.config.default_zone).clone();
        let state = json!({"nova-compute": {"available": !node.disabled, "active": node.is_up(), "updated_at": clock::micros(node.last_seen_us)}});
        zones.entry(zone).or_default().insert(node.name.clone(), state);
    }
    zones.entry(svc.config.default_zone.clone()).or_default();
    Ok(zones)
}

async fn list(svc: Arc<Compute>, _call: Call) -> Reply {
    let shown: Vec<Value> = zones(&svc)
        .await?
        .into_keys()
        .map(|z| json!({"zoneName": z, "zoneState": {"available": true}, "hosts": null}))
        .collect();
    Ok(Response::ok(json!({"availabilityZoneInfo": shown})))
}

async fn detail(svc: Arc<Compute>, _call: Call) -> Reply {
    let shown: Vec<Value> = zones(&svc)
        .await?
        .into_iter()
        .map(|(z, hosts)| json!({"zoneName": z, "zoneState": {"available": true}, "hosts": hosts}))
        .collect();
    Ok(Response::ok(json!({"availabilityZoneInfo": shown})))
}
