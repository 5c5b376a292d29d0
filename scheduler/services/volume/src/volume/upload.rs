//! `os-volume_upload_image`: a volume's bytes become an image.
//!
//! ```text
//!  POST action -> image record (queued) + wanted.upload = its id     one transaction; status uploading
//!  host: packed and sent ([`Volumes::awaits_upload`] lets it)         -> image active, status as before
//!  host: failed, or the volume is deleted                             -> the image goes, and a message says why
//! ```
//! The host packs what is not zero as qcow2, whatever format the client names: see `docs/limits.md`.
use super::{
    api::{text, truth},
    image,
    model::Status,
    ops,
};
use crate::{
    Volumes, fault,
    tables::{Upload, Volume, VolumeType},
    version as v,
};
use pilvi_image::image::{
    model::{Image, Visibility},
    ops as images,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, call::owned_by, clock, id};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// What the image shall be.
#[derive(Debug, Clone)]
struct Wish {
    name: String,
    visibility: Visibility,
    protected: bool,
}

const FORMAT: &str = "qcow2";

fn wish(call: &Call, volume: &Volume, given: &Value) -> Result<Wish, Fault> {
    let format = text(given, &["disk_format"]).unwrap_or_else(|| "raw".into());
    if !matches!(format.as_str(), "raw" | "qcow2") {
        return Err(Fault::bad_request(format!("Volumes become images in qcow2 here, not in {format}.")));
    }
    let container = text(given, &["container_format"]).unwrap_or_else(|| "bare".into());
    if container != "bare" {
        return Err(Fault::bad_request(format!("Volumes become images without a container, not in {container}.")));
    }
    let (mut visibility, mut protected) = (Visibility::Private, false);
    if call.version >= v::UPLOAD_VISIBILITY {
        let named = text(given, &["visibility"]).unwrap_or_else(|| "private".into());
        visibility = Visibility::parse(&named).unwrap_or(Visibility::Private);
        protected = truth(given.get("protected"));
        if visibility == Visibility::Public {
            call.enforce("volume_extension:volume_actions:upload_public", &owned_by(&volume.project_id))?;
        }
    }
    let name = text(given, &["image_name"]).unwrap_or_default();
    Ok(Wish { name, visibility, protected })
}

/// The handler of the action.
pub async fn create(svc: &Volumes, call: &Call, volume: &Stored<Volume>, given: &Value) -> Reply {
    let wish = wish(call, volume, given)?;
    let image_id = id::new();
    let with = (volume.record.id.clone(), image_id.clone(), wish.clone(), call.ctx.clone());
    let volume = svc
        .write(with, |tx, (id, image_id, wish, ctx)| {
            Box::pin(async move { begin_in(tx, &ctx, &id, &image_id, &wish).await })
        })
        .await?;
    svc.poke(&volume.record.id);
    let of_type = svc.store.get::<VolumeType>(&volume.volume_type).await?;
    let of_type = of_type.map(|t| {
        let (created, updated) = crate::list::times(&t);
        json!({"id": t.record.id, "name": t.name, "description": t.description, "is_public": t.public,
            "extra_specs": t.extra_specs, "qos_specs_id": t.qos_id, "created_at": created, "updated_at": updated,
            "deleted": false, "deleted_at": null})
    });
    let mut told = json!({
        "id": volume.record.id, "updated_at": clock::micros(volume.updated_us), "status": "uploading",
        "display_description": volume.description, "size": volume.size_gib, "volume_type": of_type,
        "image_id": image_id, "container_format": "bare", "disk_format": FORMAT, "image_name": wish.name,
    });
    if call.version >= v::UPLOAD_VISIBILITY {
        told["visibility"] = json!(wish.visibility.as_str());
        told["protected"] = json!(wish.protected);
    }
    Ok(Response::accepted(json!({"os-volume_upload_image": told})))
}

async fn begin_in(tx: &mut Tx, ctx: &Ctx, id: &str, image_id: &str, wish: &Wish) -> Result<Stored<Volume>, Fault> {
    let mut volume = ops::visible_in(tx, ctx, id).await?;
    if volume.status != Status::Available || volume.wanted.delete || volume.wanted.upload.is_some() {
        return Err(fault::invalid_volume(format!(
            "Volume {id} status must be available, but current status is: {}.",
            volume.status.as_str()
        )));
    }
    let mut image = Image::new(image_id.to_owned(), Some(ctx.project_id().to_owned()));
    (image.name, image.visibility) = (Some(wish.name.clone()), wish.visibility);
    (image.disk_format, image.container_format) = (Some(FORMAT.to_owned()), Some("bare".to_owned()));
    image.min_disk = i64::try_from(volume.size_gib).unwrap_or(i64::MAX);
    image.protected = wish.protected;
    if let Some(ram) = volume.image_metadata.get("min_ram").and_then(|ram| ram.parse().ok()) {
        image.min_ram = ram;
    }
    images::set_properties(&mut image, image::properties(&volume.image_metadata))?;
    images::create_in(tx, &image).await?;
    let record = &mut volume.record;
    (record.previous_status, record.status) = (Some(record.status), Status::Uploading);
    record.wanted.upload = Some(Upload { image_id: image_id.to_owned(), failed: false });
    record.wanted.generation += 1;
    record.request_id.clone_from(&ctx.request_id);
    Ok(tx.update(&volume).await?)
}
