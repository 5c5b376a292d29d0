//! The hosts as Neutron's agents, zones and providers: what operators' tools ask about the machinery.
//!
//! Every host runs one program that does L2, DHCP, metadata and routing; BGP is the scheduler's. Tools know an agent for each of these
//! jobs, so there is one entry for the whole and one for each job that can be taken from a host
//! ([`crate::hosting`]).
use crate::{
    Network,
    attribute::{Resource, shown},
    host::HostInfo,
    list::{self, Raw},
    service_flavor,
    tables::AgentNote,
    zone,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock};
use pilvi_store::Query;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Whole,
    Dhcp,
    L3,
    /// No host's: the scheduler that speaks BGP.
    Speaker,
}

/// Those of each host.
const ROLES: [Role; 3] = [Role::Whole, Role::Dhcp, Role::L3];

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Whole => "Pilvi agent",
            Role::Dhcp => "DHCP agent",
            Role::L3 => "L3 agent",
            Role::Speaker => "BGP dynamic routing agent",
        }
    }
    /// What the id is made of.
    fn seed(self, host: &str) -> String {
        match self {
            Role::Whole => format!("pilvi-network-agent/{host}"),
            Role::Dhcp => format!("pilvi-network-dhcp/{host}"),
            Role::L3 => format!("pilvi-network-l3/{host}"),
            Role::Speaker => format!("pilvi-network-bgp/{host}"),
        }
    }
}

/// What lists of agents filter and sort by.
static AGENT: Resource = Resource {
    name: "agent",
    collection: "agents",
    missing: "AgentNotFound",
    label: "Agent",
    attrs: &[
        shown("id"),
        shown("agent_type"),
        shown("binary"),
        shown("topic"),
        shown("host"),
        shown("admin_state_up"),
        shown("alive"),
        shown("availability_zone"),
        shown("description"),
        shown("created_at"),
        shown("started_at"),
        shown("heartbeat_timestamp"),
        shown("configurations"),
        shown("resources_synced"),
        shown("ha_chassis_priority"),
    ],
    lacks: &["name", "project_id", "tenant_id", "updated_at", "revision_number", "tags"],
    below: "",
};

static ZONE: Resource = Resource {
    name: "availability_zone",
    collection: "availability_zones",
    missing: "AvailabilityZoneNotFound",
    label: "AvailabilityZone",
    attrs: &[shown("name"), shown("resource"), shown("state")],
    lacks: &["id", "project_id", "tenant_id", "description", "created_at", "updated_at", "revision_number", "tags"],
    below: "",
};

static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["agent"], "properties": {"agent": {"type": "object"}}}))
});

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/agents", list).rule_by_handler("get_agent").summary("Lists the hosts' agents"),
        Route::get("/v2.0/agents/{id}", show).rule_by_handler("get_agent").summary("Shows one host's agent"),
        Route::put("/v2.0/agents/{id}", update).rule("update_agent").schema(&UPDATE).summary("Describes an agent"),
        Route::delete("/v2.0/agents/{id}", remove).rule("delete_agent").summary("Refused: hosts leave with their node"),
        Route::get("/v2.0/availability_zones", zones).rule_by_handler("get_availability_zone").summary("Lists zones"),
        Route::get("/v2.0/service-providers", providers)
            .rule_by_handler("get_service_provider")
            .summary("Lists service providers"),
    ]
}

/// A UUID that stays the same for a host's name.
fn id_of(host: &str, role: Role) -> String {
    let hash = Sha256::digest(role.seed(host));
    let hex: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// How a host reaches others, and why not.
fn whole(host: &HostInfo) -> Value {
    let mut said = json!({"tunneling_ip": host.vtep, "tunnel_types": ["vxlan"]});
    if host.wireguard.is_some() {
        said["tunnel_encryption"] = "wireguard".into();
    }
    if !host.overlay_error.is_empty() {
        said["tunnel_error"] = host.overlay_error.as_str().into();
    }
    said
}

pub(crate) fn view(host: &HostInfo, role: Role) -> Value {
    let time = |us: i64| if us == 0 { Value::Null } else { json!(clock::seconds(us).replace('T', " ")) };
    let configurations = match role {
        Role::Whole => whole(host),
        Role::Dhcp | Role::Speaker => json!({}),
        Role::L3 => json!({"agent_mode": "dvr_snat"}),
    };
    let binary = if role == Role::Speaker { "pilvi" } else { "pilvi-agent" };
    json!({
        "id": id_of(&host.name, role), "agent_type": role.name(), "binary": binary, "topic": "N/A", "host": host.name,
        "admin_state_up": true, "alive": host.up, "availability_zone": host.zone(), "description": null,
        "created_at": time(host.started_us), "started_at": time(host.started_us), "heartbeat_timestamp": time(host.heartbeat_us),
        // What a host has of its link is told to placement for the whole of it.
        "configurations": configurations, "resources_synced": (role == Role::Whole).then_some(true),
        // A host has one for each router that it stands by for.
        "ha_chassis_priority": null,
    })
}

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Agent {id} could not be found.")).kind("AgentNotFound")
}

