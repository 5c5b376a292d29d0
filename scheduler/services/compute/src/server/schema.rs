//! What bodies of server requests look like.
use pilvi_kit::Schema;
use serde_json::{Value, json};
use std::sync::LazyLock;

fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"})
}

fn metadata() -> Value {
    json!({"type": "object", "additionalProperties": false,
        "patternProperties": {"^.{1,255}$": {"type": "string", "maxLength": 255}}})
}

fn tags() -> Value {
    json!({"type": "array", "maxItems": 50, "items": {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"}})
}

fn count() -> Value {
    json!({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^0*[1-9][0-9]*$"}]})
}

pub fn boolean() -> Value {
    json!({"oneOf": [{"type": "boolean"},
        {"type": "string", "pattern": "^(?i:true|false|yes|no|on|off|1|0|t|f|y|n)$"}]})
}

fn access(version: u8) -> Value {
    // An empty text takes the address away.
    json!({"oneOf": [{"type": "null"}, {"type": "string", "enum": [""]}, {"type": "string", "format": if version == 4 { "ipv4" } else { "ipv6" }}]})
}

fn network() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {
        "uuid": {"type": ["string", "null"], "format": "uuid"}, "port": {"type": ["string", "null"], "format": "uuid"},
        "fixed_ip": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
        "tag": {"type": "string", "minLength": 1, "maxLength": 60}}})
}

pub static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["server"], "additionalProperties": false, "properties": {
            "server": {"type": "object", "required": ["name", "flavorRef"], "additionalProperties": false, "properties": {
                "name": name(), "flavorRef": {"type": ["string", "integer"], "minLength": 1}, "imageRef": {"type": ["string", "null"]},
                "hostname": {"type": "string", "minLength": 2, "maxLength": 255, "pattern": r"^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$"},
                "description": {"type": ["string", "null"], "maxLength": 255},
                "adminPass": {"type": "string"}, "metadata": metadata(), "key_name": {"type": ["string", "null"], "maxLength": 255},
                "networks": {"oneOf": [{"type": "array", "maxItems": 32, "items": network()}, {"type": "string", "enum": ["auto", "none"]}]},
                "security_groups": {"type": "array", "maxItems": 64, "items": {"type": "object", "additionalProperties": false,
                    "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 255}}}},
                "availability_zone": {"type": "string", "minLength": 1, "maxLength": 255},
                "host": {"type": "string", "minLength": 1, "maxLength": 255}, "hypervisor_hostname": {"type": "string", "minLength": 1, "maxLength": 255},
                "user_data": {"type": ["string", "null"], "maxLength": 65535}, "config_drive": boolean(),
                "min_count": count(), "max_count": count(), "return_reservation_id": boolean(),
                "OS-DCF:diskConfig": {"type": "string", "enum": ["AUTO", "MANUAL"]},
                "accessIPv4": access(4), "accessIPv6": access(6), "tags": tags(),
                "trusted_image_certificates": {"type": ["array", "null"], "maxItems": 50, "items": {"type": "string", "minLength": 1}},
                "block_device_mapping": {"type": "array"}, "block_device_mapping_v2": {"type": "array"},
                "personality": {"type": "array"},
            }},
            "os:scheduler_hints": {"type": "object"}, "OS-SCH-HNT:scheduler_hints": {"type": "object"},
        }})
    })
});

pub static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["server"], "additionalProperties": false, "properties": {
        "server": {"type": "object", "additionalProperties": false, "properties": {
            "name": name(), "OS-DCF:diskConfig": {"type": "string", "enum": ["AUTO", "MANUAL"]},
            "accessIPv4": access(4), "accessIPv6": access(6), "description": {"type": ["string", "null"], "maxLength": 255},
            "hostname": {"type": "string", "minLength": 2, "maxLength": 255, "pattern": r"^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$"},
        }}}})
    })
});

/// Each action checks the inside itself: one path serves them all.
pub static ACTION: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| json!({"type": "object", "minProperties": 1, "maxProperties": 1})));

pub static REBUILD: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["imageRef"], "additionalProperties": false, "properties": {
            "imageRef": {"type": "string", "minLength": 1}, "name": name(), "adminPass": {"type": "string"}, "metadata": metadata(),
            "preserve_ephemeral": boolean(), "OS-DCF:diskConfig": {"type": "string", "enum": ["AUTO", "MANUAL"]},
            "accessIPv4": access(4), "accessIPv6": access(6), "personality": {"type": "array"},
            "description": {"type": ["string", "null"], "maxLength": 255}, "key_name": {"type": ["string", "null"], "maxLength": 255},
            "user_data": {"type": ["string", "null"], "maxLength": 65535},
            "hostname": {"type": "string", "minLength": 2, "maxLength": 255},
            "trusted_image_certificates": {"type": ["array", "null"]},
        }})
    })
});

pub static RESIZE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["flavorRef"], "additionalProperties": false, "properties": {
            "flavorRef": {"type": ["string", "integer"], "minLength": 1}, "OS-DCF:diskConfig": {"type": "string", "enum": ["AUTO", "MANUAL"]}}})
    })
});

pub static METADATA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["metadata"], "additionalProperties": false, "properties": {"metadata": metadata()}}),
    )
});

pub static META_ITEM: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["meta"], "additionalProperties": false, "properties": {"meta": {
            "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "patternProperties": {"^.{1,255}$": {"type": "string", "maxLength": 255}}}}})
    })
});

pub static TAGS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["tags"], "additionalProperties": false, "properties": {"tags": tags()}}),
    )
});
