//! `/attachments` (3.27): how clients other than compute use volumes, and how everybody sees who does.
use super::{model::AttachStatus, ops};
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column},
    owned, route,
    schema::uuid,
    tables::{Attachment, Volume},
    version as v,
    volume::{
        api::text,
        attach_api::connection,
        filter::{named, of_projects},
        model::Status,
        ops::{self as volumes, sees},
    },
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by, clock};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const COMPLETE: &str = "volume:attachment_complete";

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/attachments/{attachment_id}";
    const READ: &str = "volume:get";
    let since = |route: Route<Volumes>| route.since(3, 27);
    vec![
        since(route::post("/v3/attachments", create).rule_by_handler("volume:attachment_create").schema(&CREATE)),
        since(route::get("/v3/attachments", list).rule("volume:get_all")),
        since(route::get("/v3/attachments/detail", detail).rule("volume:get_all")),
        since(route::get(ONE, show).rule_by_handler(READ)),
        since(route::put(ONE, update).rule_by_handler("volume:attachment_update").schema(&UPDATE)),
        since(route::delete(ONE, delete).rule_by_handler("volume:attachment_delete")),
        route::post("/v3/attachments/{attachment_id}/action", complete)
            .rule_by_handler(COMPLETE)
            .actions(&[("os-complete", COMPLETE)])
            .since(3, 44),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["attachment"], "additionalProperties": false, "properties": {
            "attachment": {"type": "object", "required": ["volume_uuid"], "additionalProperties": false, "properties": {
                "instance_uuid": uuid(), "connector": {"type": ["object", "null"]}, "volume_uuid": uuid(),
                "mode": {"enum": ["rw", "ro"]}}}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["attachment"], "additionalProperties": false, "properties": {
            "attachment": {"type": "object", "required": ["connector"], "additionalProperties": false, "properties": {
                "connector": {"type": "object", "minProperties": 1}}}}})
    })
});

fn brief(attachment: &Attachment) -> Value {
    json!({"id": attachment.id, "status": attachment.status.as_str(), "instance": attachment.server_id,
        "volume_id": attachment.volume_id})
}

fn full(attachment: &Attachment, volume: Option<&Volume>) -> Value {
    let mut view = brief(attachment);
    view["attached_at"] = json!(attachment.attached_us.map(clock::micros).unwrap_or_default());
    view["detached_at"] = json!("");
    view["attach_mode"] = json!(attachment.mode);
    let connected = attachment.status != AttachStatus::Reserved;
    view["connection_info"] = match volume.filter(|_| connected) {
        Some(volume) => {
            let way = connection(volume, &attachment.mode);
            let mut info = way["data"].clone();
            info["driver_volume_type"] = way["driver_volume_type"].clone();
            info["attachment_id"] = json!(attachment.id);
            info
        }
        None => json!({}),
    };
    view
}

async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Attachment>, Fault> {
    owned::of_path(svc, call, "attachment_id", fault::no_attachment).await
}

async fn answer(svc: &Volumes, attachment: &Stored<Attachment>) -> Reply {
    let volume = svc.store.get::<Volume>(&attachment.volume_id).await?;
    Ok(Response::ok(json!({"attachment": full(attachment, volume.as_ref().map(|v| &v.record))})))
}

/// Takes what a client says of itself: from then on it may reach the volume.
fn connect(attachment: &mut Attachment, connector: &Value) {
    attachment.status = AttachStatus::Attaching;
    attachment.host = text(connector, &["host"]);
    attachment.device = text(connector, &["mountpoint"]).or(attachment.device.take());
    if let Some(mode) = text(connector, &["mode"]).filter(|m| matches!(m.as_str(), "rw" | "ro")) {
        attachment.mode = mode;
    }
    attachment.connector = connector.clone();
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("attachment")?.clone();
    let volume_id = text(&body, &["volume_uuid"]).unwrap_or_default();
    let volume = svc.store.get::<Volume>(&volume_id).await?.filter(|v| sees(&call.ctx, &v.project_id));
    call.authorize(&owned_by(volume.as_ref().map_or(call.ctx.project_id(), |v| &v.project_id)))?;
    let volume = volume.ok_or_else(|| fault::no_volume(&volume_id))?;
    if volume.multiattach && volume.bootable && volume.status == Status::InUse {
        call.enforce("volume:multiattach_bootable_volume", &owned_by(&volume.project_id))?;
    }
    let mode = if call.version >= v::ATTACH_MODE { text(&body, &["mode"]) } else { None };
    let connector = body.get("connector").filter(|c| c.is_object()).cloned();
    let with = (call.ctx.clone(), volume_id, text(&body, &["instance_uuid"]), mode, connector);
    let made = svc
        .write(with, |tx, (ctx, volume_id, server, mode, connector)| {
            Box::pin(async move {
                let volume = volumes::visible_in(tx, &ctx, &volume_id).await?;
                ops::check_free_in(tx, &volume, server.as_deref(), false).await?;
                let mut attachment = ops::reserved(&volume, server);
                let unsaid = if volume.read_only == Some(true) { "ro" } else { "null" };
                attachment.mode = mode.unwrap_or_else(|| unsaid.into());
                if let Some(connector) = connector {
                    connect(&mut attachment, &connector);
                }
                let made = tx.insert(&attachment).await?;
                ops::rest_in(tx, &volume_id).await?;
                Ok(made)
            })
        })
        .await?;
    answer(&svc, &made).await
}

