//! Images in JSON, and the body that makes one.
use super::model::{Image, Visibility};
use crate::fault;
use pilvi_kit::{Fault, clock};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};

/// Longest name of a property.
const PROPERTY_NAME_MAX: usize = 255;
/// Properties of one image.
pub const PROPERTIES_MAX: usize = 128;
/// Tags of one image.
pub const TAGS_MAX: usize = 128;

/// Members that clients never set.
pub const READ_ONLY: &[&str] = &[
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "stores",
    "os_hash_algo",
    "os_hash_value",
];
const RESERVED: &[&str] = &["location", "deleted", "deleted_at"];
const RESERVED_PREFIX: &str = "os_glance";
/// Members with a meaning of their own; all others are properties.
pub const BASE: &[&str] = &[
    "id",
    "name",
    "visibility",
    "container_format",
    "disk_format",
    "min_disk",
    "min_ram",
    "protected",
    "os_hidden",
    "owner",
    "tags",
    "locations",
];

/// Members that every image has.
const OWN: usize = 24;

pub fn one(stored: &Stored<Image>) -> Value {
    let image = &stored.record;
    let mut out = Map::with_capacity(OWN + image.properties.len());
    for (name, value) in &image.properties {
        out.insert(name.clone(), json!(value));
    }
    let own = [
        ("name", json!(image.name)),
        ("disk_format", json!(image.disk_format)),
        ("container_format", json!(image.container_format)),
        ("visibility", json!(image.visibility.as_str())),
        ("size", json!(image.size)),
        ("virtual_size", json!(image.virtual_size)),
        ("status", json!(image.status.as_str())),
        ("checksum", json!(image.checksum)),
        ("protected", json!(image.protected)),
        ("min_ram", json!(image.min_ram)),
        ("min_disk", json!(image.min_disk)),
        ("owner", json!(image.owner)),
        ("os_hidden", json!(image.os_hidden)),
        ("os_hash_algo", json!(image.os_hash_algo)),
        ("os_hash_value", json!(image.os_hash_value)),
        ("id", json!(image.id)),
        ("created_at", json!(clock::seconds_z(stored.created_us))),
        ("updated_at", json!(clock::seconds_z(stored.updated_us))),
        ("tags", json!(image.tags)),
        ("self", json!(format!("/v2/images/{}", image.id))),
        ("file", json!(format!("/v2/images/{}/file", image.id))),
        ("schema", json!("/v2/schemas/image")),
    ];
    out.extend(own.map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in crate::import::ops::shown(&image.import) {
        out.insert(name.into(), json!(value));
    }
    if let Some(staged) = image.staged {
        out.insert("os_glance_staged_bytes".into(), json!(staged.to_string()));
    }
    if !image.locations.is_empty() {
        let stores: Vec<&str> = image.locations.iter().map(|l| l.store.as_str()).collect();
        out.insert("stores".into(), json!(stores.join(",")));
    }
    Value::Object(out)
}

/// A list of images as it is sent. Each is written as soon as it is made: a thousand of them as values at once would cost
/// more than all else about them.
#[derive(Debug)]
pub struct Listing(Vec<u8>);

impl Listing {
    pub fn begin() -> Self {
        Listing(br#"{"images":["#.to_vec())
    }

    pub fn push(&mut self, image: &Value) -> Result<(), Fault> {
        if !self.0.ends_with(b"[") {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, image).map_err(Fault::internal)
    }

    /// `rest`: what stands beside the images.
    pub fn finish(mut self, rest: &Map<String, Value>) -> Result<Vec<u8>, Fault> {
        self.0.push(b']');
        for (name, value) in rest {
            self.0.push(b',');
            serde_json::to_writer(&mut self.0, name).map_err(Fault::internal)?;
            self.0.push(b':');
            serde_json::to_writer(&mut self.0, value).map_err(Fault::internal)?;
        }
        self.0.push(b'}');
        Ok(self.0)
    }
}

/// 403 for names that are not the client's to set.
pub fn check_name(name: &str) -> Result<(), Fault> {
    if READ_ONLY.contains(&name) {
        return Err(fault::read_only(name));
    }
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) {
        return Err(fault::reserved(name));
    }
    if name.is_empty() || name.len() > PROPERTY_NAME_MAX {
        return Err(Fault::bad_request("Custom property names have 1 to 255 characters."));
    }
    Ok(())
}

fn text(name: &str, value: &Value) -> Result<Option<String>, Fault> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.contains('\0') => {
            Err(Fault::bad_request(format!("'{name}' holds a NUL character")))
        }
        Value::String(text) => Ok(Some(text.clone())),
        other => Err(Fault::bad_request(format!(
            "Provided object does not match schema 'image': {other} is not of type 'string' (attribute '{name}')"
        ))),
    }
}

