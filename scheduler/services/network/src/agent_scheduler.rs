//! Which host holds which router's way out: `l3_agent_scheduler` as operators' tools ask it.
//!
//! Placement is by rendezvous hashing of the live hosts ([`crate::host::gateway_host`]), so it can be read
//! but not changed: a router without a gateway is on no host, and wishes to move one are refused.
use crate::{
    Network, agent,
    host::gateway_host,
    list,
    router::{api::ROUTER, model::Router},
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static PLACE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({"type": "object", "maxProperties": 8})));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/agents/{id}/l3-routers", routers)
            .rule("get_l3-routers")
            .summary("Lists routers whose way out a host holds"),
        Route::post("/v2.0/agents/{id}/l3-routers", refuse)
            .rule("create_l3-router")
            .schema(&PLACE)
            .summary("Refused: routers are placed by the cloud"),
        Route::delete("/v2.0/agents/{id}/l3-routers/{router_id}", refuse)
            .rule("delete_l3-router")
            .summary("Refused: routers are placed by the cloud"),
        Route::get("/v2.0/routers/{id}/l3-agents", agents)
            .rule("get_l3-agents")
            .summary("Shows the host that holds a router's way out"),
    ]
}

async fn routers(svc: Arc<Network>, call: Call) -> Reply {
    let hosts = svc.hosts();
    let host = agent::find(&hosts, call.param("id"))?;
    let mut here = svc.store.list::<Router>(find::with_gateway()).await?;
    here.retain(|r| gateway_host(&r.id, &hosts).is_some_and(|h| h.name == host.name));
    let raws = Router::raws(&svc.store, here).await?;
    let views: Vec<Value> = raws.iter().map(|raw| Value::Object(list::view(&call, &ROUTER, raw))).collect();
    Ok(Response::ok(json!({"routers": views})))
}

async fn agents(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id");
    let router = svc.store.get::<Router>(id).await?.ok_or_else(|| ROUTER.not_found(id))?;
    let hosts = svc.hosts();
    let there = router.external_gateway_info.as_ref().and_then(|_| gateway_host(&router.id, &hosts));
    let views: Vec<Value> = there.map(agent::view).into_iter().collect();
    Ok(Response::ok(json!({"agents": views})))
}

async fn refuse(svc: Arc<Network>, call: Call) -> Reply {
    agent::find(&svc.hosts(), call.param("id"))?;
    Err(Fault::conflict("Routers are placed by the cloud itself and cannot be moved to or from an agent.")
        .kind("RouterSchedulingFailed"))
}
