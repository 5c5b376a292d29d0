//! `/servers/{id}/os-interface`
use crate::{
    Compute,
    server::api::owned,
    tables::{NetworkWish, Server},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_network::port::{model::Port, ops::list_by_device};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/servers/{server_id}/os-interface";
    const ONE: &str = "/v2.1/servers/{server_id}/os-interface/{port_id}";
    vec![
        Route::get(ALL, list).rule_by_handler("os_compute_api:os-attach-interfaces:list"),
        Route::post(ALL, attach).rule_by_handler("os_compute_api:os-attach-interfaces:create").schema(&ATTACH),
        Route::get(ONE, show).rule_by_handler("os_compute_api:os-attach-interfaces:show"),
        Route::delete(ONE, detach).rule_by_handler("os_compute_api:os-attach-interfaces:delete"),
    ]
}

static ATTACH: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let address = json!({"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]});
        json!({"type": "object", "additionalProperties": false, "properties": {"interfaceAttachment": {
            "type": "object", "additionalProperties": false, "properties": {
                "net_id": {"type": "string", "format": "uuid"}, "port_id": {"type": "string", "format": "uuid"},
                "fixed_ips": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object",
                    "required": ["ip_address"], "additionalProperties": false, "properties": {"ip_address": address}}},
                "tag": {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"}}}}})
    })
});

fn view(call: &Call, server: &Server, port: &Port) -> Value {
    let fixed: Vec<Value> =
        port.fixed_ips.iter().map(|f| json!({"ip_address": f.ip_address, "subnet_id": f.subnet_id})).collect();
    let mut shown = json!({"port_id": port.id, "net_id": port.network_id, "mac_addr": port.mac_address,
        "port_state": port.status, "fixed_ips": fixed});
    if call.at_least(2, 70) {
        shown["tag"] = json!(server.ports.iter().find(|p| p.id == port.id).and_then(|p| p.tag.clone()));
    }
    shown
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let ports = list_by_device(&svc.store, &server.record.id).await?;
    let shown: Vec<Value> = ports.iter().map(|p| view(&call, &server, p)).collect();
    Ok(Response::ok(json!({"interfaceAttachments": shown})))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let id = call.param("port_id");
    let port = svc.store.get::<Port>(id).await?.filter(|p| p.device_id == server.record.id);
    let port = port
        .ok_or_else(|| Fault::not_found(format!("Instance {} does not have a port with id {id}", server.record.id)))?;
    Ok(Response::ok(json!({"interfaceAttachment": view(&call, &server, &port)})))
}

async fn attach(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let body = call.body.get("interfaceAttachment").cloned().unwrap_or_default();
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let fixed_ip = body["fixed_ips"][0]["ip_address"].as_str().map(str::to_owned);
    if body.get("tag").is_some() && !call.at_least(2, 49) {
        return Err(Fault::bad_request("Additional properties are not allowed ('tag' was unexpected)"));
    }
    let wish = NetworkWish { network_id: text("net_id"), port_id: text("port_id"), fixed_ip, tag: text("tag") };
    if wish.network_id.is_some() && wish.port_id.is_some() {
        return Err(Fault::bad_request("Must not input both network_id and port_id"));
    }
    if wish.fixed_ip.is_some() && wish.network_id.is_none() {
        return Err(Fault::bad_request("Must input network_id when request IP address"));
    }
    let (server, port_id) = svc.attach_interface(&call.ctx, &server, wish).await?;
    let port = svc.store.get::<Port>(&port_id).await?.ok_or_else(|| Fault::conflict("The port was deleted."))?;
    Ok(Response::ok(json!({"interfaceAttachment": view(&call, &server, &port)})))
}

async fn detach(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    svc.detach_interface(&call.ctx, &server.record.id, call.param("port_id")).await?;
    Ok(Response::empty(202))
}