fn wrong(name: &str, value: &Value) -> Fault {
    Fault::bad_request(format!("Provided object does not match schema 'image': {value} is not a value of '{name}'"))
}

/// Sets one member or property, as a creation or a patch does; the caller has asked the rules.
pub fn set(image: &mut Image, name: &str, value: &Value) -> Result<(), Fault> {
    check_name(name)?;
    let number = || value.as_i64().filter(|n| (0..=0x7fff_ffff).contains(n)).ok_or_else(|| wrong(name, value));
    let flag = || value.as_bool().ok_or_else(|| wrong(name, value));
    let known = |formats: &[&str]| match text(name, value)? {
        Some(format) if !formats.contains(&format.as_str()) => Err(wrong(name, value)),
        format => Ok(format),
    };
    match name {
        "id" => return Err(fault::read_only(name)),
        "locations" => return Err(Fault::forbidden("It's not allowed to add locations if locations are invisible.")),
        "name" => image.name = text(name, value)?,
        "owner" => image.owner = text(name, value)?,
        "visibility" => {
            image.visibility = value.as_str().and_then(Visibility::parse).ok_or_else(|| wrong(name, value))?
        }
        "container_format" => image.container_format = known(super::model::CONTAINER_FORMATS)?,
        "disk_format" => image.disk_format = known(super::model::DISK_FORMATS)?,
        "min_disk" => image.min_disk = number()?,
        "min_ram" => image.min_ram = number()?,
        "protected" => image.protected = flag()?,
        "os_hidden" => image.os_hidden = flag()?,
        "tags" => image.tags = tags(value)?,
        _ => {
            image.properties.insert(name.to_owned(), text(name, value)?);
            if image.properties.len() > PROPERTIES_MAX {
                return Err(Fault::too_large(format!("An image has at most {PROPERTIES_MAX} properties.")));
            }
        }
    }
    Ok(())
}

fn tags(value: &Value) -> Result<std::collections::BTreeSet<String>, Fault> {
    let items = value.as_array().ok_or_else(|| wrong("tags", value))?;
    if items.len() > TAGS_MAX {
        return Err(Fault::too_large(format!("An image has at most {TAGS_MAX} tags.")));
    }
    items
        .iter()
        .map(|item| {
            item.as_str().filter(|t| t.chars().count() <= 255).map(str::to_owned).ok_or_else(|| wrong("tags", item))
        })
        .collect()
}

/// The image that a body describes, owned by `project` unless it names another owner.
pub fn new(body: &Value, project: Option<&str>) -> Result<Image, Fault> {
    let object = body.as_object().ok_or_else(|| Fault::bad_request("Expected an object"))?;
    let id = match object.get("id").and_then(Value::as_str) {
        Some(id) => id.to_ascii_lowercase(),
        None => pilvi_kit::id::new(),
    };
    let mut image = Image::new(id, project.map(str::to_owned));
    for (name, value) in object.iter().filter(|(name, _)| *name != "id") {
        set(&mut image, name, value)?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_written_as_json() {
        let rest = json!({"first": "/v2/images?name=\"a\"", "schema": "s"});
        for images in [json!([]), json!([{"id": "["}]), json!([{"id": "a"}, {"id": "b", "tags": []}])] {
            let mut listing = Listing::begin();
            for image in images.as_array().unwrap() {
                listing.push(image).unwrap();
            }
            let read: Value = serde_json::from_slice(&listing.finish(rest.as_object().unwrap()).unwrap()).unwrap();
            assert_eq!(read, json!({"images": images, "first": rest["first"], "schema": "s"}));
        }
    }

    #[test]
    fn a_creation_is_read_and_refused_by_member() {
        let image =
            new(&json!({"name": "n", "disk_format": "qcow2", "hw_disk_bus": "virtio", "tags": ["a", "a"]}), Some("p"))
                .unwrap();
        assert_eq!(
            (image.owner.as_deref(), image.property("hw_disk_bus"), image.tags.len()),
            (Some("p"), Some("virtio"), 1)
        );
        for (body, code) in [
            (json!({"status": "active"}), 403),
            (json!({"os_glance_x": "y"}), 403),
            (json!({"self": "/x"}), 403),
            (json!({"deleted": "1"}), 403),
            (json!({"locations": []}), 403),
            (json!({"disk_format": "floppy"}), 400),
            (json!({"min_disk": -1}), 400),
            (json!({"x": 1}), 400),
            (json!({"visibility": "secret"}), 400),
        ] {
            assert_eq!(new(&body, None).unwrap_err().code(), code, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_member_is_set_or_refused(name in "[a-z_]{0,20}", value in "\\PC{0,40}") {
            let _ = set(&mut Image::new("i".into(), None), &name, &json!(value));
        }
    }
}
