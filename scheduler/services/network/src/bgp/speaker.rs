//! `/v2.0/bgp-speakers`, with what is given to them and what they advertise.
use super::{
    model::BgpSpeaker,
    ops::{self, What},
    peer::AS_MAX,
    route,
};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open, shown},
    check,
    crud::crud,
    fault,
    list::Raw,
    verbs::{Api, gate, raw_of},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub static SPEAKER: Resource = Resource {
    name: "bgp_speaker",
    collection: "bgp_speakers",
    missing: "BgpSpeakerNotFound",
    label: "BGP speaker",
    attrs: &[
        once("local_as", check::int::<1, AS_MAX>).required(),
        once("ip_version", check::ip_version).required(),
        open("advertise_floating_ip_host_routes", check::boolean).absent(Absent::Bool(true)),
        open("advertise_tenant_networks", check::boolean).absent(Absent::Bool(true)),
        shown("peers"),
        shown("networks"),
    ],
    lacks: &["description", "created_at", "updated_at", "revision_number", "tags"],
    below: "",
};

static NAMED: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({"type": "object", "maxProperties": 8})));

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = crud!(BgpSpeaker, SPEAKER, "/v2.0/bgp-speakers", "bgp_speaker", "BGP speakers", open);
    routes.extend([
        Route::put("/v2.0/bgp-speakers/{id}/add_bgp_peer", add_peer)
            .rule_by_handler("add_bgp_peer")
            .schema(&NAMED)
            .summary("Has a BGP speaker speak with a peer"),
        Route::put("/v2.0/bgp-speakers/{id}/remove_bgp_peer", remove_peer)
            .rule_by_handler("remove_bgp_peer")
            .schema(&NAMED)
            .summary("Ends a BGP speaker's session with a peer"),
        Route::put("/v2.0/bgp-speakers/{id}/add_gateway_network", add_network)
            .rule_by_handler("add_gateway_network")
            .schema(&NAMED)
            .summary("Has a BGP speaker advertise what is reached through a network"),
        Route::put("/v2.0/bgp-speakers/{id}/remove_gateway_network", remove_network)
            .rule_by_handler("remove_gateway_network")
            .schema(&NAMED)
            .summary("Keeps a BGP speaker from advertising what is reached through a network"),
        Route::get("/v2.0/bgp-speakers/{id}/get_advertised_routes", advertised)
            .rule_by_handler("get_advertised_routes")
            .summary("Lists what a BGP speaker advertises"),
    ]);
    routes
}

impl Api for BgpSpeaker {
    const RESOURCE: &'static Resource = &SPEAKER;

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_speaker_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_speaker_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<BgpSpeaker>(&found.id).await?;
        Ok(())
    }
}

async fn add_peer(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, What::Peer, true).await
}

async fn remove_peer(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, What::Peer, false).await
}

async fn add_network(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, What::Network, true).await
}

async fn remove_network(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, What::Network, false).await
}

/// The speaker that the path names, if the caller may do this with it.
async fn speaker(svc: &Network, call: &Call) -> Result<(), Fault> {
    let raw = raw_of::<BgpSpeaker>(&svc.store, &call.ctx, call.param("id")).await;
    let _ = call.may(call.rule(), &call.target());
    gate(call, &SPEAKER, &raw?)
}

async fn change(svc: Arc<Network>, call: Call, what: What, add: bool) -> Reply {
    speaker(&svc, &call).await?;
    let (id, member) = (call.param("id").to_owned(), what.member());
    let refuse = |why: String| fault::bad("BadRequest", format!("Bad bgp-speaker request: {why}."));
    let sent = call.body.get(member).ok_or_else(|| refuse(format!("{member} must be specified")))?;
    let named = check::uuid(sent).map_err(refuse)?.as_str().unwrap_or_default().to_owned();
    let answer = json!({ member: named });
    svc.store
        .write(move |tx| {
            let (id, named) = (id.clone(), named.clone());
            Box::pin(async move {
                if add { ops::add_in(tx, &id, what, &named).await } else { ops::remove_in(tx, &id, what, &named).await }
            })
        })
        .await?;
    // A peer that is taken away is answered with nothing, as the original does.
    Ok(Response::ok(if what == What::Peer && !add { Value::Null } else { answer }))
}

/// All of them; `limit` and `marker` (a destination) for those that want less.
async fn advertised(svc: Arc<Network>, call: Call) -> Reply {
    speaker(&svc, &call).await?;
    let id = call.param("id");
    let found = svc.store.get::<BgpSpeaker>(id).await?.ok_or_else(|| SPEAKER.not_found(id))?;
    let all = route::advertised(&svc.store, &found).await?;
    let mut views: Vec<(String, String)> = all.iter().map(|(net, hop)| (net.to_string(), hop.to_string())).collect();
    if let Some(marker) = call.query.all("marker").next() {
        let after = views.iter().rposition(|(net, _)| net == marker).map_or(0, |at| at + 1);
        views.drain(..after);
    }
    if let Some(limit) = call.query.all("limit").next() {
        let limit: usize = limit.parse().map_err(|_| Fault::bad_request(format!("Invalid limit: {limit}")))?;
        views.truncate(if limit == 0 { usize::MAX } else { limit });
    }
    let views: Vec<Value> = views.into_iter().map(|(net, hop)| json!({"destination": net, "next_hop": hop})).collect();
    Ok(Response::ok(json!({"advertised_routes": views})))
}
