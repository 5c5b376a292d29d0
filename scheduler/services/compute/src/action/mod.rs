//! Instance actions: the log of what was done to a server, kept for `openstack server event list`.
pub mod api;

use crate::{
    server::model::Ended,
    tables::{Action, Event},
};
use pilvi_kit::{Ctx, Fault, clock, id};
use pilvi_store::{Dir, Query, Tx};

impl Event {
    /// An event that begins now.
    pub fn began(name: &str) -> Self {
        Event {
            event: name.to_owned(),
            start_us: clock::now_us(),
            finish_us: None,
            result: None,
            traceback: None,
            host: None,
        }
    }
}

/// An action that starts now.
pub fn started(ctx: &Ctx, server_id: &str, project_id: &str, name: &str, events: Vec<Event>) -> Action {
    let now = clock::now_us();
    Action {
        id: id::new(),
        server_id: server_id.to_owned(),
        project_id: project_id.to_owned(),
        user_id: ctx.user_id().to_owned(),
        request_id: ctx.request_id.clone(),
        action: name.to_owned(),
        message: None,
        start_us: now,
        updated_us: now,
        events,
    }
}

/// Ends every open event of an action.
pub fn finish(action: &mut Action, ended: &Ended, host: Option<&str>) {
    let now = clock::now_us();
    action.updated_us = now;
    if let Ended::Badly(_) = ended {
        action.message = Some("Error".to_owned());
    }
    for event in action.events.iter_mut().filter(|e| e.finish_us.is_none()) {
        event.finish_us = Some(now);
        event.host = host.map(str::to_owned);
        event.result = Some(if *ended == Ended::Well { "Success" } else { "Error" }.to_owned());
        if let Ended::Badly(reason) = ended {
            event.traceback = Some(reason.clone());
        }
    }
}

/// A request that acts twice on one server (it cannot over HTTP) keeps its first log.
pub async fn insert_in(tx: &mut Tx, action: Action) -> Result<(), Fault> {
    match tx.insert(&action).await {
        Ok(_) | Err(pilvi_store::Error::Claimed { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends the newest action of a server that has not ended.
pub async fn finish_latest_in(tx: &mut Tx, server_id: &str, ended: &Ended, host: Option<&str>) -> Result<(), Fault> {
    let newest = Query::all().eq("server_id", server_id).sort("start", Dir::Desc).limit(5);
    for mut action in tx.list::<Action>(newest).await? {
        if action.events.iter().any(|e| e.finish_us.is_none()) {
            finish(&mut action.record, ended, host);
            tx.update(&action).await?;
            break;
        }
    }
    Ok(())
}
