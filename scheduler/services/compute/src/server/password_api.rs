//! `/servers/{id}/os-server-password`: what the guest posted to the metadata service as its password.
//!
//! It stays on the guest's host, encrypted by the guest with the user's key; here it is only asked for.
use crate::{Compute, server::api::owned};
use pilvi_agent_api::v1;
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::json;
use std::sync::Arc;

pub fn routes() -> Vec<Route<Compute>> {
    const PATH: &str = "/v2.1/servers/{server_id}/os-server-password";
    vec![
        Route::get(PATH, show).rule_by_handler("os_compute_api:os-server-password:show"),
        Route::delete(PATH, clear).rule_by_handler("os_compute_api:os-server-password:clear"),
    ]
}

async fn ask(svc: &Compute, call: &Call, clear: bool) -> Result<String, Fault> {
    let server = owned(svc, call).await?;
    let Some(host) = &server.host else { return Ok(String::new()) };
    let node = svc.fleet.node_by_name(host).await?.ok_or_else(|| Fault::conflict("The server's host was removed."))?;
    let question =
        v1::question::Body::ServerPassword(v1::ServerPassword { instance_id: server.record.id.clone(), clear });
    let bytes = svc.fleet.ask(&node.record.id, question).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"password": ask(&svc, &call, false).await?})))
}

async fn clear(svc: Arc<Compute>, call: Call) -> Reply {
    ask(&svc, &call, true).await?;
    Ok(Response::no_content())
}
