//! `/v3/registered_limits`
use super::{BATCH_MAX, check_ends_in};
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types},
    directory::Area,
    fault, listing,
    tables::{Limit, RegisteredLimit},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn properties() -> Value {
    json!({"service_id": types::id(), "region_id": {"type": ["string", "null"], "maxLength": 255}, "resource_name": types::name(255),
        "default_limit": {"type": "integer", "minimum": -1, "maximum": 0x7FFF_FFFF_i64}, "description": types::text_or_null()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let item = json!({"type": "object", "properties": properties(), "required": ["service_id", "resource_name", "default_limit"], "additionalProperties": false});
        json!({"type": "object", "required": ["registered_limits"], "properties": {"registered_limits": {"type": "array", "minItems": 1, "maxItems": BATCH_MAX, "items": item}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("registered_limit", properties(), &[])));

const FILTERS: &[&str] = &["service_id", "region_id", "resource_name"];

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/registered_limits";
    const ONE: &str = "/v3/registered_limits/{registered_limit_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_registered_limits").summary("List registered limits"),
        Route::post(ALL, create).rule("identity:create_registered_limits").schema(&CREATE).summary("Register limits"),
        Route::get(ONE, show).rule("identity:get_registered_limit").summary("Show a registered limit"),
        Route::patch(ONE, update)
            .rule("identity:update_registered_limit")
            .schema(&UPDATE)
            .summary("Change a registered limit"),
        Route::delete(ONE, delete).rule("identity:delete_registered_limit").summary("Delete a registered limit"),
    ]
}

fn view(call: &Call, limit: &RegisteredLimit) -> Value {
    json!({"id": limit.id, "service_id": limit.service_id, "region_id": limit.region_id, "resource_name": limit.resource_name,
        "default_limit": limit.default_limit, "description": limit.description, "links": listing::self_link(call, &format!("/v3/registered_limits/{}", limit.id))})
}

fn missing(id: &str) -> Fault {
    fault::missing("registered limit for", id)
}

fn duplicate(error: pilvi_store::Error) -> Fault {
    match error {
        pilvi_store::Error::Claimed { .. } => fault::duplicate("registered_limit", "Duplicate entry"),
        other => other.into(),
    }
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let limits = svc.store.list::<RegisteredLimit>(Query::all()).await?;
    listing::answer(&svc, &call, "registered_limits", limits.iter().map(|l| view(&call, l)).collect(), FILTERS)
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("registered_limit_id");
    let limit = svc.store.get::<RegisteredLimit>(id).await?.ok_or_else(|| missing(id))?;
    Ok(Response::ok(json!({"registered_limit": view(&call, &limit)})))
}

fn of(item: &Value) -> RegisteredLimit {
    let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    RegisteredLimit {
        id: id::hex(),
        service_id: text("service_id").unwrap_or_default(),
        region_id: text("region_id"),
        resource_name: text("resource_name").unwrap_or_default(),
        default_limit: item.get("default_limit").and_then(Value::as_i64).unwrap_or_default(),
        description: text("description"),
    }
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted: Vec<RegisteredLimit> =
        call.member("registered_limits")?.as_array().into_iter().flatten().map(of).collect();
    let made = svc
        .write(Area::Quiet, move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move {
                for limit in &wanted {
                    check_ends_in(tx, &limit.service_id, limit.region_id.as_deref()).await?;
                    tx.insert(limit).await.map_err(duplicate)?;
                }
                Ok(wanted)
            })
        })
        .await?;
    Ok(Response::created(json!({"registered_limits": made.iter().map(|l| view(&call, l)).collect::<Vec<_>>()})))
}

/// A registered limit that own limits refer to stays as it is, but for its value.
async fn refuse_if_used_in(tx: &mut Tx, limit: &RegisteredLimit) -> Result<(), Fault> {
    let used = tx.list::<Limit>(Query::all().name(&limit.resource_name)).await?;
    if used.iter().any(|l| l.service_id == limit.service_id && l.region_id == limit.region_id) {
        return Err(Fault::forbidden(format!(
            "Unable to update or delete registered limit {} because there are project limits associated with it.",
            limit.id
        )));
    }
    Ok(())
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("registered_limit_id").to_owned(), Attributes::of(&call, "registered_limit")?);
    let limit = svc
        .write(Area::Quiet, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<RegisteredLimit>(&id).await?.ok_or_else(|| missing(&id))?;
                if ["service_id", "region_id", "resource_name"].iter().any(|name| wanted.has(name)) {
                    refuse_if_used_in(tx, &stored.record).await?;
                }
                let limit = &mut stored.record;
                limit.service_id = wanted.text("service_id").unwrap_or_else(|| limit.service_id.clone());
                if wanted.has("region_id") {
                    limit.region_id = wanted.text("region_id");
                }
                limit.resource_name = wanted.text("resource_name").unwrap_or_else(|| limit.resource_name.clone());
                limit.default_limit =
                    wanted.0.get("default_limit").and_then(Value::as_i64).unwrap_or(limit.default_limit);
                if wanted.has("description") {
                    limit.description = wanted.text("description");
                }
                check_ends_in(tx, &stored.service_id, stored.region_id.as_deref()).await?;
                Ok(tx.update(&stored).await.map_err(duplicate)?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"registered_limit": view(&call, &limit)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("registered_limit_id").to_owned();
    svc.write(Area::Quiet, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            let limit = tx.get::<RegisteredLimit>(&id).await?.ok_or_else(|| missing(&id))?;
            refuse_if_used_in(tx, &limit.record).await?;
            tx.delete::<RegisteredLimit>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
