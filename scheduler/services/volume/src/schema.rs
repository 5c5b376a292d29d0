//! What bodies may look like: the parts that many share, and those about volumes.
use pilvi_kit::Schema;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A name or a description that may be missing.
pub fn text() -> Value {
    json!({"type": ["string", "null"], "maxLength": 255})
}

/// A boolean as clients write it.
pub fn flag() -> Value {
    json!({"enum": [true, false, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "y", "t",
        "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no", "n", "f"]})
}

/// Pairs of texts.
pub fn pairs() -> Value {
    json!({"type": "object", "additionalProperties": false, "patternProperties": {
        r"^[a-zA-Z0-9\-_:. /]{1,255}$": {"type": "string", "maxLength": 255}}})
}

pub fn pairs_or_null() -> Value {
    let mut pairs = pairs();
    pairs["type"] = json!(["object", "null"]);
    pairs
}

pub fn uuid() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"})
}

pub fn uuid_or_null() -> Value {
    json!({"oneOf": [uuid(), {"type": "null"}]})
}

pub fn size() -> Value {
    json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 2_147_483_647_i64}, {"type": "string", "pattern": "^0*[1-9][0-9]{0,9}$"}]})
}

/// A verb and what it is given.
pub fn action(name: &str, members: Value, required: &[&str]) -> Value {
    let mut given = json!({"type": "object", "properties": members, "additionalProperties": false});
    if !required.is_empty() {
        given["required"] = json!(required);
    }
    json!({"type": "object", "required": [name], "additionalProperties": false, "properties": {name: given}})
}

pub static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut size = size();
        if let Some(choices) = size["anyOf"].as_array_mut() {
            choices.push(json!({"type": "null"}));
        }
        json!({"type": "object", "required": ["volume"], "additionalProperties": false, "properties": {
            "volume": {"type": "object", "properties": {
                "name": text(), "description": text(), "display_name": text(), "display_description": text(),
                "volume_type": text(), "metadata": pairs_or_null(), "snapshot_id": uuid_or_null(),
                "source_volid": uuid_or_null(), "consistencygroup_id": uuid_or_null(), "size": size,
                "availability_zone": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "multiattach": {"anyOf": [flag(), {"type": "null"}]}, "image_id": text(), "imageRef": text(),
                "group_id": text(), "backup_id": uuid_or_null()}},
            "OS-SCH-HNT:scheduler_hints": {"type": ["object", "null"]}}})
    })
});

pub static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["volume"], "additionalProperties": false, "properties": {
            "volume": {"type": "object", "additionalProperties": false, "properties": {
                "name": text(), "description": text(), "display_name": text(), "display_description": text(),
                "metadata": pairs()}}}})
    })
});
