//! `/os-volumes` and `/os-snapshots`, as clients from before microversion 2.36 have them: the volume service's own, said in
//! compute's words.
use super::api::window;
use crate::{Compute, network::api::OLD, server::schema::boolean};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema, clock};
use pilvi_store::{Query, Record, Stored};
use pilvi_volume::{
    snapshot::{model::SnapshotStatus, ops as snapshots},
    tables::{Attachment, Snapshot, Volume, VolumeType},
    volume::{
        create::{NewVolume, Source, create_in},
        ops as volumes,
    },
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

pub fn routes() -> Vec<Route<Compute>> {
    const V: &str = "os_compute_api:os-volumes:";
    // Rule names live as long as the process: they are made once, at start.
    let rule = |name: &str| -> &'static str { Box::leak(format!("{V}{name}").into_boxed_str()) };
    let mut routes = vec![
        Route::get("/v2.1/os-volumes", list).rule(rule("list")),
        Route::post("/v2.1/os-volumes", create).rule(rule("create")).schema(&CREATE),
        Route::get("/v2.1/os-volumes/detail", list).rule(rule("detail")),
        Route::get("/v2.1/os-volumes/{volume_id}", show).rule(rule("show")),
        Route::delete("/v2.1/os-volumes/{volume_id}", delete).rule(rule("delete")),
        Route::get("/v2.1/os-snapshots", list_snapshots).rule(rule("snapshots:list")),
        Route::post("/v2.1/os-snapshots", create_snapshot).rule(rule("snapshots:create")).schema(&SNAPSHOT),
        Route::get("/v2.1/os-snapshots/detail", list_snapshots).rule(rule("snapshots:detail")),
        Route::get("/v2.1/os-snapshots/{snapshot_id}", show_snapshot).rule(rule("snapshots:show")),
        Route::delete("/v2.1/os-snapshots/{snapshot_id}", delete_snapshot).rule(rule("snapshots:delete")),
    ];
    for route in &mut routes {
        route.versions.1 = OLD;
    }
    routes
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["volume"], "additionalProperties": false, "properties": {"volume": {
            "type": "object", "required": ["size"], "properties": {
                "size": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]+$", "minLength": 1}]},
                "display_name": {"type": ["string", "null"], "maxLength": 255},
                "display_description": {"type": ["string", "null"]},
                "volume_type": {"type": ["string", "null"]}, "metadata": {"type": ["object", "null"]},
                "snapshot_id": {"type": ["string", "null"]}, "availability_zone": {"type": ["string", "null"]}}}}})
    })
});
static SNAPSHOT: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["snapshot"], "additionalProperties": false, "properties": {"snapshot": {
            "type": "object", "required": ["volume_id"], "properties": {
                "volume_id": {"type": "string", "minLength": 1}, "force": boolean(),
                "display_name": {"type": ["string", "null"], "maxLength": 255},
                "display_description": {"type": ["string", "null"]}}}}})
    })
});

