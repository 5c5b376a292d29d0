//! `/resource_providers/{uuid}/inventories`
use super::{
    ops::{self, Change},
    view,
};
use crate::{
    Placement, fault, provider,
    version::{fresh, read},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const ALL: &str = "/resource_providers/{uuid}/inventories";
const ONE: &str = "/resource_providers/{uuid}/inventories/{resource_class}";

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        read(ALL, list).rule("placement:resource_providers:inventories:list").summary("List inventories"),
        Route::post(ALL, create)
            .rule("placement:resource_providers:inventories:create")
            .schema(&CREATE)
            .summary("Add an inventory"),
        Route::put(ALL, replace)
            .rule("placement:resource_providers:inventories:update")
            .schema(&REPLACE)
            .summary("Set all inventories"),
        Route::delete(ALL, clear)
            .rule("placement:resource_providers:inventories:delete")
            .since(1, 5)
            .summary("Delete all inventories"),
        read(ONE, show).rule("placement:resource_providers:inventories:show").summary("Show an inventory"),
        Route::put(ONE, update)
            .rule("placement:resource_providers:inventories:update")
            .schema(&UPDATE)
            .summary("Update an inventory"),
        Route::delete(ONE, delete)
            .rule("placement:resource_providers:inventories:delete")
            .summary("Delete an inventory"),
    ]
}

/// The members of one inventory. `required` beside `total`.
fn body(required: &[&str], class: bool) -> Value {
    let amount = |min: i64| json!({"type": "integer", "minimum": min, "maximum": 0x7fff_ffff_i64});
    let mut needs = vec!["total"];
    needs.extend(required);
    let mut schema = json!({"type": "object", "required": needs, "additionalProperties": false, "properties": {
        "resource_provider_generation": {"type": "integer"},
        "total": amount(1), "reserved": amount(0), "min_unit": amount(1), "max_unit": amount(1), "step_size": amount(1),
        "allocation_ratio": {"type": "number", "maximum": 3.40282e38},
    }});
    if class {
        schema["properties"]["resource_class"] = json!({"type": "string", "pattern": "^[A-Z0-9_]+$"});
    }
    schema
}

/// All inventories of a provider, as `PUT` and the reshaper take them.
pub(crate) fn replace_schema() -> Value {
    json!({"type": "object", "required": ["resource_provider_generation", "inventories"], "additionalProperties": false, "properties": {
        "resource_provider_generation": {"type": "integer"},
        "inventories": {"type": "object", "maxProperties": 1024, "additionalProperties": false, "patternProperties": {"^[A-Z0-9_]+$": body(&[], false)}},
    }})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body(&["resource_class"], true)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body(&["resource_provider_generation"], false)));
static REPLACE: LazyLock<Schema> = LazyLock::new(|| Schema::new(replace_schema));

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = provider::ops::get(&svc.store, call.param("uuid")).await?;
    Ok(fresh(&call, Response::ok(view::all(&stored)), stored.updated_us))
}

async fn create(svc: Arc<Placement>, call: Call) -> Reply {
    let uuid = call.param("uuid");
    provider::ops::get(&svc.store, uuid).await?;
    let class = call.member("resource_class")?.as_str().unwrap_or_default();
    let inventory = view::read("create", call.version, uuid, class, &call.body)?;
    let stored =
        ops::change(&svc.store, uuid, Change::Add(class.to_owned(), inventory.clone()), view::generation(&call.body))
            .await?;
    let response = Response::created(view::one_with_generation(&inventory, &stored))
        .header("location", call.url(&format!("/resource_providers/{uuid}/inventories/{class}")));
    Ok(fresh(&call, response, stored.updated_us))
}

/// What a body is measured against: the generation that the client knew comes first.
async fn at_generation(svc: &Placement, call: &Call, uuid: &str) -> Result<(), Fault> {
    let stored = provider::ops::get(&svc.store, uuid).await?;
    if view::generation(&call.body) == Some(stored.generation) { Ok(()) } else { Err(fault::generation_conflict()) }
}

async fn replace(svc: Arc<Placement>, call: Call) -> Reply {
    let uuid = call.param("uuid");
    at_generation(&svc, &call, uuid).await?;
    let (inventories, generation) = view::read_all(&call, uuid, &call.body)?;
    let stored = ops::change(&svc.store, uuid, Change::Replace(inventories), Some(generation)).await?;
    Ok(fresh(&call, Response::ok(view::all(&stored)), stored.updated_us))
}

async fn clear(svc: Arc<Placement>, call: Call) -> Reply {
    ops::change(&svc.store, call.param("uuid"), Change::Clear, None).await?;
    Ok(Response::no_content())
}

async fn show(svc: Arc<Placement>, call: Call) -> Reply {
    let (uuid, class) = (call.param("uuid"), call.param("resource_class"));
    let stored = provider::ops::get(&svc.store, uuid).await?;
    let inventory = stored
        .inventories
        .get(class)
        .ok_or_else(|| Fault::not_found(format!("No inventory of class {class} for {uuid}")))?;
    Ok(fresh(&call, Response::ok(view::one_with_generation(inventory, &stored)), stored.updated_us))
}

async fn update(svc: Arc<Placement>, call: Call) -> Reply {
    let (uuid, class) = (call.param("uuid"), call.param("resource_class"));
    at_generation(&svc, &call, uuid).await?;
    let inventory = view::read("update", call.version, uuid, class, &call.body)?;
    let stored = ops::change(
        &svc.store,
        uuid,
        Change::Update(class.to_owned(), inventory.clone()),
        view::generation(&call.body),
    )
    .await?;
    Ok(fresh(&call, Response::ok(view::one_with_generation(&inventory, &stored)), stored.updated_us))
}

async fn delete(svc: Arc<Placement>, call: Call) -> Reply {
    ops::change(&svc.store, call.param("uuid"), Change::Remove(call.param("resource_class").to_owned()), None).await?;
    Ok(Response::no_content())
}
