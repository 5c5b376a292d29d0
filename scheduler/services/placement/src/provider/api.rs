//! `/resource_providers`
use super::{ops, view};
use crate::{
    Placement,
    version::{self, fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema, clock};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Placement>> {
    let trees = version::TREES;
    vec![
        read("/resource_providers", list).rule("placement:resource_providers:list").summary("List resource providers"),
        Route::post("/resource_providers", create)
            .rule("placement:resource_providers:create")
            .schema(&CREATE)
            .until(1, 13)
            .summary("Create a resource provider"),
        Route::post("/resource_providers", create)
            .rule("placement:resource_providers:create")
            .schema(&CREATE_TREE)
            .since(trees.0, trees.1)
            .summary("Create a resource provider"),
        read("/resource_providers/{uuid}", show)
            .rule("placement:resource_providers:show")
            .summary("Show a resource provider"),
        Route::put("/resource_providers/{uuid}", update)
            .rule("placement:resource_providers:update")
            .schema(&UPDATE)
            .until(1, 13)
            .summary("Rename a resource provider"),
        Route::put("/resource_providers/{uuid}", update)
            .rule("placement:resource_providers:update")
            .schema(&UPDATE_TREE)
            .since(trees.0, trees.1)
            .summary("Rename or move a resource provider"),
        Route::delete("/resource_providers/{uuid}", delete)
            .rule("placement:resource_providers:delete")
            .summary("Delete a resource provider"),
    ]
}

fn body(with_uuid: bool, with_parent: bool) -> Value {
    let mut schema = json!({"type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "maxLength": 200}}});
    if with_uuid {
        schema["properties"]["uuid"] = json!({"type": "string"});
    }
    if with_parent {
        schema["properties"]["parent_provider_uuid"] = json!({"type": ["string", "null"]});
    }
    schema
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body(true, false)));
static CREATE_TREE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body(true, true)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body(false, false)));
static UPDATE_TREE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body(false, true)));

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    let filter = view::filter(&call)?;
    crate::candidate::ops::check_names(&svc.store, [&filter.group].into_iter()).await?;
    let found = ops::matching(&svc, &filter).await?;
    let modified = found.iter().map(|p| p.updated_us).max().unwrap_or_else(clock::now_us);
    let items: Vec<Value> = found.iter().map(|p| view::listed(&call, p)).collect();
    Ok(fresh(&call, Response::ok(json!({"resource_providers": items})), modified))
}

async fn create(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = ops::create(&svc.store, view::new(&call)?).await?;
    let location = call.url(&format!("/resource_providers/{}", stored.uuid));
    if view::create_answers(&call) {
        let response = Response::ok(view::one(&call, &stored)).header("location", location);
        return Ok(fresh(&call, response, stored.updated_us));
    }
    Ok(Response::empty(201).header("location", location))
}

async fn show(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = ops::get(&svc.store, call.param("uuid")).await?;
    Ok(fresh(&call, Response::ok(view::one(&call, &stored)), stored.updated_us))
}

async fn update(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = ops::update(&svc.store, call.param("uuid"), view::change(&call)?).await?;
    Ok(fresh(&call, Response::ok(view::one(&call, &stored)), stored.updated_us))
}

async fn delete(svc: Arc<Placement>, call: Call) -> Reply {
    ops::delete(&svc.store, call.param("uuid")).await?;
    Ok(Response::no_content())
}
