//! What the image service has, as volumes are made of it.
use crate::fault;
use pilvi_fleet::ImageFile;
use pilvi_image::image::model::{Image, Status};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::Store;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

/// The image that a client names, by id or (when it is the only one of that name) by name: 400 otherwise.
pub async fn named(store: &Store, ctx: &Ctx, reference: &str) -> Result<Image, Fault> {
    use pilvi_image::image::ops;
    let unknown = || Fault::bad_request("Invalid image identifier or unable to access requested image.");
    let id = reference.rsplit('/').next().unwrap_or_default();
    if pilvi_kit::id::is_uuid(id)
        && let Ok(found) = ops::visible(store, ctx, id).await
    {
        return Ok(found.record);
    }
    let mut found = ops::list(store, ctx, ops::Asked::Usual, ops::Shared::All).await?;
    found.retain(|image| image.name.as_deref() == Some(reference));
    match found.len() {
        0 => Err(unknown()),
        1 => found.pop().map(|i| i.record).ok_or_else(unknown),
        _ => Err(Fault::conflict(format!("Multiple matches found for '{reference}', use an ID to be more specific."))),
    }
}

/// GiB that a volume of it has at least.
pub fn least_gib(image: &Image) -> u64 {
    let bytes = image.virtual_size.unwrap_or(0).max(image.size.unwrap_or(0));
    bytes.div_ceil(GIB).max(u64::try_from(image.min_disk).unwrap_or(0)).max(1)
}

/// 400 unless a volume of this size can be made of it.
pub fn check(image: &Image, size_gib: u64) -> Result<(), Fault> {
    if image.status != Status::Active {
        return Err(fault::invalid_input(format!("Image {} is not active.", image.id)));
    }
    let bytes = image.virtual_size.unwrap_or(0).max(image.size.unwrap_or(0)).div_ceil(GIB);
    if bytes > size_gib {
        return Err(fault::invalid_input(format!(
            "Size of specified image {bytes}GB is larger than volume size {size_gib}GB."
        )));
    }
    if u64::try_from(image.min_disk).unwrap_or(0) > size_gib {
        return Err(fault::invalid_input(format!(
            "Volume size {size_gib}GB cannot be smaller than the image minDisk size {}GB.",
            image.min_disk
        )));
    }
    Ok(())
}

/// What its host needs to fetch and check it.
pub fn file(image: &Image) -> Result<ImageFile, Fault> {
    let unreadable = || Fault::bad_request(format!("Image {} has no data that could be checked.", image.id));
    Ok(ImageFile {
        id: image.id.clone(),
        sha512: image.content_hash().ok_or_else(unreadable)?.to_owned(),
        size: image.size.ok_or_else(unreadable)?,
        disk_format: image.disk_format.clone().unwrap_or_else(|| "raw".into()),
    })
}

/// `volume_image_metadata`: what is known of the image, for whoever boots of the volume.
pub fn metadata(image: &Image) -> BTreeMap<String, String> {
    let mut known: BTreeMap<String, String> =
        image.properties.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
    let own = [
        ("image_id", Some(image.id.clone())),
        ("image_name", image.name.clone()),
        ("checksum", image.checksum.clone()),
        ("container_format", image.container_format.clone()),
        ("disk_format", image.disk_format.clone()),
        ("min_disk", Some(image.min_disk.to_string())),
        ("min_ram", Some(image.min_ram.to_string())),
        ("size", image.size.map(|s| s.to_string())),
    ];
    known.extend(own.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))));
    known
}

/// Of what a volume knows of its image, what is a property of an image made of it; the rest an image has of its own.
pub fn properties(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const OWN: [&str; 8] =
        ["image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size"];
    metadata.iter().filter(|(k, _)| !OWN.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}