const KEYS: &[&str] = &["id", "created_at", "updated_at", "volume_id", "attach_status", "instance_uuid"];
const SORTED: Sorted<Attachment> = Sorted {
    column: |key| match key {
        "volume_id" => Some("volume_id"),
        "attach_status" => Some("state"),
        "instance_uuid" => Some("server_id"),
        _ => common_column(key),
    },
    key: |attachment, _| json!(attachment.record.id),
};
pub const FILTERS: &[&str] = &["volume_id", "status", "instance_id", "attach_status"];

async fn page(svc: &Volumes, call: &Call, detailed: bool) -> Reply {
    let (listing, mut query, mut possible) = (Listing::of(call, KEYS)?, of_projects(call), true);
    for (key, wish) in named(call, FILTERS, FILTERS)? {
        query = match key {
            "all_tenants" => query,
            "volume_id" | "id" => query.eq(key, wish),
            "status" | "attach_status" => query.state(wish),
            "instance_id" | "instance_uuid" => query.eq("server_id", wish),
            "project_id" => query.project(wish),
            _ => {
                possible = false;
                query
            }
        };
    }
    let keep = |a: &Stored<Attachment>| possible && sees(&call.ctx, &a.project_id);
    let (found, more) = listing.select(&svc.store, query, SORTED, keep, fault::no_attachment).await?;
    let ids = if detailed { found.iter().map(|a| a.volume_id.clone()).collect() } else { Vec::new() };
    let volumes = svc.store.list::<Volume>(Query::all().ids(ids)).await?;
    let volume_of = |a: &Attachment| volumes.iter().find(|v| v.record.id == a.volume_id).map(|v| &v.record);
    let shown = found.iter().map(|a| if detailed { full(a, volume_of(a)) } else { brief(a) }).collect();
    Ok(Response::ok(listing.document(call, "attachments", shown, &found, more)))
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, false).await
}

async fn detail(svc: Arc<Volumes>, call: Call) -> Reply {
    page(&svc, &call, true).await
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let attachment = owned(&svc, &call).await?;
    answer(&svc, &attachment).await
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let attachment = owned(&svc, &call).await?;
    let connector = call.member("attachment")?["connector"].clone();
    let changed = svc
        .write((attachment.record.id.clone(), connector, call.ctx.clone()), |tx, (id, connector, ctx)| {
            Box::pin(async move {
                let mut attachment = ops::get_in(tx, &id).await?;
                let volume = volumes::get_in(tx, &attachment.volume_id).await?;
                if volume.status.is_error() {
                    return Err(Fault::conflict(format!(
                        "ResourceConflict: Volume attachments can not be updated if the volume is in an error state. The Volume {} currently has a status of: {} ",
                        volume.record.id,
                        volume.status.as_str()
                    )));
                }
                ops::check_unmanaged(&ctx, &attachment)?;
                let others = ops::of_in(tx, &volume.record.id).await?;
                if !volume.multiattach && others.iter().any(|o| o.record.id != id && !o.connector.is_null()) {
                    return Err(Fault::conflict(format!(
                        "ResourceConflict: duplicate connectors detected on volume {}",
                        volume.record.id
                    )));
                }
                connect(&mut attachment.record, &connector);
                let changed = tx.update(&attachment).await?;
                ops::rest_in(tx, &changed.volume_id).await?;
                Ok(changed)
            })
        })
        .await?;
    answer(&svc, &changed).await
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let attachment = owned(&svc, &call).await?;
    ops::check_unmanaged(&call.ctx, &attachment)?;
    let with = (attachment.record.id.clone(), attachment.volume_id.clone());
    let left = svc
        .write(with, |tx, (id, volume_id)| {
            Box::pin(async move {
                ops::detach_in(tx, &id, false).await?;
                ops::of_in(tx, &volume_id).await
            })
        })
        .await?;
    let left: Vec<Value> = left.iter().map(|a| brief(a)).collect();
    Ok(Response::ok(json!({"attachments": left})))
}

async fn complete(svc: Arc<Volumes>, call: Call) -> Reply {
    if call.body.get("os-complete").is_none() {
        return Err(Fault::bad_request("There is no such action."));
    }
    let attachment = owned(&svc, &call).await?;
    svc.write(attachment.record.id.clone(), |tx, id| {
        Box::pin(async move {
            let mut attachment = ops::get_in(tx, &id).await?;
            attachment.record.status = AttachStatus::Attached;
            attachment.record.attached_us = attachment.attached_us.or(Some(clock::now_us()));
            let volume_id = attachment.volume_id.clone();
            tx.update(&attachment).await?;
            ops::rest_in(tx, &volume_id).await
        })
    })
    .await?;
    Ok(Response::no_content())
}
