//! `POST /volumes/{id}/action`: the verbs that a project's members have. Those of administrators are in [`super::admin_api`].
use super::{
    admin_api,
    api::{owned, strings, text, truth},
    attach_api, change_api,
    model::Status,
    upload,
};
use crate::{
    Volumes,
    attachment::ops as attachments,
    fault, route,
    schema::{action, flag, size, text as text_or_null, uuid, uuid_or_null},
    tables::Volume,
    version as v,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::Stored;
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
        "os-attach" => attach_api::attach(&svc, &call, &volume, given).await,
        "os-detach" => attach_api::detach(&svc, &call, &volume, given).await,
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
        "os-initialize_connection" => attach_api::initialize(&volume, given),
        "os-terminate_connection" => attach_api::terminate(&svc, &call, &volume).await,
        "os-volume_upload_image" => upload::create(&svc, &call, &volume, given).await,
        "os-extend" => change_api::extend(&svc, &call, &volume, given).await,
        "os-update_readonly_flag" => read_only(&svc, &call, &volume, truth(given.get("readonly"))).await,
        "os-retype" => change_api::retype(&svc, &call, &volume, given).await,
        "os-set_bootable" => {
            let bootable = truth(given.get("bootable"));
            let set = move |volume: &mut Volume| {
                volume.bootable = bootable;
                Ok(())
            };
            svc.change(&call.ctx, &volume.record.id, set).await?;
            Ok(Response::empty(200))
        }
        "os-reimage" => change_api::reimage(&svc, &call, &volume, given).await,
        "revert" => change_api::revert(&svc, &call, &volume, given).await,
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
