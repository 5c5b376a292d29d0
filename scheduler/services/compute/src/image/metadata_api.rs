//! `/images/{id}/metadata`: the properties of an image, as text.
use super::api::{found, metadata, refuse_foreign};
use crate::{Compute, server::api::strings};
use pilvi_image::image::{model::Image, ops};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, version::Version};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// The last microversion that has these.
const LAST: Version = Version(2, 38);
/// Properties that one image may have.
const ITEMS_MAX: usize = 128;

pub fn routes() -> Vec<Route<Compute>> {
    const WHY: &str = "the image service decides about each image";
    const ALL: &str = "/v2.1/images/{image_id}/metadata";
    const ONE: &str = "/v2.1/images/{image_id}/metadata/{key}";
    let mut routes = vec![
        Route::get(ALL, all).authenticated(WHY),
        Route::post(ALL, add).authenticated(WHY).schema(&METADATA),
        Route::put(ALL, replace).authenticated(WHY).schema(&METADATA),
        Route::get(ONE, one).authenticated(WHY),
        Route::put(ONE, set).authenticated(WHY).schema(&ITEM),
        Route::delete(ONE, remove).authenticated(WHY),
    ];
    for route in &mut routes {
        route.versions.1 = LAST;
    }
    routes
}

fn items(least: u8, most: usize) -> Value {
    json!({"type": "object", "minProperties": least, "maxProperties": most, "additionalProperties": false,
        "patternProperties": {"^.{1,255}$": {"type": "string", "maxLength": 255}}})
}

static METADATA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["metadata"], "additionalProperties": false,
            "properties": {"metadata": items(0, ITEMS_MAX)}})
    })
});

static ITEM: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["meta"], "additionalProperties": false, "properties": {"meta": items(1, 1)}}),
    )
});

/// Changes the properties of an image that is the caller's.
async fn change(
    svc: &Compute,
    call: &Call,
    change: impl Fn(&mut Image) -> Result<(), Fault> + Clone + Send + Sync + 'static,
) -> Result<Value, Fault> {
    let image = found(svc, call).await?;
    refuse_foreign(call, &image)?;
    let changed = ops::change(&svc.store, &image.record.id, move |i| {
        change(i)?;
        if i.properties.len() > ITEMS_MAX {
            return Err(Fault::forbidden(format!("An image has at most {ITEMS_MAX} metadata items.")));
        }
        Ok(())
    })
    .await?;
    Ok(Value::Object(metadata(&changed)))
}

async fn all(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"metadata": metadata(&found(&svc, &call).await?.record)})))
}

async fn add(svc: Arc<Compute>, call: Call) -> Reply {
    let new = strings(call.body.get("metadata"));
    let shown = change(&svc, &call, move |i| {
        i.properties.extend(new.clone().into_iter().map(|(k, v)| (k, Some(v))));
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"metadata": shown})))
}

async fn replace(svc: Arc<Compute>, call: Call) -> Reply {
    let new = strings(call.body.get("metadata"));
    let shown = change(&svc, &call, move |i| {
        i.properties = new.clone().into_iter().map(|(k, v)| (k, Some(v))).collect();
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"metadata": shown})))
}

fn no_item() -> Fault {
    Fault::not_found("Metadata item was not found")
}

async fn one(svc: Arc<Compute>, call: Call) -> Reply {
    let image = found(&svc, &call).await?;
    let key = call.param("key");
    let value = image.properties.get(key).ok_or_else(no_item)?;
    Ok(Response::ok(json!({"meta": {key: value.clone().unwrap_or_default()}})))
}

async fn set(svc: Arc<Compute>, call: Call) -> Reply {
    let (key, new) = (call.param("key").to_owned(), strings(call.body.get("meta")));
    let Some(value) = new.get(&key).cloned() else {
        return Err(Fault::bad_request("Request body and URI mismatch"));
    };
    change(&svc, &call, move |i| {
        i.properties.insert(key.clone(), Some(value.clone()));
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"meta": new})))
}

async fn remove(svc: Arc<Compute>, call: Call) -> Reply {
    let key = call.param("key").to_owned();
    change(&svc, &call, move |i| i.properties.remove(&key).map(|_| ()).ok_or_else(no_item)).await?;
    Ok(Response::no_content())
}
