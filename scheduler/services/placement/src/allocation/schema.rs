//! The JSON schemas of allocations, one for every shape they have had.
use pilvi_kit::Schema;
use serde_json::{Value, json};
use std::sync::LazyLock;

const UUID: &str = "^[0-9a-fA-F-]{36}$";
const CLASS: &str = "^[A-Z0-9_]+$";
/// Consumers in one call.
const CONSUMERS_MAX: usize = 1000;

fn resources() -> Value {
    json!({"type": "object", "minProperties": 1, "maxProperties": 256, "additionalProperties": false,
        "patternProperties": {CLASS: {"type": "integer", "minimum": 1}}})
}

fn owner() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

/// 1.0: a list of providers. 1.8 adds the owner.
fn list(with_owner: bool) -> Value {
    let mut schema = json!({"type": "object", "required": ["allocations"], "additionalProperties": false, "properties": {
        "allocations": {"type": "array", "minItems": 1, "maxItems": 256, "items": {
            "type": "object", "required": ["resource_provider", "resources"], "additionalProperties": false, "properties": {
                "resource_provider": {"type": "object", "required": ["uuid"], "additionalProperties": false, "properties": {"uuid": {"type": "string"}}},
                "resources": resources()}}}}});
    if with_owner {
        schema["properties"]["project_id"] = owner();
        schema["properties"]["user_id"] = owner();
        schema["required"] = json!(["allocations", "project_id", "user_id"]);
    }
    schema
}

/// What an object of allocations may hold beside the providers.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Shape {
    /// 1.12; an empty one only where `POST` makes it mean "give back".
    Providers { may_be_empty: bool },
    /// 1.28
    Generation,
    /// 1.34
    Mappings,
    /// 1.38
    Type,
}

fn object(shape: Shape) -> Value {
    let least = i32::from(shape == Shape::Providers { may_be_empty: false });
    let mut schema = json!({"type": "object", "required": ["allocations", "project_id", "user_id"], "additionalProperties": false, "properties": {
        "allocations": {"type": "object", "minProperties": least, "maxProperties": 256, "additionalProperties": false, "patternProperties": {
            UUID: {"type": "object", "required": ["resources"], "additionalProperties": false,
                "properties": {"generation": {"type": "integer"}, "resources": resources()}}}},
        "project_id": owner(), "user_id": owner()}});
    let mut add = |name: &str, value: Value, required: bool| {
        schema["properties"][name] = value;
        if let Some(list) = schema["required"].as_array_mut()
            && required
        {
            list.push(json!(name));
        }
    };
    if shape >= Shape::Generation {
        add("consumer_generation", json!({"type": ["integer", "null"]}), true);
    }
    if shape >= Shape::Mappings {
        let mappings = json!({"type": "object", "minProperties": 1, "patternProperties": {"^[a-zA-Z0-9_-]{1,64}$": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": UUID}}}});
        add("mappings", mappings, false);
    }
    if shape >= Shape::Type {
        add(
            "consumer_type",
            json!({"type": "string", "pattern": "^[A-Z0-9_]+$", "minLength": 1, "maxLength": 255}),
            true,
        );
    }
    schema
}

/// Several consumers by uuid.
fn many(shape: Shape, least: usize) -> Value {
    json!({"type": "object", "minProperties": least, "maxProperties": CONSUMERS_MAX, "additionalProperties": false, "patternProperties": {UUID: object(shape)}})
}

fn reshape(shape: Shape) -> Value {
    json!({"type": "object", "required": ["inventories", "allocations"], "additionalProperties": false, "properties": {
        "inventories": {"type": "object", "minProperties": 1, "maxProperties": CONSUMERS_MAX, "additionalProperties": false,
            "patternProperties": {UUID: crate::inventory::api::replace_schema()}},
        "allocations": many(shape, 0)}})
}

const FULL: Shape = Shape::Providers { may_be_empty: true };

pub static PUT_1_0: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| list(false)));
pub static PUT_1_8: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| list(true)));
pub static PUT_1_12: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| object(Shape::Providers { may_be_empty: false })));
pub static PUT_1_28: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| object(Shape::Generation)));
pub static PUT_1_34: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| object(Shape::Mappings)));
pub static PUT_1_38: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| object(Shape::Type)));
pub static POST_1_13: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| many(FULL, 1)));
pub static POST_1_28: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| many(Shape::Generation, 1)));
pub static POST_1_34: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| many(Shape::Mappings, 1)));
pub static POST_1_38: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| many(Shape::Type, 1)));
pub static RESHAPE_1_30: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| reshape(Shape::Generation)));
pub static RESHAPE_1_34: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| reshape(Shape::Mappings)));
pub static RESHAPE_1_38: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| reshape(Shape::Type)));
