//! Which host does what, as operators' tools ask and say it: below `/v2.0/agents/{id}`, networks and routers.
use super::{
    model::{Hosting, Task, answers_dhcp, holder},
    ops,
};
use crate::{
    Network,
    agent::{self, Role},
    list,
    network::{
        api::NETWORK,
        model::VirtualNetwork,
        ops::{self as networks},
    },
    router::{api::ROUTER, model::Router},
    tables::find,
    verbs::raws_for,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
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
            .summary("Lists routers whose way out a host holds"),
        Route::post("/v2.0/agents/{id}/l3-routers", add_router)
            .rule("create_l3-router")
            .schema(&WISH)
            .summary("Has a host hold a router's way out"),
        Route::delete("/v2.0/agents/{id}/l3-routers/{router_id}", remove_router)
            .rule("delete_l3-router")
            .summary("Keeps a host from holding a router's way out"),
        Route::get("/v2.0/routers/{id}/l3-agents", l3_agents)
            .rule("get_l3-agents")
            .summary("Shows the host that holds a router's way out"),
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
    here.retain(|r| holder(&wishes, &r.id, r.wire.as_deref(), &hosts).is_some_and(|h| h.name == host.name));
    let raws = raws_for::<Router>(&svc.store, &call.ctx, here).await?;
    let views: Vec<Value> = raws.iter().map(|raw| Value::Object(list::view(&call, &ROUTER, raw))).collect();
    Ok(Response::ok(json!({"routers": views})))
}

async fn router_on(svc: &Network, call: &mut Call, router: &str) -> Result<String, Fault> {
    let hosts = svc.hosts();
    let host = agent::find(&hosts, call.param("id"), Role::L3)?.name.clone();
    svc.store.get::<Router>(router).await?.ok_or_else(|| ROUTER.not_found(router))?;
    Ok(host)
}

async fn add_router(svc: Arc<Network>, mut call: Call) -> Reply {
    let router = named(&call, "router_id")?;
    let host = router_on(&svc, &mut call, &router).await?;
    write(&svc, Hosting::new(Task::Route, &router, &host, true)).await?;
    Ok(Response::created(Value::Null))
}

async fn remove_router(svc: Arc<Network>, mut call: Call) -> Reply {
    let router = call.param("router_id").to_owned();
    let host = router_on(&svc, &mut call, &router).await?;
    let hosts = svc.hosts();
    let wire = svc.store.get::<Router>(&router).await?.and_then(|r| r.record.wire);
    if holder(&ops::all(&svc.store).await?, &router, wire.as_deref(), &hosts).is_none_or(|h| h.name != host) {
        return Err(Fault::conflict(format!("The router {router} is not hosted by L3 agent {}.", call.param("id")))
            .kind("RouterNotHostedByL3Agent"));
    }
    write(&svc, Hosting::new(Task::Route, &router, &host, false)).await?;
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
    let there = if leads_out { holder(&wishes, id, router.wire.as_deref(), &hosts) } else { None };
    let views: Vec<Value> = there.map(|h| agent::view(h, Role::L3)).into_iter().collect();
    Ok(Response::ok(json!({"agents": views})))
}