fn text(body: &Value, key: &str) -> Option<String> {
    body.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn mine(ctx: &Ctx) -> Query {
    Query::all().project(ctx.project_id())
}

async fn views(svc: &Compute, found: &[Stored<Volume>]) -> Result<Vec<Value>, Fault> {
    let types: HashMap<String, String> = svc
        .store
        .list::<VolumeType>(Query::all())
        .await?
        .into_iter()
        .map(|t| (t.record.id.clone(), t.record.name))
        .collect();
    let mut attached: HashMap<String, Vec<Value>> = HashMap::new();
    let ids = found.iter().map(|volume| volume.record.id.clone());
    for held in svc.store.list::<Attachment>(Query::all().one_of("volume_id", ids)).await? {
        if held.server_id.is_some() {
            let id = held.volume_id.clone();
            let shown = json!({"id": id, "volumeId": id, "serverId": held.server_id, "device": held.device});
            attached.entry(id).or_default().push(shown);
        }
    }
    let mut shown = Vec::new();
    for volume in found {
        let attachments = attached.remove(&volume.record.id).unwrap_or_else(|| vec![json!({})]);
        shown.push(json!({
            "id": volume.record.id, "status": volume.status.as_str(), "size": volume.size_gib,
            "availabilityZone": volume.zone, "createdAt": clock::micros(volume.created_us), "attachments": attachments,
            "displayName": volume.record.name, "displayDescription": volume.description,
            "volumeType": types.get(&volume.volume_type), "snapshotId": volume.snapshot_id, "metadata": volume.metadata,
        }));
    }
    Ok(shown)
}

fn snapshot_view(snapshot: &Stored<Snapshot>) -> Value {
    json!({"id": snapshot.record.id, "volumeId": snapshot.volume_id, "status": snapshot.status.as_str(),
        "size": snapshot.size_gib, "createdAt": clock::micros(snapshot.created_us),
        "displayName": snapshot.record.name, "displayDescription": snapshot.description})
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let mut found = svc.store.list::<Volume>(mine(&call.ctx)).await?;
    found.sort_by_key(|volume| std::cmp::Reverse(volume.created_us));
    Ok(Response::ok(json!({"volumes": views(&svc, &window(&call, found)?).await?})))
}

async fn volume_of(svc: &Compute, call: &Call) -> Result<Stored<Volume>, Fault> {
    let id = call.param("volume_id");
    let missing = |_| Fault::not_found(format!("Volume {id} could not be found."));
    volumes::visible(&svc.store, &call.ctx, id).await.map_err(missing)
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let volume = volume_of(&svc, &call).await?;
    Ok(Response::ok(json!({"volume": views(&svc, std::slice::from_ref(&volume)).await?[0]})))
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("volume")?.clone();
    let size = body["size"].as_u64().or_else(|| body["size"].as_str().and_then(|s| s.parse().ok())).unwrap_or(0);
    if size == 0 {
        return Err(Fault::bad_request("Invalid input for field/attribute size. Value must be greater than zero."));
    }
    let new = NewVolume {
        name: text(&body, "display_name"),
        description: text(&body, "display_description"),
        size_gib: size,
        source: text(&body, "snapshot_id").map_or(Source::Blank, Source::Snapshot),
        volume_type: text(&body, "volume_type").filter(|name| !name.is_empty()),
        zone: text(&body, "availability_zone").filter(|zone| !zone.is_empty()),
        metadata: crate::server::api::strings(body.get("metadata")),
        ..NewVolume::default()
    };
    let (service, ctx) = (svc.volumes.clone(), call.ctx.clone());
    let made = svc
        .store
        .write(move |tx| {
            let (service, ctx, new) = (service.clone(), ctx.clone(), new.clone());
            Box::pin(async move { create_in(tx, &service, &ctx, new).await })
        })
        .await?;
    Ok(Response::ok(json!({"volume": views(&svc, std::slice::from_ref(&made)).await?[0]})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let id = volume_of(&svc, &call).await?.record.id;
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let volume = volumes::get_in(tx, &id).await?;
                volumes::begin_delete_in(tx, volume, volumes::Deletion { cascade: false, force: false }).await
            })
        })
        .await?;
    Ok(Response::empty(202))
}

async fn list_snapshots(svc: Arc<Compute>, call: Call) -> Reply {
    let mut found = svc.store.list::<Snapshot>(mine(&call.ctx)).await?;
    found.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.created_us));
    let shown: Vec<Value> = window(&call, found)?.iter().map(snapshot_view).collect();
    Ok(Response::ok(json!({"snapshots": shown})))
}

async fn snapshot_of(svc: &Compute, call: &Call) -> Result<Stored<Snapshot>, Fault> {
    let id = call.param("snapshot_id");
    let missing = |_| Fault::not_found(format!("Snapshot {id} could not be found."));
    snapshots::visible(&svc.store, &call.ctx, id).await.map_err(missing)
}

async fn show_snapshot(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"snapshot": snapshot_view(&snapshot_of(&svc, &call).await?)})))
}

async fn create_snapshot(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("snapshot")?.clone();
    let volume_id = text(&body, "volume_id").unwrap_or_default();
    let missing = |_| Fault::not_found(format!("Volume {volume_id} could not be found."));
    volumes::visible(&svc.store, &call.ctx, &volume_id).await.map_err(missing)?;
    let new = snapshots::NewSnapshot {
        volume_id,
        name: text(&body, "display_name"),
        description: text(&body, "display_description"),
        force: body.get("force").is_some_and(crate::server::api::truth),
        ..snapshots::NewSnapshot::default()
    };
    let ctx = call.ctx.clone();
    let made = svc
        .store
        .write(move |tx| {
            let (ctx, new) = (ctx.clone(), new.clone());
            Box::pin(async move { snapshots::take_in(tx, &ctx, new).await })
        })
        .await?;
    Ok(Response::ok(json!({"snapshot": snapshot_view(&made)})))
}

async fn delete_snapshot(svc: Arc<Compute>, call: Call) -> Reply {
    let id = snapshot_of(&svc, &call).await?.record.id().to_owned();
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let known = tx.get::<Snapshot>(&id).await?;
                let fits = known.is_some_and(|s| matches!(s.status, SnapshotStatus::Available | SnapshotStatus::Error));
                if !fits {
                    return Err(Fault::bad_request("Invalid snapshot: its status must be available or error."));
                }
                snapshots::delete_in(tx, &Ctx::internal(), &id).await
            })
        })
        .await?;
    Ok(Response::empty(202))
}
