//! `/os-services`, `/os-availability-zone`.
use super::{Listed, VOLUME};
use crate::{
    Volumes, fault, host::service::set_in, route, schema::text as text_or_null, version as v, volume::api::text,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

pub fn routes() -> Vec<Route<Volumes>> {
    const UPDATE: &str = "volume_extension:services:update";
    vec![
        route::get("/v3/os-services", list).rule("volume_extension:services:index"),
        route::put("/v3/os-services/{action}", act).rule(UPDATE),
        route::put("/v3/os-services/freeze", freeze).rule("volume:freeze_host").schema(&FREEZE),
        route::put("/v3/os-services/thaw", thaw).rule("volume:thaw_host").schema(&FREEZE),
        route::put("/v3/os-services/failover_host", fail_over).rule("volume:failover_host"),
        route::get("/v3/os-availability-zone", zones).authenticated("zones are known to everybody"),
    ]
}

static SWITCH: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let name = json!({"type": "string", "minLength": 1, "maxLength": 255});
        json!({"type": "object", "required": ["host"], "additionalProperties": false,
            "anyOf": [{"required": ["binary"]}, {"required": ["service"]}],
            "properties": {"binary": name, "service": name, "host": name, "cluster": text_or_null(), "disabled_reason": name}})
    })
});
static FREEZE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "host": {"type": "string", "minLength": 1, "maxLength": 255}, "cluster": text_or_null()}})
    })
});

fn view(call: &Call, listed: &Listed) -> Value {
    let status = if listed.said.disabled { "disabled" } else { "enabled" };
    let state = if listed.up { "up" } else { "down" };
    let mut view = json!({
        "binary": listed.binary, "host": listed.host, "zone": listed.zone, "status": status, "state": state,
        "updated_at": clock::micros(listed.updated_us), "disabled_reason": listed.said.reason,
    });
    if call.version >= v::CLUSTERS {
        view["cluster"] = Value::Null;
    }
    if listed.binary == VOLUME {
        if call.version >= v::BACKEND_STATE {
            view["backend_state"] = json!(state);
        }
        view["replication_status"] = json!("disabled");
        view["active_backend_id"] = Value::Null;
        view["frozen"] = json!(listed.said.frozen);
    }
    view
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let mut all = svc.services().await?;
    let matches_host = |listed: &Listed, wish: &str| listed.host == wish || listed.host.split('@').next() == Some(wish);
    if let Some(host) = call.query.get("host") {
        all.retain(|s| matches_host(s, host));
    }
    if let Some(binary) = call.query.get("binary") {
        all.retain(|s| s.binary == binary);
    }
    Ok(Response::ok(json!({"services": all.iter().map(|s| view(&call, s)).collect::<Vec<_>>()})))
}

fn no_service(binary: &str, host: &str) -> Fault {
    Fault::not_found(format!("Service {binary} could not be found on host {host}."))
}

impl Volumes {
    /// The name of the host whose volume service is called so.
    async fn host_of_service(&self, name: &str, binary: &str) -> Result<String, Fault> {
        let all = self.services().await?;
        let found = all.into_iter().find(|s| s.host == name && s.binary == binary);
        found.map(|s| s.said.id).ok_or_else(|| no_service(binary, name))
    }
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    let action = call.param("action");
    let disables = match action {
        "enable" => false,
        "disable" | "disable-log-reason" => true,
        "set-log" | "get-log" => {
            return Err(Fault::bad_request(
                "Levels of logs are set for the whole scheduler when it starts, not by this call.",
            ));
        }
        _ => return Err(Fault::not_found("Unknown action")),
    };
    SWITCH.check(&call.body)?;
    let host = text(&call.body, &["host"]).unwrap_or_default();
    let (service, binary) =
        (text(&call.body, &["service"]).unwrap_or_default(), text(&call.body, &["binary"]).unwrap_or_default());
    let named = if binary.is_empty() { service.clone() } else { binary.clone() };
    let reason = text(&call.body, &["disabled_reason"]);
    if reason.is_some() && action != "disable-log-reason" {
        return Err(Fault::bad_request("Invalid input: 'disabled_reason' was unexpected"));
    }
    let id = svc.host_of_service(&host, &named).await?;
    if named != VOLUME {
        return Err(Fault::bad_request("The scheduler cannot be switched off by this call."));
    }
    let with = (id, disables, reason.clone());
    svc.write(with, |tx, (id, disables, reason)| {
        Box::pin(async move {
            set_in(tx, &id, |said| (said.disabled, said.reason) = (disables, reason)).await?;
            Ok(())
        })
    })
    .await?;
    let mut told = json!({"host": host, "service": service, "binary": binary, "disabled": disables,
        "status": if disables { "disabled" } else { "enabled" }});
    if action != "disable" {
        told["disabled_reason"] = json!(reason);
    }
    Ok(Response::ok(told))
}

async fn set_frozen(svc: &Volumes, call: &Call, frozen: bool) -> Reply {
    let host = text(&call.body, &["host"]).unwrap_or_default();
    let id = svc.host_of_service(&host, VOLUME).await.map_err(|f| fault::invalid_input(f.message))?;
    svc.write((id, frozen), |tx, (id, frozen)| {
        Box::pin(async move {
            set_in(tx, &id, |said| said.frozen = frozen).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(200))
}

async fn freeze(svc: Arc<Volumes>, call: Call) -> Reply {
    set_frozen(&svc, &call, true).await
}

async fn thaw(svc: Arc<Volumes>, call: Call) -> Reply {
    set_frozen(&svc, &call, false).await
}

async fn fail_over(_svc: Arc<Volumes>, _call: Call) -> Reply {
    Err(fault::invalid_input("Volumes are not replicated: there is nothing to fail over to."))
}

async fn zones(svc: Arc<Volumes>, _call: Call) -> Reply {
    let mut zones: BTreeMap<String, bool> = BTreeMap::new();
    for listed in svc.services().await?.iter().filter(|s| s.binary == VOLUME) {
        let usable = listed.up && !listed.said.disabled;
        *zones.entry(listed.zone.clone()).or_default() |= usable;
    }
    zones.entry(svc.config.default_zone.clone()).or_insert(true);
    let shown: Vec<Value> =
        zones.iter().map(|(name, up)| json!({"zoneName": name, "zoneState": {"available": up}})).collect();
    Ok(Response::ok(json!({"availabilityZoneInfo": shown})))
}
