//! `/v3/limits`: what one project or domain may have, instead of what is registered.
use super::{
    BATCH_MAX, check_ends_in,
    model::{self, LimitModel},
};
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types},
    directory::Area,
    fault, listing,
    tables::{Limit, Project, RegisteredLimit},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, auth::Scope, id};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn amount() -> Value {
    json!({"type": "integer", "minimum": -1, "maximum": 0x7FFF_FFFF_i64})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let item = json!({"type": "object", "additionalProperties": false, "required": ["service_id", "resource_name", "resource_limit"],
            "properties": {"project_id": types::id_or_null(), "domain_id": types::id_or_null(), "service_id": types::id(),
                "region_id": {"type": ["string", "null"], "maxLength": 255}, "resource_name": types::name(255), "resource_limit": amount(), "description": types::text_or_null()}});
        json!({"type": "object", "required": ["limits"], "properties": {"limits": {"type": "array", "minItems": 1, "maxItems": BATCH_MAX, "items": item}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| body_schema("limit", json!({"resource_limit": amount(), "description": types::text_or_null()}), &[]))
});

const FILTERS: &[&str] = &["service_id", "region_id", "resource_name", "project_id", "domain_id"];

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/limits/{limit_id}";
    vec![
        Route::get("/v3/limits", list).rule("identity:list_limits").summary("List limits"),
        Route::post("/v3/limits", create).rule("identity:create_limits").schema(&CREATE).summary("Create limits"),
        Route::get("/v3/limits/model", show_model)
            .rule("identity:get_limit_model")
            .summary("Show how limits are enforced"),
        Route::get(ONE, show).rule_by_handler("identity:get_limit").summary("Show a limit"),
        Route::patch(ONE, update).rule("identity:update_limit").schema(&UPDATE).summary("Change a limit"),
        Route::delete(ONE, delete).rule("identity:delete_limit").summary("Delete a limit"),
    ]
}

fn view(call: &Call, limit: &Limit) -> Value {
    json!({"id": limit.id, "project_id": limit.project_id, "domain_id": limit.domain_id, "service_id": limit.service_id, "region_id": limit.region_id,
        "resource_name": limit.resource_name, "resource_limit": limit.resource_limit, "description": limit.description,
        "links": listing::self_link(call, &format!("/v3/limits/{}", limit.id))})
}

async fn show_model(svc: Arc<Identity>, _call: Call) -> Reply {
    let model = svc.config.limit_model;
    Ok(Response::ok(json!({"model": {"name": model.name(), "description": model.description()}})))
}

/// What a limit is about, for the rule: its project with the domain of that, or its domain.
async fn about(svc: &Identity, limit: &Limit) -> Result<Value, Fault> {
    let mut out = json!({"project_id": limit.project_id, "domain_id": limit.domain_id});
    if let Some(id) = &limit.project_id {
        let domain = svc.directory.project(id).await?.and_then(|p| p.domain_id.clone());
        out["project"] = json!({"id": id, "domain_id": domain});
    }
    if let Some(id) = &limit.domain_id {
        out["domain"] = json!({ "id": id });
    }
    Ok(out)
}

/// May the caller see it in a list? Administrators and readers of the system see all, others their own.
async fn visible(svc: &Identity, call: &Call, limit: &Limit) -> Result<bool, Fault> {
    let caller = call.caller();
    if caller.has_role("admin") {
        return Ok(true);
    }
    Ok(match &caller.scope {
        Scope::System => true,
        Scope::Domain { id, .. } => {
            let about = about(svc, limit).await?;
            limit.domain_id.as_ref() == Some(id) || about["project"]["domain_id"].as_str() == Some(id)
        }
        Scope::Project { id, .. } => limit.project_id.as_ref() == Some(id),
        Scope::Unscoped => false,
    })
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let query = match listing::exact(&call, "project_id") {
        Some(project) => Limit::of_project(project),
        None => Query::all(),
    };
    let mut items = Vec::new();
    for limit in svc.store.list::<Limit>(query).await? {
        if visible(&svc, &call, &limit).await? {
            items.push(view(&call, &limit));
        }
    }
    listing::answer(&svc, &call, "limits", items, FILTERS)
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("limit_id");
    let found = svc.store.get::<Limit>(id).await?.map(|l| l.record);
    let member = match &found {
        Some(limit) => Some(about(&svc, limit).await?),
        None => None,
    };
    call.authorize(&target::about(&call, [("limit", member)]))?;
    let limit = found.ok_or_else(|| fault::missing("limit for", id))?;
    Ok(Response::ok(json!({"limit": view(&call, &limit)})))
}

fn of(item: &Value) -> Result<Limit, Fault> {
    let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    let limit = Limit {
        id: id::hex(),
        project_id: text("project_id"),
        domain_id: text("domain_id"),
        service_id: text("service_id").unwrap_or_default(),
        region_id: text("region_id"),
        resource_name: text("resource_name").unwrap_or_default(),
        resource_limit: item.get("resource_limit").and_then(Value::as_i64).unwrap_or_default(),
        description: text("description"),
    };
    if limit.project_id.is_some() == limit.domain_id.is_some() {
        return Err(Fault::bad_request("A limit is for either a project_id or a domain_id."));
    }
    Ok(limit)
}

