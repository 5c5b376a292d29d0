//! `/os-hosts`: what lies where.
use super::VOLUME;
use crate::{
    Volumes,
    host::service::set_in,
    route,
    tables::{Snapshot, Volume},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub fn routes() -> Vec<Route<Volumes>> {
    const RULE: &str = "volume_extension:hosts";
    vec![
        route::get("/v3/os-hosts", list).rule(RULE),
        route::get("/v3/os-hosts/{host_name}", show).rule(RULE),
        route::put("/v3/os-hosts/{host_name}", update).rule(RULE),
    ]
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let zone = call.query.get("zone");
    let all = svc.services().await?;
    let shown: Vec<Value> = all
        .iter()
        .filter(|s| zone.is_none_or(|z| s.zone == z))
        .map(|s| {
            json!({"host_name": s.host, "service": s.binary, "zone": s.zone,
                "service-status": if s.up { "available" } else { "unavailable" },
                "service-state": if s.said.disabled { "disabled" } else { "enabled" },
                "last-update": clock::micros(s.updated_us)})
        })
        .collect();
    Ok(Response::ok(json!({"hosts": shown})))
}

fn no_host(name: &str) -> Fault {
    Fault::not_found(format!("Host {name} could not be found."))
}

/// What one project, or all of them, have on a host.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    volumes: u64,
    volumes_gib: u64,
    snapshots: u64,
    snapshots_gib: u64,
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let name = call.param("host_name");
    let all = svc.services().await?;
    let found = all.iter().find(|s| s.host == name && s.binary == VOLUME).ok_or_else(|| no_host(name))?;
    let volumes = svc.store.list::<Volume>(Query::all().eq("host", found.said.id.as_str())).await?;
    let ids = volumes.iter().map(|v| v.record.id.clone());
    let snapshots = svc.store.list::<Snapshot>(Query::all().one_of("volume_id", ids)).await?;
    let mut held: BTreeMap<String, Held> = BTreeMap::from([("(total)".to_owned(), Held::default())]);
    for volume in &volumes {
        for project in ["(total)", &volume.project_id] {
            let one = held.entry(project.to_owned()).or_default();
            (one.volumes, one.volumes_gib) = (one.volumes + 1, one.volumes_gib + volume.size_gib);
        }
    }
    for snapshot in &snapshots {
        for project in ["(total)", &snapshot.project_id] {
            let one = held.entry(project.to_owned()).or_default();
            (one.snapshots, one.snapshots_gib) = (one.snapshots + 1, one.snapshots_gib + snapshot.size_gib);
        }
    }
    let shown: Vec<Value> = held
        .iter()
        .map(|(project, h)| {
            json!({"resource": {"host": name, "project": project, "volume_count": h.volumes.to_string(),
                "total_volume_gb": h.volumes_gib.to_string(), "snapshot_count": h.snapshots.to_string(),
                "total_snapshot_gb": h.snapshots_gib.to_string()}})
        })
        .collect();
    Ok(Response::ok(json!({"host": shown})))
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let name = call.param("host_name").to_owned();
    let all = svc.services().await?;
    let found = all.into_iter().find(|s| s.host == name && s.binary == VOLUME).ok_or_else(|| no_host(&name))?;
    let members = call.body.as_object().ok_or_else(|| Fault::bad_request("Malformed request body"))?;
    let mut disabled = None;
    for (key, value) in members {
        let value = value.as_str().unwrap_or_default().trim().to_lowercase();
        disabled = match (key.trim().to_lowercase().as_str(), value.as_str()) {
            ("status", "enable") => Some(false),
            ("status", "disable") => Some(true),
            ("status", _) => return Err(Fault::bad_request(format!("Invalid status: '{value}'"))),
            _ => return Err(Fault::bad_request(format!("Invalid update setting: '{key}'"))),
        };
    }
    let Some(disabled) = disabled else { return Ok(Response::ok(json!({}))) };
    svc.write((found.said.id, disabled), |tx, (id, disabled)| {
        Box::pin(async move {
            set_in(tx, &id, |said| said.disabled = disabled).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::ok(json!({"host": name, "status": if disabled { "disabled" } else { "enabled" }})))
}
