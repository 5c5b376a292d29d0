//! `POST /volumes/{id}/action`: the verbs that a project's members have. Those of administrators are in [`super::admin_api`].
use super::{
    admin_api,
    api::{number, owned, strings, text, truth},
    image,
    model::Status,
    ops, upload,
};
use crate::{
    Volumes,
    attachment::{model::AttachStatus, ops as attachments},
    fault,
    host::backend,
    quota, route,
    schema::{action, flag, size, text as text_or_null, uuid, uuid_or_null},
    snapshot::model::SnapshotStatus,
    tables::{Attachment, Snapshot, Volume, VolumeType},
    version as v,
    volume_type::ops as types,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema, call::owned_by, clock};
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const ACTION: &str = "volume_extension:volume_actions:attach";

/// Verbs and their rules.
const VERBS: &[(&str, &str)] = &[
    ("os-attach", ACTION),
    ("os-detach", "volume_extension:volume_actions:detach"),
    ("os-reserve", "volume_extension:volume_actions:reserve"),
    ("os-unreserve", "volume_extension:volume_actions:unreserve"),
    ("os-begin_detaching", "volume_extension:volume_actions:begin_detaching"),
    ("os-roll_detaching", "volume_extension:volume_actions:roll_detaching"),
    ("os-initialize_connection", "volume_extension:volume_actions:initialize_connection"),
    ("os-terminate_connection", "volume_extension:volume_actions:terminate_connection"),
    ("os-volume_upload_image", "volume_extension:volume_actions:upload_image"),
    ("os-extend", "volume:extend"),
    ("os-update_readonly_flag", "volume:update_readonly_flag"),
    ("os-retype", "volume:retype"),
    ("os-set_bootable", "volume:update"),
    ("os-reimage", "volume:reimage"),
    ("revert", "volume:revert_to_snapshot"),
    ("os-set_image_metadata", "volume_extension:volume_image_metadata:set"),
    ("os-unset_image_metadata", "volume_extension:volume_image_metadata:remove"),
    ("os-show_image_metadata", "volume:get_volume_metadata"),
    ("os-reset_status", "volume_extension:volume_admin_actions:reset_status"),
    ("os-force_delete", "volume_extension:volume_admin_actions:force_delete"),
    ("os-force_detach", "volume_extension:volume_admin_actions:force_detach"),
    ("os-migrate_volume", "volume_extension:volume_admin_actions:migrate_volume"),
    ("os-migrate_volume_completion", "volume_extension:volume_admin_actions:migrate_volume_completion"),
    ("os-extend_volume_completion", "volume_extension:volume_admin_actions:extend_volume_completion"),
    ("os-unmanage", "volume_extension:volume_unmanage"),
];

pub fn routes() -> Vec<Route<Volumes>> {
    vec![
        route::post("/v3/volumes/{volume_id}/action", act)
            .rule_by_handler(ACTION)
            .actions(VERBS)
            .summary("Do something with a volume"),
    ]
}

