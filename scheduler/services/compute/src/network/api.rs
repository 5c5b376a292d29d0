//! `/os-networks` and `/os-tenant-networks`: what networks a project sees; making them is the network
//! service's business.
use crate::Compute;
use pilvi_kit::{Call, Fault, Reply, Response, Route, version::Version};
use pilvi_network::{
    network::{model::VirtualNetwork, ops},
    subnet::model::Subnet,
    tables::find,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The last microversion with APIs of other services' resources.
pub const OLD: Version = Version(2, 35);

pub fn routes() -> Vec<Route<Compute>> {
    let mut routes = vec![
        Route::get("/v2.1/os-networks", list).rule("os_compute_api:os-networks:list"),
        Route::get("/v2.1/os-networks/{id}", show).rule("os_compute_api:os-networks:show"),
        Route::get("/v2.1/os-tenant-networks", tenant_list).rule("os_compute_api:os-tenant-networks:list"),
        Route::get("/v2.1/os-tenant-networks/{id}", tenant_show).rule("os_compute_api:os-tenant-networks:show"),
    ];
    for route in &mut routes {
        route.versions.1 = OLD;
    }
    routes
}

/// Members that only the network of old had are null.
fn view(call: &Call, network: &VirtualNetwork) -> Value {
    const PLAIN: &[&str] =
        &["bridge", "broadcast", "cidr", "cidr_v6", "dns1", "dns2", "gateway", "gateway_v6", "netmask", "netmask_v6"];
    const ADMIN: &[&str] = &[
        "bridge_interface",
        "created_at",
        "deleted",
        "deleted_at",
        "dhcp_start",
        "host",
        "injected",
        "multi_host",
        "priority",
        "project_id",
        "rxtx_base",
        "updated_at",
        "vlan",
        "vpn_private_address",
        "vpn_public_address",
        "vpn_public_port",
    ];
    let mut out = json!({"id": network.id, "label": network.name});
    let more = if call.caller().has_role("admin") { ADMIN } else { &[] };
    for name in PLAIN.iter().chain(more) {
        out[*name] = Value::Null;
    }
    out
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let found = ops::seen_by(&svc.store, call.ctx.project_id()).await?;
    let shown: Vec<Value> = found.iter().map(|n| view(&call, n)).collect();
    Ok(Response::ok(json!({"networks": shown})))
}

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Network {id} could not be found."))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let id = call.param("id");
    let found = ops::visible(&svc.store, &call.ctx, id).await.map_err(|_| missing(id))?;
    Ok(Response::ok(json!({"network": view(&call, &found)})))
}

async fn tenant_view(svc: &Compute, network: &VirtualNetwork) -> Result<Value, Fault> {
    let subnets = svc.store.list::<Subnet>(find::on_network(&network.id)).await?;
    Ok(json!({"id": network.id, "label": network.name, "cidr": subnets.first().map(|s| &s.cidr)}))
}

async fn tenant_list(svc: Arc<Compute>, call: Call) -> Reply {
    let mut shown = Vec::new();
    for network in ops::seen_by(&svc.store, call.ctx.project_id()).await? {
        shown.push(tenant_view(&svc, &network).await?);
    }
    Ok(Response::ok(json!({"networks": shown})))
}

async fn tenant_show(svc: Arc<Compute>, call: Call) -> Reply {
    let id = call.param("id");
    let found = ops::visible(&svc.store, &call.ctx, id).await.map_err(|_| missing(id))?;
    Ok(Response::ok(json!({"network": tenant_view(&svc, &found).await?})))
}
