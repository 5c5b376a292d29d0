//! The verbs that make another volume of a volume: larger, of another type, of an image anew, as it once was.
use super::{
    api::{number, text, truth},
    image,
    model::Status,
    ops,
};
use crate::{
    Volumes, fault,
    host::backend,
    quota,
    snapshot::model::SnapshotStatus,
    tables::{Snapshot, Volume, VolumeType},
    version as v,
    volume_type::ops as types,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, call::owned_by};
use pilvi_store::{Query, Stored, Tx};
use serde_json::Value;

pub async fn extend(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let size = number(given.get("new_size")).unwrap_or(0);
    let in_use = call.version >= v::EXTEND_IN_USE && volume.status == Status::InUse;
    if in_use {
        call.enforce("volume:extend_attached_volume", &owned_by(&volume.project_id))?;
    }
    svc.write((volume.record.id.clone(), size, in_use, call.ctx.clone()), |tx, (id, size, in_use, ctx)| {
        Box::pin(async move { ops::extend_in(tx, &ctx, &id, size, in_use).await })
    })
    .await?;
    Ok(Response::empty(202))
}

/// All types lie in the same files: a volume of another type stays where it is.
pub async fn retype(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let wish = text(given, &["new_type"]).unwrap_or_default();
    let may_share = call.may("volume:multiattach", &owned_by(&volume.project_id));
    let with = (volume.record.id.clone(), wish, call.ctx.clone(), may_share, svc.config.keep_messages_us);
    svc.write(with, |tx, (id, wish, ctx, may_share, keep_us)| {
        Box::pin(async move { retype_in(tx, &ctx, &id, (&wish, may_share), keep_us).await })
    })
    .await?;
    Ok(Response::empty(202))
}

async fn retype_in(
    tx: &mut Tx,
    ctx: &Ctx,
    id: &str,
    (wish, may_share): (&str, bool),
    keep_us: i64,
) -> Result<(), Fault> {
    let mut volume = ops::visible_in(tx, ctx, id).await?;
    let wanted = types::find_in(tx, wish).await?;
    let shared = types::multiattach(&wanted);
    if shared != volume.multiattach && volume.status != Status::Available {
        return Err(fault::invalid_input(format!(
            "Invalid volume_type passed, retypes affecting multiattach are only allowed on available volumes, the specified volume however currently has a status of: {}.",
            volume.status.as_str()
        )));
    }
    if shared && !may_share {
        return Err(Fault::forbidden("").with("rule", "volume:multiattach"));
    }
    let old = tx.get::<VolumeType>(&volume.volume_type).await?;
    let promises = old.as_ref().and_then(|t| t.qos_id.clone()) != wanted.qos_id;
    let fits = matches!(volume.status, Status::Available | Status::InUse)
        && volume.group_id.is_none()
        && volume.volume_type != wanted.record.id
        && !(promises && volume.status == Status::InUse);
    if !fits || volume.wanted.delete {
        return Err(fault::invalid_volume(
            "Retype needs volume to be in available or in-use state, not be part of an active migration or a consistency group, requested type has to be different that the one from the volume, and for in-use volumes front-end qos specs cannot change.",
        ));
    }
    if !backend::fits(&wanted.extra_specs) {
        let about = crate::message::ops::About {
            project_id: &volume.project_id,
            request_id: &ctx.request_id,
            kind: "VOLUME",
            id,
        };
        use crate::message::ops::{NO_BACKEND, PLACE, tell_in};
        return tell_in(tx, keep_us, about, PLACE, NO_BACKEND).await;
    }
    let mut more = quota::asked("volumes", 1, volume.size_gib, &wanted.name);
    // The volume is there already: only what is counted by type grows.
    more.retain(|name, _| name.ends_with(&format!("_{}", wanted.name)));
    quota::check_in(tx, &volume.project_id, &more).await?;
    for mut snapshot in tx.list::<Snapshot>(Query::all().eq("volume_id", id)).await? {
        snapshot.record.volume_type = wanted.record.id.clone();
        tx.update(&snapshot).await?;
    }
    (volume.record.volume_type, volume.record.multiattach) = (wanted.record.id, shared);
    tx.update(&volume).await?;
    Ok(())
}

