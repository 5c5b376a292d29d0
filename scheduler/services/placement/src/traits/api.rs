//! `/traits` and `/resource_providers/{uuid}/traits`
use super::{model, ops, view};
use crate::{
    Placement, fault,
    provider::{self, model::Provider},
    version::{fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema, clock};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        read("/traits", list).rule("placement:traits:list").since(1, 6).summary("List traits"),
        Route::get("/traits/{name}", show)
            .rule("placement:traits:show")
            .since(1, 6)
            .summary("Show whether a trait exists"),
        Route::put("/traits/{name}", ensure)
            .rule("placement:traits:update")
            .since(1, 6)
            .summary("Create a trait unless it exists"),
        Route::delete("/traits/{name}", delete).rule("placement:traits:delete").since(1, 6).summary("Delete a trait"),
        read("/resource_providers/{uuid}/traits", of_provider)
            .rule("placement:resource_providers:traits:list")
            .since(1, 6)
            .summary("List a provider's traits"),
        Route::put("/resource_providers/{uuid}/traits", set)
            .rule("placement:resource_providers:traits:update")
            .schema(&SET)
            .since(1, 6)
            .summary("Set a provider's traits"),
        Route::delete("/resource_providers/{uuid}/traits", clear)
            .rule("placement:resource_providers:traits:delete")
            .since(1, 6)
            .summary("Remove a provider's traits"),
    ]
}

static SET: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["traits", "resource_provider_generation"], "additionalProperties": false,
        "properties": {
            "traits": {"type": "array", "maxItems": 4096, "items": {"type": "string", "minLength": 1, "maxLength": 255}},
            "resource_provider_generation": {"type": "integer"}}})
    })
});

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    fault::only_keys(&call, |key| matches!(key, "name" | "associated"))?;
    let (names, associated) = (view::names(&call)?, view::associated(&call)?);
    let custom = ops::custom(&svc.store).await?;
    let in_use = if associated.is_some() { ops::in_use(&svc.store).await? } else { BTreeSet::new() };
    let standard: Vec<&str> = model::standard().collect();
    let found: Vec<&str> = standard
        .iter()
        .copied()
        .chain(custom.iter().map(|t| t.name.as_str()))
        .filter(|name| names.holds(name) && associated.is_none_or(|wanted| in_use.contains(*name) == wanted))
        .collect();
    let modified = custom.iter().map(|t| t.updated_us).max().unwrap_or_else(clock::now_us);
    Ok(fresh(&call, Response::ok(json!({"traits": found})), modified))
}

async fn show(svc: Arc<Placement>, call: Call) -> Reply {
    let name = call.param("name");
    if !ops::exists(&svc.store, name).await? {
        return Err(ops::unknown(name));
    }
    Ok(fresh(&call, Response::no_content(), clock::now_us()))
}

async fn ensure(svc: Arc<Placement>, call: Call) -> Reply {
    let name = call.param("name");
    let made = ops::ensure(&svc.store, name).await?;
    let response =
        Response::empty(if made { 201 } else { 204 }).header("location", call.url(&format!("/traits/{name}")));
    Ok(fresh(&call, response, clock::now_us()))
}

async fn delete(svc: Arc<Placement>, call: Call) -> Reply {
    ops::delete(&svc.store, call.param("name")).await?;
    Ok(Response::no_content())
}

fn answer(call: &Call, stored: &Stored<Provider>) -> Response {
    let body: Value = json!({"traits": stored.traits, "resource_provider_generation": stored.generation});
    fresh(call, Response::ok(body), stored.updated_us)
}

async fn of_provider(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = provider::ops::get(&svc.store, call.param("uuid")).await?;
    Ok(answer(&call, &stored))
}

async fn set(svc: Arc<Placement>, call: Call) -> Reply {
    let (traits, generation) = view::wanted(&call.body);
    let stored = ops::set(&svc.store, call.param("uuid"), traits, Some(generation)).await?;
    Ok(answer(&call, &stored))
}

async fn clear(svc: Arc<Placement>, call: Call) -> Reply {
    ops::set(&svc.store, call.param("uuid"), BTreeSet::new(), None).await?;
    Ok(Response::no_content())
}
