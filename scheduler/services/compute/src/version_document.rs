//! `GET /compute/` and `/compute/v2.1`: which versions there are.
use crate::{Compute, version};
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::get("/", all).public("clients discover versions before they have a token"),
        Route::get("/v2", old).public("clients discover versions before they have a token"),
        Route::get("/v2.1", one).public("clients discover versions before they have a token"),
        Route::get("/v2.1/extensions", extensions)
            .rule("os_compute_api:extensions")
            .summary("Extensions: all are part of the API now"),
    ]
}

fn entry(call: &Call, status: &str) -> Value {
    json!({
        "id": "v2.1", "status": status, "version": version::MAX.to_string(), "min_version": version::MIN.to_string(),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": format!("{}/v2.1/", call.base_url)}],
    })
}

/// The API as it was before microversions: the same paths below `/v2`, always at 2.1.
fn old_entry(call: &Call) -> Value {
    json!({
        "id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z",
        "links": [{"rel": "self", "href": format!("{}/v2/", call.base_url)}],
    })
}

async fn old(_: Arc<Compute>, call: Call) -> Reply {
    let mut version = old_entry(&call);
    version["media-types"] =
        json!([{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2"}]);
    version["links"] = json!([
        {"rel": "self", "href": format!("{}/v2/", call.base_url)},
        {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"},
    ]);
    Ok(Response::ok(json!({"version": version})))
}

async fn all(_: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"versions": [old_entry(&call), entry(&call, "CURRENT")]})))
}

async fn one(_: Arc<Compute>, call: Call) -> Reply {
    let mut version = entry(&call, "CURRENT");
    version["media-types"] =
        json!([{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]);
    version["links"] = json!([
        {"rel": "self", "href": format!("{}/v2.1/", call.base_url)},
        {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"},
    ]);
    Ok(Response::ok(json!({"version": version})))
}

async fn extensions(_: Arc<Compute>, _call: Call) -> Reply {
    Ok(Response::ok(json!({"extensions": []})))
}
