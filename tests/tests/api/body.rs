//! A body that a schema takes: its required members, and of the others those that name a place of the world.
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Text for schemas with a pattern: the first that fits is taken.
const SAMPLES: &[&str] = &[
    "x",
    "11111111-1111-4111-8111-111111111111",
    "11111111111111111111111111111111",
    "CUSTOM_X",
    "VCPU",
    "1",
    "10.0.0.0/24",
    "10.0.0.1",
    "tcp",
    "https://example.org/x",
    "2099-01-01T00:00:00.000000Z",
    "ab",
    "name-x",
];

/// `fill` gives members their values by name.
pub fn of(schema: &Value, fill: &HashMap<String, String>) -> Value {
    build(schema, fill, 0)
}

fn build(schema: &Value, fill: &HashMap<String, String>, depth: usize) -> Value {
    if depth > 12 {
        return Value::Null;
    }
    if let Some(first) = schema["enum"].as_array().and_then(|e| e.iter().find(|v| !v.is_null()).or(e.first())) {
        return first.clone();
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(first) = schema[choice].as_array().and_then(|c| c.first()) {
            let mut merged = first.clone();
            if let (Some(merged), Some(rest)) = (merged.as_object_mut(), schema.as_object()) {
                for (key, value) in rest.iter().filter(|(k, _)| *k != choice) {
                    merged.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            return build(&merged, fill, depth + 1);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|k| *k != "null").unwrap_or(&Value::Null).clone(),
        other => other.clone(),
    };
    match kind.as_str() {
        Some("object") => object(schema, fill, depth),
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(0);
            (0..least).map(|_| build(&schema["items"], fill, depth + 1)).collect()
        }
        Some("integer" | "number") => schema["minimum"].as_f64().map_or(json!(1), |n| json!(n.max(1.0).ceil() as i64)),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("string") => text(schema),
        None if schema["properties"].is_object() || schema["required"].is_array() => object(schema, fill, depth),
        _ => json!("x"),
    }
}

fn object(schema: &Value, fill: &HashMap<String, String>, depth: usize) -> Value {
    let mut out = Map::new();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let inner = properties.get(name).cloned().unwrap_or(json!({"type": "string"}));
        out.insert(name.to_owned(), build(&inner, fill, depth + 1));
    }
    for name in properties.keys() {
        if let Some(value) = fill.get(name) {
            out.insert(name.clone(), value.clone().into());
        }
    }
    let least = schema["minProperties"].as_u64().unwrap_or(0) as usize;
    for (name, inner) in &properties {
        if out.len() < least && !out.contains_key(name) {
            out.insert(name.clone(), build(inner, fill, depth + 1));
        }
    }
    if out.len() < least
        && let Some((_, inner)) = schema["patternProperties"].as_object().and_then(|p| p.iter().next())
    {
        out.insert("x".into(), build(inner, fill, depth + 1));
    }
    Value::Object(out)
}

fn text(schema: &Value) -> Value {
    let least = schema["minLength"].as_u64().unwrap_or(0) as usize;
    let format = match schema["format"].as_str() {
        Some("uri") => Some("https://example.org/x"),
        Some("uuid") => Some(SAMPLES[1]),
        Some("date-time") => Some("2099-01-01T00:00:00.000000Z"),
        Some("ipv4") => Some("10.0.0.1"),
        Some("ipv6") => Some("fd00::1"),
        _ => None,
    };
    let pattern = schema["pattern"].as_str().and_then(|p| regex::Regex::new(p).ok());
    let fits = |s: &&&str| s.len() >= least && pattern.as_ref().is_none_or(|p| p.is_match(s));
    format.or_else(|| SAMPLES.iter().find(fits).copied()).unwrap_or("xxxxxxxx").into()
}
