//! `/v2/info`
use crate::{
    Image,
    image::{ops, view::STORE},
    import,
};
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

async fn methods(_: Arc<Image>, _call: Call) -> Reply {
    Ok(Response::ok(
        json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": import::METHODS}}),
    ))
}

fn store() -> Value {
    json!({"id": STORE, "description": "Files of the scheduler", "default": "true"})
}

async fn stores(_: Arc<Image>, _call: Call) -> Reply {
    Ok(Response::ok(json!({"stores": [store()]})))
}

async fn detail(_: Arc<Image>, _call: Call) -> Reply {
    let mut one = store();
    one["type"] = json!("file");
    one["weight"] = json!(0);
    one["properties"] = json!({"chunk_size": crate::data::files::CHUNK, "thin_provisioning": false});
    Ok(Response::ok(json!({"stores": [one]})))
}

async fn usage(svc: Arc<Image>, call: Call) -> Reply {
    let used = ops::stored_by(&svc.store, call.ctx.project_id()).await?;
    let limit = svc.config.project_size_max.map_or(-1, |max| i64::try_from(max >> 20).unwrap_or(i64::MAX));
    Ok(Response::ok(json!({"usage": {"image_size_total": {"limit": limit, "usage": used >> 20}}})))
}
