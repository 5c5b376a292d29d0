//! The OpenAPI document (3.1), made from the same route tables that answer the requests, so that it cannot lag behind.
//!
//! Bodies are the very schemas that requests are checked against. Where a service has microversions, the header that
//! chooses one is a parameter, and `x-since` and `x-until` bound an operation. `x-policy-*` say who may call.
use crate::{
    route::{Asked, BYTES, Route},
    service::Mounted,
    version::{self, Version},
};
use http::Method;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One document for all mounted services.
pub fn document(services: &[Mounted]) -> Value {
    let (mut paths, mut ids) = (Map::new(), BTreeSet::new());
    for service in services {
        let mut names = Names::default();
        for route in newest(&service.routes) {
            let path = format!("{}{}", service.prefix, names.of(route.path));
            let entry = paths.entry(path).or_insert_with(|| json!({}));
            let mut operation = operation(service, route, &names.of(route.path));
            operation["operationId"] = unique(&mut ids, service, route).into();
            if let Some(operations) = entry.as_object_mut() {
                operations.insert(route.method.as_str().to_ascii_lowercase(), operation);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Pilvi", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
            "responses": {"Fault": {"description": "Refused or failed: the service's own envelope of a fault",
                "content": {"application/json": {"schema": {"type": "object"}}}}},
        },
    })
}

/// One route for each method and shape: of those that differ by microversion, the newest.
fn newest(routes: &[Route<()>]) -> Vec<&Route<()>> {
    let mut found: BTreeMap<(String, String), &Route<()>> = BTreeMap::new();
    let mut order = Vec::new();
    for route in routes {
        let key = (route.method.to_string(), shape(route.path));
        match found.get(&key) {
            Some(known) if known.versions.1 >= route.versions.1 => {}
            Some(_) => {
                found.insert(key, route);
            }
            None => {
                order.push(key.clone());
                found.insert(key, route);
            }
        }
    }
    order.iter().filter_map(|key| found.get(key).copied()).collect()
}

fn shape(path: &str) -> String {
    path.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }).collect::<Vec<_>>().join("/")
}

/// Two patterns of one shape are one path to OpenAPI: the first one's names are used for both.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn of(&mut self, path: &str) -> String {
        // A pattern may name two segments alike only by mistake; the matcher would take the first.
        self.0.entry(shape(path)).or_insert_with(|| path.replace("{*", "{")).clone()
    }
}

fn unique(ids: &mut BTreeSet<String>, service: &Mounted, route: &Route<()>) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let name = format!(
        "{}-{}-{}",
        service.name,
        route.method.as_str().to_ascii_lowercase(),
        words.collect::<Vec<_>>().join("-")
    );
    let mut id = name.clone();
    let mut number = 2;
    while !ids.insert(id.clone()) {
        id = format!("{name}-{number}");
        number += 1;
    }
    id
}

fn parameters(service: &Mounted, route: &Route<()>, path: &str) -> Vec<Value> {
    let mut out: Vec<Value> = path
        .split('/')
        .filter_map(|s| s.strip_prefix('{').and_then(|s| s.strip_suffix('}')))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}}))
        .collect();
    if let Some(versions) = &service.versions {
        let of = |v: Version| format!("{} {v}", versions.service_type);
        let (since, until) = (route.versions.0.max(versions.min), route.versions.1.min(versions.max));
        let mut choices = vec![of(until), of(since)];
        choices.dedup();
        out.push(
            json!({"name": "OpenStack-API-Version", "in": "header", "schema": {"type": "string", "enum": choices},
            "description": format!("Microversion: {} to {}, or latest", versions.min, versions.max)}),
        );
    }
    // Collections are filtered, sorted and paged.
    if route.method == Method::GET && !path.ends_with('}') && route.asked != Asked::Public {
        for (name, kind) in [
            ("limit", "integer"),
            ("marker", "string"),
            ("sort_key", "string"),
            ("sort_dir", "string"),
            ("name", "string"),
        ] {
            out.push(json!({"name": name, "in": "query", "required": false, "schema": {"type": kind}}));
        }
    }
    out
}

