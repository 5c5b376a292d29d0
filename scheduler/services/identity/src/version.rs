//! Which versions of the API there are: one, v3.14.
use crate::Identity;
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn routes() -> Vec<Route<Identity>> {
    const WHY: &str = "clients look for versions before they have a token";
    vec![
        Route::get("/", list).public(WHY).summary("List API versions"),
        Route::get("/v3", show).public(WHY).summary("Show the v3 API"),
    ]
}

fn document(call: &Call) -> Value {
    json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/v3/", call.base_url)}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

async fn list(_svc: Arc<Identity>, call: Call) -> Reply {
    let location = format!("{}/v3/", call.base_url);
    Ok(Response::json(300, json!({"versions": {"values": [document(&call)]}})).header("location", location))
}

async fn show(_svc: Arc<Identity>, call: Call) -> Reply {
    Ok(Response::ok(json!({"version": document(&call)})))
}
