//! Block device mappings of a create request, in both spellings, towards wishes for volumes. Pure.
use crate::{
    tables::{VolumeFrom, VolumeWish},
    version as v,
};
use pilvi_kit::{Call, Fault, Schema, Version, call::boolean};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The largest size that a client may ask for, in GiB.
const SIZE_MAX: u64 = 0x7fff_ffff;
/// Devices of one request.
const DEVICES_MAX: usize = 64;

fn schema_of(second: bool) -> Value {
    let id = json!({"type": ["string", "null"], "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"});
    let number = json!({"oneOf": [{"type": "integer"}, {"type": "null"}, {"type": "string", "pattern": "^-?[0-9]*$"}]});
    let mut properties = json!({
        "device_name": {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._/-]*$"},
        "volume_size": number, "delete_on_termination": crate::server::schema::boolean(), "no_device": {},
        "connection_info": {"type": "string", "maxLength": 16_777_215}, "snapshot_id": id, "volume_id": id,
        "source_type": {"type": "string", "enum": ["volume", "image", "snapshot", "blank"]}, "uuid": id, "image_id": id,
        "destination_type": {"type": "string", "enum": ["local", "volume"]}, "guest_format": {"type": ["string", "null"], "maxLength": 255},
        "device_type": {"type": ["string", "null"], "maxLength": 255}, "disk_bus": {"type": ["string", "null"], "maxLength": 255},
        "boot_index": number, "tag": {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"},
        "volume_type": {"type": ["string", "null"], "maxLength": 255},
    });
    if !second && let Some(known) = properties.as_object_mut() {
        known.insert("virtual_name".into(), json!({"type": "string", "maxLength": 255}));
    }
    json!({"type": "array", "maxItems": DEVICES_MAX,
        "items": {"type": "object", "additionalProperties": false, "properties": properties}})
}

static FIRST: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| schema_of(false)));
static SECOND: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| schema_of(true)));

/// What a request says of block devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mappings {
    pub volumes: Vec<VolumeWish>,
    /// Images that shall be the root disk on the host.
    pub local_image: Option<String>,
    /// GiB of the largest blank disk, MiB of swap that are asked of the host: within the flavor.
    pub ephemeral_gib: u64,
    pub swap_mib: u64,
}

fn invalid(why: &str) -> Fault {
    Fault::bad_request(format!("Block Device Mapping is Invalid: {why}"))
}

/// The fault of a request whose devices cannot be put in an order to boot from.
pub fn no_boot_order() -> Fault {
    invalid("Boot sequence for the instance and image/block device mapping combination is not valid.")
}

fn text<'v>(device: &'v Value, key: &str) -> Option<&'v str> {
    device.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn number(device: &Value, key: &str) -> Result<Option<i64>, Fault> {
    match device.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => {
            let found = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            let found = found.ok_or_else(|| Fault::bad_request(format!("Invalid input for field/attribute {key}.")))?;
            Ok(Some(found))
        }
    }
}

fn size(device: &Value) -> Result<u64, Fault> {
    let Some(size) = number(device, "volume_size")? else { return Ok(0) };
    u64::try_from(size)
        .ok()
        .filter(|size| *size <= SIZE_MAX)
        .ok_or_else(|| Fault::bad_request("Invalid input for field/attribute volume_size."))
}

fn flag(device: &Value, key: &str) -> bool {
    let value = device.get(key);
    value.and_then(Value::as_bool).or_else(|| value.and_then(Value::as_str).and_then(boolean)).unwrap_or(false)
}

/// Reads both spellings; `image`: the image that the request names.
pub fn parse(call: &Call, body: &Value, image: Option<&str>) -> Result<Mappings, Fault> {
    match (body.get("block_device_mapping"), body.get("block_device_mapping_v2")) {
        (Some(_), Some(_)) => {
            Err(Fault::bad_request("Using different block_device_mapping syntaxes is not allowed in the same request."))
        }
        (Some(first), None) => {
            FIRST.check(first)?;
            of_first(first, image)
        }
        (None, Some(second)) => {
            SECOND.check(second)?;
            of_second(call.version, second, image)
        }
        (None, None) => Ok(Mappings::default()),
    }
}

