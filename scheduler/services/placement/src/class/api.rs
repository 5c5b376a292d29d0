//! `/resource_classes`
use super::{model::STANDARD, ops, view};
use crate::{
    Placement,
    version::{fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema, clock};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        read("/resource_classes", list)
            .rule("placement:resource_classes:list")
            .since(1, 2)
            .summary("List resource classes"),
        Route::post("/resource_classes", create)
            .rule("placement:resource_classes:create")
            .schema(&NAME)
            .since(1, 2)
            .summary("Create a resource class"),
        read("/resource_classes/{name}", show)
            .rule("placement:resource_classes:show")
            .since(1, 2)
            .summary("Show a resource class"),
        Route::put("/resource_classes/{name}", rename)
            .rule("placement:resource_classes:update")
            .schema(&NAME)
            .since(1, 2)
            .until(1, 6)
            .summary("Rename a resource class"),
        Route::put("/resource_classes/{name}", ensure)
            .rule("placement:resource_classes:update")
            .since(1, 7)
            .summary("Create a resource class unless it exists"),
        Route::delete("/resource_classes/{name}", delete)
            .rule("placement:resource_classes:delete")
            .since(1, 2)
            .summary("Delete a resource class"),
    ]
}

static NAME: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "pattern": "^CUSTOM_[A-Z0-9_]+$", "maxLength": 255}}})
    })
});

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    let custom = ops::custom(&svc.store).await?;
    let names = STANDARD.iter().copied().chain(custom.iter().map(|c| c.name.as_str()));
    let items: Vec<Value> = names.map(view::one).collect();
    let modified = custom.iter().map(|c| c.updated_us).max().unwrap_or_else(clock::now_us);
    Ok(fresh(&call, Response::ok(json!({"resource_classes": items})), modified))
}

fn wanted_name(call: &Call) -> Result<&str, pilvi_kit::Fault> {
    Ok(call.member("name")?.as_str().unwrap_or_default())
}

fn location(call: &Call, name: &str) -> String {
    call.url(&format!("/resource_classes/{name}"))
}

async fn create(svc: Arc<Placement>, call: Call) -> Reply {
    let name = wanted_name(&call)?;
    ops::create(&svc.store, name).await?;
    Ok(Response::empty(201).header("location", location(&call, name)))
}

async fn show(svc: Arc<Placement>, call: Call) -> Reply {
    let name = call.param("name");
    if !ops::exists(&svc.store, name).await? {
        return Err(ops::unknown(name));
    }
    Ok(fresh(&call, Response::ok(view::one(name)), clock::now_us()))
}

async fn rename(svc: Arc<Placement>, call: Call) -> Reply {
    let name = wanted_name(&call)?;
    ops::rename(&svc.store, call.param("name"), name).await?;
    Ok(Response::ok(view::one(name)))
}

async fn ensure(svc: Arc<Placement>, call: Call) -> Reply {
    let name = call.param("name");
    let made = ops::ensure(&svc.store, name).await?;
    Ok(Response::empty(if made { 201 } else { 204 }).header("location", location(&call, name)))
}

async fn delete(svc: Arc<Placement>, call: Call) -> Reply {
    ops::delete(&svc.store, call.param("name")).await?;
    Ok(Response::no_content())
}
