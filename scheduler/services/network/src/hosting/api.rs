//! Which host does what, as operators' tools ask and say it: below `/v2.0/agents/{id}`, networks and routers.
use super::{
    model::{Hosting, Task, answers_dhcp, holder},
    ops,
};
use crate::{
    Network,
    agent::{self, Role},
    fault,
    host::{HostInfo, find_host},
    list,
    network::{
        api::NETWORK,
        model::VirtualNetwork,
        ops::{self as networks},
    },
    router::{api::ROUTER, model::Router},
    spare,
    tables::find,
    verbs::raws_for,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static WISH: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({"type": "object", "maxProperties": 8})));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/agents/{id}/dhcp-networks", networks_of)
            .rule("get_dhcp-networks")
            .summary("Lists networks whose DHCP a host answers"),
        Route::post("/v2.0/agents/{id}/dhcp-networks", add_network)
            .rule("create_dhcp-network")
            .schema(&WISH)
            .summary("Has a host answer a network's DHCP again"),
        Route::delete("/v2.0/agents/{id}/dhcp-networks/{network_id}", remove_network)
            .rule("delete_dhcp-network")
            .summary("Keeps a host from answering a network's DHCP"),
        Route::get("/v2.0/networks/{id}/dhcp-agents", dhcp_agents)
            .rule("get_dhcp-agents")
            .summary("Lists hosts that answer a network's DHCP"),
        Route::get("/v2.0/agents/{id}/l3-routers", routers_of)
            .rule("get_l3-routers")
            .summary("Lists routers whose way out a host holds or stands by for"),
        Route::post("/v2.0/agents/{id}/l3-routers", add_router)
            .rule("create_l3-router")
            .schema(&WISH)
            .summary("Has a host hold a router's way out"),
        Route::put("/v2.0/agents/{id}/l3-routers/{router_id}", reorder_router)
            .rule("update_l3-router")
            .schema(&WISH)
            .summary("Says when a host's turn is to hold a router's way out"),
        Route::delete("/v2.0/agents/{id}/l3-routers/{router_id}", remove_router)
            .rule("delete_l3-router")
            .summary("Keeps a host from holding a router's way out"),
        Route::get("/v2.0/routers/{id}/l3-agents", l3_agents)
            .rule("get_l3-agents")
            .summary("Shows the hosts that hold a router's way out or stand by for it"),
    ]
}

/// What the body names, which must be there.
pub(crate) fn named(call: &Call, member: &str) -> Result<String, Fault> {
    let other = call.body.as_object().and_then(|body| body.keys().find(|key| *key != member));
    if let Some(other) = other {
        return Err(Fault::bad_request(format!("Unrecognized attribute(s) '{other}'")));
    }
    let id = call.body.get(member).and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| {
        Fault::bad_request(format!("Failed to parse request. Required attribute '{member}' not specified"))
    })
}

async fn write(svc: &Network, wish: Hosting) -> Result<(), Fault> {
    svc.store
        .write(move |tx| {
            let wish = wish.clone();
            Box::pin(async move {
                if wish.task == Task::Route && wish.here {
                    ops::move_in(tx, &wish.object_id, &wish.host).await
                } else {
                    ops::set_in(tx, &wish).await
                }
            })
        })
        .await
}

async fn networks_of(svc: Arc<Network>, call: Call) -> Reply {
    let hosts = svc.hosts();
    let host = agent::find(&hosts, call.param("id"), Role::Dhcp)?;
    let wishes = ops::all(&svc.store).await?;
    let mut there = networks::all(&svc.store).await?;
    there.retain(|n| !n.is_physical() && answers_dhcp(&wishes, &n.id, &host.name));
    let raws = raws_for::<VirtualNetwork>(&svc.store, &call.ctx, there).await?;
    let views: Vec<Value> = raws.iter().map(|raw| Value::Object(list::view(&call, &NETWORK, raw))).collect();
    Ok(Response::ok(json!({"networks": views})))
}

/// The host's name and whether it answers the network's DHCP now.
async fn dhcp_now(svc: &Network, call: &mut Call, network: &str) -> Result<(String, bool), Fault> {
    let hosts = svc.hosts();
    let host = agent::find(&hosts, call.param("id"), Role::Dhcp)?.name.clone();
    svc.store.get::<VirtualNetwork>(network).await?.ok_or_else(|| NETWORK.not_found(network))?;
    let now = answers_dhcp(&ops::all(&svc.store).await?, network, &host);
    Ok((host, now))
}