/// The older spelling: a volume or snapshot for each device name; `vda` is the root.
fn of_first(devices: &Value, image: Option<&str>) -> Result<Mappings, Fault> {
    let mut found = Mappings::default();
    for device in devices.as_array().into_iter().flatten().filter(|device| device.get("no_device").is_none()) {
        let from = match (text(device, "volume_id"), text(device, "snapshot_id")) {
            (Some(id), _) => VolumeFrom::Volume(id.to_owned()),
            (None, Some(id)) => VolumeFrom::Snapshot(id.to_owned()),
            (None, None) => return Err(invalid("Unrecognized legacy format.")),
        };
        let name = text(device, "device_name").map(|name| name.trim_start_matches("/dev/").to_owned());
        let root =
            image.is_none() && (name.as_deref().is_some_and(|name| matches!(name, "vda" | "sda" | "xvda" | "hda")));
        found.volumes.push(VolumeWish {
            from,
            size_gib: size(device)?,
            root,
            delete_on_termination: flag(device, "delete_on_termination"),
            device: name.map(|name| format!("/dev/{name}")),
            ..VolumeWish::default()
        });
    }
    if image.is_none()
        && !found.volumes.iter().any(|wish| wish.root)
        && let Some(first) = found.volumes.first_mut()
    {
        first.root = true;
    }
    in_order(found, image)
}

fn of_second(version: Version, devices: &Value, image: Option<&str>) -> Result<Mappings, Fault> {
    let mut found = Mappings::default();
    let mut order: Vec<i64> = Vec::new();
    for device in devices.as_array().into_iter().flatten().filter(|device| !flag(device, "no_device")) {
        let tagged = version >= v::DEVICE_TAGS || (version >= v::FIRST_DEVICE_TAGS && version < v::NO_DEVICE_TAGS);
        for (key, known) in [("tag", tagged), ("volume_type", version >= v::DEVICE_VOLUME_TYPE)] {
            if device.get(key).is_some() && !known {
                return Err(Fault::bad_request(format!(
                    "Additional properties are not allowed ('{key}' was unexpected)"
                )));
            }
        }
        let boots = number(device, "boot_index")?.filter(|index| *index >= 0);
        order.extend(boots);
        one_of_second(&mut found, device, boots == Some(0))?;
    }
    order.sort_unstable();
    if order.windows(2).any(|two| two[0] == two[1]) {
        return Err(no_boot_order());
    }
    in_order(found, image)
}

fn one_of_second(found: &mut Mappings, device: &Value, root: bool) -> Result<(), Fault> {
    let from = text(device, "source_type").unwrap_or("blank");
    let to =
        text(device, "destination_type").unwrap_or(if from == "image" || from == "blank" { "local" } else { "volume" });
    let id = || text(device, "uuid").map(str::to_owned).ok_or_else(|| Fault::bad_request("Missing device UUID."));
    let size_gib = size(device)?;
    let from = match (from, to) {
        ("volume", "local") => return Err(Fault::bad_request("Mapping volume to local is not supported.")),
        ("snapshot", "local") => return Err(Fault::bad_request("Mapping snapshot to local is not supported.")),
        ("volume", _) => VolumeFrom::Volume(id()?),
        ("snapshot", _) => VolumeFrom::Snapshot(id()?),
        ("image", "local") if root => {
            found.local_image = Some(id()?);
            return Ok(());
        }
        ("image", "local") => return Err(Fault::bad_request("Mapping image to local is not supported.")),
        ("image", _) if size_gib == 0 => {
            return Err(Fault::bad_request(
                "Images with destination_type 'volume' need to have a non-zero size specified",
            ));
        }
        ("image", _) => VolumeFrom::Image(id()?),
        (_, _) if text(device, "uuid").is_some() => return Err(Fault::bad_request("Invalid device UUID.")),
        (_, "local") if text(device, "guest_format") == Some("swap") => {
            found.swap_mib = found.swap_mib.max(size_gib << 10);
            return Ok(());
        }
        (_, "local") => {
            found.ephemeral_gib = found.ephemeral_gib.max(size_gib);
            return Ok(());
        }
        (_, _) if size_gib == 0 => {
            return Err(Fault::bad_request(
                "Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size",
            ));
        }
        (_, _) => VolumeFrom::Blank,
    };
    found.volumes.push(VolumeWish {
        from,
        size_gib,
        root,
        volume_type: text(device, "volume_type").map(str::to_owned),
        delete_on_termination: flag(device, "delete_on_termination"),
        tag: text(device, "tag").map(str::to_owned),
        device: text(device, "device_name").map(str::to_owned),
        ..VolumeWish::default()
    });
    Ok(())
}

