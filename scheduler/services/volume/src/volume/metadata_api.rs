//! `/volumes/{id}/metadata` and `/volumes/{id}/encryption`.
use super::{action_api::check_metadata_may_change, api::owned, view};
use crate::{
    Volumes,
    metadata::{self, Change},
    route,
    tables::Volume,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::Stored;
use serde_json::json;
use std::sync::Arc;

pub fn routes() -> Vec<Route<Volumes>> {
    const ALL: &str = "/v3/volumes/{volume_id}/metadata";
    const ONE: &str = "/v3/volumes/{volume_id}/metadata/{key}";
    const ENCRYPTION: &str = "/v3/volumes/{volume_id}/encryption";
    vec![
        route::get(ALL, list).rule_by_handler("volume:get_volume_metadata"),
        route::post(ALL, add).rule_by_handler("volume:create_volume_metadata").schema(&metadata::ALL),
        route::put(ALL, replace).rule_by_handler("volume:update_volume_metadata").schema(&metadata::ALL),
        route::get(ONE, show).rule_by_handler("volume:get_volume_metadata"),
        route::put(ONE, set).rule_by_handler("volume:update_volume_metadata").schema(&metadata::ONE),
        route::delete(ONE, remove).rule_by_handler("volume:delete_volume_metadata"),
        route::get(ENCRYPTION, encryption).rule_by_handler("volume_extension:volume_encryption_metadata"),
        route::get("/v3/volumes/{volume_id}/encryption/{key}", encryption_of)
            .rule_by_handler("volume_extension:volume_encryption_metadata"),
    ]
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"metadata": view::metadata(&volume)})))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = owned(&svc, &call).await?;
    Ok(Response::ok(metadata::shown(&view::metadata(&volume), call.param("key"))?))
}

async fn change(svc: &Volumes, call: &Call, change: Change) -> Result<Stored<Volume>, Fault> {
    let volume = owned(svc, call).await?;
    let doing = if matches!(change, Change::Remove(_)) { "Deleting" } else { "Updating" };
    svc.change(&call.ctx, &volume.record.id, move |volume| {
        check_metadata_may_change(volume, doing)?;
        change.apply(&mut volume.metadata)
    })
    .await
}

async fn add(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = change(&svc, &call, Change::all(&call, false)?).await?;
    Ok(Response::ok(json!({"metadata": volume.metadata})))
}

async fn replace(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = change(&svc, &call, Change::all(&call, true)?).await?;
    Ok(Response::ok(json!({"metadata": volume.metadata})))
}

async fn set(svc: Arc<Volumes>, call: Call) -> Reply {
    let volume = change(&svc, &call, Change::one(&call)?).await?;
    Ok(Response::ok(metadata::shown(&volume.metadata, call.param("key"))?))
}

async fn remove(svc: Arc<Volumes>, call: Call) -> Reply {
    change(&svc, &call, Change::Remove(call.param("key").to_owned())).await?;
    Ok(Response::empty(200))
}

/// No volume is encrypted.
async fn encryption(svc: Arc<Volumes>, call: Call) -> Reply {
    owned(&svc, &call).await?;
    Ok(Response::ok(json!({"encryption_key_id": null})))
}

async fn encryption_of(svc: Arc<Volumes>, call: Call) -> Reply {
    owned(&svc, &call).await?;
    match call.param("key") {
        "encryption_key_id" => Ok(Response::ok(serde_json::Value::Null)),
        key => Err(Fault::not_found(format!("The volume has no encryption item {key}."))),
    }
}
