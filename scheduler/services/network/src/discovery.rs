//! What this API is: `/network/` (versions), `/network/v2.0` (resources) and `/v2.0/extensions`.
//!
//! An extension is listed only if everything it promises works here, so that clients can trust the list: `tests/extensions` writes it from
//! `extensions.toml` and from what passed.
mod announced;

use crate::{Network, RESOURCES};
use announced::EXTENSIONS;
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/", versions)
            .public("clients look for versions before they have a token")
            .summary("Lists versions"),
        Route::get("/v2.0", resources)
            .public("clients look for resources before they have a token")
            .summary("Lists resources"),
        Route::get("/v2.0/extensions", extensions).rule_by_handler("get_extension").summary("Lists extensions"),
        Route::get("/v2.0/extensions/{alias}", extension)
            .rule_by_handler("get_extension")
            .summary("Shows an extension"),
    ]
}

async fn versions(_svc: Arc<Network>, call: Call) -> Reply {
    let links = json!([{"rel": "self", "href": call.url("/v2.0/")}]);
    Ok(Response::ok(json!({"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})))
}

async fn resources(_svc: Arc<Network>, call: Call) -> Reply {
    let listed: Vec<Value> = RESOURCES
        .iter()
        .map(|r| {
            let collection = r.collection.replace('_', "-");
            let links = json!([{"rel": "self", "href": call.url(&format!("/v2.0/{collection}"))}]);
            json!({"name": r.name, "collection": r.collection, "links": links})
        })
        .collect();
    Ok(Response::ok(json!({"resources": listed})))
}

fn view((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({"alias": alias, "name": name, "description": description, "updated": "2026-11-23T00:00:00-00:00", "links": []})
}

async fn extensions(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    Ok(Response::ok(json!({"extensions": EXTENSIONS.iter().map(view).collect::<Vec<_>>()})))
}

async fn extension(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    let alias = call.param("alias");
    let found = EXTENSIONS.iter().find(|e| e.0 == alias);
    let found = found.ok_or_else(|| {
        Fault::not_found(format!("Extension with alias {alias} does not exist")).kind("ExtensionNotFound")
    })?;
    Ok(Response::ok(json!({"extension": view(found)})))
}
