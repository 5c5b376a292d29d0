//! `/v2/schemas`
use super::documents;
use crate::{Image, metadef};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Image>> {
    let why = "the same for everyone";
    vec![
        Route::get("/v2/schemas/metadefs/{name}", show_metadef)
            .authenticated(why)
            .summary("Show a schema of metadata definitions"),
        Route::get("/v2/schemas/{name}", show).authenticated(why).summary("Show a schema"),
    ]
}

async fn show(_: Arc<Image>, call: Call) -> Reply {
    let name = call.param("name");
    documents::by_name(name).map(Response::ok).ok_or_else(|| Fault::not_found(format!("No schema named {name}")))
}

async fn show_metadef(_: Arc<Image>, call: Call) -> Reply {
    let name = call.param("name");
    metadef::schemas::by_name(name).map(Response::ok).ok_or_else(|| Fault::not_found(format!("No schema named {name}")))
}