fn body(route: &Route<()>) -> Option<Value> {
    if route.bytes {
        let schema = match route.body_type {
            BYTES => json!({"type": "string", "format": "binary"}),
            // Forms.
            _ => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        };
        return Some(json!({"content": {route.body_type: {"schema": schema}}}));
    }
    if !matches!(route.method, Method::POST | Method::PUT | Method::PATCH) {
        return None;
    }
    let schema = route.schema.map(|s| modern(s.document().clone()));
    let required = schema.is_some();
    let schema = match schema {
        Some(mut schema) if !route.actions.is_empty() && schema.get("properties").is_none() => {
            let verbs: Map<String, Value> = route.actions.iter().map(|(n, _)| ((*n).to_owned(), json!({}))).collect();
            schema["properties"] = Value::Object(verbs);
            schema["additionalProperties"] = false.into();
            schema
        }
        Some(schema) => schema,
        None => json!({}),
    };
    Some(json!({"required": required, "content": {route.body_type: {"schema": schema}}}))
}

/// From draft 4, in which the schemas are written, to the draft of OpenAPI 3.1: a bound that is not in the range is a
/// number there, not a flag beside it.
fn modern(schema: Value) -> Value {
    match schema {
        Value::Array(items) => items.into_iter().map(modern).collect(),
        Value::Object(members) => {
            let mut members: Map<String, Value> = members.into_iter().map(|(k, v)| (k, modern(v))).collect();
            for (bound, open) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
                match members.get(open).cloned() {
                    Some(Value::Bool(true)) => {
                        if let Some(number) = members.remove(bound) {
                            members.insert(open.to_owned(), number);
                        }
                    }
                    Some(Value::Bool(false)) => {
                        members.remove(open);
                    }
                    _ => {}
                }
            }
            Value::Object(members)
        }
        other => other,
    }
}

fn operation(service: &Mounted, route: &Route<()>, path: &str) -> Value {
    let fault = json!({"$ref": "#/components/responses/Fault"});
    let mut out = json!({
        "tags": [service.name], "summary": route.summary, "parameters": parameters(service, route, path),
        "responses": {"2XX": {"description": "Done"}, "3XX": {"description": "Elsewhere, or a choice of versions"}, "4XX": fault},
    });
    match route.asked {
        Asked::Public => out["x-public"] = json!(route.rule),
        Asked::Authenticated => out["x-authenticated"] = json!(route.rule),
        _ => {
            out["x-policy-rule"] = json!(route.rule);
            out["x-policy-default"] = json!(service.enforcer.text(route.rule));
            out["x-policy-scopes"] = json!(service.enforcer.scopes(route.rule));
        }
    }
    if !route.actions.is_empty() {
        let rules: Map<String, Value> = route.actions.iter().map(|(n, r)| ((*n).to_owned(), json!(r))).collect();
        out["x-policy-rules-of-verbs"] = Value::Object(rules);
    }
    if route.asked != Asked::Public {
        out["security"] = json!([{"token": []}]);
    }
    if let Some(versions) = &service.versions {
        out["x-microversion-header"] = json!(version::HEADER);
        if route.versions.0 > versions.min {
            out["x-since"] = json!(route.versions.0.to_string());
        }
        if route.versions.1 < versions.max {
            out["x-until"] = json!(route.versions.1.to_string());
        }
    }
    if let Some(body) = body(route) {
        out["requestBody"] = body;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Reply, Response};
    use std::sync::Arc;

    async fn answer(_: Arc<()>, _: Call) -> Reply {
        Ok(Response::no_content())
    }

    #[test]
    fn bodies_are_told_by_their_media_type() {
        let content = |route: Route<()>| body(&route).map(|b| b["content"].clone());
        assert_eq!(content(Route::get("/a", answer)), None);
        assert_eq!(content(Route::post("/a", answer)), Some(json!({"application/json": {"schema": {}}})));
        let bytes = json!({BYTES: {"schema": {"type": "string", "format": "binary"}}});
        assert_eq!(content(Route::put("/a", answer).takes_bytes()), Some(bytes));
        const FORM: &str = "application/x-www-form-urlencoded";
        let form = content(Route::post("/a", answer).takes_bytes().body_type(FORM)).unwrap();
        assert_eq!(form[FORM]["schema"]["type"], "object");
    }
}