pub async fn reimage(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let reserved = truth(given.get("reimage_reserved"));
    if volume.status == Status::Reserved {
        call.enforce("volume:reimage_reserved", &owned_by(&volume.project_id))?;
    }
    let image_id = text(given, &["image_id"]).unwrap_or_default();
    let found = image::named(&svc.store, &call.ctx, &image_id).await?;
    image::check(&found, volume.size_gib)?;
    let (file, metadata, request_id) = (image::file(&found)?, image::metadata(&found), call.ctx.request_id.clone());
    let begin = move |volume: &mut Volume| {
        let fits = matches!(volume.status, Status::Available | Status::Error)
            || (reserved && volume.status == Status::Reserved);
        if !fits || volume.wanted.delete || volume.host.is_none() {
            let wanted = if reserved { "available, error or reserved" } else { "available or error" };
            return Err(fault::invalid_volume(format!(
                "Volume {} status must be {wanted}, but current status is {}.",
                volume.id,
                volume.status.as_str()
            )));
        }
        (volume.previous_status, volume.status) = (Some(volume.status), Status::Downloading);
        (volume.image, volume.image_metadata) = (Some(file.clone()), metadata.clone());
        volume.bootable = true;
        volume.wanted.reimages += 1;
        volume.wanted.generation += 1;
        volume.request_id.clone_from(&request_id);
        Ok(())
    };
    svc.change(&call.ctx, &volume.record.id, begin).await?;
    Ok(Response::empty(202))
}

pub async fn revert(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let wish = given.get("snapshot_id").and_then(Value::as_str).map(str::to_owned);
    let with = (volume.record.id.clone(), wish, call.ctx.clone());
    svc.write(with, |tx, (id, wish, ctx)| Box::pin(async move { revert_in(tx, &ctx, &id, wish.as_deref()).await }))
        .await?;
    Ok(Response::empty(202))
}

async fn revert_in(tx: &mut Tx, ctx: &Ctx, id: &str, wish: Option<&str>) -> Result<(), Fault> {
    let mut volume = ops::visible_in(tx, ctx, id).await?;
    let mut all = tx.list::<Snapshot>(Query::all().eq("volume_id", id)).await?;
    all.sort_by_key(|s| s.created_us);
    let Some(mut newest) = all.into_iter().rfind(|s| !s.delete) else {
        return Err(Fault::bad_request(format!("Volume {id} doesn't have any snapshots.")));
    };
    if wish != Some(newest.record.id.as_str()) {
        return Err(Fault::bad_request(format!(
            "Specified snapshot {} is None or not the latest one of volume {id}.",
            wish.unwrap_or("None")
        )));
    }
    if volume.size_gib != newest.size_gib {
        return Err(Fault::bad_request(format!(
            "Can't revert volume {id} to its latest snapshot {}. The volume size must be equal to the snapshot size.",
            newest.record.id
        )));
    }
    let stands = |what: &str| {
        Fault::conflict(format!(
            "Invalid {}: Can't revert volume {id} to its latest snapshot {}. {what}'s status must be 'available'.",
            what.to_lowercase(),
            wish.unwrap_or_default()
        ))
    };
    if volume.status != Status::Available {
        return Err(stands("Volume"));
    }
    if newest.status != SnapshotStatus::Available {
        return Err(stands("Snapshot"));
    }
    newest.record.status = SnapshotStatus::Restoring;
    let record = &mut volume.record;
    (record.previous_status, record.status) = (Some(record.status), Status::Reverting);
    record.wanted.revert_to = Some(newest.record.id.clone());
    record.wanted.reverts += 1;
    record.wanted.generation += 1;
    record.request_id.clone_from(&ctx.request_id);
    tx.update(&newest).await?;
    tx.update(&volume).await?;
    Ok(())
}
