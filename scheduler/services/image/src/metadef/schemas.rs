//! The JSON schemas of metadata definitions: what clients read, and what bodies are checked against.
use serde_json::{Value, json};

/// The schema of one resource or collection, by its name in the URL.
pub fn by_name(name: &str) -> Option<Value> {
    let single =
        |name: &str, body: Value| json!({"name": name, "properties": body["properties"], "required": body["required"]});
    let collection = |name: &str, item: Value| {
        json!({"name": name, "properties": {name: {"type": "array", "items": item}, "first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"}},
            "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}]})
    };
    match name {
        "namespace" => Some(single(name, namespace())),
        "namespaces" => Some(collection(name, single("namespace", namespace()))),
        "object" => Some(single(name, object())),
        "objects" => Some(collection(name, single("object", object()))),
        "property" => Some(single(name, property(true))),
        "properties" => Some(
            json!({"name": name, "properties": {"properties": {"type": "object", "additionalProperties": property(false)}}}),
        ),
        "tag" => Some(single(name, tag())),
        "tags" => Some(collection(name, single("tag", tag()))),
        "resource_type" => Some(single("resource_type_association", association())),
        "resource_types" => {
            Some(collection("resource_type_associations", single("resource_type_association", association())))
        }
        _ => None,
    }
}

fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 80})
}

fn strings() -> Value {
    json!({"type": "array", "uniqueItems": true, "maxItems": 1000, "items": {"type": "string"}})
}

pub fn property(named: bool) -> Value {
    let kinds = json!(["array", "boolean", "integer", "number", "object", "string"]);
    let length = || json!({"type": "integer", "minimum": 0});
    let mut out = json!({"type": "object", "additionalProperties": false, "required": ["title", "type"], "properties": {
        "name": name(), "title": {"type": "string"}, "description": {"type": "string"}, "type": {"type": "string", "enum": kinds},
        "operators": strings(), "required": strings(), "minimum": {"type": "number"}, "maximum": {"type": "number"},
        "maxLength": length(), "minLength": length(), "pattern": {"type": "string"}, "enum": {"type": "array"}, "readonly": {"type": "boolean"},
        "default": {}, "items": {"type": "object", "properties": {"type": {"type": "string", "enum": kinds}, "enum": {"type": "array"}}},
        "maxItems": length(), "minItems": length(), "uniqueItems": {"type": "boolean"}, "additionalItems": {"type": "boolean"}}});
    if named {
        out["required"] = json!(["name", "title", "type"]);
    }
    out
}

/// What the service itself writes into answers; clients send it back.
fn with_ours(mut schema: Value) -> Value {
    for key in ["self", "schema", "created_at", "updated_at"] {
        schema["properties"][key] = json!({"type": "string", "readOnly": true});
    }
    schema
}

pub fn object() -> Value {
    with_ours(json!({"type": "object", "additionalProperties": false, "required": ["name"], "properties": {
        "name": name(), "description": {"type": "string"}, "required": strings(),
        "properties": {"type": "object", "maxProperties": 1000, "additionalProperties": property(false)}}}))
}

pub fn tag() -> Value {
    with_ours(
        json!({"type": "object", "additionalProperties": false, "required": ["name"], "properties": {"name": name()}}),
    )
}

pub fn tags() -> Value {
    json!({"type": "object", "required": ["tags"], "properties": {"tags": {"type": "array", "maxItems": 1000, "items": tag()}}})
}

pub fn association() -> Value {
    with_ours(json!({"type": "object", "additionalProperties": false, "required": ["name"], "properties": {
        "name": name(), "prefix": {"type": "string", "maxLength": 80}, "properties_target": {"type": "string", "maxLength": 80}}}))
}

pub fn namespace() -> Value {
    with_ours(json!({"type": "object", "additionalProperties": false, "required": ["namespace"], "properties": {
        "namespace": name(), "display_name": {"type": "string", "maxLength": 80}, "description": {"type": "string", "maxLength": 500},
        "visibility": {"type": "string", "enum": ["public", "private"]}, "protected": {"type": "boolean"}, "owner": {"type": "string", "maxLength": 255},
        "resource_type_associations": {"type": "array", "maxItems": 1000, "items": association()},
        "properties": {"type": "object", "maxProperties": 1000, "additionalProperties": property(false)},
        "objects": {"type": "array", "maxItems": 1000, "items": object()}, "tags": {"type": "array", "maxItems": 1000, "items": tag()}}}))
}
