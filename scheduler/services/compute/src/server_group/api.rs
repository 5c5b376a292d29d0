//! `/os-server-groups`
use crate::{
    Compute, fault,
    tables::{Server, ServerGroup},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by, id};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["server_group"], "additionalProperties": false, "properties": {
        "server_group": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"},
            "policies": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "string",
                "enum": ["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]}},
            "policy": {"type": "string", "enum": ["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]},
            "rules": {"type": "object", "additionalProperties": false,
                "properties": {"max_server_per_host": {"type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+$"}}},
        }}}})
    })
});

pub fn routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/os-server-groups";
    const ONE: &str = "/v2.1/os-server-groups/{id}";
    vec![
        Route::get(ALL, list).rule("os_compute_api:os-server-groups:index"),
        Route::post(ALL, create).rule("os_compute_api:os-server-groups:create").schema(&CREATE),
        Route::get(ONE, show).rule_by_handler("os_compute_api:os-server-groups:show"),
        Route::delete(ONE, delete).rule_by_handler("os_compute_api:os-server-groups:delete"),
    ]
}

async fn view(svc: &Compute, call: &Call, group: &Stored<ServerGroup>) -> Result<Value, Fault> {
    let servers = svc.store.list::<Server>(Query::all().project(&group.project_id).eq("alive", 1)).await?;
    let members: Vec<&str> =
        servers.iter().filter(|s| s.group.as_deref() == Some(&group.record.id)).map(|s| s.record.id.as_str()).collect();
    let mut out = json!({"id": group.record.id, "name": group.record.name, "members": members});
    if call.at_least(2, 64) {
        out["policy"] = json!(group.policy);
        out["rules"] = group.max_server_per_host.map_or(json!({}), |n| json!({"max_server_per_host": n}));
    } else {
        out["policies"] = json!([group.policy]);
        out["metadata"] = json!({});
    }
    if call.at_least(2, 13) {
        out["project_id"] = json!(group.project_id);
        out["user_id"] = json!(group.user_id);
    }
    Ok(out)
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let all = call.query.has("all_projects")
        && call.may("os_compute_api:os-server-groups:index:all_projects", &call.target());
    let query = if all { Query::all() } else { Query::all().project(call.ctx.project_id()) };
    let groups = svc.store.list::<ServerGroup>(query).await?;
    let number = |key: &str| -> Result<Option<usize>, Fault> {
        let bad = |_| Fault::bad_request(format!("Invalid input for query parameters {key}."));
        call.query.get(key).map(|t| t.parse().map_err(bad)).transpose()
    };
    let (skip, take) = (number("offset")?.unwrap_or(0), number("limit")?.unwrap_or(1000).min(1000));
    let mut out = Vec::new();
    for group in groups.iter().skip(skip).take(take) {
        out.push(view(&svc, &call, group).await?);
    }
    Ok(Response::ok(json!({"server_groups": out})))
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("server_group")?;
    let policy = if call.at_least(2, 64) { &body["policy"] } else { &body["policies"][0] };
    let policy = policy
        .as_str()
        .ok_or_else(|| Fault::bad_request("Invalid input for field/attribute server_group. A policy is required"))?;
    let most = &body["rules"]["max_server_per_host"];
    let most = most.as_u64().or_else(|| most.as_str().and_then(|s| s.parse().ok())).and_then(|n| u32::try_from(n).ok());
    if most.is_some() && policy != "anti-affinity" {
        return Err(Fault::bad_request("Only anti-affinity policy supports rules."));
    }
    let group = ServerGroup {
        id: id::new(),
        project_id: call.ctx.project_id().to_owned(),
        user_id: call.ctx.user_id().to_owned(),
        name: body["name"].as_str().unwrap_or_default().trim().to_owned(),
        policy: policy.to_owned(),
        max_server_per_host: most,
    };
    let limit = svc.quotas.limits(&svc.store, &group.project_id).await?.get("server_groups").copied().unwrap_or(-1);
    let made = svc
        .store
        .write(move |tx| {
            let group = group.clone();
            Box::pin(async move {
                let used = tx.count::<ServerGroup>(Query::all().project(&group.project_id)).await?;
                match u64::try_from(limit) {
                    Ok(limit) if used >= limit => {
                        Err(fault::over_quota("server_groups", 1, used, i64::try_from(limit).unwrap_or(-1)))
                    }
                    _ => Ok::<_, Fault>(tx.insert(&group).await?),
                }
            })
        })
        .await?;
    Ok(Response::ok(json!({"server_group": view(&svc, &call, &made).await?})))
}

async fn found(svc: &Compute, call: &Call) -> Result<Stored<ServerGroup>, Fault> {
    let id = call.param("id");
    let missing = || Fault::not_found(format!("Instance group {id} could not be found."));
    let group = svc.store.get::<ServerGroup>(id).await?;
    let allowed = call.authorize(&owned_by(group.as_ref().map_or(call.ctx.project_id(), |g| g.project_id.as_str())));
    let group = group.ok_or_else(missing)?;
    match allowed {
        Err(_) if group.project_id != call.ctx.project_id() => Err(missing()),
        outcome => outcome.map(|()| group),
    }
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let group = found(&svc, &call).await?;
    Ok(Response::ok(json!({"server_group": view(&svc, &call, &group).await?})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let id = found(&svc, &call).await?.record.id;
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.delete::<ServerGroup>(&id).await?) })
        })
        .await?;
    Ok(Response::no_content())
}
