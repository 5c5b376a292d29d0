//! Request bodies: `{"user": {...}}` with known members, and whatever else the client invented.
//!
//! Schemas check the known members' types before a handler runs; here they are read, and the rest is kept
//! as extra attributes.
use crate::{fault, tables::Extra};
use pilvi_kit::{Call, Fault};
use serde_json::{Map, Value, json};

/// Extra attributes of one resource, at most.
const EXTRA_MAX: usize = 256;

/// The members of a request body's one object.
#[derive(Debug, Clone)]
pub(crate) struct Attributes(pub Map<String, Value>);

impl Attributes {
    /// `call.body[member]`
    pub fn of(call: &Call, member: &str) -> Result<Self, Fault> {
        let map =
            call.body.get(member).and_then(Value::as_object).ok_or_else(|| fault::expecting(member, "request body"))?;
        if map.len() > EXTRA_MAX {
            return Err(Fault::bad_request(format!("A {member} has at most {EXTRA_MAX} attributes.")));
        }
        let attributes = Attributes(map.clone());
        if attributes.0.values().any(has_nul) || attributes.0.keys().any(|k| k.contains('\0')) {
            return Err(Fault::bad_request("A text must not contain the character NUL."));
        }
        Ok(attributes)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
    /// A text that is there and not null.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).and_then(Value::as_str).map(str::to_owned)
    }
    pub fn need(&self, name: &str, target: &str) -> Result<String, Fault> {
        self.text(name).ok_or_else(|| fault::expecting(name, target))
    }
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }
    pub fn object(&self, name: &str) -> Option<Extra> {
        self.0.get(name).and_then(Value::as_object).cloned()
    }
    pub fn list(&self, name: &str) -> Option<&Vec<Value>> {
        self.0.get(name).and_then(Value::as_array)
    }

    /// `name` must not change: 400 if it is there with another value.
    pub fn unchanged(&self, name: &str, now: Option<&str>) -> Result<(), Fault> {
        match self.0.get(name) {
            Some(value) if value.as_str() != now => Err(Fault::bad_request(format!("Cannot change {name}."))),
            _ => Ok(()),
        }
    }

    /// What is none of `known`.
    pub fn extra(&self, known: &[&str]) -> Extra {
        self.0
            .iter()
            .filter(|(k, _)| !known.contains(&k.as_str()) && *k != "links" && *k != "id")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Lays what is none of `known` over `extra`; null removes nothing, it is kept as Keystone keeps it.
    pub fn merge_extra(&self, extra: &mut Extra, known: &[&str]) {
        for (key, value) in self.extra(known) {
            extra.insert(key, value);
        }
    }

    /// Lays resource options over `options`; null unsets one.
    pub fn merge_options(&self, options: &mut Extra) {
        for (key, value) in self.object("options").unwrap_or_default() {
            if value.is_null() {
                options.remove(&key);
            } else {
                options.insert(key, value);
            }
        }
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(k, v)| k.contains('\0') || has_nul(v)),
        _ => false,
    }
}

/// `base` and the extra attributes it does not name itself.
pub(crate) fn with_extra(base: Value, extra: &Extra) -> Value {
    let mut out = base;
    if let Some(map) = out.as_object_mut() {
        for (key, value) in extra {
            if !map.contains_key(key) {
                map.insert(key.clone(), value.clone());
            }
        }
    }
    out
}

/// A JSON schema of `{member: {properties...}}` that leaves room for further members.
pub(crate) fn body_schema(member: &str, properties: Value, required: &[&str]) -> Value {
    let mut inner = json!({"type": "object", "properties": properties, "additionalProperties": true});
    if !required.is_empty() {
        inner["required"] = json!(required);
    }
    json!({"type": "object", "properties": {member: inner}, "required": [member]})
}

/// Types that many schemas name.
pub(crate) mod types {
    use serde_json::{Value, json};

    /// 1 to `max` characters, not all blank.
    pub fn name(max: usize) -> Value {
        json!({"type": "string", "minLength": 1, "maxLength": max, "pattern": "\\S"})
    }
    pub fn text() -> Value {
        json!({"type": "string"})
    }
    pub fn text_or_null() -> Value {
        json!({"type": ["string", "null"]})
    }
    pub fn id() -> Value {
        json!({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"})
    }
    pub fn id_or_null() -> Value {
        json!({"type": ["string", "null"], "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"})
    }
    pub fn flag() -> Value {
        json!({"type": "boolean"})
    }
    /// Options of a project, domain or role.
    pub fn options() -> Value {
        json!({"type": "object", "properties": {"immutable": {"type": ["boolean", "null"]}}, "additionalProperties": false})
    }
}