/// Whichever scheduler it is, who asks has been answered by one.
static SCHEDULER: LazyLock<HostInfo> =
    LazyLock::new(|| HostInfo { name: "scheduler".into(), up: true, ..HostInfo::default() });

fn all(hosts: &[HostInfo]) -> impl Iterator<Item = (&HostInfo, Role)> {
    let speaker: (&HostInfo, Role) = (&SCHEDULER, Role::Speaker);
    hosts.iter().flat_map(|h| ROLES.map(|role| (h, role))).chain(std::iter::once(speaker))
}

fn any<'h>(hosts: &'h [HostInfo], id: &str) -> Result<(&'h HostInfo, Role), Fault> {
    all(hosts).find(|(h, role)| id_of(&h.name, *role) == id).ok_or_else(|| missing(id))
}

/// What the agent with this id does.
pub(crate) fn role_of(hosts: &[HostInfo], id: &str) -> Result<Role, Fault> {
    any(hosts, id).map(|(_, role)| role)
}

/// The agent that speaks BGP.
pub(crate) fn speaker() -> Value {
    view(&SCHEDULER, Role::Speaker)
}

/// The host behind the id of an agent that does this job: 404 for none, 409 for one that does another.
pub(crate) fn find<'h>(hosts: &'h [HostInfo], id: &str, role: Role) -> Result<&'h HostInfo, Fault> {
    let (host, found) = any(hosts, id)?;
    if found == role {
        return Ok(host);
    }
    let (kind, word) = if role == Role::Dhcp { ("InvalidDHCPAgent", "DHCP") } else { ("InvalidL3Agent", "L3") };
    Err(Fault::conflict(format!("Agent {id} is not a {word} Agent or has been disabled")).kind(kind))
}

/// What operators wrote, by agent.
async fn notes(svc: &Network) -> Result<HashMap<String, String>, Fault> {
    let notes = svc.store.list::<AgentNote>(Query::all()).await?;
    Ok(notes.into_iter().map(|n| (n.record.id, n.record.description)).collect())
}

fn noted(mut view: Value, notes: &HashMap<String, String>) -> Value {
    if let Some(text) = view["id"].as_str().and_then(|id| notes.get(id)) {
        view["description"] = json!(text);
    }
    view
}

fn raw(view: Value) -> Option<Raw> {
    if let Value::Object(map) = view { Some(map) } else { None }
}

/// Whoever may not see agents sees an empty list.
async fn list(svc: Arc<Network>, call: Call) -> Reply {
    let sees = call.may("get_agent", &call.target());
    let hosts = svc.hosts();
    let notes = notes(&svc).await?;
    let views = all(&hosts).filter(|_| sees).map(|(host, role)| noted(view(host, role), &notes));
    list::list(&call, &AGENT, views.filter_map(raw).collect())
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    let sees = call.may("get_agent", &call.target());
    let hosts = svc.hosts();
    let (host, role) = any(&hosts, call.param("id")).ok().filter(|_| sees).ok_or_else(|| missing(call.param("id")))?;
    Ok(Response::ok(json!({"agent": noted(view(host, role), &notes(&svc).await?)})))
}

/// A description may be written. An agent is taken out of service with its node, not here.
async fn update(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    let hosts = svc.hosts();
    let (host, role) = any(&hosts, &id)?;
    let mut text = None;
    for (name, value) in call.member("agent")?.as_object().into_iter().flatten() {
        let refuse = |reason: String| Fault::bad_request(format!("Invalid input for {name}. Reason: {reason}."));
        match name.as_str() {
            "description" => text = Some(crate::check::text_or_null::<255>(value).map_err(refuse)?),
            "admin_state_up" if crate::check::boolean(value).map_err(refuse)? == json!(true) => {}
            "admin_state_up" => return Err(Fault::conflict("An agent is taken out of service with its node.")),
            _ => return Err(Fault::bad_request(format!("Cannot update read-only attribute {name}"))),
        }
    }
    if let Some(text) = text {
        let note = AgentNote { id: id.clone(), description: text.as_str().unwrap_or_default().to_owned() };
        svc.store
            .write(move |tx| {
                let note = note.clone();
                Box::pin(async move {
                    match tx.get::<AgentNote>(&note.id).await? {
                        Some(mut found) => {
                            found.record = note;
                            tx.update(&found).await?;
                        }
                        None => {
                            tx.insert(&note).await?;
                        }
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await?;
    }
    Ok(Response::ok(json!({"agent": noted(view(host, role), &notes(&svc).await?)})))
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    any(&svc.hosts(), call.param("id"))?;
    Err(Fault::conflict("An agent goes with its node: `pilvi node` removes it.").kind("AgentInUse"))
}

async fn zones(svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    let hosts = svc.hosts();
    let state = |up: bool| if up { "available" } else { "unavailable" };
    let view = |resource, (name, up): (&str, bool)| json!({"name": name, "resource": resource, "state": state(up)});
    let views =
        zone::all(&hosts).into_iter().flat_map(|zone| ["network", "router"].map(|resource| view(resource, zone)));
    list::list(&call, &ZONE, views.filter_map(raw).collect())
}

/// There is one way to route.
async fn providers(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    Ok(Response::ok(json!({"service_providers": service_flavor::api::providers()})))
}
