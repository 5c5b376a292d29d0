//! Providers in JSON, and the filters of their list.
use super::{
    model::Provider,
    ops::{Change, Filter, New},
};
use crate::{
    candidate::{model::Group, view as query},
    fault,
    snapshot::index::Node,
    version,
};
use pilvi_kit::{Call, Fault, id};
use pilvi_store::Stored;
use serde_json::{Value, json};

/// A dashed, lower-case uuid of either spelling; 400 otherwise.
pub fn uuid(text: &str) -> Result<String, Fault> {
    if !id::is_uuid(text) {
        return Err(Fault::bad_request(format!("JSON does not validate: '{text}' is not a 'uuid'")));
    }
    let plain: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let part = |from: usize, to: usize| plain.get(from..to).unwrap_or_default();
    Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

pub fn one(call: &Call, stored: &Stored<Provider>) -> Value {
    let p = &stored.record;
    shown(call, &p.uuid, &p.name, p.generation, p.parent.as_deref(), &p.root)
}

/// The same of a provider in memory.
pub fn listed(call: &Call, node: &Node) -> Value {
    shown(call, &node.uuid, &node.name, node.generation, node.parent.as_deref(), &node.root)
}

fn shown(call: &Call, uuid: &str, name: &str, generation: i64, parent: Option<&str>, root: &str) -> Value {
    let url = path(uuid);
    let mut rels = vec!["inventories", "usages"];
    for (since, rel) in
        [(version::AGGREGATES, "aggregates"), (version::TRAITS, "traits"), (version::LINK_ALLOCATIONS, "allocations")]
    {
        if call.version >= since {
            rels.push(rel);
        }
    }
    let mut links = vec![json!({"rel": "self", "href": url})];
    links.extend(rels.iter().map(|rel| json!({"rel": rel, "href": format!("{url}/{rel}")})));
    let mut out = json!({"uuid": uuid, "name": name, "generation": generation, "links": links});
    if call.version >= version::TREES {
        out["parent_provider_uuid"] = json!(parent);
        out["root_provider_uuid"] = json!(root);
    }
    out
}

/// Links are paths, not URLs, as in the original: the service does not know its outer address.
pub fn path(uuid: &str) -> String {
    format!("/placement/resource_providers/{uuid}")
}

pub fn create_answers(call: &Call) -> bool {
    call.version >= version::CREATE_ANSWERS
}

pub fn new(call: &Call) -> Result<New, Fault> {
    let text = |name: &str| call.body.get(name).and_then(Value::as_str);
    let uuid = match text("uuid") {
        Some(given) => uuid(given)?,
        None => id::new(),
    };
    let parent = text("parent_provider_uuid").map(self::uuid).transpose()?;
    Ok(New { uuid, name: text("name").unwrap_or_default().to_owned(), parent })
}

pub fn change(call: &Call) -> Result<Change, Fault> {
    let parent = match call.body.get("parent_provider_uuid") {
        None => None,
        Some(Value::String(given)) => Some(Some(uuid(given)?)),
        Some(_) => Some(None),
    };
    let name = call.member("name")?.as_str().unwrap_or_default().to_owned();
    Ok(Change { name, parent, reparent: call.version >= version::REPARENT })
}

pub fn filter(call: &Call) -> Result<Filter, Fault> {
    let known = |key: &str| match key {
        "name" | "uuid" => true,
        "member_of" => call.version >= version::PROVIDERS_MEMBER_OF,
        "resources" => call.version >= version::PROVIDERS_RESOURCES,
        "in_tree" => call.version >= version::TREES,
        "required" => call.version >= version::PROVIDERS_REQUIRED,
        _ => false,
    };
    fault::only_keys(call, known)?;
    let checked = |key: &str| {
        call.query
            .get(key)
            .map(|text| {
                uuid(text).map_err(|_| {
                    Fault::bad_request(format!("Invalid query string parameters: '{text}' is not a 'uuid'"))
                })
            })
            .transpose()
    };
    let mut group = Group {
        resources: call.query.get("resources").map(query::resources).transpose()?.unwrap_or_default(),
        ..Group::default()
    };
    group.in_tree = checked("in_tree")?;
    query::traits_into(call, "", &mut group)?;
    query::member_of_into(call, "", &mut group)?;
    Ok(Filter { name: call.query.get("name").map(str::to_owned), uuid: checked("uuid")?, group })
}
