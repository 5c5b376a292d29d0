//! `/limits` and `/os-simple-tenant-usage`
use crate::{Compute, tables::Server};
use pilvi_kit::{Call, Fault, Reply, Response, Route, call::owned_by, clock};
use pilvi_store::{Query, Stored};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::get("/v2.1/limits", limits).rule("os_compute_api:limits"),
        Route::get("/v2.1/os-simple-tenant-usage", all_usage).rule("os_compute_api:os-simple-tenant-usage:list"),
        Route::get("/v2.1/os-simple-tenant-usage/{project}", one_usage)
            .rule_by_handler("os_compute_api:os-simple-tenant-usage:show"),
    ]
}

/// (what the API calls it, resource, is it a usage?)
const ABSOLUTE: &[(&str, &str, bool)] = &[
    ("maxTotalInstances", "instances", false),
    ("totalInstancesUsed", "instances", true),
    ("maxTotalCores", "cores", false),
    ("totalCoresUsed", "cores", true),
    ("maxTotalRAMSize", "ram", false),
    ("totalRAMUsed", "ram", true),
    ("maxServerMeta", "metadata_items", false),
    ("maxTotalKeypairs", "key_pairs", false),
    ("maxServerGroups", "server_groups", false),
    ("totalServerGroupsUsed", "server_groups", true),
    ("maxServerGroupMembers", "server_group_members", false),
    ("maxImageMeta", "metadata_items", false),
    ("maxPersonality", "injected_files", false),
    ("maxPersonalitySize", "injected_file_content_bytes", false),
    ("maxSecurityGroups", "security_groups", false),
    ("maxSecurityGroupRules", "security_group_rules", false),
    ("totalSecurityGroupsUsed", "security_groups", true),
    ("maxTotalFloatingIps", "floating_ips", false),
    ("totalFloatingIpsUsed", "floating_ips", true),
];

async fn limits(svc: Arc<Compute>, call: Call) -> Reply {
    let project = match call.query.get("tenant_id") {
        Some(other) if other != call.ctx.project_id() => {
            call.enforce("os_compute_api:limits:other_project", &owned_by(other))?;
            other
        }
        _ => call.ctx.project_id(),
    };
    let (limits, usage) = (svc.quotas.limits(&svc.store, project).await?, svc.usage(project).await?);
    let mut absolute = Map::new();
    for (name, resource, used) in ABSOLUTE {
        let network = matches!(*resource, "security_groups" | "security_group_rules" | "floating_ips");
        let old = *name == "maxImageMeta" && call.at_least(2, 39)
            || resource.starts_with("injected_") && call.at_least(2, 57);
        if old || network && call.at_least(2, 36) {
            continue;
        }
        let value = if *used { json!(usage.of(resource)) } else { json!(limits.get(*resource)) };
        absolute.insert((*name).to_owned(), value);
    }
    Ok(Response::ok(json!({"limits": {"rate": [], "absolute": absolute}})))
}

const DAY_US: i64 = 86_400_000_000;

fn period(call: &Call) -> Result<(i64, i64), Fault> {
    let time = |key: &str, default: i64| match call.query.get(key) {
        None => Ok(default),
        Some(text) => clock::parse(text).ok_or_else(|| Fault::bad_request(format!("Invalid datetime in {key}"))),
    };
    let now = clock::now_us();
    let (start, end) = (time("start", now - 28 * DAY_US)?, time("end", now)?);
    if start >= end {
        Err(Fault::bad_request("Invalid start time. The start time cannot occur after the end time."))
    } else {
        Ok((start, end))
    }
}

fn server_usage(server: &Stored<Server>, start: i64, end: i64) -> Option<(f64, Value)> {
    let from = server.launched_us?.max(start);
    let till = server.terminated_us.unwrap_or(i64::MAX).min(end);
    if till <= from {
        return None;
    }
    let hours = (till - from) as f64 / 3_600_000_000.0;
    let ended = server.terminated_us;
    let shown = json!({
        "instance_id": server.record.id, "name": server.name, "hours": hours, "tenant_id": server.project_id, "flavor": server.flavor.name,
        "vcpus": server.flavor.vcpus, "memory_mb": server.flavor.memory_mib, "local_gb": server.flavor.disk_gib,
        "started_at": clock::micros(server.launched_us?), "ended_at": ended.map(clock::micros),
        "state": if ended.is_some() { "terminated" } else { server.vm_state.as_str() },
        "uptime": (ended.unwrap_or(end) - server.launched_us?) / 1_000_000,
    });
    Some((hours, shown))
}

fn project_usage(project: &str, servers: &[Stored<Server>], start: i64, end: i64, detailed: bool) -> Value {
    let (mut hours, mut vcpu, mut memory, mut disk, mut list) = (0.0, 0.0, 0.0, 0.0, Vec::new());
    for server in servers {
        if let Some((h, shown)) = server_usage(server, start, end) {
            hours += h;
            vcpu += h * f64::from(server.flavor.vcpus);
            memory += h * server.flavor.memory_mib as f64;
            disk += h * server.flavor.disk_gib as f64;
            list.push(shown);
        }
    }
    let mut out = json!({
        "tenant_id": project, "total_hours": hours, "total_vcpus_usage": vcpu, "total_memory_mb_usage": memory, "total_local_gb_usage": disk,
        "start": clock::micros(start), "stop": clock::micros(end),
    });
    if detailed {
        out["server_usages"] = json!(list);
    }
    out
}

async fn all_usage(svc: Arc<Compute>, call: Call) -> Reply {
    let (start, end) = period(&call)?;
    let detailed = call.query.get("detailed") == Some("1");
    let mut by_project: BTreeMap<String, Vec<Stored<Server>>> = BTreeMap::new();
    for server in svc.store.list::<Server>(Query::all()).await? {
        by_project.entry(server.project_id.clone()).or_default().push(server);
    }
    let shown: Vec<Value> = by_project.iter().map(|(p, s)| project_usage(p, s, start, end, detailed)).collect();
    Ok(Response::ok(json!({"tenant_usages": shown})))
}

async fn one_usage(svc: Arc<Compute>, call: Call) -> Reply {
    let project = call.param("project");
    call.authorize(&owned_by(project))?;
    let (start, end) = period(&call)?;
    let servers = svc.store.list::<Server>(Query::all().project(project)).await?;
    let used = project_usage(project, &servers, start, end, true);
    let empty = used["server_usages"].as_array().is_none_or(Vec::is_empty);
    Ok(Response::ok(json!({"tenant_usage": if empty { json!({}) } else { used }})))
}
