//! Resource classes in JSON.
use serde_json::{Value, json};

pub fn one(name: &str) -> Value {
    json!({"name": name, "links": [{"rel": "self", "href": format!("/placement/resource_classes/{name}")}]})
}