/// 400 unless exactly one thing is the root.
fn in_order(found: Mappings, image: Option<&str>) -> Result<Mappings, Fault> {
    let volumes: Vec<&VolumeWish> = found.volumes.iter().filter(|wish| wish.root).collect();
    let named = found.local_image.as_deref().or(image);
    if found.local_image.is_some() && image.is_some() && found.local_image.as_deref() != image {
        return Err(no_boot_order());
    }
    match (volumes.as_slice(), named) {
        ([_], None) | ([], Some(_)) => {}
        // The image that the volume is made of may be named as well.
        ([wish], Some(image)) if wish.from == VolumeFrom::Image(image.to_owned()) => {}
        _ => return Err(no_boot_order()),
    }
    let mut seen = std::collections::BTreeSet::new();
    for wish in &found.volumes {
        if let VolumeFrom::Volume(id) = &wish.from
            && !seen.insert(id.clone())
        {
            return Err(invalid("A volume is named twice."));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "3f1c2b1e-0000-4000-8000-000000000001";

    fn second(devices: Value, image: Option<&str>) -> Result<Mappings, u16> {
        SECOND.check(&devices).and_then(|()| of_second(Version(2, 100), &devices, image)).map_err(|f| f.code())
    }

    #[test]
    fn a_volume_a_snapshot_or_a_new_one_may_be_the_root() {
        for (source, id) in [("volume", "v"), ("snapshot", "s"), ("image", IMAGE)] {
            let device = json!([{"uuid": id, "source_type": source, "destination_type": "volume", "boot_index": "0",
                "volume_size": 1, "delete_on_termination": true}]);
            let found = second(device, None).unwrap();
            assert!(found.volumes[0].root && found.volumes[0].delete_on_termination);
        }
        let found =
            second(json!([{"source_type": "blank", "destination_type": "volume", "volume_size": 2}]), Some(IMAGE));
        let found = found.unwrap();
        assert_eq!((found.volumes[0].from.clone(), found.volumes[0].root), (VolumeFrom::Blank, false));
    }

    #[test]
    fn one_thing_is_the_root() {
        let root = json!({"uuid": "v", "source_type": "volume", "destination_type": "volume", "boot_index": 0});
        let other = json!({"uuid": "w", "source_type": "volume", "destination_type": "volume", "boot_index": 0});
        assert_eq!(second(json!([root, other]), None), Err(400));
        assert_eq!(second(json!([root]), Some(IMAGE)), Err(400), "an image too");
        assert_eq!(second(json!([]), None), Err(400), "nothing");
        let local = json!({"uuid": IMAGE, "source_type": "image", "destination_type": "local", "boot_index": 0});
        assert_eq!(second(json!([local]), Some(IMAGE)).unwrap().local_image.as_deref(), Some(IMAGE));
        assert_eq!(second(json!([local]), Some("other")), Err(400));
        assert_eq!(second(json!([root, root]), None), Err(400));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for device in [
            json!({"uuid": "v", "source_type": "volume", "destination_type": "local", "boot_index": 0}),
            json!({"source_type": "volume", "destination_type": "volume", "boot_index": 0}),
            json!({"uuid": IMAGE, "source_type": "image", "destination_type": "volume", "boot_index": 0}),
            json!({"uuid": "x", "source_type": "blank", "destination_type": "volume", "volume_size": 1}),
            json!({"source_type": "elsewhere"}),
            json!({"uuid": "v", "source_type": "volume", "boot_index": 0, "volume_size": -1}),
            json!({"uuid": "v", "source_type": "volume", "boot_index": "a"}),
            json!({"uuid": "v", "source_type": "volume", "boot_index": 0, "more": 1}),
        ] {
            assert_eq!(second(json!([device]), None), Err(400), "{device}");
        }
    }

    #[test]
    fn the_older_spelling_names_devices() {
        let devices =
            json!([{"device_name": "vdb", "volume_id": "b"}, {"device_name": "/dev/vda", "snapshot_id": "a"}]);
        let found = of_first(&devices, None).unwrap();
        assert!(!found.volumes[0].root && found.volumes[1].root);
        assert_eq!(found.volumes[0].device.as_deref(), Some("/dev/vdb"));
        assert!(!of_first(&devices, Some(IMAGE)).unwrap().volumes.iter().any(|wish| wish.root));
        assert!(of_first(&json!([{"device_name": "vdb"}]), None).is_err());
    }
}
