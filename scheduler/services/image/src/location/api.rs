//! `/v2/images/{image_id}/locations`
use super::{ops, view};
use crate::{Image, image};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const PATH: &str = "/v2/images/{image_id}/locations";

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get(PATH, list).rule_by_handler("fetch_image_location").summary("List an image's locations"),
        Route::post(PATH, add)
            .rule_by_handler("add_image_location")
            .schema(&ADD)
            .summary("Give an image the bytes of a location"),
    ]
}

static ADD: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["url"], "additionalProperties": false, "properties": {
            "url": {"type": "string", "minLength": 1, "maxLength": view::URL_MAX},
            "validation_data": {"type": ["object", "null"], "additionalProperties": false, "properties": {
                "os_hash_algo": {"type": "string", "maxLength": 64},
                "os_hash_value": {"type": "string", "maxLength": 128}}}}})
    })
});

async fn list(svc: Arc<Image>, call: Call) -> Reply {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    Ok(Response::ok(Value::Array(view::all(&svc, &stored))))
}

async fn add(svc: Arc<Image>, call: Call) -> Reply {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    let url = call.member("url")?.as_str().unwrap_or_default();
    let is_service = call.caller().has_role("service") || call.caller().service_roles.iter().any(|r| r == "service");
    // People name what anyone may read, not what is in the cloud's own buckets.
    if !is_service && !ops::resolve(&svc, url)?.0.read_only {
        return Err(Fault::forbidden("Only services of this cloud may name objects of this store."));
    }
    let validation = call.body.get("validation_data").cloned().unwrap_or(json!({}));
    let expected = view::expected(Some(&validation))?;
    ops::start(&svc, &call.ctx, &stored, url, expected, validation).await?;
    Ok(Response::empty(202))
}
