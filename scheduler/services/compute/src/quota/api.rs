//! `/os-quota-sets` and `/os-quota-class-sets`
use super::DEFAULTS;
use crate::Compute;
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

fn set_schema(member: &str) -> Value {
    let amount = json!({"oneOf": [{"type": "integer", "minimum": -1, "maximum": 2_147_483_647},
        {"type": "string", "pattern": "^-?[0-9]+$", "maxLength": 11}]});
    let mut properties: Map<String, Value> =
        DEFAULTS.iter().map(|(name, _)| ((*name).to_owned(), amount.clone())).collect();
    properties.insert("force".into(), json!({"type": ["boolean", "string"]}));
    json!({"type": "object", "required": [member], "additionalProperties": false,
        "properties": {member: {"type": "object", "additionalProperties": false, "properties": properties}}})
}

static SET: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| set_schema("quota_set")));
static CLASS: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| set_schema("quota_class_set")));

pub fn routes() -> Vec<Route<Compute>> {
    const ONE: &str = "/v2.1/os-quota-sets/{project}";
    const CLASS_PATH: &str = "/v2.1/os-quota-class-sets/{class}";
    vec![
        Route::get(ONE, show).rule_by_handler("os_compute_api:os-quota-sets:show"),
        Route::get("/v2.1/os-quota-sets/{project}/detail", detail)
            .rule_by_handler("os_compute_api:os-quota-sets:detail"),
        Route::get("/v2.1/os-quota-sets/{project}/defaults", defaults).rule("os_compute_api:os-quota-sets:defaults"),
        Route::put(ONE, update).rule_by_handler("os_compute_api:os-quota-sets:update").schema(&SET),
        Route::delete(ONE, delete).rule_by_handler("os_compute_api:os-quota-sets:delete"),
        Route::get(CLASS_PATH, class).rule("os_compute_api:os-quota-class-sets:show"),
        Route::put(CLASS_PATH, class_update).rule("os_compute_api:os-quota-class-sets:update").schema(&CLASS),
    ]
}

/// Resources that a microversion still shows.
fn shown(call: &Call, resource: &str) -> bool {
    let network = matches!(resource, "fixed_ips" | "floating_ips" | "security_groups" | "security_group_rules");
    let files = resource.starts_with("injected_");
    !(network && call.at_least(2, 36) || files && call.at_least(2, 57))
}

fn set(call: &Call, id: Option<&str>, limits: &BTreeMap<String, i64>) -> Value {
    let mut out: Map<String, Value> =
        limits.iter().filter(|(k, _)| shown(call, k)).map(|(k, v)| (k.clone(), json!(v))).collect();
    if let Some(id) = id {
        out.insert("id".into(), json!(id));
    }
    Value::Object(out)
}

fn default_limits() -> BTreeMap<String, i64> {
    DEFAULTS.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let project = call.param("project");
    call.authorize(&owned_by(project))?;
    let limits = svc.quotas.limits(&svc.store, project).await?;
    Ok(Response::ok(json!({"quota_set": set(&call, Some(project), &limits)})))
}

async fn detail(svc: Arc<Compute>, call: Call) -> Reply {
    let project = call.param("project");
    call.authorize(&owned_by(project))?;
    let usage = svc.usage(project).await?;
    let mut out = set(&call, Some(project), &svc.quotas.limits(&svc.store, project).await?);
    for (resource, limit) in out.as_object_mut().into_iter().flatten().filter(|(k, _)| *k != "id") {
        *limit = json!({"limit": limit.clone(), "in_use": usage.of(resource), "reserved": 0});
    }
    Ok(Response::ok(json!({"quota_set": out})))
}

async fn defaults(_svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"quota_set": set(&call, Some(call.param("project")), &default_limits())})))
}

fn amounts(body: &Value) -> Vec<(String, i64)> {
    let members = body.as_object().into_iter().flatten().filter(|(k, _)| *k != "force");
    members.filter_map(|(k, v)| Some((k.clone(), v.as_i64().or_else(|| v.as_str()?.parse().ok())?))).collect()
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let project = call.param("project").to_owned();
    call.authorize(&owned_by(&project))?;
    let body = call.member("quota_set")?;
    let (new, usage) = (amounts(body), svc.usage(&project).await?);
    let force = body.get("force").is_some_and(crate::server::api::truth);
    for (resource, limit) in &new {
        let used = usage.of(resource);
        if !force && *limit >= 0 && u64::try_from(*limit).unwrap_or(0) < used {
            return Err(Fault::bad_request(format!(
                "Quota limit {limit} for {resource} must be greater than or equal to already used and reserved {used}."
            )));
        }
    }
    let (quotas, key) = (svc.quotas.clone(), project.clone());
    svc.store
        .write(move |tx| {
            let (quotas, key, new) = (quotas.clone(), key.clone(), new.clone());
            Box::pin(async move { quotas.set_in(tx, &key, &new).await })
        })
        .await?;
    let limits = svc.quotas.limits(&svc.store, &project).await?;
    Ok(Response::ok(json!({"quota_set": set(&call, None, &limits)})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let project = call.param("project").to_owned();
    call.authorize(&owned_by(&project))?;
    let quotas = svc.quotas.clone();
    svc.store
        .write(move |tx| {
            let (quotas, project) = (quotas.clone(), project.clone());
            Box::pin(async move { quotas.clear_in(tx, &project).await })
        })
        .await?;
    Ok(Response::empty(202))
}

/// Where a class's limits are kept: under a project id that no project has.
fn class_key(call: &Call) -> String {
    format!("class:{}", call.param("class"))
}

async fn class(svc: Arc<Compute>, call: Call) -> Reply {
    let limits = svc.quotas.limits(&svc.store, &class_key(&call)).await?;
    Ok(Response::ok(json!({"quota_class_set": set(&call, Some(call.param("class")), &limits)})))
}

async fn class_update(svc: Arc<Compute>, call: Call) -> Reply {
    let (new, key, quotas) = (amounts(call.member("quota_class_set")?), class_key(&call), svc.quotas.clone());
    svc.store
        .write(move |tx| {
            let (quotas, key, new) = (quotas.clone(), key.clone(), new.clone());
            Box::pin(async move { quotas.set_in(tx, &key, &new).await })
        })
        .await?;
    let limits = svc.quotas.limits(&svc.store, &class_key(&call)).await?;
    Ok(Response::ok(json!({"quota_class_set": set(&call, None, &limits)})))
}