/// What the limit is of must be registered, and the project or domain must be there, which is given back.
async fn check_in(tx: &mut Tx, limit: &mut Limit) -> Result<Project, Fault> {
    check_ends_in(tx, &limit.service_id, limit.region_id.as_deref()).await?;
    let known = tx.list::<RegisteredLimit>(Query::all().name(&limit.resource_name)).await?;
    if !known.iter().any(|r| r.service_id == limit.service_id && r.region_id == limit.region_id) {
        return Err(Fault::forbidden("Unable to create a limit that has no corresponding registered limit."));
    }
    let named = if limit.domain_id.is_some() { "domain_id" } else { "project_id" };
    let place = limit.project_id.as_ref().or(limit.domain_id.as_ref()).cloned().unwrap_or_default();
    let found = tx.get::<Project>(&place).await?.filter(|p| p.is_domain || limit.domain_id.is_none());
    let found = found.ok_or_else(|| fault::expecting(named, "limit"))?.record;
    if found.is_domain {
        // A domain is a project too: its limit is one of the domain, whichever way it is named.
        (limit.domain_id, limit.project_id) = (Some(place), None);
    }
    Ok(found)
}

/// The value in force for a domain: its own limit, or what is registered.
async fn of_domain_in(tx: &mut Tx, like: &Limit, domain: &str) -> Result<Option<i64>, Fault> {
    let own = tx.list::<Limit>(Limit::of_domain(domain)).await?;
    if let Some(own) = own.iter().find(|l| model::same_resource(l, like)) {
        return Ok(Some(own.resource_limit));
    }
    let registered = tx.list::<RegisteredLimit>(Query::all().name(&like.resource_name)).await?;
    let found = registered.iter().find(|r| r.service_id == like.service_id && r.region_id == like.region_id);
    Ok(found.map(|r| r.default_limit))
}

/// Does a limit fit among those that are there (itself stored already, with its siblings of one request)?
async fn check_model_in(tx: &mut Tx, model: LimitModel, limit: &Limit, place: &Project) -> Result<(), Fault> {
    if model == LimitModel::Flat {
        return Ok(());
    }
    if let Some(domain) = place.parent_id.as_ref().filter(|_| !place.is_domain) {
        let above = of_domain_in(tx, limit, domain).await?;
        return model::check(limit, above, &[]);
    }
    let mut below = Vec::new();
    for other in tx.list::<Limit>(Query::all().name(&limit.resource_name)).await? {
        let Some(project) = other.project_id.as_ref().filter(|_| model::same_resource(&other, limit)) else { continue };
        if tx.get::<Project>(project).await?.is_some_and(|p| p.domain_id.as_deref() == Some(place.id.as_str())) {
            below.push(other.resource_limit);
        }
    }
    model::check(limit, None, &below)
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = call.member("limits")?.as_array().into_iter().flatten().map(of).collect::<Result<Vec<_>, _>>()?;
    let model = svc.config.limit_model;
    let made = svc
        .write(Area::Quiet, move |tx| {
            let mut wanted = wanted.clone();
            Box::pin(async move {
                let mut places = Vec::with_capacity(wanted.len());
                for limit in &mut wanted {
                    places.push(check_in(tx, limit).await?);
                    tx.insert(&*limit).await.map_err(|e| match e {
                        pilvi_store::Error::Claimed { .. } => fault::duplicate("limit", "Duplicate entry"),
                        other => other.into(),
                    })?;
                }
                // After all are stored: a request may give a domain and its projects their limits at once.
                for (limit, place) in wanted.iter().zip(&places) {
                    check_model_in(tx, model, limit, place).await?;
                }
                Ok(wanted)
            })
        })
        .await?;
    Ok(Response::created(json!({"limits": made.iter().map(|l| view(&call, l)).collect::<Vec<_>>()})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("limit_id").to_owned(), Attributes::of(&call, "limit")?);
    let model = svc.config.limit_model;
    let limit = svc
        .write(Area::Quiet, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Limit>(&id).await?.ok_or_else(|| fault::missing("limit for", &id))?;
                stored.record.resource_limit =
                    wanted.0.get("resource_limit").and_then(Value::as_i64).unwrap_or(stored.resource_limit);
                if wanted.has("description") {
                    stored.record.description = wanted.text("description");
                }
                let limit = tx.update(&stored).await?.record;
                let place = limit.project_id.as_ref().or(limit.domain_id.as_ref()).cloned().unwrap_or_default();
                if let Some(place) = tx.get::<Project>(&place).await? {
                    check_model_in(tx, model, &limit, &place).await?;
                }
                Ok(limit)
            })
        })
        .await?;
    Ok(Response::ok(json!({"limit": view(&call, &limit)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("limit_id").to_owned();
    svc.write(Area::Quiet, move |tx| {
        let id = id.clone();
        Box::pin(
            async move { if tx.delete::<Limit>(&id).await? { Ok(()) } else { Err(fault::missing("limit for", &id)) } },
        )
    })
    .await?;
    Ok(Response::no_content())
}