async fn add_network(svc: Arc<Network>, mut call: Call) -> Reply {
    let network = named(&call, "network_id")?;
    let (host, now) = dhcp_now(&svc, &mut call, &network).await?;
    if now {
        return Err(Fault::conflict(format!(
            "The network {network} has been already hosted by the DHCP Agent {}.",
            call.param("id")
        ))
        .kind("NetworkHostedByDHCPAgent"));
    }
    write(&svc, Hosting::new(Task::Dhcp, &network, &host, true)).await?;
    Ok(Response::created(Value::Null))
}

async fn remove_network(svc: Arc<Network>, mut call: Call) -> Reply {
    let network = call.param("network_id").to_owned();
    let (host, now) = dhcp_now(&svc, &mut call, &network).await?;
    if !now {
        return Err(Fault::conflict(format!(
            "The network {network} is not hosted by the DHCP agent {}.",
            call.param("id")
        ))
        .kind("NetworkNotHostedByDhcpAgent"));
    }
    write(&svc, Hosting::new(Task::Dhcp, &network, &host, false)).await?;
    Ok(Response::no_content())
}

async fn dhcp_agents(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id");
    svc.store.get::<VirtualNetwork>(id).await?.ok_or_else(|| NETWORK.not_found(id))?;
    let wishes = ops::all(&svc.store).await?;
    let hosts = svc.hosts();
    let there = hosts.iter().filter(|h| answers_dhcp(&wishes, id, &h.name));
    let views: Vec<Value> = there.map(|h| agent::view(h, Role::Dhcp)).collect();
    Ok(Response::ok(json!({"agents": views})))
}

async fn routers_of(svc: Arc<Network>, call: Call) -> Reply {
    let hosts = svc.hosts();
    let host = agent::find(&hosts, call.param("id"), Role::L3)?;
    let wishes = ops::all(&svc.store).await?;
    let mut here = svc.store.list::<Router>(find::with_gateway()).await?;
    here.retain(|r| r.candidate(&host.name).is_some() || holds(&wishes, r, &hosts, &host.name));
    let raws = raws_for::<Router>(&svc.store, &call.ctx, here).await?;
    let views: Vec<Value> = raws.iter().map(|raw| Value::Object(list::view(&call, &ROUTER, raw))).collect();
    Ok(Response::ok(json!({"routers": views})))
}

fn holds(wishes: &[Hosting], router: &Router, hosts: &[HostInfo], name: &str) -> bool {
    holder(wishes, router, hosts).is_some_and(|h| h.name == name)
}

/// The host of an L3 agent, and the router.
async fn router_on(svc: &Network, call: &Call, router: &str) -> Result<(String, Stored<Router>), Fault> {
    let hosts = svc.hosts();
    let host = agent::find(&hosts, call.param("id"), Role::L3)?.name.clone();
    let router = svc.store.get::<Router>(router).await?.ok_or_else(|| ROUTER.not_found(router))?;
    Ok((host, router))
}

fn not_hosted(router: &str, agent: &str) -> Fault {
    fault::conflict("RouterNotHostedByL3Agent", format!("The router {router} is not hosted by the L3 Agent {agent}."))
}

/// `ha_chassis_priority` of a body, taken out of it.
fn take_priority(call: &mut Call) -> Result<Option<u32>, Fault> {
    let sent = call.body.as_object_mut().and_then(|body| body.remove("ha_chassis_priority"));
    let Some(sent) = sent.filter(|sent| !sent.is_null()) else { return Ok(None) };
    let number = sent.as_u64().or_else(|| sent.as_str()?.parse().ok());
    number.and_then(|n| u32::try_from(n).ok()).map(Some).ok_or_else(spare::ops::bad_priority)
}

/// What an operator does with one candidate.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add(Option<u32>),
    Reorder(u32),
    TakeAway,
}

/// As the router is then; the agent's id is for what is said of refusals.
async fn change(svc: &Network, router: &str, host: &str, agent: &str, step: Step) -> Result<(), Fault> {
    let names = [router, host, agent].map(str::to_owned);
    svc.store
        .write(move |tx| {
            let names = names.clone();
            Box::pin(async move { change_in(tx, &names, step).await })
        })
        .await
}

