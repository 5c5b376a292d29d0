//! Metadata definitions in JSON.
use super::model::{Entry, Namespace, Part};
use pilvi_kit::{Fault, clock};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub fn visibility(public: bool) -> &'static str {
    if public { "public" } else { "private" }
}

pub fn namespace(stored: &Stored<Namespace>, whole: bool) -> Value {
    let mut out = json!({
        "namespace": stored.name, "visibility": visibility(stored.public), "protected": stored.protected, "owner": stored.owner,
        "created_at": clock::seconds_z(stored.created_us), "updated_at": clock::seconds_z(stored.updated_us),
        "self": format!("/v2/metadefs/namespaces/{}", stored.name), "schema": "/v2/schemas/metadefs/namespace",
    });
    for (key, text) in [("display_name", &stored.display_name), ("description", &stored.description)] {
        if let Some(text) = text {
            out[key] = json!(text);
        }
    }
    let all =
        |part: Part| stored.part(part).iter().map(|(name, e)| entry(&stored.name, part, name, e)).collect::<Vec<_>>();
    if !stored.associations.is_empty() {
        out["resource_type_associations"] = json!(all(Part::Associations));
    }
    if whole {
        out["objects"] = json!(all(Part::Objects));
        out["tags"] = json!(all(Part::Tags));
        out["properties"] = properties(&stored.properties);
    }
    out
}

/// The prefix that a namespace's properties have on things of a resource type.
pub fn prefix<'n>(namespace: &'n Namespace, resource_type: &str) -> Option<&'n str> {
    namespace.associations.get(resource_type)?.body.get("prefix")?.as_str().filter(|p| !p.is_empty())
}

/// Names of properties as they are on things of a resource type.
pub fn with_prefix(shown: &mut Value, prefix: &str) {
    let renamed = |properties: &Value| -> Value {
        let all = properties.as_object().into_iter().flatten();
        all.map(|(name, body)| (format!("{prefix}{name}"), body.clone())).collect::<Map<_, _>>().into()
    };
    shown["properties"] = renamed(&shown["properties"]);
    for object in shown["objects"].as_array_mut().into_iter().flatten() {
        object["properties"] = renamed(&object["properties"]);
        for name in object["required"].as_array_mut().into_iter().flatten() {
            *name = json!(format!("{prefix}{}", name.as_str().unwrap_or_default()));
        }
    }
}

/// Properties are an object by name.
pub fn properties(entries: &BTreeMap<String, Entry>) -> Value {
    entries.iter().map(|(name, e)| (name.clone(), Value::Object(e.body.clone()))).collect::<Map<_, _>>().into()
}

pub fn entry(namespace: &str, part: Part, name: &str, entry: &Entry) -> Value {
    let mut out = entry.body.clone();
    out.insert("name".into(), json!(name));
    if part == Part::Properties {
        return Value::Object(out);
    }
    out.insert("created_at".into(), json!(clock::seconds_z(entry.created_us)));
    out.insert("updated_at".into(), json!(clock::seconds_z(entry.updated_us)));
    let path = match part {
        Part::Objects => "object",
        Part::Tags => "tag",
        _ => return Value::Object(out),
    };
    out.insert("self".into(), json!(format!("/v2/metadefs/namespaces/{namespace}/{path}s/{name}")));
    out.insert("schema".into(), json!(format!("/v2/schemas/metadefs/{path}")));
    if part == Part::Objects {
        for (key, empty) in [("required", json!([])), ("properties", json!({}))] {
            out.entry(key).or_insert(empty);
        }
    }
    Value::Object(out)
}

/// An entry's name and the rest of its body.
pub fn named(body: &Value) -> Result<(String, Map<String, Value>), Fault> {
    let mut rest = body.as_object().cloned().unwrap_or_default();
    for given_by_us in ["self", "schema", "created_at", "updated_at"] {
        rest.remove(given_by_us);
    }
    match rest.remove("name") {
        Some(Value::String(name)) => Ok((name, rest)),
        _ => Err(Fault::bad_request("'name' is a required property")),
    }
}

/// A namespace from a body that passed the schema, with all that it brings along.
pub fn new(body: &Value, project: &str, now_us: i64) -> Result<Namespace, Fault> {
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut out = Namespace {
        name: text("namespace").unwrap_or_default(),
        owner: text("owner").unwrap_or_else(|| project.to_owned()),
        display_name: text("display_name"),
        description: text("description"),
        public: text("visibility").as_deref() == Some("public"),
        protected: body.get("protected").and_then(Value::as_bool).unwrap_or(false),
        objects: BTreeMap::new(),
        properties: BTreeMap::new(),
        tags: BTreeMap::new(),
        associations: BTreeMap::new(),
    };
    for (key, part) in
        [("objects", Part::Objects), ("tags", Part::Tags), ("resource_type_associations", Part::Associations)]
    {
        for item in body.get(key).and_then(Value::as_array).into_iter().flatten() {
            let (name, rest) = named(item)?;
            out.add(part, &name, rest, now_us)?;
        }
    }
    for (name, item) in body.get("properties").and_then(Value::as_object).into_iter().flatten() {
        out.add(Part::Properties, name, item.as_object().cloned().unwrap_or_default(), now_us)?;
    }
    Ok(out)
}
