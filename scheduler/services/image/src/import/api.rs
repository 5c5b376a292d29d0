//! `/v2/images/{image_id}/import`
use super::{METHODS, ops, view};
use crate::{Image, image};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::post("/v2/images/{image_id}/import", import)
            .rule_by_handler("modify_image")
            .schema(&IMPORT)
            .summary("Import an image's data"),
    ]
}

static IMPORT: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["method"], "properties": {
            "method": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            "stores": {"type": "array", "maxItems": 64, "items": {"type": "string"}},
            "all_stores": {"type": "boolean"}, "all_stores_must_succeed": {"type": "boolean"}}})
    })
});

async fn import(svc: Arc<Image>, call: Call) -> Reply {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    let method = call.body["method"]["name"].as_str().unwrap_or_default();
    if !METHODS.contains(&method) {
        return Err(Fault::bad_request(format!("Unknown import method name '{method}'.")));
    }
    let stores = call.body["stores"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut stores = stores.map(|id| svc.stores.to_write(Some(id))).collect::<Result<Vec<_>, Fault>>()?;
    if stores.is_empty() {
        stores.push(svc.stores.to_write(call.header("x-image-meta-store"))?);
    }
    if method == "glance-download" {
        let source = view::source(&call.body["method"])?;
        ops::downloaded(&svc, &call.ctx, &stored.record.id, source, &call.body).await?;
        return Ok(Response::empty(202));
    }
    if stored.disk_format.is_none() || stored.container_format.is_none() {
        return Err(Fault::bad_request("'disk_format' and 'container_format' need to be set before import"));
    }
    ops::staged(&svc, &call.ctx, &stored.record.id, stores, &call.body).await?;
    Ok(Response::empty(202))
}
