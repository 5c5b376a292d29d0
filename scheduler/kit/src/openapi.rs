//! The OpenAPI document, made from the same route tables that answer the requests.
use crate::{route::Asked, service::Mounted, version::Version};
use serde_json::{Map, Value, json};

/// One document for all mounted services.
pub fn document(services: &[Mounted]) -> Value {
    let mut paths = Map::new();
    for service in services {
        for route in &service.routes {
            let path = format!("{}{}", service.prefix, route.path.replace("{*", "{"));
            let entry = paths.entry(path).or_insert_with(|| json!({}));
            let method = route.method.as_str().to_ascii_lowercase();
            if let Some(operations) = entry.as_object_mut() {
                operations.insert(method, operation(service, route));
            }
        }
    }
    json!({
        "openapi": "3.0.3",
        "info": {"title": "Pilvi", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}},
    })
}

fn operation(service: &Mounted, route: &crate::route::Route<()>) -> Value {
    let parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|s| s.strip_prefix('{').and_then(|s| s.strip_suffix('}')))
        .map(|name| json!({"name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let mut out = json!({
        "tags": [service.name], "summary": route.summary, "parameters": parameters,
        "responses": {"default": {"description": "the resource, or a fault"}},
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
    if route.asked != Asked::Public {
        out["security"] = json!([{"token": []}]);
    }
    if route.versions.0 > Version(0, 0) {
        out["x-since"] = json!(route.versions.0.to_string());
    }
    if route.versions.1 < Version(u16::MAX, u16::MAX) {
        out["x-until"] = json!(route.versions.1.to_string());
    }
    if let Some(schema) = route.schema {
        out["requestBody"] = json!({"content": {"application/json": {"schema": schema.document()}}});
    } else if route.bytes {
        out["requestBody"] = json!({"content": {"application/octet-stream": {}}});
    }
    out
}
