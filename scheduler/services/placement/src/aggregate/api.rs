//! `/resource_providers/{uuid}/aggregates`
use super::{ops, view};
use crate::{
    Placement, provider,
    version::{fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema, clock};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const PATH: &str = "/resource_providers/{uuid}/aggregates";

pub fn routes() -> Vec<Route<Placement>> {
    vec![
        read(PATH, list)
            .rule("placement:resource_providers:aggregates:list")
            .since(1, 1)
            .summary("List a provider's aggregates"),
        Route::put(PATH, set)
            .rule("placement:resource_providers:aggregates:update")
            .schema(&LIST)
            .since(1, 1)
            .until(1, 18)
            .summary("Set a provider's aggregates"),
        Route::put(PATH, set)
            .rule("placement:resource_providers:aggregates:update")
            .schema(&OBJECT)
            .since(1, 19)
            .summary("Set a provider's aggregates"),
    ]
}

fn list_schema() -> Value {
    json!({"type": "array", "uniqueItems": true, "maxItems": 4096, "items": {"type": "string"}})
}

static LIST: LazyLock<Schema> = LazyLock::new(|| Schema::new(list_schema));
static OBJECT: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["aggregates", "resource_provider_generation"], "additionalProperties": false,
        "properties": {"aggregates": list_schema(), "resource_provider_generation": {"type": "integer"}}})
    })
});

async fn list(svc: Arc<Placement>, call: Call) -> Reply {
    let stored = provider::ops::get(&svc.store, call.param("uuid")).await?;
    Ok(fresh(&call, Response::ok(view::answer(&call, &stored)), clock::now_us()))
}

async fn set(svc: Arc<Placement>, call: Call) -> Reply {
    let (aggregates, generation) = view::wanted(&call)?;
    let stored = ops::set(&svc.store, call.param("uuid"), aggregates, generation).await?;
    Ok(fresh(&call, Response::ok(view::answer(&call, &stored)), stored.updated_us))
}
