//! `/snapshots/{id}/metadata`.
use super::api::owned;
use crate::{
    Volumes,
    metadata::{self, Change},
    route,
    tables::Snapshot,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::Stored;
use serde_json::json;
use std::sync::Arc;

pub fn routes() -> Vec<Route<Volumes>> {
    const ALL: &str = "/v3/snapshots/{snapshot_id}/metadata";
    const ONE: &str = "/v3/snapshots/{snapshot_id}/metadata/{key}";
    vec![
        route::get(ALL, list).rule_by_handler("volume:get_snapshot_metadata"),
        route::post(ALL, add).rule_by_handler("volume:update_snapshot_metadata").schema(&metadata::ALL),
        route::put(ALL, replace).rule_by_handler("volume:update_snapshot_metadata").schema(&metadata::ALL),
        route::get(ONE, show).rule_by_handler("volume:get_snapshot_metadata"),
        route::put(ONE, set).rule_by_handler("volume:update_snapshot_metadata").schema(&metadata::ONE),
        route::delete(ONE, remove).rule_by_handler("volume:delete_snapshot_metadata"),
    ]
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"metadata": snapshot.metadata})))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = owned(&svc, &call).await?;
    Ok(Response::ok(metadata::shown(&snapshot.metadata, call.param("key"))?))
}

async fn change(svc: &Volumes, call: &Call, change: Change) -> Result<Stored<Snapshot>, Fault> {
    let snapshot = owned(svc, call).await?;
    svc.change_snapshot(&snapshot.record.id, move |snapshot| change.apply(&mut snapshot.metadata)).await
}

async fn add(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = change(&svc, &call, Change::all(&call, false)?).await?;
    Ok(Response::ok(json!({"metadata": snapshot.metadata})))
}

async fn replace(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = change(&svc, &call, Change::all(&call, true)?).await?;
    Ok(Response::ok(json!({"metadata": snapshot.metadata})))
}

async fn set(svc: Arc<Volumes>, call: Call) -> Reply {
    let snapshot = change(&svc, &call, Change::one(&call)?).await?;
    Ok(Response::ok(metadata::shown(&snapshot.metadata, call.param("key"))?))
}

async fn remove(svc: Arc<Volumes>, call: Call) -> Reply {
    change(&svc, &call, Change::Remove(call.param("key").to_owned())).await?;
    Ok(Response::empty(200))
}
