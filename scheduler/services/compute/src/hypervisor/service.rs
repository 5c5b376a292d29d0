//! `/os-services`: each node shows as one `nova-compute` service.
use crate::Compute;
use pilvi_fleet::Node;
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "status": {"type": "string", "enum": ["enabled", "disabled"]}, "disabled_reason": {"type": "string", "minLength": 1, "maxLength": 255},
            "forced_down": {"type": ["boolean", "string"]}}})
    })
});
static OLD_UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["host", "binary"], "additionalProperties": false, "properties": {
            "host": {"type": "string", "minLength": 1}, "binary": {"type": "string", "minLength": 1},
            "disabled_reason": {"type": "string", "minLength": 1, "maxLength": 255}, "forced_down": {"type": ["boolean", "string"]}}})
    })
});

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::get("/v2.1/os-services", list).rule("os_compute_api:os-services:list"),
        Route::put("/v2.1/os-services/{id}", update)
            .rule("os_compute_api:os-services:update")
            .schema(&UPDATE)
            .since(2, 53),
        Route::put("/v2.1/os-services/{verb}", old_update)
            .rule("os_compute_api:os-services:update")
            .schema(&OLD_UPDATE)
            .until(2, 52),
        Route::delete("/v2.1/os-services/{id}", delete).rule("os_compute_api:os-services:delete"),
    ]
}

/// Clients before 2.53 want numbers.
pub fn number(node: &Node) -> u64 {
    number_of(&node.id)
}

/// A number that is always the same for an id.
pub fn number_of(id: &str) -> u64 {
    u64::from_str_radix(id.get(..7).unwrap_or("1"), 16).unwrap_or(1)
}

fn view(call: &Call, node: &Stored<Node>, zones: &BTreeMap<String, String>, default_zone: &str) -> Value {
    let zone = zones.get(&node.name).map_or(default_zone, String::as_str);
    let mut out = json!({
        "id": if call.at_least(2, 53) { json!(node.record.id) } else { json!(number(node)) },
        "binary": "nova-compute", "host": node.name, "zone": zone, "status": if node.disabled { "disabled" } else { "enabled" },
        "state": if node.is_up() { "up" } else { "down" }, "updated_at": clock::micros(node.last_seen_us), "disabled_reason": node.disabled_reason,
    });
    if call.at_least(2, 11) {
        out["forced_down"] = json!(node.forced_down);
    }
    out
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let zones = svc.zones_of_hosts().await?;
    let (host, binary) = (call.query.get("host"), call.query.get("binary"));
    let mut out = Vec::new();
    for node in svc.fleet.nodes().await? {
        if host.is_none_or(|h| h == node.name) && binary.is_none_or(|b| b == "nova-compute") {
            out.push(view(&call, &node, &zones, &svc.config.default_zone));
        }
    }
    Ok(Response::ok(json!({"services": out})))
}

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Service {id} not found."))
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let id = call.param("id");
    let mut node = svc.fleet.node(id).await?.ok_or_else(|| missing(id))?;
    let reason = call.body["disabled_reason"].as_str().map(str::to_owned);
    match call.body["status"].as_str() {
        Some(status) => {
            if status == "enabled" && reason.is_some() {
                return Err(Fault::bad_request("Specifying disabled_reason when status is enabled is invalid."));
            }
            node = svc.fleet.set_disabled(id, status == "disabled", reason).await?.ok_or_else(|| missing(id))?;
        }
        None if reason.is_some() => {
            return Err(Fault::bad_request("Specifying disabled_reason without a status is invalid."));
        }
        None => {}
    }
    if let Some(forced) = call.body.get("forced_down") {
        node = svc.fleet.set_forced_down(id, crate::server::api::truth(forced)).await?.ok_or_else(|| missing(id))?;
    }
    Ok(Response::ok(json!({"service": view(&call, &node, &svc.zones_of_hosts().await?, &svc.config.default_zone)})))
}

async fn old_update(svc: Arc<Compute>, call: Call) -> Reply {
    let host = call.body["host"].as_str().unwrap_or_default();
    let node = svc.fleet.node_by_name(host).await?.ok_or_else(|| missing(host))?;
    let id = node.record.id.clone();
    let mut shown = json!({"host": host, "binary": call.body["binary"]});
    match call.param("verb") {
        "enable" => {
            svc.fleet.set_disabled(&id, false, None).await?;
            shown["status"] = json!("enabled");
        }
        "disable" => {
            svc.fleet.set_disabled(&id, true, None).await?;
            shown["status"] = json!("disabled");
        }
        "disable-log-reason" => {
            let reason = call.body["disabled_reason"]
                .as_str()
                .ok_or_else(|| Fault::bad_request("Missing disabled reason field"))?;
            svc.fleet.set_disabled(&id, true, Some(reason.to_owned())).await?;
            shown["status"] = json!("disabled");
            shown["disabled_reason"] = json!(reason);
        }
        "force-down" if call.at_least(2, 11) => {
            let forced = call
                .body
                .get("forced_down")
                .ok_or_else(|| Fault::bad_request("Missing required parameter: 'forced_down'"))?;
            let forced = crate::server::api::truth(forced);
            svc.fleet.set_forced_down(&id, forced).await?;
            shown["forced_down"] = json!(forced);
        }
        _ => return Err(Fault::not_found("Unknown action")),
    }
    Ok(Response::ok(json!({"service": shown})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let wish = call.param("id");
    let nodes = svc.fleet.nodes().await?;
    let node =
        nodes.iter().find(|n| n.record.id == wish || number(n).to_string() == wish).ok_or_else(|| missing(wish))?;
    if !crate::host::part::servers_on(&svc, &node.name).await?.is_empty() {
        return Err(Fault::conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.",
        ));
    }
    let id = node.record.id.clone();
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { pilvi_placement::provider::ops::remove_in(tx, &id).await })
        })
        .await?;
    svc.fleet.remove_node(&node.record.id).await?;
    Ok(Response::no_content())
}
