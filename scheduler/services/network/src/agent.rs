//! The hosts as Neutron's agents, zones and providers: what operators' tools ask about the machinery.
//!
//! Every host runs one agent that does L2, DHCP, metadata and routing, so there is one entry a host.
use crate::{Network, host::HostInfo};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/agents", list).rule_by_handler("get_agent").summary("Lists the hosts' agents"),
        Route::get("/v2.0/agents/{id}", show).rule_by_handler("get_agent").summary("Shows one host's agent"),
        Route::get("/v2.0/availability_zones", zones).rule_by_handler("get_availability_zone").summary("Lists zones"),
        Route::get("/v2.0/service-providers", providers)
            .rule_by_handler("get_service_provider")
            .summary("Lists service providers"),
    ]
}

/// A UUID that stays the same for a host's name.
fn id_of(host: &str) -> String {
    let hash = Sha256::digest(format!("pilvi-network-agent/{host}"));
    let hex: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

pub(crate) fn view(host: &HostInfo) -> Value {
    let time = |us: i64| if us == 0 { Value::Null } else { json!(clock::seconds(us).replace('T', " ")) };
    json!({
        "id": id_of(&host.name), "agent_type": "Pilvi agent", "binary": "pilvi-agent", "topic": "N/A", "host": host.name,
        "admin_state_up": true, "alive": host.up, "availability_zone": "nova", "description": null,
        "created_at": time(host.started_us), "started_at": time(host.started_us), "heartbeat_timestamp": time(host.heartbeat_us),
        "configurations": {"tunneling_ip": host.vtep, "tunnel_types": ["vxlan"]}, "resources_synced": true,
    })
}

/// The host behind an agent's id, or 404.
pub(crate) fn find<'h>(hosts: &'h [HostInfo], id: &str) -> Result<&'h HostInfo, Fault> {
    let found = hosts.iter().find(|h| id_of(&h.name) == id);
    found.ok_or_else(|| Fault::not_found(format!("Agent {id} could not be found.")).kind("AgentNotFound"))
}

/// Whoever may not see agents sees an empty list.
async fn list(svc: Arc<Network>, call: Call) -> Reply {
    let sees = call.may("get_agent", &call.target());
    let wanted = |agent: &Value| {
        ["host", "id", "binary", "agent_type", "alive", "availability_zone"].iter().all(|key| {
            call.query.get(key).is_none_or(|text| crate::check::plain(&agent[*key]).eq_ignore_ascii_case(text))
        })
    };
    let hosts = if sees { svc.hosts() } else { Vec::new() };
    let agents: Vec<Value> = hosts.iter().map(view).filter(wanted).collect();
    Ok(Response::ok(json!({"agents": agents})))
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    let sees = call.may("get_agent", &call.target());
    let id = call.param("id");
    let hosts = if sees { svc.hosts() } else { Vec::new() };
    Ok(Response::ok(json!({"agent": view(find(&hosts, id)?)})))
}

async fn zones(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    let zone = |resource: &str| json!({"name": "nova", "resource": resource, "state": "available"});
    Ok(Response::ok(json!({"availability_zones": [zone("network"), zone("router")]})))
}

/// No service has more than one way to be provided.
async fn providers(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    Ok(Response::ok(json!({"service_providers": []})))
}