macro_rules! schemas {
    ($($name:ident = $verb:literal, $members:expr, $required:expr;)+) => {
        $(static $name: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| action($verb, $members, &$required)));)+
        const SCHEMAS: &[(&str, &LazyLock<Schema>)] = &[$(($verb, &$name)),+];
    };
}
schemas! {
    ATTACH = "os-attach", json!({"instance_uuid": uuid(), "mountpoint": {"type": "string", "minLength": 1, "maxLength": 255},
        "host_name": {"type": "string", "maxLength": 255}, "mode": {"enum": ["rw", "ro"]}}), ["mountpoint"];
    INITIALIZE = "os-initialize_connection", json!({"connector": {"type": ["object", "string"]}}), ["connector"];
    TERMINATE = "os-terminate_connection", json!({"connector": {"type": ["object", "string", "null"]}}), ["connector"];
    EXTEND = "os-extend", json!({"new_size": size()}), ["new_size"];
    READ_ONLY = "os-update_readonly_flag", json!({"readonly": flag()}), ["readonly"];
    RETYPE = "os-retype", json!({"new_type": {"type": "string", "minLength": 1, "maxLength": 255},
        "migration_policy": {"enum": ["on-demand", "never", null]}}), ["new_type"];
    BOOTABLE = "os-set_bootable", json!({"bootable": flag()}), ["bootable"];
    UPLOAD = "os-volume_upload_image", json!({"image_name": {"type": "string", "minLength": 1, "maxLength": 255},
        "force": flag(), "disk_format": {"enum": ["raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ploop"]},
        "container_format": text_or_null(), "visibility": {"enum": ["community", "public", "private", "shared"]},
        "protected": flag()}), ["image_name"];
    REIMAGE = "os-reimage", json!({"image_id": uuid(), "reimage_reserved": flag()}), ["image_id"];
    SET_IMAGE = "os-set_image_metadata", json!({"metadata": {"type": "object", "additionalProperties": false,
        "patternProperties": {r"^[a-zA-Z0-9\-_:. /]{1,255}$": {"type": "string", "maxLength": 65535}}}}), ["metadata"];
    UNSET_IMAGE = "os-unset_image_metadata", json!({"key": {"type": "string", "minLength": 1, "maxLength": 255}}), ["key"];
    FORCE_DETACH = "os-force_detach", json!({"connector": {"type": ["string", "object", "null"]},
        "attachment_id": {"type": ["string", "null"]}}), [];
    MIGRATE = "os-migrate_volume", json!({"host": text_or_null(), "force_host_copy": flag(), "lock_volume": flag(),
        "cluster": text_or_null()}), [];
    MIGRATED = "os-migrate_volume_completion", json!({"new_volume": uuid(), "error": {"type": ["string", "null", "boolean"]}}),
        ["new_volume"];
    EXTENDED = "os-extend_volume_completion", json!({"error": {"type": ["string", "null", "boolean"]}}), [];
    RESET = "os-reset_status", json!({"status": {"type": ["string", "null"]}, "attach_status": {"type": ["string", "null"]},
        "migration_status": {"type": ["string", "null"]}}), [];
}
static DETACH: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["os-detach"], "additionalProperties": false, "properties": {"os-detach": {
            "type": ["object", "null"], "properties": {"attachment_id": uuid_or_null()}, "additionalProperties": false}}})
    })
});

/// The verb and what it is given, checked.
fn verb(call: &Call) -> Result<(&'static str, &Value), Fault> {
    let members = call.body.as_object().filter(|o| o.len() == 1);
    let (name, given) = members
        .and_then(|o| o.iter().next())
        .ok_or_else(|| Fault::bad_request("Malformed request body: it must have one member, the name of an action"))?;
    let known = VERBS.iter().find(|(verb, _)| verb == name);
    let (verb, _) = known.ok_or_else(|| Fault::bad_request(format!("There is no such action: {name}")))?;
    let since = match *verb {
        "revert" => v::REVERT,
        "os-reimage" => v::REIMAGE,
        "os-extend_volume_completion" => v::EXTEND_COMPLETION,
        _ => v::MIN,
    };
    if call.version < since {
        return Err(Fault::not_found(format!("API version {} is not supported on this method.", call.version)));
    }
    if *verb == "os-detach" {
        DETACH.check(&call.body)?;
    }
    if let Some((_, schema)) = SCHEMAS.iter().find(|(name, _)| name == verb) {
        schema.check(&call.body)?;
    }
    Ok((verb, given))
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    let (verb, given) = verb(&call)?;
    let volume = owned(&svc, &call).await?;
    match verb {
        "os-attach" => attach(&svc, &call, &volume, given).await,
        "os-detach" => detach(&svc, &call, &volume, given).await,
        "os-reserve" => {
            svc.change(&call.ctx, &volume.record.id, reserve).await?;
            Ok(Response::empty(202))
        }
        "os-unreserve" => svc.rest(&volume.record.id, Status::Attaching).await,
        "os-begin_detaching" => {
            svc.write(volume.record.id.clone(), |tx, id| {
                Box::pin(async move { attachments::begin_detaching_in(tx, &id).await })
            })
            .await?;
            Ok(Response::empty(202))
        }
        "os-roll_detaching" => svc.rest(&volume.record.id, Status::Detaching).await,
        "os-initialize_connection" => initialize(&volume, given),
        "os-terminate_connection" => terminate(&svc, &call, &volume).await,
        "os-volume_upload_image" => upload::create(&svc, &call, &volume, given).await,
        "os-extend" => extend(&svc, &call, &volume, given).await,
        "os-update_readonly_flag" => read_only(&svc, &call, &volume, truth(given.get("readonly"))).await,
        "os-retype" => retype(&svc, &call, &volume, given).await,
        "os-set_bootable" => {
            let bootable = truth(given.get("bootable"));
            let set = move |volume: &mut Volume| {
                volume.bootable = bootable;
                Ok(())
            };
            svc.change(&call.ctx, &volume.record.id, set).await?;
            Ok(Response::empty(200))
        }
        "os-reimage" => reimage(&svc, &call, &volume, given).await,
        "revert" => revert(&svc, &call, &volume, given).await,
        "os-set_image_metadata" => set_image_metadata(&svc, &call, &volume, given).await,
        "os-unset_image_metadata" => unset_image_metadata(&svc, &call, &volume, given).await,
        "os-show_image_metadata" => Ok(Response::ok(json!({"metadata": volume.image_metadata}))),
        other => admin_api::act(&svc, &call, &volume, other, given).await,
    }
}

