//! `/limits`: what a project may have, and what it has.
use crate::{Volumes, quota, route, version as v};
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::json;
use std::sync::Arc;

pub fn routes() -> Vec<Route<Volumes>> {
    vec![route::get("/v3/limits", show).authenticated("everybody may know the own limits; a rule decides on the usage")]
}

const LIMITS: [(&str, &str); 5] = [
    ("maxTotalVolumes", "volumes"),
    ("maxTotalSnapshots", "snapshots"),
    ("maxTotalVolumeGigabytes", "gigabytes"),
    ("maxTotalBackups", "backups"),
    ("maxTotalBackupGigabytes", "backup_gigabytes"),
];
const USED: [(&str, &str); 5] = [
    ("totalVolumesUsed", "volumes"),
    ("totalGigabytesUsed", "gigabytes"),
    ("totalSnapshotsUsed", "snapshots"),
    ("totalBackupsUsed", "backups"),
    ("totalBackupGigabytesUsed", "backup_gigabytes"),
];

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let named = call.query.get("project_id").or_else(|| call.query.get("tenant_id"));
    let named = named.filter(|_| call.version >= v::LIMITS_OF_PROJECT && call.caller().has_role("admin"));
    let project = named.unwrap_or(call.ctx.project_id());
    let limits = quota::limits(&svc.store, project).await?;
    let mut absolute = json!({});
    for (shown, name) in LIMITS {
        absolute[shown] = json!(limits.get(name));
    }
    if call.may("limits_extension:used_limits", &call.target()) {
        let used = quota::usage(&svc.store, project).await?;
        for (shown, name) in USED {
            absolute[shown] = json!(used.get(name));
        }
    }
    Ok(Response::ok(json!({"limits": {"rate": [], "absolute": absolute}})))
}
