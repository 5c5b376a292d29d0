//! The documents themselves. Values: the same lists that `image::model` checks against.
use crate::image::{
    model::{CONTAINER_FORMATS, DISK_FORMATS},
    view::READ_ONLY,
};
use serde_json::{Map, Value, json};

const UUID: &str = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

/// The schema of one resource or collection, by its name in the URL.
pub fn by_name(name: &str) -> Option<Value> {
    match name {
        "image" => Some(image()),
        "images" => Some(collection("images", image())),
        "member" => Some(member()),
        "members" => Some(json!({"name": "members", "links": [{"rel": "describedby", "href": "{schema}"}],
            "properties": {"members": {"type": "array", "items": member()}, "schema": {"type": "string"}}})),
        "task" => Some(task()),
        "tasks" => Some(collection("tasks", task())),
        _ => None,
    }
}

fn collection(name: &str, item: Value) -> Value {
    json!({"name": name, "properties": {name: {"type": "array", "items": item}, "first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"}},
        "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}]})
}

fn nullable(list: &[&str]) -> Vec<Value> {
    std::iter::once(Value::Null).chain(list.iter().map(|v| json!(v))).collect()
}

/// What a client may write.
fn writable() -> Value {
    json!({
        "id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
        "name": {"type": ["null", "string"], "description": "Descriptive name for the image", "maxLength": 255},
        "visibility": {"type": "string", "description": "Scope of image accessibility", "enum": ["community", "public", "private", "shared"]},
        "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
        "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
        "owner": {"type": ["null", "string"], "description": "Owner of the image", "maxLength": 255},
        "container_format": {"type": ["null", "string"], "description": "Format of the container", "enum": nullable(CONTAINER_FORMATS)},
        "disk_format": {"type": ["null", "string"], "description": "Format of the disk", "enum": nullable(DISK_FORMATS)},
        "tags": {"type": "array", "description": "List of strings related to the image", "items": {"type": "string", "maxLength": 255}},
        "min_ram": {"type": "integer", "description": "Amount of ram (in MB) required to boot image."},
        "min_disk": {"type": "integer", "description": "Amount of disk space (in GB) required to boot image."},
        "kernel_id": {"type": ["null", "string"], "is_base": false, "pattern": UUID, "description": "ID of the image to be used as the kernel when booting an AMI-style image."},
        "ramdisk_id": {"type": ["null", "string"], "is_base": false, "pattern": UUID, "description": "ID of the image to be used as the ramdisk when booting an AMI-style image."},
        "architecture": {"type": "string", "is_base": false, "description": "Architecture of the operating system"},
        "os_distro": {"type": "string", "is_base": false, "description": "Common name of the operating system distribution"},
        "os_version": {"type": "string", "is_base": false, "description": "Version of the operating system"},
        "description": {"type": "string", "is_base": false, "description": "A human-readable string describing this image."},
        "instance_uuid": {"type": "string", "is_base": false, "description": "The server this image was made from"},
        "locations": {"type": "array", "description": "URLs of the image's data, where they are shown", "items": {"type": "object", "required": ["url", "metadata"],
            "properties": {"url": {"type": "string", "maxLength": 2048}, "metadata": {"type": "object"},
                "validation_data": {"type": "object", "writeOnly": true, "additionalProperties": false, "required": ["os_hash_algo", "os_hash_value"],
                    "description": "What the data must be", "properties": {"checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                        "os_hash_algo": {"type": "string", "maxLength": 64}, "os_hash_value": {"type": "string", "maxLength": 128}}}}}},
    })
}

fn readable() -> Value {
    let plain = |kind: Value, text: &str| json!({"type": kind, "readOnly": true, "description": text});
    json!({
        "status": {"type": "string", "readOnly": true, "description": "Status of the image",
            "enum": ["queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"]},
        "checksum": {"type": ["null", "string"], "readOnly": true, "description": "md5 hash of image contents.", "maxLength": 32},
        "os_hash_algo": {"type": ["null", "string"], "readOnly": true, "description": "Algorithm to calculate the os_hash_value", "maxLength": 64},
        "os_hash_value": {"type": ["null", "string"], "readOnly": true, "description": "Hexdigest of the image contents using the algorithm specified by the os_hash_algo", "maxLength": 128},
        "size": plain(json!(["null", "integer"]), "Size of image file in bytes"),
        "virtual_size": plain(json!(["null", "integer"]), "Virtual size of image in bytes"),
        "created_at": plain(json!("string"), "Date and time of image registration"),
        "updated_at": plain(json!("string"), "Date and time of the last image modification"),
        "direct_url": plain(json!("string"), "URL to access the image file kept in external store"),
        "self": plain(json!("string"), "An image self url"),
        "file": plain(json!("string"), "An image file url"),
        "stores": plain(json!("string"), "Stores that hold the image's data"),
        "schema": plain(json!("string"), "An image schema url"),
    })
}

fn image() -> Value {
    let mut properties = Map::new();
    for part in [writable(), readable()] {
        properties.extend(part.as_object().cloned().unwrap_or_default());
    }
    json!({"name": "image", "properties": properties, "additionalProperties": {"type": "string"},
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}]})
}

/// What `POST /v2/images` takes. What is not the client's to set passes here: the handler says 403 to it.
pub fn create() -> Value {
    let mut properties = writable();
    for name in READ_ONLY {
        properties[*name] = json!({});
    }
    json!({"type": "object", "maxProperties": 256, "properties": properties, "additionalProperties": {"type": "string", "maxLength": 65535}})
}

fn member() -> Value {
    json!({"name": "member", "additionalProperties": false, "properties": {
        "member_id": {"type": "string", "description": "An identifier for the image member (tenantId)"},
        "image_id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
        "created_at": {"type": "string", "description": "Date and time of image member creation"},
        "updated_at": {"type": "string", "description": "Date and time of last modification of image member"},
        "status": {"type": "string", "description": "The status of this image member", "enum": ["pending", "accepted", "rejected"]},
        "schema": {"type": "string", "readOnly": true}}})
}

fn task() -> Value {
    let text = |what: &str| json!({"type": "string", "description": what});
    json!({"name": "task", "properties": {
        "id": {"type": "string", "description": "An identifier for the task", "pattern": UUID},
        "type": {"type": "string", "description": "The type of task represented by this content", "enum": ["import", "api_image_import", "location_import"]},
        "status": {"type": "string", "description": "The current status of this task", "enum": ["pending", "processing", "success", "failure"]},
        "input": {"type": ["null", "object"], "description": "The parameters required by task, JSON blob"},
        "result": {"type": ["null", "object"], "description": "The result of current task, JSON blob"},
        "owner": text("An identifier for the owner of this task"), "message": text("What went wrong"),
        "image_id": text("Image associated with the task"), "request_id": text("Request that made the task"), "user_id": text("User associated with the task"),
        "expires_at": {"type": ["null", "string"], "description": "When this task may be removed"},
        "created_at": text("When this task was made"), "updated_at": text("When this task was updated"),
        "self": {"type": "string", "readOnly": true}, "schema": {"type": "string", "readOnly": true}}})
}
