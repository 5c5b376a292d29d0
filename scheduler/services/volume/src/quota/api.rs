//! `/os-quota-sets`, `/os-quota-class-sets`.
use super::{Amounts, CLASS, Limits, kept, limits, usage};
use crate::{Volumes, route};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

const CLASS_PATH: &str = "/v3/os-quota-class-sets/{class}";

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/os-quota-sets/{project_id}";
    const SHOW: &str = "volume_extension:quotas:show";
    vec![
        route::get(ONE, show).rule_by_handler(SHOW),
        route::get("/v3/os-quota-sets/{project_id}/defaults", defaults).rule_by_handler(SHOW),
        route::put(ONE, update).rule_by_handler("volume_extension:quotas:update").schema(&SET),
        route::delete(ONE, delete).rule_by_handler("volume_extension:quotas:delete"),
        route::get(CLASS_PATH, class).rule("volume_extension:quota_classes:get"),
        route::put(CLASS_PATH, class_update).rule("volume_extension:quota_classes:update").schema(&CLASS_SET),
    ]
}

fn amounts_of(name: &str) -> Value {
    json!({"type": "object", "required": [name], "additionalProperties": false, "properties": {
        name: {"type": "object", "minProperties": 1, "maxProperties": 1000}}})
}
static SET: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| amounts_of("quota_set")));
static CLASS_SET: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| amounts_of("quota_class_set")));

/// Members of a body that are no resources.
const NO_RESOURCES: [&str; 3] = ["id", "tenant_id", "project_id"];

/// What is to be set; 400 for what is no limit, or of no resource.
fn wishes(body: &Value, known: &Limits) -> Result<Vec<(String, i64)>, Fault> {
    let mut wishes = Vec::new();
    for (name, value) in body.as_object().into_iter().flatten().filter(|(k, _)| !NO_RESOURCES.contains(&k.as_str())) {
        if !known.contains_key(name) {
            return Err(Fault::bad_request(format!("Bad key(s) in quota set: {name}")));
        }
        let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        match number.filter(|n| (-1..=i64::from(i32::MAX)).contains(n)) {
            Some(number) => wishes.push((name.clone(), number)),
            None => {
                return Err(Fault::bad_request(format!(
                    "Quota limit for {name} must be a whole number, -1 or greater."
                )));
            }
        }
    }
    Ok(wishes)
}

fn set(id: Option<&str>, limits: &Limits) -> Value {
    let mut out: Map<String, Value> = limits.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    if let Some(id) = id {
        out.insert("id".into(), json!(id));
    }
    Value::Object(out)
}

fn with_usage(id: &str, limits: &Limits, used: &Amounts) -> Value {
    let one = |(name, limit): (&String, &i64)| {
        let used = used.get(name).copied().unwrap_or(0);
        (name.clone(), json!({"limit": limit, "in_use": used, "reserved": 0}))
    };
    let mut out: Map<String, Value> = limits.iter().map(one).collect();
    out.insert("id".into(), json!(id));
    Value::Object(out)
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let project = call.param("project_id");
    call.authorize(&owned_by(project))?;
    let limits = limits(&svc.store, project).await?;
    if call.query.flag("usage")?.unwrap_or(false) {
        let used = usage(&svc.store, project).await?;
        return Ok(Response::ok(json!({"quota_set": with_usage(project, &limits, &used)})));
    }
    Ok(Response::ok(json!({"quota_set": set(Some(project), &limits)})))
}

async fn defaults(svc: Arc<Volumes>, call: Call) -> Reply {
    let project = call.param("project_id");
    call.authorize(&owned_by(project))?;
    let limits = limits(&svc.store, CLASS).await?;
    Ok(Response::ok(json!({"quota_set": set(Some(project), &limits)})))
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let project = call.param("project_id").to_owned();
    call.authorize(&owned_by(&project))?;
    let wishes = wishes(call.member("quota_set")?, &limits(&svc.store, &project).await?)?;
    let used = usage(&svc.store, &project).await?;
    for (name, limit) in &wishes {
        let used = used.get(name).copied().unwrap_or(0);
        if name != "per_volume_gigabytes" && u64::try_from(*limit).is_ok_and(|limit| limit < used) {
            return Err(Fault::bad_request(format!(
                "Quota {name} limit must be equal or greater than existing resources. Current usage is {used} and the requested limit is {limit}."
            )));
        }
    }
    svc.write((project.clone(), wishes), |tx, (project, wishes)| {
        Box::pin(async move { kept().set_in(tx, &project, &wishes).await })
    })
    .await?;
    Ok(Response::ok(json!({"quota_set": set(None, &limits(&svc.store, &project).await?)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let project = call.param("project_id").to_owned();
    call.authorize(&owned_by(&project))?;
    svc.write(project, |tx, project| Box::pin(async move { kept().clear_in(tx, &project).await })).await?;
    Ok(Response::empty(200))
}

/// Where a class's limits are kept: under a project id that no project has.
fn class_key(call: &Call) -> String {
    format!("class:{}", call.param("class"))
}

async fn class(svc: Arc<Volumes>, call: Call) -> Reply {
    let limits = limits(&svc.store, &class_key(&call)).await?;
    Ok(Response::ok(json!({"quota_class_set": set(Some(call.param("class")), &limits)})))
}

async fn class_update(svc: Arc<Volumes>, call: Call) -> Reply {
    let key = class_key(&call);
    let wishes = wishes(call.member("quota_class_set")?, &limits(&svc.store, &key).await?)?;
    svc.write((key.clone(), wishes), |tx, (key, wishes)| {
        Box::pin(async move { kept().set_in(tx, &key, &wishes).await })
    })
    .await?;
    Ok(Response::ok(json!({"quota_class_set": set(None, &limits(&svc.store, &key).await?)})))
}
