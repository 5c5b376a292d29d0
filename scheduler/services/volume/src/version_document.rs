//! `GET /volume/` and `/volume/v3`: which versions there are.
use crate::{Volumes, version};
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const WHY: &str = "clients discover versions before they have a token";

pub fn routes() -> Vec<Route<Volumes>> {
    vec![Route::get("/", all).public(WHY), Route::get("/v3", one).public(WHY)]
}

fn entry(call: &Call) -> Value {
    json!({
        "id": "v3.0", "status": "CURRENT", "version": version::MAX.to_string(), "min_version": version::MIN.to_string(),
        "updated": "2026-04-01T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{}/v3/", call.base_url)},
        ],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"},
        ],
    })
}

/// 300: there is a choice, though of one.
async fn all(_: Arc<Volumes>, call: Call) -> Reply {
    Ok(Response::json(300, json!({"versions": [entry(&call)]})))
}

async fn one(_: Arc<Volumes>, call: Call) -> Reply {
    Ok(Response::ok(json!({"versions": [entry(&call)]})))
}
