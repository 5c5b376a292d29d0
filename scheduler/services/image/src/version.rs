//! The versions of the Image API, newest first, and the documents that tell them.
//!
//! | version | what it added |
//! | --- | --- |
//! | 2.18 | a store may be preferred for a download |
//! | 2.17 | locations by their own calls |
//! | 2.16 | the cache's queue and what is in it by their own calls |
//! | 2.15 | quota usage at `/info/usage` |
//! | 2.12 | `/images/{id}/tasks` |
//! | 2.7 | hidden images, `os_hash_*` |
//! | 2.6 | import |
//! | 2.5 | visibility `community` and `shared` |
//! | 2.3 | deactivate and reactivate |
use crate::Image;
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const CURRENT: &str = "2.18";
const SUPPORTED: &[&str] = &[
    "2.17", "2.16", "2.15", "2.14", "2.13", "2.12", "2.11", "2.10", "2.9", "2.8", "2.7", "2.6", "2.5", "2.4", "2.3",
    "2.2", "2.1", "2.0",
];

pub fn routes() -> Vec<Route<Image>> {
    let why = "clients read versions before they have a token";
    vec![
        Route::get("/", choices).public(why).summary("Versions"),
        Route::get("/versions", versions).public(why).summary("Versions"),
        Route::get("/v2", choices).public(why).summary("Versions"),
    ]
}

fn document(call: &Call) -> Value {
    let href = call.url("/v2/");
    let one = |id: &str, status: &str| json!({"id": format!("v{id}"), "status": status, "links": [{"rel": "self", "href": href}]});
    let mut all = vec![one(CURRENT, "CURRENT")];
    all.extend(SUPPORTED.iter().map(|id| one(id, "SUPPORTED")));
    json!({"versions": all})
}

async fn versions(_: Arc<Image>, call: Call) -> Reply {
    Ok(Response::ok(document(&call)))
}

async fn choices(_: Arc<Image>, call: Call) -> Reply {
    Ok(Response::json(300, document(&call)))
}
