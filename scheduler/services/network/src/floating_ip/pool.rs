//! `/v2.0/floatingip_pools`: the subnets from which floating IPs come.
use crate::{Network, network::ops as networks, subnet::model::Subnet, tables::find};
use pilvi_kit::{Call, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// Under both spellings, as clients send both.
pub fn routes() -> Vec<Route<Network>> {
    ["/v2.0/floatingip_pools", "/v2.0/floatingip-pools"]
        .map(|path| {
            Route::get(path, list).rule("get_floatingip_pool").summary("Lists subnets that floating IPs come from")
        })
        .into()
}

/// The IPv4 subnets of the external networks that the caller may go out through.
async fn list(svc: Arc<Network>, call: Call) -> Reply {
    let mut outside = networks::seen_by(&svc.store, call.ctx.project_id()).await?;
    outside.retain(|n| n.external);
    let subnets = svc.store.list::<Subnet>(find::on_networks(outside.iter().map(|n| n.id.as_str()))).await?;
    let pools: Vec<Value> = subnets
        .iter()
        .filter(|s| s.ip_version == 4)
        .map(|s| {
            json!({"network_id": s.network_id, "subnet_id": s.id, "subnet_name": s.name, "cidr": s.cidr,
                "project_id": s.project_id, "tenant_id": s.project_id})
        })
        .collect();
    Ok(Response::ok(json!({"floatingip_pools": pools})))
}
