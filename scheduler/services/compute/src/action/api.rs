//! `/servers/{id}/os-instance-actions`: what was done to a server. Shown also after it is gone.
use crate::{
    Compute, fault,
    tables::{Action, Event, Server},
    version as v,
};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route,
    call::owned_by,
    clock,
    page::{Page, PageRules},
};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::Arc;

const RULE_LIST: &str = "os_compute_api:os-instance-actions:list";
const RULE_SHOW: &str = "os_compute_api:os-instance-actions:show";
const RULE_EVENTS: &str = "os_compute_api:os-instance-actions:events";
const RULE_DETAILS: &str = "os_compute_api:os-instance-actions:events:details";

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::get("/v2.1/servers/{server_id}/os-instance-actions", list).rule_by_handler(RULE_LIST),
        Route::get("/v2.1/servers/{server_id}/os-instance-actions/{request_id}", show).rule_by_handler(RULE_SHOW),
    ]
}

/// Since 2.21 the log of a deleted server is shown too.
async fn server(svc: &Compute, call: &Call) -> Result<Stored<Server>, Fault> {
    let id = call.param("server_id");
    let server = svc.store.get::<Server>(id).await?.ok_or_else(|| fault::server_not_found(id))?;
    let gone = server.vm_state == crate::server::model::VmState::Deleted;
    if gone && !call.at_least(2, 21) {
        return Err(fault::server_not_found(id));
    }
    match call.authorize(&owned_by(&server.project_id)) {
        Err(_) if call.ctx.project_id() != server.project_id => Err(fault::server_not_found(id)),
        outcome => outcome.map(|()| server),
    }
}

fn brief(call: &Call, action: &Action) -> Value {
    let mut out = json!({
        "action": action.action, "instance_uuid": action.server_id, "request_id": action.request_id, "user_id": action.user_id,
        "project_id": action.project_id, "start_time": clock::micros(action.start_us), "message": action.message,
    });
    if call.version >= v::ACTION_PAGES {
        out["updated_at"] = json!(clock::micros(action.updated_us));
    }
    out
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let server = server(&svc, &call).await?;
    let mut actions = svc.actions(&server.record.id).await?;
    if call.version < v::ACTION_PAGES {
        return Ok(Response::ok(
            json!({"instanceActions": actions.iter().map(|a| brief(&call, a)).collect::<Vec<_>>()}),
        ));
    }
    for (key, keep) in [("changes-since", true), ("changes-before", false)] {
        if let Some(text) = call.query.get(key) {
            let at = clock::parse(text)
                .ok_or_else(|| Fault::bad_request(format!("Invalid input for query parameters {key}.")))?;
            actions.retain(|a| if keep { a.updated_us >= at } else { a.updated_us <= at });
        }
    }
    let page = Page::of(&call, PageRules { max: Some(1000), default: None, keys: &[] })?;
    let (actions, more) = page.cut(actions, |a| &a.request_id, |_, _| Value::Null)?;
    let mut body = json!({"instanceActions": actions.iter().map(|a| brief(&call, a)).collect::<Vec<_>>()});
    let links: Vec<Value> =
        page.links(&call, &actions, more, |a| &a.request_id).into_iter().filter(|l| l["rel"] == "next").collect();
    if !links.is_empty() {
        body["links"] = json!(links);
    }
    Ok(Response::ok(body))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let server = server(&svc, &call).await?;
    let wanted = call.param("request_id");
    let actions = svc.actions(&server.record.id).await?;
    let action = actions.iter().find(|a| a.request_id == wanted).ok_or_else(|| {
        Fault::not_found(format!("Action for request_id {wanted} on instance {} not found", server.record.id))
    })?;
    let mut out = brief(&call, action);
    let target = owned_by(&server.project_id);
    let (all, details) = (call.may(RULE_EVENTS, &target), call.may(RULE_DETAILS, &target));
    if all || call.at_least(2, 51) {
        out["events"] = json!(action.events.iter().map(|e| event(&call, &server, e, all, details)).collect::<Vec<_>>());
    }
    Ok(Response::ok(json!({"instanceAction": out})))
}

fn event(call: &Call, server: &Server, event: &Event, all: bool, details: bool) -> Value {
    let mut out = json!({
        "event": event.event, "start_time": clock::micros(event.start_us), "finish_time": event.finish_us.map(clock::micros),
        "result": event.result,
    });
    if all {
        out["traceback"] = json!(event.traceback);
    }
    if call.at_least(2, 62) {
        let seed = format!("{}{}", server.project_id, event.host.as_deref().unwrap_or_default());
        out["hostId"] = json!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(seed))[..56].to_owned());
        if all {
            out["host"] = json!(event.host);
        }
    }
    if call.at_least(2, 84) && details {
        out["details"] = Value::Null;
    }
    out
}
