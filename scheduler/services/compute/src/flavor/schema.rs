//! What bodies of flavor requests look like.
use pilvi_kit::Schema;
use serde_json::{Value, json};
use std::sync::LazyLock;

fn number(least: u64) -> Value {
    const MOST: u64 = 2_147_483_647;
    json!({"oneOf": [{"type": "integer", "minimum": least, "maximum": MOST}, {"type": "string", "pattern": "^[0-9]+$", "maxLength": 10}]})
}

fn specs() -> Value {
    json!({"type": "object", "additionalProperties": false, "maxProperties": 128,
        "patternProperties": {r"^[a-zA-Z0-9\-_:. ]{1,255}$": {"type": ["string", "number"], "maxLength": 255}}})
}

pub static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["flavor"], "additionalProperties": false, "properties": {
        "flavor": {"type": "object", "required": ["name", "ram", "vcpus", "disk"], "additionalProperties": false, "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"},
            "id": {"type": ["string", "number", "null"], "minLength": 1, "maxLength": 255, "pattern": r"^(?! )[a-zA-Z0-9. _-]+(?<! )$"},
            "ram": number(1), "vcpus": number(1), "disk": number(0), "swap": number(0),
            "OS-FLV-EXT-DATA:ephemeral": number(0),
            "rxtx_factor": {"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?$", "minimum": 0, "exclusiveMinimum": true},
            "os-flavor-access:is_public": {"type": ["boolean", "string"]},
            "description": {"type": ["string", "null"], "maxLength": 65535},
        }}}})
    })
});

pub static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["flavor"], "additionalProperties": false, "properties": {
            "flavor": {"type": "object", "required": ["description"], "additionalProperties": false,
                "properties": {"description": {"type": ["string", "null"], "maxLength": 65535}}}}})
    })
});

pub static SPECS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["extra_specs"], "additionalProperties": false, "properties": {"extra_specs": specs()}}),
    )
});

pub static SPEC: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut one = specs();
        (one["minProperties"], one["maxProperties"]) = (json!(1), json!(1));
        one
    })
});

pub static ACCESS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let tenant = json!({"type": "object", "required": ["tenant"], "additionalProperties": false,
            "properties": {"tenant": {"type": "string", "minLength": 1, "maxLength": 255}}});
        json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "properties": {"addTenantAccess": tenant, "removeTenantAccess": tenant}})
    })
});
