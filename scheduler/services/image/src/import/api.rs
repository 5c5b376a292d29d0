//! `/v2/images/{image_id}/import`
use super::{
    ops::{self, Asker, Order},
    request::{self, Method},
};
use crate::{Image, image};
use pilvi_kit::{Call, Reply, Response, Route, Schema};
use serde_json::json;
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
    let target = image::ops::target(&svc.store, &call.ctx, &stored).await?;
    // Copies need not be the owner's wish: a rule of their own says whose.
    let copies = call.body["method"]["name"] == Method::CopyImage.name();
    call.enforce(if copies { "copy_image" } else { call.rule() }, &target)?;
    let request = request::parse(&call.body, &svc.config.import.methods)?;
    let asker = Asker { ctx: call.ctx.clone(), token: call.header("x-auth-token").map(str::to_owned) };
    let order = Order { request, preferred: call.header("x-image-meta-store"), body: &call.body, shown: None };
    ops::begin(&svc, &asker, &stored.record, order).await?;
    Ok(Response::empty(202))
}