fn reserve(volume: &mut Volume) -> Result<(), Fault> {
    let fits = volume.status == Status::Available || (volume.multiattach && volume.status == Status::InUse);
    if !fits {
        let wanted = if volume.multiattach { "available or in-use" } else { "available" };
        return Err(fault::invalid_volume(format!(
            "Volume status must be {wanted} to reserve, but the status is {}.",
            volume.status.as_str()
        )));
    }
    volume.status = Status::Attaching;
    Ok(())
}

async fn attach(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let (server, host) = (text(given, &["instance_uuid"]), text(given, &["host_name"]));
    if server.is_none() && host.is_none() {
        return Err(Fault::bad_request(
            "Invalid input for field/attribute os-attach. 'instance_uuid' or 'host_name' is a required property",
        ));
    }
    let mode = text(given, &["mode"]).unwrap_or_else(|| "rw".into());
    if volume.read_only == Some(true) && mode != "ro" {
        return Err(fault::invalid_volume(format!("Invalid attaching mode '{mode}' for volume {}.", volume.record.id)));
    }
    let with = (volume.record.id.clone(), server, host, text(given, &["mountpoint"]), mode, call.ctx.clone());
    svc.write(with, |tx, (id, server, host, device, mode, ctx)| {
        Box::pin(async move {
            let mut volume = ops::visible_in(tx, &ctx, &id).await?;
            let fits = matches!(volume.status, Status::Available | Status::Attaching)
                || (volume.multiattach && volume.status == Status::InUse);
            if !fits || volume.wanted.delete {
                let wanted =
                    if volume.multiattach { "available, attaching or in-use" } else { "available or attaching" };
                return Err(fault::wrong_status("Volume", &id, wanted, "attach", volume.status.as_str()));
            }
            let attachment = Attachment {
                status: AttachStatus::Attached,
                device,
                mode,
                host,
                attached_us: Some(clock::now_us()),
                ..attachments::reserved(&volume, server)
            };
            tx.insert(&attachment).await?;
            volume.record.status = Status::InUse;
            volume.record.read_only = volume.read_only.or(Some(false));
            tx.update(&volume).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}

/// The one attachment that is meant; none where there is none at all.
pub async fn meant_in(
    tx: &mut Tx,
    ctx: &Ctx,
    volume: &Volume,
    named: Option<&str>,
) -> Result<Option<Stored<Attachment>>, Fault> {
    let mut all = attachments::of_in(tx, &volume.id).await?;
    if let Some(id) = named {
        all.retain(|a| a.record.id == id);
        if all.is_empty() {
            return Err(Fault::bad_request(format!(
                "Error detaching volume - VolumeAttachmentNotFound: Volume attachment could not be found with filter: attachment_id = {id}."
            )));
        }
    }
    if all.len() > 1 {
        return Err(fault::invalid_volume(format!(
            "Volume {} is attached to more than one instance. A valid attachment_id must be passed to detach this volume.",
            volume.id
        )));
    }
    if let Some(attachment) = all.first() {
        attachments::check_unmanaged(ctx, attachment)?;
    }
    Ok(all.pop())
}

async fn detach(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let named = text(given, &["attachment_id"]);
    svc.write((volume.record.id.clone(), named, call.ctx.clone()), |tx, (id, named, ctx)| {
        Box::pin(async move {
            let volume = ops::visible_in(tx, &ctx, &id).await?;
            if volume.status == Status::Maintenance {
                return Err(fault::invalid_volume("The volume cannot be detached in maintenance mode."));
            }
            if let Some(attachment) = meant_in(tx, &ctx, &volume, named.as_deref()).await? {
                attachments::detach_in(tx, &attachment.record.id, false).await?;
            }
            attachments::rest_in(tx, &id).await
        })
    })
    .await?;
    Ok(Response::empty(202))
}

impl Volumes {
    /// Back to what its attachments make of a volume that is in this state.
    async fn rest(&self, id: &str, from: Status) -> Reply {
        self.write((id.to_owned(), from), |tx, (id, from)| {
            Box::pin(async move {
                if ops::get_in(tx, &id).await?.status == from { attachments::rest_in(tx, &id).await } else { Ok(()) }
            })
        })
        .await?;
        Ok(Response::empty(202))
    }
}

/// What is said of the way to a volume: it is read and written by servers of this cloud alone, so there is no address.
pub fn connection(volume: &Volume, mode: &str) -> Value {
    json!({"driver_volume_type": backend::PROTOCOL, "data": {"volume_id": volume.id, "access_mode": mode,
        "encrypted": false, "qos_specs": null, "discard": true}})
}

fn initialize(volume: &Stored<Volume>, given: &Value) -> Reply {
    if volume.status == Status::Maintenance {
        return Err(fault::invalid_volume("The volume connection cannot be initialized in maintenance mode."));
    }
    let mode = if volume.read_only == Some(true) { "ro" } else { "rw" };
    let mut info = connection(volume, mode);
    info["enforce_multipath"] = json!(truth(given.get("connector").and_then(|c| c.get("enforce_multipath"))));
    Ok(Response::ok(json!({"connection_info": info})))
}

async fn terminate(svc: &Volumes, call: &Call, volume: &Stored<Volume>) -> Reply {
    svc.write((volume.record.id.clone(), call.ctx.clone()), |tx, (id, ctx)| {
        Box::pin(async move {
            let all = attachments::of_in(tx, &id).await?;
            all.iter().try_for_each(|a| attachments::check_unmanaged(&ctx, a))
        })
    })
    .await?;
    svc.rest(&volume.record.id, Status::Attaching).await
}

async fn extend(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
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

async fn read_only(svc: &Volumes, call: &Call, volume: &Stored<Volume>, flag: bool) -> Reply {
    let set = move |volume: &mut Volume| {
        if volume.status != Status::Available {
            return Err(fault::invalid_volume(format!(
                "Volume {} status must be available to update readonly flag, but current status is: {}.",
                volume.id,
                volume.status.as_str()
            )));
        }
        volume.read_only = Some(flag);
        Ok(())
    };
    svc.change(&call.ctx, &volume.record.id, set).await?;
    Ok(Response::empty(202))
}

/// All types lie in the same files: a volume of another type stays where it is.
async fn retype(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
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

async fn reimage(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
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

async fn revert(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
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

/// Metadata of what is being copied away or maintained stays as it is.
pub fn check_metadata_may_change(volume: &Volume, doing: &str) -> Result<(), Fault> {
    if matches!(volume.status, Status::Maintenance | Status::Uploading) {
        return Err(fault::invalid_volume(format!(
            "{doing} volume metadata is not allowed for volumes in {} status.",
            volume.status.as_str()
        )));
    }
    Ok(())
}

/// Pairs of image metadata that one volume has at most.
const IMAGE_METADATA_MAX: usize = 256;

async fn set_image_metadata(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let new = strings(given.get("metadata"));
    let set = move |volume: &mut Volume| {
        check_metadata_may_change(volume, "Updating")?;
        volume.image_metadata.extend(new.clone());
        if volume.image_metadata.len() > IMAGE_METADATA_MAX {
            return Err(Fault::too_large(format!(
                "A volume has at most {IMAGE_METADATA_MAX} pairs of image metadata."
            )));
        }
        Ok(())
    };
    let volume = svc.change(&call.ctx, &volume.record.id, set).await?;
    Ok(Response::ok(json!({"metadata": volume.image_metadata})))
}

async fn unset_image_metadata(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let key = text(given, &["key"]).unwrap_or_default();
    let unset = move |volume: &mut Volume| {
        check_metadata_may_change(volume, "Deleting")?;
        let gone = volume.image_metadata.remove(&key);
        let id = &volume.id;
        gone.map(|_| ())
            .ok_or_else(|| Fault::not_found(format!("Glance metadata for volume/snapshot {id} cannot be found.")))
    };
    svc.change(&call.ctx, &volume.record.id, unset).await?;
    Ok(Response::empty(200))
}
