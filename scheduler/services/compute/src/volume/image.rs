//! Images of servers that run from volumes: nothing but a list of snapshots, that servers can be made of again.
//!
//! ```text
//!  createImage -> a snapshot of each volume + image record that names them (property block_device_mapping)
//!  create with such an image -> new volumes of those snapshots
//! ```
use crate::tables::{Server, VolumeFrom, VolumeWish};
use pilvi_image::image::model::Image;
use pilvi_kit::{Ctx, Fault};
use pilvi_store::Tx;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PROPERTY: &str = "block_device_mapping";

/// Takes a snapshot of each of the server's volumes; gives what an image says of them.
pub(crate) async fn snapshots_in(
    tx: &mut Tx,
    ctx: &Ctx,
    server: &Server,
    name: &str,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut devices: Vec<Value> = Vec::new();
    for volume in &server.volumes {
        let size = pilvi_volume::volume::ops::get_in(tx, &volume.volume_id).await?.size_gib;
        let name = Some(format!("snapshot for {name}"));
        let taken = pilvi_volume::snapshot::ops::create_in(tx, ctx, &volume.volume_id, name, true).await?;
        devices.push(json!({
            "source_type": "snapshot", "destination_type": "volume", "snapshot_id": taken.record.id, "volume_size": size,
            "boot_index": if volume.root { json!(0) } else { Value::Null }, "device_name": volume.device,
            "delete_on_termination": volume.delete_on_termination, "disk_bus": "virtio", "device_type": "disk",
            "guest_format": null, "image_id": null, "volume_id": null, "no_device": null, "tag": null, "volume_type": null,
        }));
    }
    Ok(BTreeMap::from([
        (PROPERTY.to_owned(), Value::from(devices).to_string()),
        ("bdm_v2".to_owned(), "True".to_owned()),
        ("root_device_name".to_owned(), "/dev/vda".to_owned()),
    ]))
}

/// The volumes that an image asks for; none of an ordinary one.
pub fn wishes(image: &Image) -> Result<Vec<VolumeWish>, Fault> {
    let Some(text) = image.properties.get(PROPERTY).and_then(Option::as_deref) else { return Ok(Vec::new()) };
    let wrong = || Fault::bad_request(format!("The block_device_mapping of image {} cannot be read.", image.id));
    let devices: Vec<Value> = serde_json::from_str(text).map_err(|_| wrong())?;
    let wish = |device: &Value| {
        let snapshot = device["snapshot_id"].as_str().filter(|_| device["source_type"] == "snapshot");
        Some(VolumeWish {
            from: VolumeFrom::Snapshot(snapshot?.to_owned()),
            size_gib: device["volume_size"].as_u64().unwrap_or(0),
            root: device["boot_index"] == json!(0),
            delete_on_termination: device["delete_on_termination"].as_bool().unwrap_or(false),
            device: device["device_name"].as_str().map(str::to_owned),
            ..VolumeWish::default()
        })
    };
    devices.iter().map(|device| wish(device).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_which_snapshots_it_is() {
        let mut image = Image::new("i".into(), None);
        assert!(wishes(&image).unwrap().is_empty());
        let said = json!([
            {"source_type": "snapshot", "snapshot_id": "s", "volume_size": 2, "boot_index": 0, "device_name": "/dev/vda"},
            {"source_type": "snapshot", "snapshot_id": "t", "volume_size": 1, "boot_index": null}]);
        image.properties.insert(PROPERTY.into(), Some(said.to_string()));
        let found = wishes(&image).unwrap();
        assert!(found[0].root && found[0].size_gib == 2 && !found[1].root);
        assert_eq!(found[1].from, VolumeFrom::Snapshot("t".into()));
        for bad in ["not JSON", "[{}]", r#"[{"source_type": "volume", "volume_id": "v"}]"#] {
            image.properties.insert(PROPERTY.into(), Some(bad.into()));
            assert!(wishes(&image).is_err(), "{bad}");
        }
    }
}