async fn change_in(tx: &mut Tx, [id, host, agent]: &[String; 3], step: Step) -> Result<(), Fault> {
    let router = tx.get::<Router>(id).await?.ok_or_else(|| ROUTER.not_found(id))?;
    match (step, router.candidate(host).is_some()) {
        (Step::Add(_), true) => Err(fault::conflict(
            "RouterHostedByL3Agent",
            format!("The router {id} has been already hosted by the L3 Agent {agent}."),
        )),
        (Step::Add(priority), false) => spare::ops::add_in(tx, router, host, priority).await,
        (Step::Reorder(priority), true) => spare::ops::reorder_in(tx, router, host, priority).await,
        (Step::Reorder(_), false) => Err(not_hosted(id, agent)),
        (Step::TakeAway, _) => spare::ops::take_away_in(tx, router, host).await,
    }
}

async fn add_router(svc: Arc<Network>, mut call: Call) -> Reply {
    let priority = take_priority(&mut call)?;
    let id = named(&call, "router_id")?;
    let (host, router) = router_on(&svc, &call, &id).await?;
    if router.ha {
        change(&svc, &id, &host, call.param("id"), Step::Add(priority)).await?;
    } else if priority.is_some() {
        return Err(fault::bad("BadRequest", "Bad router request: Only hosts of routers with 'ha' have priorities."));
    } else {
        write(&svc, Hosting::new(Task::Route, &id, &host, true)).await?;
    }
    Ok(Response::created(Value::Null))
}

async fn reorder_router(svc: Arc<Network>, mut call: Call) -> Reply {
    let priority = take_priority(&mut call)?;
    if let Some(other) = call.body.as_object().and_then(|body| body.keys().next()) {
        return Err(Fault::bad_request(format!("Unrecognized attribute(s) '{other}'")));
    }
    let id = call.param("router_id").to_owned();
    let (host, _) = router_on(&svc, &call, &id).await?;
    if let Some(priority) = priority {
        change(&svc, &id, &host, call.param("id"), Step::Reorder(priority)).await?;
    }
    Ok(Response::ok(Value::Null))
}

async fn remove_router(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("router_id").to_owned();
    let (host, router) = router_on(&svc, &call, &id).await?;
    if router.candidate(&host).is_none() && !holds(&ops::all(&svc.store).await?, &router, &svc.hosts(), &host) {
        return Err(not_hosted(&id, call.param("id")));
    }
    if router.ha {
        change(&svc, &id, &host, call.param("id"), Step::TakeAway).await?;
    } else {
        write(&svc, Hosting::new(Task::Route, &id, &host, false)).await?;
    }
    Ok(Response::no_content())
}

/// A router without a gateway is on no host, unless one has been asked to hold it when it gets one.
async fn l3_agents(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id");
    let router = svc.store.get::<Router>(id).await?.ok_or_else(|| ROUTER.not_found(id))?;
    let hosts = svc.hosts();
    let wishes = ops::all(&svc.store).await?;
    let asked = wishes.iter().any(|w| w.task == Task::Route && w.object_id == id && w.here);
    let leads_out = router.external_gateway_info.is_some() || asked;
    let holding = if leads_out { holder(&wishes, &router, &hosts) } else { None };
    let active = holding.filter(|_| router.admin_state_up).map(|h| h.name.as_str());
    let view = |host: &HostInfo, priority: Option<u32>| {
        let mut view = agent::view(host, Role::L3);
        let state = if active == Some(&host.name) { "active" } else { "standby" };
        view["ha_state"] = if router.ha { json!(state) } else { Value::Null };
        view["ha_chassis_priority"] = json!(priority);
        view
    };
    let candidates = router.candidates.iter();
    let mut views: Vec<Value> =
        candidates.filter_map(|c| Some(view(find_host(&hosts, &c.host)?, Some(c.priority)))).collect();
    // Who holds it without being one: by the hash, or for all of them.
    views.extend(holding.filter(|h| router.candidate(&h.name).is_none()).map(|h| view(h, None)));
    Ok(Response::ok(json!({"agents": views})))
}
