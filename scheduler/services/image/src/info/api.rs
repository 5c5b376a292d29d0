//! `/v2/info`
use crate::{Image, quota, store::ImageStore};
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Image>> {
    let why = "says what the service offers, nothing of anyone's images";
    vec![
        Route::get("/v2/info/import", methods).authenticated(why).summary("Import methods"),
        Route::get("/v2/info/stores", stores).authenticated(why).summary("Stores"),
        Route::get("/v2/info/stores/detail", detail).rule("stores_info_detail").summary("Stores in detail"),
        Route::get("/v2/info/usage", usage)
            .authenticated("tells the caller's own project's usage")
            .summary("Usage and limits"),
    ]
}

async fn methods(svc: Arc<Image>, _call: Call) -> Reply {
    Ok(Response::ok(
        json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": svc.config.import.methods}}),
    ))
}

fn view(svc: &Image, store: &ImageStore) -> Value {
    let mut one = json!({"id": store.id});
    if let Some(description) = &store.description {
        one["description"] = json!(description);
    }
    if svc.stores.is_default(store) {
        one["default"] = json!("true");
    }
    if store.read_only {
        one["read-only"] = json!("true");
    }
    one
}

async fn stores(svc: Arc<Image>, _call: Call) -> Reply {
    let stores: Vec<Value> = svc.stores.all().map(|store| view(&svc, store)).collect();
    Ok(Response::ok(json!({"stores": stores})))
}

async fn detail(svc: Arc<Image>, _call: Call) -> Reply {
    let one = |store: &Arc<ImageStore>| {
        let mut one = view(&svc, store);
        one["type"] = json!(store.driver.kind());
        one["weight"] = json!(store.weight);
        one["properties"] = store.driver.properties();
        one
    };
    let stores: Vec<Value> = svc.stores.all().map(one).collect();
    Ok(Response::ok(json!({"stores": stores})))
}

async fn usage(svc: Arc<Image>, call: Call) -> Reply {
    let mut usage = json!({});
    for (name, limit, used) in quota::shown(&svc, call.ctx.project_id()).await? {
        usage[name] = json!({"limit": limit, "usage": used});
    }
    Ok(Response::ok(json!({"usage": usage})))
}
