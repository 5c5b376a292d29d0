//! `/messages` (3.3).
use crate::{
    Volumes,
    list::{Listing, Sorted, times},
    owned, route,
    tables::Message,
    version as v,
    volume::filter::named,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/messages/{message_id}";
    vec![
        route::get("/v3/messages", list).rule("message:get_all").since(3, 3),
        route::get(ONE, show).rule_by_handler("message:get").since(3, 3),
        route::delete(ONE, delete).rule_by_handler("message:delete").since(3, 3),
    ]
}

fn no_message(id: &str) -> Fault {
    Fault::not_found(format!("Message {id} could not be found."))
}

fn view(call: &Call, found: &Stored<Message>) -> Value {
    let (project, id) = (call.param("project"), &found.record.id);
    let within = if project.is_empty() { String::new() } else { format!("{project}/") };
    json!({
        "id": id, "event_id": found.event_id, "user_message": found.text, "message_level": found.level,
        "created_at": times(found).0, "guaranteed_until": clock::micros(found.expires_us),
        "request_id": found.request_id, "resource_type": found.resource_type, "resource_uuid": found.resource_id,
        "links": [{"rel": "self", "href": call.url(&format!("/v3/{within}messages/{id}"))},
            {"rel": "bookmark", "href": call.url(&format!("/{within}messages/{id}"))}],
    })
}

const KEYS: &[&str] =
    &["id", "created_at", "updated_at", "event_id", "message_level", "resource_type", "resource_uuid", "request_id"];
const SORTED: Sorted<Message> = Sorted {
    column: |key| {
        Some(match key {
            "id" => "id",
            "created_at" => "created",
            "updated_at" => "updated",
            "event_id" | "request_id" | "resource_type" => column(key)?,
            "message_level" => "level",
            "resource_uuid" => "resource_id",
            _ => return None,
        })
    },
    key: |message, _| json!(message.record.id),
};

/// The column of a filter.
fn column(key: &str) -> Option<&'static str> {
    Some(match key {
        "event_id" => "event_id",
        "request_id" => "request_id",
        "resource_type" => "resource_type",
        "resource_uuid" => "resource_id",
        "message_level" => "level",
        "id" => "id",
        _ => return None,
    })
}

pub const FILTERS: &[&str] = &["resource_uuid", "resource_type", "event_id", "request_id", "message_level"];

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let listing = Listing::of(&call, KEYS)?;
    let mut query = Query::all().project(call.ctx.project_id()).gt("expires", clock::now_us());
    if call.version >= v::MESSAGE_PAGES {
        for (key, wish) in named(&call, FILTERS, FILTERS)? {
            if let Some(column) = column(key) {
                query = query.eq(column, wish);
            }
        }
    }
    let (found, more) = listing.select(&svc.store, query, SORTED, |_| true, no_message).await?;
    let shown = found.iter().map(|m| view(&call, m)).collect();
    Ok(Response::ok(listing.document(&call, "messages", shown, &found, more)))
}

async fn owned(svc: &Volumes, call: &Call) -> Result<Stored<Message>, Fault> {
    let id = call.param("message_id");
    let found = svc.store.get::<Message>(id).await?.filter(|m| m.expires_us > clock::now_us());
    owned::judged(call, call.rule(), found, || no_message(id))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"message": view(&call, &found)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = owned(&svc, &call).await?;
    svc.write(found.record.id.clone(), |tx, id| {
        Box::pin(async move {
            tx.delete::<Message>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
