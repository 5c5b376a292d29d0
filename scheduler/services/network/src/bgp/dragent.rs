//! The agent that speaks, as operators' tools ask for it: below `/v2.0/agents/{id}` and below speakers. There is one, the
//! scheduler itself.
use super::{model::BgpSpeaker, ops, speaker::SPEAKER};
use crate::{
    Network,
    agent::{self, Role},
    hosting::api::named,
    list,
    tables::find,
    verbs::raws_for,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static NAMED: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({"type": "object", "maxProperties": 8})));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/agents/{agent_id}/bgp-drinstances", speakers_of)
            .rule("list_bgp_speaker_on_dragent")
            .summary("Lists BGP speakers of an agent"),
        Route::post("/v2.0/agents/{agent_id}/bgp-drinstances", add)
            .rule("add_bgp_speaker_to_dragent")
            .schema(&NAMED)
            .summary("Gives a BGP speaker to the agent that speaks"),
        Route::delete("/v2.0/agents/{agent_id}/bgp-drinstances/{bgp_speaker_id}", remove)
            .rule("remove_bgp_speaker_from_dragent")
            .summary("Has a BGP speaker say nothing"),
        Route::get("/v2.0/bgp-speakers/{id}/bgp-dragents", agents_of)
            .rule("list_dragent_hosting_bgp_speaker")
            .summary("Shows the agent of a BGP speaker"),
    ]
}

async fn speakers_of(svc: Arc<Network>, call: Call) -> Reply {
    let role = agent::role_of(&svc.hosts(), call.param("agent_id"))?;
    let mut speakers = Vec::new();
    if role == Role::Speaker {
        speakers = svc.store.list::<BgpSpeaker>(find::all()).await?;
        speakers.retain(|s| !s.idle);
    }
    let raws = raws_for::<BgpSpeaker>(&svc.store, &call.ctx, speakers).await?;
    let views: Vec<Value> = raws.iter().map(|raw| Value::Object(list::view(&call, &SPEAKER, raw))).collect();
    Ok(Response::ok(json!({"bgp_speakers": views})))
}

/// 404 for an agent that does not speak.
fn speaking(svc: &Network, id: &str) -> Result<(), Fault> {
    if agent::role_of(&svc.hosts(), id)? == Role::Speaker {
        return Ok(());
    }
    Err(Fault::not_found(format!("BgpDrAgent {id} is invalid or has been disabled.")).kind("DrAgentInvalid"))
}

async fn host(svc: &Network, speaker: &str, here: bool) -> Result<bool, Fault> {
    let speaker = speaker.to_owned();
    svc.store
        .write(move |tx| {
            let speaker = speaker.clone();
            Box::pin(async move { ops::host_in(tx, &speaker, here).await })
        })
        .await
}

async fn add(svc: Arc<Network>, call: Call) -> Reply {
    let (agent, speaker) = (call.param("agent_id"), named(&call, "bgp_speaker_id")?);
    speaking(&svc, agent)?;
    if host(&svc, &speaker, true).await? {
        return Ok(Response::created(Value::Null));
    }
    let text = format!("BgpDrAgent {agent} is already associated to a BGP speaker.");
    Err(Fault::conflict(text).kind("DrAgentAssociationError"))
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    let (agent, speaker) = (call.param("agent_id"), call.param("bgp_speaker_id"));
    speaking(&svc, agent)?;
    let hosted = match host(&svc, speaker, false).await {
        Err(missing) if missing.code() == 404 => false,
        other => other?,
    };
    if hosted {
        return Ok(Response::no_content());
    }
    let text = format!("BGP speaker {speaker} is not hosted by the BgpDrAgent {agent}.");
    Err(Fault::not_found(text).kind("DrAgentNotHostingBgpSpeaker"))
}

/// Nobody's speaker has no agents.
async fn agents_of(svc: Arc<Network>, call: Call) -> Reply {
    let found = svc.store.get::<BgpSpeaker>(call.param("id")).await?.filter(|s| !s.idle);
    let agents: Vec<Value> = found.iter().map(|_| agent::speaker()).collect();
    Ok(Response::ok(json!({"agents": agents})))
}
